package spool

import (
	"bufio"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// goneFrom is where an item went that a person gave up, in the journal.
const goneFrom = "gone"

// Lost reports what the journal tells of since that time and what is nowhere in
// the tree, in no state: sources and jobs that somebody took in and nobody put
// away. since must be younger than anything that was swept.
//
// What moves while the tree is read can be missed in all of it. So what was
// missed is looked for again, and again.
func (t *Tree) Lost(since time.Time) ([]Finding, error) {
	// Of the many whose lives are told of only a hash is held until they are found.
	told := map[uint64]bool{}
	err := t.told(since, func(life uint64, l journalLine) {
		if told[life] = true; l.To == goneFrom {
			delete(told, life)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	for look := 0; len(told) > 0 && look < 5; look++ {
		if look > 0 {
			time.Sleep(busyRetry)
		}
		if err := t.strike(told); err != nil {
			return nil, err
		}
	}
	if len(told) == 0 {
		return nil, nil
	}
	last := map[uint64]journalLine{}
	err = t.told(since, func(life uint64, l journalLine) {
		if told[life] {
			last[life] = l
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	var out []Finding
	for _, l := range last {
		if l.To == goneFrom {
			continue // meanwhile
		}
		text := fmt.Sprintf("%s moved it there on %s, and it is nowhere in the tree",
			l.Who, l.Time.UTC().Format(time.RFC3339))
		out = append(out, Finding{Lost, filepath.Join(l.To, l.Item), text,
			"restore it from a backup; if it was removed on purpose, " +
				"--repair writes that into the journal and is silent from then on",
			func() error {
				return t.record(l.Item,
					Event{Time: t.now().UTC(), From: l.To, To: goneFrom, Who: "fsck", Reason: "it is nowhere in the tree"})
			}})
	}
	slices.SortFunc(out, func(a, b Finding) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// strike takes the lives out of told that are somewhere in the tree.
func (t *Tree) strike(told map[uint64]bool) error {
	places, err := t.Places()
	if err != nil {
		return err
	}
	for _, p := range places {
		err := t.Each(p, func(name string) {
			if n, err := ParseName(name); err == nil {
				delete(told, lifeOf(n, Found{p, n}.Arch()))
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// lifeOf is what an item is, whatever order it has in whichever queue.
func lifeOf(n Name, arch string) uint64 {
	if arch == SourceArch {
		arch = ""
	}
	h := fnv.New64a()
	h.Write([]byte(n.ID() + " " + arch))
	return h.Sum64()
}

// told calls do with each line of the journals of the days since then, and whose life it
// is of.
func (t *Tree) told(since time.Time, do func(life uint64, l journalLine)) error {
	days, err := os.ReadDir(t.Path("journal"))
	if err != nil {
		return err
	}
	for _, day := range days {
		if at, err := time.Parse("2006-01-02", day.Name()); err != nil || !day.Type().IsRegular() ||
			at.Add(24*time.Hour).Before(since) {
			continue
		}
		if err := eachLine(t.Path("journal", day.Name()), func(l journalLine) {
			n, err := ParseName(l.Item)
			place, ok := t.PlaceOf(l.To)
			if err != nil || l.Time.Before(since) || !ok && l.To != goneFrom {
				return
			}
			life := lifeOf(n, Found{place, n}.Arch())
			// A person's mv brings a source to where only jobs are, or a job to another
			// architecture's: what it is says the place that it came from.
			if from, ok := t.PlaceOf(l.From); ok && (l.To == goneFrom || l.Who == ByHand) {
				life = lifeOf(n, Found{from, n}.Arch())
			}
			do(life, l)
		}); err != nil {
			return err
		}
	}
	return nil
}

// eachLine calls do with each whole line of a journal.
func eachLine(path string, do func(journalLine)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, maxHistory)
	for s.Scan() {
		var l journalLine
		if json.Unmarshal(s.Bytes(), &l) == nil {
			do(l)
		}
	}
	return s.Err()
}
