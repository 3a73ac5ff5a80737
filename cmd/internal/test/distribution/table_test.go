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
		case o.arch && o.second == nil && o.states["amd64"] == spool.Installed.Name && !d.over():
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
	took, again := map[string]float64{}, map[string]float64{}
	for _, b := range d.builds() {
		if o := d.results[b.Source]; o != nil && b.Version == o.source.version {
			took[b.Source] += b.Wall
		} else if o != nil && b.Version == o.source.version+"+b1" {
			again[b.Source] += b.Wall
		}
	}
	var table, differ strings.Builder
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
		first, second := word(o.first, o.states), word(o.second, o.rebuilt)
		count["first "+first]++
		count["again "+second]++
		count["apt "+o.install]++
		fmt.Fprintf(w, "%s\t%s\t%d\t%.0f\t%s\t%.0f\t%s\t%s\t%s\t%d/%d\t%s\n", s.name, s.version, s.wave, took[s.name], first,
			again[s.name], second, plain, sbuildTook, same, len(o.bits), o.install)
	}
	w.Flush()
	text := fmt.Sprintf("%s\nDebian's packages that are not equal\n%s\n", &table, &differ)
	for _, k := range sorted(count) {
		text += fmt.Sprintf("%5d %s\n", count[k], k)
	}
	path := filepath.Join(d.dir, "table.txt")
	d.must(os.WriteFile(path, []byte(text), 0o644))
	d.Logf("%s; it is in %s, and took %s\n%s", suite, path, time.Since(d.began).Round(time.Second), text)
}
