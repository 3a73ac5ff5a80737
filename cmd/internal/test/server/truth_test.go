//go:build system

package server

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"packmill/spool"
)

// truth looks at the tree over and over, as a person does with ls, until the
// function that it gives is called: each source and each of its jobs that was
// ever seen lies in exactly one state's directory. Two looks that see the same
// count as one moment, since a single one can be overtaken by what moves. With
// ahead a source may go to the archive before the one that waits for its jobs.
func (s *site) truth(ahead bool) (end func()) {
	tree, err := spool.Open(s.tree)
	if err != nil {
		s.t.Fatal(err)
	}
	look := func() []string {
		found, err := tree.Find("")
		if err != nil {
			return []string{"error: " + err.Error()}
		}
		var all []string
		for _, f := range found {
			arch := f.Place.Arch + f.Name.Arch // one of them, or the same
			switch arch {
			case "":
				arch = "source"
			case f.Name.Arch + f.Name.Arch:
				arch = f.Name.Arch
			}
			all = append(all, fmt.Sprintf("%s %s\t%s", f.Name.ID(), arch, f.Place.Dir()))
		}
		slices.Sort(all)
		return all
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		var seen map[string]string
		looks, moments, last := 0, 0, []string(nil)
		for {
			now := look()
			if looks++; slices.Equal(now, last) {
				moments++
				here := map[string]string{}
				for _, line := range now {
					what, dir, _ := strings.Cut(line, "\t")
					if other, twice := here[what]; twice && !(ahead && strings.HasSuffix(what, " source")) {
						s.t.Errorf("%s lies in %s and in %s", what, other, dir)
					}
					here[what] = dir
				}
				for what, dir := range seen {
					if _, ok := here[what]; !ok {
						s.t.Errorf("%s lay in %s, and now nowhere", what, dir)
					}
				}
				seen = here
			}
			last = now
			select {
			case <-stop:
				if s.t.Logf("ls told the truth at %d moments of %d looks", moments, looks); moments == 0 {
					s.t.Error("no two looks saw the same: the truth was never seen")
				}
				return
			case <-time.After(25 * time.Millisecond):
			}
		}
	}()
	return sync.OnceFunc(func() { close(stop); <-stopped })
}
