package control

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"packmill/queue"
	"packmill/spool"
)

// elsewhere is how long a job waits for another builder than the one on which
// it failed in a suspect way, or from which a person gave it back.
const elsewhere = 2 * time.Hour

// Refuses says why a builder does not take a job now, or "", and when that may
// be over; a zero time says not before the settings change. Buildd decides by
// it, and packmill why shows it.
func (s *Settings) Refuses(
	b *Builder, suite *Suite, f spool.Found, t *queue.Ticket, now time.Time,
) (why string, again time.Time) {
	if why := b.Never(suite, f.Arch(), t); why != "" {
		return why, time.Time{}
	}
	if b.Takes != "yes" {
		return "it takes nothing now (Takes): packmill builder resume " + b.Name, time.Time{}
	}
	if t.NotBefore.After(now) {
		return "given back; tried again at " + t.NotBefore.Format(time.RFC3339), t.NotBefore
	}
	if from := f.Name.Time.Add(b.MinAge); from.After(now) {
		return fmt.Sprintf("it must be %s old (Min-Age); it is at %s",
			spanText(b.MinAge), from.UTC().Format(time.RFC3339)), from
	}
	if until := t.NotBefore.Add(elsewhere); t.Suspect == b.Name && until.After(now) {
		for i := range s.Builders {
			if o := &s.Builders[i]; o.Name != b.Name && o.Never(suite, f.Arch(), t) == "" {
				return fmt.Sprintf("it came back from here, so %s tries it; if not by %s, this builder does",
					o.Name, until.Format(time.RFC3339)), until
			}
		}
	}
	for _, q := range b.Quiet {
		if end, ok := q.within(now); ok {
			return "it is the builder's quiet time (Quiet) until " + end.Format("15:04"), end
		}
	}
	return "", time.Time{}
}

// Never says why a builder would not take such a job at any time, or "".
func (b *Builder) Never(s *Suite, arch string, t *queue.Ticket) string {
	switch {
	case len(b.Suites) > 0 && !slices.Contains(b.Suites, s.Name):
		return fmt.Sprintf("it builds for %s only", strings.Join(b.Suites, " "))
	case !slices.Contains(b.Architectures, arch):
		return fmt.Sprintf("it builds %s only", strings.Join(b.Architectures, " "))
	case len(b.Packages) > 0 && !b.Packages.Match(t.Source):
		return "not one of the builder's Packages"
	case b.NotPackages.Match(t.Source):
		return "one of the builder's Not-Packages"
	case b.Uncaged(s) != "":
		return b.Uncaged(s)
	case len(b.Components) > 0 && !slices.Contains(b.Components, t.Component):
		return "not one of the builder's Components"
	}
	return ""
}

// Uncaged says why builds would reach the network against the suite's will, or "".
func (b *Builder) Uncaged(s *Suite) string {
	if b.Runner == "sbuild" && b.Mode == "schroot" && !s.BuildNetwork {
		return "its Chroot-Mode, schroot, leaves the network on in builds, and the suite has no Build-Network: yes"
	}
	return ""
}

// AlwaysQuiet reports whether there is no moment at which the builder begins a build.
func (b *Builder) AlwaysQuiet() bool {
	for minute := range 24 * 60 {
		at := time.Date(2000, 1, 1, 0, minute, 0, 0, time.UTC)
		if !slices.ContainsFunc(b.Quiet, func(h Hours) bool { _, ok := h.within(at); return ok }) {
			return false
		}
	}
	return true
}

// Patterns choose source packages: words with the wild cards * and ?, or
// regular expressions between slashes, such as /^python3?-/.
type Patterns []string

// Match reports whether one of them matches.
func (p Patterns) Match(source string) bool {
	return slices.ContainsFunc(p, func(w string) bool {
		if e, ok := expression(w); ok {
			re, err := regexp.Compile(e)
			return err == nil && re.MatchString(source)
		}
		ok, err := path.Match(w, source)
		return err == nil && ok
	})
}

func expression(word string) (string, bool) {
	if len(word) < 2 || word[0] != '/' || word[len(word)-1] != '/' {
		return "", false
	}
	return word[1 : len(word)-1], true
}

// checkPattern says what is wrong with one.
func checkPattern(word string) error {
	if e, ok := expression(word); ok {
		_, err := regexp.Compile(e)
		return err
	}
	if _, err := path.Match(word, "x"); err != nil {
		return fmt.Errorf("%q is not a pattern; * and ? are its wild cards, and /.../ holds a regular expression", word)
	}
	return nil
}

// Hours are a part of the day, in local time: minutes from midnight. From may
// be after To: then midnight lies within.
type Hours struct{ From, To int }

// within reports whether the time is, and when the part ends.
func (h Hours) within(now time.Time) (end time.Time, ok bool) {
	y, m, d := now.Date()
	at := func(day, minutes int) time.Time { return time.Date(y, m, day, 0, minutes, 0, 0, now.Location()) }
	for _, day := range []int{d - 1, d} {
		from, to := at(day, h.From), at(day, h.To)
		if h.To <= h.From {
			to = at(day+1, h.To)
		}
		if !now.Before(from) && now.Before(to) {
			return to, true
		}
	}
	return time.Time{}, false
}

// parseHours reads 22:00-06:30.
func parseHours(word string) (h Hours, err error) {
	from, to, ok := strings.Cut(word, "-")
	a, err1 := time.Parse("15:04", from)
	b, err2 := time.Parse("15:04", to)
	if !ok || err1 != nil || err2 != nil {
		return h, fmt.Errorf("%q is not a part of the day; write such as 22:00-06:30", word)
	}
	minutes := func(t time.Time) int { return t.Hour()*60 + t.Minute() }
	return Hours{minutes(a), minutes(b)}, nil
}

// spanText writes a time as the settings do.
func spanText(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{day, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d >= u.unit && d%u.unit == 0 {
			return fmt.Sprint(int64(d/u.unit)) + u.name
		}
	}
	return fmt.Sprint(int64(d/time.Second)) + "s"
}
