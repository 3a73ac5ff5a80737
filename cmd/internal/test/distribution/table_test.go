//go:build system

package distribution

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"packmill/spool"
)

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// judge says what is a fault: what is nowhere, and what is not published although plain sbuild builds it.
func (d *distribution) judge() {
	d.Helper()
	for _, s := range d.chosen {
		o := d.results[s.name]
		switch {
		case d.over() && (o.first == nil || o.plain == nil):
		case o.first == nil:
			d.Errorf("%s %s is lost: %v", s.name, s.version, o.states)
		case o.twice() && o.second == nil && !d.over():
			d.Errorf("%s %s+b1 is lost: %v", s.name, s.version, o.rebuilt)
		case o.plain != nil && o.plain.Good != o.first.published:
			d.Errorf("%s: published %v (%v), and sbuild's build is good %v: %s", s.name, o.first.published, o.states,
				o.plain.Good, o.plain.Says)
		case o.second != nil && !o.second.published:
			d.Errorf("%s+b1: %v, and what it was before was built", s.name, o.rebuilt)
		}
	}
}

// word is how a version has ended.
func word(e *ending, states map[string]string) string {
	switch {
	case len(states) == 0:
		return "-"
	case e != nil && e.published:
		return "published"
	}
	var out []string
	for _, arch := range sorted(states) {
		if s := states[arch]; s != spool.Installed.Name && s != spool.AutoNotForUs.Name {
			out = append(out, arch+" "+s)
		}
	}
	return strings.Join(out, ", ")
}

// report writes the table, and says what is in it.
func (d *distribution) report() {
	took, again, last := map[string]float64{}, map[string]float64{}, map[string]string{}
	for _, b := range d.builds() {
		if id := b.Source + " " + b.Version + " " + b.Arch; last[id] == "" { // the newest is first
			last[id] = b.Outcome + ": " + b.Reason
			if b.Error != nil {
				last[id] += ": " + b.Error.Text
			}
		}
		if o := d.results[b.Source]; o != nil && b.Version == o.source.version {
			took[b.Source] += b.Wall
		} else if o != nil && b.Version == o.source.version+"+b1" {
			again[b.Source] += b.Wall
		}
	}
	var table, differ, bad strings.Builder
	w := tabwriter.NewWriter(&table, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "SOURCE\tVERSION\tWAVE\tTIME\tOUTCOME\tTIME+b1\tOUTCOME+b1\tSBUILD\tTIME\tEQUAL\tINSTALLED")
	count := map[string]int{}
	for _, s := range d.chosen {
		o := d.results[s.name]
		plain, sbuildTook := "-", "-"
		if o.plain != nil {
			plain, sbuildTook = map[bool]string{true: "good", false: "bad"}[o.plain.Good], fmt.Sprintf("%.0f", o.plain.Took)
			count["sbuild "+plain]++
		}
		same := 0
		for _, b := range o.bits {
			if b.same {
				same++
			} else {
				fmt.Fprintf(&differ, "%s: %s\n", b.file, b.why)
			}
			count[map[bool]string{true: "equal", false: "unequal"}[b.same]]++
		}
		for version, states := range map[string]map[string]string{s.version: o.states, s.version + "+b1": o.rebuilt} {
			for _, arch := range sorted(states) {
				if st := spool.Standard.Named(states[arch]); st != spool.Installed && st != spool.AutoNotForUs {
					fmt.Fprintf(&bad, "%s %s %s is in %s; %s\n", s.name, version, arch, st, last[s.name+" "+version+" "+arch])
				}
			}
		}
		if o.plain != nil && !o.plain.Good {
			fmt.Fprintf(&bad, "%s: sbuild says %s\n", s.name, o.plain.Says)
		}
		first, second := word(o.first, o.states), word(o.second, o.rebuilt)
		count["first "+first]++
		count["again "+second]++
		count["apt "+o.install]++
		fmt.Fprintf(w, "%s\t%s\t%d\t%.0f\t%s\t%.0f\t%s\t%s\t%s\t%d/%d\t%s\n", s.name, s.version, s.wave, took[s.name], first,
			again[s.name], second, plain, sbuildTook, same, len(o.bits), o.install)
	}
	w.Flush()
	text := fmt.Sprintf("%s\nnot published\n%s\nunequal to Debian's\n%s\n%s\n", &table, &bad, &differ, d.themselves())
	for _, k := range sorted(count) {
		text += fmt.Sprintf("%5d %s\n", count[k], k)
	}
	path := filepath.Join(d.dir, "table.txt")
	d.must(os.WriteFile(path, []byte(text), 0o644))
	d.Logf("%s; it is in %s, and took %s\n%s", suite, path, time.Since(d.began).Round(time.Second), text)
}

// themselves says how many builds of +b1 used packages that were built so before.
func (d *distribution) themselves() string {
	all, ours, uses := 0, 0, 0
	filepath.WalkDir(d.tree, func(path string, e os.DirEntry, err error) error {
		if err == nil && strings.Contains(e.Name(), "+b1_") && strings.HasSuffix(e.Name(), ".buildinfo") {
			data, _ := os.ReadFile(path)
			_, needs, _ := strings.Cut(string(data), "\nInstalled-Build-Depends:")
			n := 0
			for line := range strings.Lines(needs) {
				if name, version, ok := strings.Cut(strings.Trim(line, " ),\n"), " (= "); ok && d.madeAgain(name, version) {
					n++
				}
			}
			if all, uses = all+1, uses+n; n > 0 {
				ours++
			}
		}
		return nil
	})
	return fmt.Sprintf("%d of %d .buildinfo of +b1 name packages that are +b1 of ours, %d altogether", ours, all, uses)
}

// madeAgain reports whether a package of that version is our +b1.
func (d *distribution) madeAgain(name, version string) bool {
	b := d.lists.binaries[name]
	o := (*outcome)(nil)
	if b != nil {
		o = d.results[b.source]
	}
	return o != nil && strings.HasSuffix(version, "+b1") && b.version != version
}
