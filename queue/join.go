package queue

import (
	"fmt"
	"os"
	"strings"

	"packmill/spool"
	"packmill/spool/policy"
)

// jobStates are where a job can be, the likely ones first.
var jobStates = []spool.State{
	spool.NeedsBuild, spool.Building, spool.Uploaded, spool.Installed, spool.Built, spool.BuildAttempted,
	spool.DepWait, spool.BDUninstallable, spool.Failed, spool.NotForUs, spool.AutoNotForUs,
}

// settled are the states in which a job keeps no source waiting.
var settled = []spool.State{
	spool.Uploaded, spool.Installed, spool.BuildAttempted, spool.Failed, spool.NotForUs, spool.AutoNotForUs, spool.Attic,
}

// FindJob looks for the job of exactly this source version on an
// architecture; nil says that it was not seen, which while jobs move is no
// proof that there is none.
func FindJob(tree *spool.Tree, suite, arch, source, version string) (*spool.Found, error) {
	return findJob(tree, jobStates, suite, arch, source, version)
}

func findJob(tree *spool.Tree, states []spool.State, suite, arch, source, version string) (*spool.Found, error) {
	for _, s := range states {
		p := spool.In(s, suite, arch)
		switch s {
		case spool.Installed:
			p.Hash = spool.Hash(source)
		case spool.Uploaded:
			p.Arch = ""
		case spool.Attic:
			p = spool.In(spool.Attic)
		}
		names, err := tree.List(p)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			// The cheap test first: queues are long.
			if !strings.Contains(name, "_"+source+"_") {
				continue
			}
			n, err := spool.ParseName(name)
			if err != nil || n.Source != source || n.Version != version {
				continue
			}
			f := &spool.Found{Place: p, Name: n}
			if f.Arch() != arch {
				continue
			}
			if s == spool.Attic && !sameSuite(tree, f, suite) {
				continue
			}
			return f, nil
		}
	}
	return nil, nil
}

// sameSuite asks the ticket, where the directory does not say the suite.
func sameSuite(tree *spool.Tree, f *spool.Found, suite string) bool {
	st, err := spool.ReadTicket(tree.Path(f.Dir()))
	return err == nil && st.Get("Distribution") == suite
}

// Join says whether a source may leave the master queue: when a settled job is
// found for each architecture of its plan. It decides by presence: a job that
// was not seen, because it was just moving or for whatever reason, keeps the
// source here.
func Join(tree *spool.Tree, it *spool.Item, s Suite) (spool.Verdict, error) {
	plan, err := ReadPlan(it.Path())
	if err != nil {
		return spool.Verdict{}, fmt.Errorf("plan of %s: %w; fan it out again with: packmill requeue %s", it.Name, err, it.Name)
	}
	var done, open []string
	for _, a := range plan.Jobs {
		f, err := findJob(tree, settled, s.Name, a, it.Name.Source, it.Name.Version)
		if err != nil {
			return spool.Verdict{}, err
		}
		if f == nil {
			open = append(open, a)
			continue
		}
		done = append(done, a+": "+string(f.Place.State))
	}
	if len(open) > 0 {
		return spool.Stay(0, "waits for "+strings.Join(open, " ")), nil
	}
	return spool.Verdict{To: spool.In(spool.Uploaded, s.Name), Reason: strings.Join(done, ", ")}, nil
}

// Supersede retires what older versions of the source still have open in the
// suite: their jobs and their sources go to the attic. A build that is running
// ends by itself (its builder asks Superseded then).
func Supersede(tree *spool.Tree, suite, source, version, who string, by spool.Actor) error {
	for _, p := range tree.Places(spool.Accepted, spool.Master, spool.NeedsBuild, spool.BDUninstallable, spool.DepWait,
		spool.Built, spool.BuildAttempted, spool.Failed, spool.AutoNotForUs, spool.NotForUs) {
		if p.Suite != suite {
			continue
		}
		names, err := tree.List(p)
		if err != nil {
			return err
		}
		for _, name := range names {
			n, err := spool.ParseName(name)
			if err != nil || n.Source != source || policy.CompareVersions(n.Version, version) >= 0 {
				continue
			}
			if err := retire(tree, p, name, version, who, by); err != nil {
				return err
			}
		}
	}
	return nil
}

func retire(tree *spool.Tree, p spool.Place, name, version, who string, by spool.Actor) error {
	it, err := tree.Claim(p, name)
	if err != nil {
		// Busy or gone: its holder moves it, and the next pass meets it
		// where it then is.
		return nil
	}
	defer it.Release()
	return it.Move(by, who, spool.Verdict{To: spool.In(spool.Attic), Reason: "superseded by version " + version})
}

// Superseded reports the newest version of the source that has come to the
// suite's queues after the given one, or "".
func Superseded(tree *spool.Tree, suite, source, version string) (string, error) {
	newest := ""
	for _, s := range []spool.State{spool.Accepted, spool.Master, spool.Uploaded} {
		names, err := tree.List(spool.In(s, suite))
		if err != nil {
			return "", err
		}
		for _, name := range names {
			n, err := spool.ParseName(name)
			if err != nil || n.Source != source || n.Arch != "" {
				continue
			}
			if policy.CompareVersions(n.Version, version) > 0 && (newest == "" || policy.CompareVersions(n.Version, newest) > 0) {
				newest = n.Version
			}
		}
	}
	return newest, nil
}

// Previous returns why the newest older version of the source failed on the
// architecture, for the next version's job: "" if it did not.
func Previous(tree *spool.Tree, suite, arch, source string) string {
	names, err := tree.List(spool.In(spool.Failed, suite, arch))
	if err != nil {
		return ""
	}
	text := ""
	for _, name := range names {
		n, err := spool.ParseName(name)
		if err != nil || n.Source != source {
			continue
		}
		if _, err := os.Lstat(tree.Path(spool.In(spool.Failed, suite, arch).Dir(), name)); err == nil {
			text = n.Version + ": " + strings.TrimSpace(spool.Waiting(tree.Path(spool.In(spool.Failed, suite, arch).Dir(), name)))
		}
	}
	return text
}
