package buildlog

import (
	"fmt"
	"slices"
	"time"
)

// Estimate says how long a build may take.
type Estimate struct {
	Took   time.Duration // the median
	Builds int           // of so many
	// "" for good builds of the package on the architecture and suite; otherwise what was taken in their place
	Of string
}

// String is the estimate for people: "about 4 min", and what it rests on if
// that is not the package itself.
func (e Estimate) String() string {
	s := "about " + Span(e.Took)
	if e.Of != "" {
		s += " (by " + e.Of + ")"
	}
	return s
}

// Span writes a duration in one unit, rounded.
func Span(d time.Duration) string {
	switch {
	case d < 90*time.Second:
		return fmt.Sprintf("%d s", max(1, int(d.Seconds()+0.5)))
	case d < 90*time.Minute:
		return fmt.Sprintf("%d min", int(d.Minutes()+0.5))
	case d < 48*time.Hour:
		return fmt.Sprintf("%.1f h", d.Hours())
	default:
		return fmt.Sprintf("%d days", int(d.Hours()/24+0.5))
	}
}

// medianOf is how many of the newest builds an estimate is made of, and
// maxRead how many records are read for those of any package.
const (
	medianOf = 5
	maxRead  = 200_000
)

// times are the newest walls of a kind of builds, in seconds.
type times []float64

func (t *times) add(s float64) {
	if len(*t) < medianOf {
		*t = append(*t, s)
	}
}

func (t times) estimate(of string) (Estimate, bool) {
	if len(t) == 0 {
		return Estimate{}, false
	}
	s := slices.Sorted(slices.Values(t))
	m := s[len(s)/2]
	if len(s)%2 == 0 {
		m = (m + s[len(s)/2-1]) / 2
	}
	return Estimate{Took: time.Duration(m * float64(time.Second)), Builds: len(s), Of: of}, true
}

// Times are what earlier good builds took.
type Times struct {
	exact  map[[3]string]*times // source, arch, suite
	arch   map[[2]string]*times // source, arch
	source map[string]*times
	other  map[string]*times // arch: of any package
	any    times
}

// Times reads the record of good builds: of one source and, in case there are
// none, of the newest few of others; or of all, if source is empty.
func (s Store) Times(source string) (*Times, error) {
	t := &Times{exact: map[[3]string]*times{}, arch: map[[2]string]*times{}, source: map[string]*times{},
		other: map[string]*times{}}
	n := 0
	good := []string{Good}
	err := s.Builds(Filter{Source: source, Outcomes: good}, func(b *Build) bool {
		t.add(b)
		n++
		return n < maxRead
	})
	if err == nil && source != "" && n == 0 {
		err = s.Builds(Filter{Outcomes: good}, func(b *Build) bool {
			t.add(b)
			n++
			return n < 50*medianOf
		})
	}
	return t, err
}

func (t *Times) add(b *Build) {
	enter(t.exact, [3]string{b.Source, b.Arch, b.Suite}, b.Wall)
	enter(t.arch, [2]string{b.Source, b.Arch}, b.Wall)
	enter(t.source, b.Source, b.Wall)
	enter(t.other, b.Arch, b.Wall)
	t.any.add(b.Wall)
}

func enter[K comparable](m map[K]*times, k K, wall float64) {
	x := m[k]
	if x == nil {
		x = &times{}
		m[k] = x
	}
	x.add(wall)
}

// Of estimates a build: by the newest good ones of the package on this
// architecture and suite or, where there are none, in any suite, then on any
// architecture, then of any package. False says that nothing was ever built.
func (t *Times) Of(source, suite, arch string) (Estimate, bool) {
	if x := t.exact[[3]string{source, arch, suite}]; x != nil {
		return x.estimate("")
	}
	if x := t.arch[[2]string{source, arch}]; x != nil {
		return x.estimate("its builds in other suites")
	}
	if x := t.source[source]; x != nil {
		return x.estimate("its builds on other architectures")
	}
	if x := t.other[arch]; x != nil {
		return x.estimate("other packages on " + arch)
	}
	return t.any.estimate("other packages on other architectures")
}
