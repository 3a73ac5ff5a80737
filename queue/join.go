package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"packmill/internal/policy"
	"packmill/spool"
)

// Join says whether a source may leave the master queue: when a settled job is
// found for each architecture of its plan. It decides by presence: a job that
// was not seen, because it was just moving or for whatever reason, keeps the
// source here.
func Join(tree *spool.Tree, it *spool.Item, s Suite) (spool.Verdict, error) {
	plan, err := planOf(it, s.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return spool.Verdict{To: spool.In(spool.Accepted, s.Name), Reason: "it was never fanned out"}, nil
	}
	if err != nil {
		return spool.Verdict{}, fmt.Errorf("plan of %s: %w; fan it out again with: packmill requeue %s",
			it.Name, err, it.Name)
	}
	settled, active := tree.Are(spool.Settled), tree.Are(spool.Jobs|spool.Active)
	var done, waits []string
	for _, a := range plan.Jobs {
		f := findNamed(tree, settled, s.Name, a, it.Name)
		if f == nil && findNamed(tree, active, s.Name, a, it.Name) == nil {
			// Somebody gave it another order.
			if f, err = findJob(tree, settled, s.Name, a, it.Name); err != nil {
				return spool.Verdict{}, err
			}
		}
		if f != nil && f.Place.State == spool.Installed && spool.BroughtByHand(tree.Path(f.Dir()), f.Place) {
			f = nil // nothing of it is published
		}
		if f == nil {
			waits = append(waits, a)
			continue
		}
		done = append(done, a+": "+f.Place.State.Name)
	}
	if len(waits) > 0 {
		return spool.Stay(0, "waits for "+strings.Join(waits, " ")), nil
	}
	return spool.Verdict{To: spool.In(spool.Uploaded, s.Name), Reason: strings.Join(done, ", ")}, nil
}

// Supersede retires what older versions of the source still have open in the
// suite: their jobs and their sources go to the attic. A build that is running
// ends by itself (its builder asks Superseded then). What a person said is not
// for an architecture holds for the next version too: see hatch.
func Supersede(tree *spool.Tree, suite string, newer spool.Name, who string) error {
	places, err := tree.PlacesOf(suite, newer.Source, append(tree.Are(spool.Stale), spool.Building)...)
	if err != nil {
		return err
	}
	found, err := tree.Of(newer.Source, places...)
	if err != nil {
		return err
	}
	for _, f := range found {
		if policy.CompareVersions(f.Name.Version, newer.Version) >= 0 {
			continue
		}
		if err := supersede(tree, f, newer.Version, who); err != nil {
			return err
		}
	}
	return nil
}

// AcceptedAgain makes way for an accepted source: a copy of the same version that
// waits for its jobs goes to the attic, as after a refusal of the copy that went
// ahead. The jobs stay, and are those of the new one. An item that was moved to
// another suite by hand is of that suite from here on.
func AcceptedAgain(tree *spool.Tree, it *spool.Item, who string) error {
	found, err := tree.Of(it.Name.Source, spool.In(spool.Master, it.Place.Suite))
	if err != nil {
		return err
	}
	for _, f := range found {
		if f.Name.Version != it.Name.Version || f.Name.Arch != "" {
			continue
		}
		old, err := tree.Claim(f.Place, f.Name.String())
		if errors.Is(err, spool.ErrGone) {
			continue
		}
		if err != nil {
			return err
		}
		err = old.Move(spool.MasterD, who, spool.Verdict{To: spool.In(spool.Attic), Reason: "accepted again"})
		old.Release()
		if err != nil {
			return err
		}
	}
	t, err := TicketOf(it)
	if err != nil || t.Suite == it.Place.Suite {
		return nil // FanOut says what is wrong with it
	}
	t.Suite = it.Place.Suite
	if err := Replan(it); err != nil {
		return err
	}
	return it.SetTicket(t.Stanza())
}

func supersede(tree *spool.Tree, f spool.Found, version, who string) error {
	it, err := tree.Claim(f.Place, f.Name.String())
	if err != nil {
		// Busy or gone: its holder moves it, and the next pass meets it
		// where it then is.
		return nil
	}
	defer it.Release()
	if f.Place.State == spool.Building {
		// What a person builds by hand nobody holds. Any other that is free here
		// lost its builder, and is met again when it was given back.
		if t, err := TicketOf(it); err != nil || t.TakenBy == "" {
			return nil
		}
	}
	return it.Move(spool.MasterD, who,
		spool.Verdict{To: spool.In(spool.Attic), Reason: SupersededBy + "version " + version})
}

// Superseded reports the newest version of the source that has come to the
// suite's queues after the given one, or "".
func Superseded(tree *spool.Tree, suite, source, version string) (string, error) {
	found, err := tree.Of(source, spool.In(spool.Master, suite), spool.In(spool.Uploaded, suite))
	if err != nil {
		return "", err
	}
	newest := ""
	for _, f := range found {
		v := f.Name.Version
		if f.Name.Arch == "" && policy.CompareVersions(v, version) > 0 &&
			(newest == "" || policy.CompareVersions(v, newest) > 0) {
			newest = v
		}
	}
	return newest, nil
}

// failedFile in a job keeps what people said of its failures, also after it was
// given back: REASON only lasts until the next move.
const failedFile = "failed"

// previous returns, for each architecture, why the newest older version of the
// source failed there, for the next version's job: what people said of it, and what
// its own job was told of the versions before, until one is good. What of older
// versions waited in the long queues was superseded before this, and lies in the
// attic.
func previous(tree *spool.Tree, suite string, newer spool.Name) (map[string]string, error) {
	of := map[string]spool.Found{}
	places, err := tree.PlacesOf(suite, newer.Source, tree.Where(func(s spool.State) bool {
		return s.Is(spool.Jobs) || s == spool.Attic
	})...)
	if err != nil {
		return nil, err
	}
	found, err := tree.Of(newer.Source, places...)
	if err != nil {
		return nil, err
	}
	for i := range found {
		f := &found[i]
		arch := archOf(tree, f)
		if arch == "" || arch == spool.SourceArch || policy.CompareVersions(f.Name.Version, newer.Version) >= 0 {
			continue
		}
		if have, ok := of[arch]; ok && !ahead(f, &have) {
			continue
		}
		if f.Place.Suite == suite || sameSuite(tree, f, suite) {
			of[arch] = *f
		}
	}
	out := map[string]string{}
	for arch, f := range of {
		if f.Place.State == spool.Installed || f.Place.State == spool.Uploaded {
			continue // it was good
		}
		text, err := failedText(tree.Path(f.Dir()))
		if err != nil {
			return nil, err
		}
		if t, err := TicketAt(tree, f); err == nil && t.Previous != "" {
			text = strings.TrimSpace(t.Previous + "\n" + text)
		}
		if text = short(text); text != "" {
			out[arch] = text
		}
	}
	return out, nil
}

// short keeps the end of a long text.
func short(text string) string {
	if len(text) > maxPrevious {
		text = strings.ToValidUTF8("[...]\n"+text[len(text)-maxPrevious:], "")
	}
	return text
}

// failedText is what people said of a job's failures, the last of it if it is
// long.
func failedText(dir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, failedFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return short(strings.TrimSpace(strings.ToValidUTF8(string(data), "?"))), nil
}

// maxPrevious is how many bytes of an older version's failure go on.
const maxPrevious = 4000
