package queue

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"packmill/spool"
	"packmill/spool/policy"
)

// jobStates are where a job can be, the likely ones first.
var jobStates = []spool.State{
	spool.NeedsBuild, spool.Building, spool.Uploaded, spool.Installed, spool.Built, spool.BuildAttempted,
	spool.DepWait, spool.BDUninstallable, spool.Failed, spool.NotForUs, spool.AutoNotForUs,
}

// open are the states in which work may still come by itself.
var open = []spool.State{spool.NeedsBuild, spool.Building, spool.Built, spool.DepWait, spool.BDUninstallable}

// settled are the states in which a job keeps no source waiting.
var settled = []spool.State{
	spool.Uploaded, spool.Installed, spool.BuildAttempted, spool.Failed, spool.NotForUs, spool.AutoNotForUs, spool.Attic,
}

// findNamed looks where a job is under its source's own name, which it has
// unless a person changed its order: one call for each state, and no listing
// of long queues.
func findNamed(tree *spool.Tree, states []spool.State, suite, arch string, name spool.Name) *spool.Found {
	for _, s := range states {
		p, n := spool.In(s, suite, arch), name
		switch s {
		case spool.Installed:
			p.Hash = spool.Hash(name.Source)
		case spool.Uploaded, spool.Attic:
			p.Arch, n.Arch = "", arch
			if s == spool.Attic {
				p.Suite = ""
			}
		}
		f := &spool.Found{Place: p, Name: n}
		if _, err := os.Lstat(tree.Path(f.Dir())); err == nil && (s != spool.Attic || sameSuite(tree, f, suite)) {
			return f
		}
	}
	return nil
}

// FindJob looks for the job of exactly this source version on an
// architecture; nil says that it was not seen, which while jobs move is no
// proof that there is none.
func FindJob(tree *spool.Tree, suite, arch, source, version string) (*spool.Found, error) {
	return findJob(tree, jobStates, suite, arch, source, version)
}

// Retired looks for the source of a version in the attic: binaries that wait
// for it wait in vain. nil says that it was not seen there.
func Retired(tree *spool.Tree, suite, source, version string) (*spool.Found, error) {
	return findJob(tree, []spool.State{spool.Attic}, suite, "", source, version)
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

// Lookup finds the job that a person means by pattern (hello or hello_2.10-3)
// on an architecture: of several the newest version's, and what is still open
// before what is in the archive. Nil says that none was seen.
func Lookup(tree *spool.Tree, suite, arch, pattern string) (*spool.Found, error) {
	var best *spool.Found
	source, _, _ := strings.Cut(pattern, "_")
	if policy.CheckSource(source) != nil {
		return nil, nil
	}
	for _, s := range jobStates {
		p := spool.In(s, suite, arch)
		switch s {
		case spool.Installed:
			p.Hash = spool.Hash(source)
		case spool.Uploaded:
			p.Arch = ""
		}
		names, err := tree.List(p)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if !strings.Contains(name, "_"+source+"_") {
				continue
			}
			n, err := spool.ParseName(name)
			f := &spool.Found{Place: p, Name: n}
			if err != nil || f.Arch() != arch || !n.Matches(pattern) {
				continue
			}
			if best == nil || ahead(f, best) {
				best = f
			}
		}
	}
	return best, nil
}

// ahead reports whether a person more likely means a than b.
func ahead(a, b *spool.Found) bool {
	if c := policy.CompareVersions(a.Name.Version, b.Name.Version); c != 0 {
		return c > 0
	}
	if x, y := a.Place.State == spool.Installed, b.Place.State == spool.Installed; x != y {
		return y
	}
	return a.Name.Time.After(b.Name.Time)
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
	var done, waits []string
	for _, a := range plan.Jobs {
		f := findNamed(tree, settled, s.Name, a, it.Name)
		if f == nil && findNamed(tree, open, s.Name, a, it.Name) == nil {
			// Somebody gave it another order.
			if f, err = findJob(tree, settled, s.Name, a, it.Name.Source, it.Name.Version); err != nil {
				return spool.Verdict{}, err
			}
		}
		if f == nil {
			waits = append(waits, a)
			continue
		}
		done = append(done, a+": "+string(f.Place.State))
	}
	if len(waits) > 0 {
		return spool.Stay(0, "waits for "+strings.Join(waits, " ")), nil
	}
	return spool.Verdict{To: spool.In(spool.Uploaded, s.Name), Reason: strings.Join(done, ", ")}, nil
}

// Supersede retires what older versions of the source still have open in the
// suite: their jobs and their sources go to the attic. A build that is running
// ends by itself (its builder asks Superseded then).
func Supersede(tree *spool.Tree, suite, source, version, who string, by spool.Actor) error {
	places, err := tree.Places(spool.Accepted, spool.Master, spool.NeedsBuild, spool.BDUninstallable, spool.DepWait,
		spool.Built, spool.BuildAttempted, spool.Failed, spool.AutoNotForUs, spool.NotForUs)
	if err != nil {
		return err
	}
	for _, p := range places {
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
	for _, s := range []spool.State{spool.Master, spool.Uploaded} {
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

// failedFile in a job keeps what people said of its failures, also after it was
// given back: REASON only lasts until the next move.
const failedFile = "failed"

// previous returns, for each architecture, why the newest older version of the
// source failed there, for the next version's job.
func previous(tree *spool.Tree, suite, source, version string) (map[string]string, error) {
	out, of := map[string]string{}, map[string]string{}
	places, err := tree.Places(spool.Attic, spool.NeedsBuild, spool.BDUninstallable, spool.DepWait, spool.Building,
		spool.Built, spool.BuildAttempted, spool.Failed, spool.Uploaded)
	if err != nil {
		return nil, err
	}
	for _, p := range places {
		if p.Suite != suite && p.State != spool.Attic {
			continue
		}
		names, err := tree.List(p)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if !strings.Contains(name, "_"+source+"_") {
				continue
			}
			n, err := spool.ParseName(name)
			f := spool.Found{Place: p, Name: n}
			if err != nil || n.Source != source || f.Arch() == "" || policy.CompareVersions(n.Version, version) >= 0 {
				continue
			}
			if have, ok := of[f.Arch()]; ok && policy.CompareVersions(have, n.Version) > 0 {
				continue
			}
			if p.State == spool.Attic && !sameSuite(tree, &f, suite) {
				continue
			}
			if text := failedText(tree.Path(f.Dir())); text != "" {
				out[f.Arch()], of[f.Arch()] = text, n.Version
			}
		}
	}
	return out, nil
}

// failedText is what people said of a job's failures, the last of it if it is
// long.
func failedText(dir string) string {
	data, err := os.ReadFile(filepath.Join(dir, failedFile))
	if err != nil {
		return ""
	}
	text := strings.TrimSpace(strings.ToValidUTF8(string(data), "?"))
	if len(text) > maxPrevious {
		text = strings.ToValidUTF8("[...]\n"+text[len(text)-maxPrevious:], "")
	}
	return text
}

// maxPrevious is how many bytes of an older version's failure go on.
const maxPrevious = 4000
