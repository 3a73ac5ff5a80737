package spool

import (
	"bufio"
	"encoding/json"
	"fmt"
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
	told, err := t.told(since)
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	for look := 0; len(told) > 0 && look < 5; look++ {
		if look > 0 {
			time.Sleep(busyRetry)
		}
		found, err := t.Find("")
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			delete(told, lifeOf(f.Name, f.Arch()))
		}
	}
	var out []Finding
	for _, l := range told {
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

// lifeOf names what an item is, whatever order it has in whichever queue.
func lifeOf(n Name, arch string) string {
	if arch == SourceArch {
		arch = ""
	}
	return n.ID() + " " + arch
}

// told reads the last line of each item in the journals of the days since then.
func (t *Tree) told(since time.Time) (map[string]journalLine, error) {
	days, err := os.ReadDir(t.Path("journal"))
	if err != nil {
		return nil, err
	}
	out := map[string]journalLine{}
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
			key := lifeOf(n, Found{place, n}.Arch())
			if l.To == goneFrom {
				if from, ok := t.PlaceOf(l.From); ok {
					key = lifeOf(n, Found{from, n}.Arch())
				}
				delete(out, key)
				return
			}
			out[key] = l
		}); err != nil {
			return nil, err
		}
	}
	return out, nil
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
