package control

import (
	"strings"

	"packmill/internal/deb822"
	"packmill/queue/runner"
)

// Limit is a line of Limits: what holds for some packages.
type Limit struct {
	Packages string // a pattern
	set      []func(*runner.Limits)
}

// LimitsOf are the limits of a build: the builder's own, over them what the
// suite says of the package, and over that what the builder says of it.
func (b *Builder) LimitsOf(s *Suite, source string) runner.Limits {
	l := runner.Limits{Wall: b.Timeout, Silence: b.Silence, Log: b.MaxLog, Memory: b.Memory, Tasks: b.Tasks, Disk: b.Disk}
	for _, lines := range [][]Limit{s.Limits, b.Limits} {
		for _, x := range lines {
			if (Patterns{x.Packages}).Match(source) {
				for _, set := range x.set {
					set(&l)
				}
			}
		}
	}
	return l
}

// limits reads lines such as "libreoffice* Timeout=3d Disk=60G".
func (r *reader) limits(name string) (out []Limit) {
	for _, line := range r.lines(name) {
		words := deb822.Words(line)
		x := Limit{Packages: words[0]}
		r.check(name, x.Packages, checkPattern)
		if len(words) == 1 {
			r.fail(name, "%q limits nothing; write such as: %s Timeout=3d Disk=60G", line, words[0])
		}
		for _, w := range words[1:] {
			key, value, _ := strings.Cut(w, "=")
			one := &reader{st: &deb822.Stanza{Fields: []deb822.Field{{Name: key, Value: value}}}, used: map[string]string{}}
			v := Builder{}
			one.limit(&v)
			if errs := one.finish(); len(errs) > 0 || value == "" {
				r.fail(name, "%q is no limit; there are Timeout, Silence, Max-Log, Memory, Tasks and Disk, "+
					"with a value each as in control/builders", w)
				continue
			}
			x.set = append(x.set, func(l *runner.Limits) {
				switch strings.ToLower(key) {
				case "timeout":
					l.Wall = v.Timeout
				case "silence":
					l.Silence = v.Silence
				case "max-log":
					l.Log = v.MaxLog
				case "memory":
					l.Memory = v.Memory
				case "tasks":
					l.Tasks = v.Tasks
				case "disk":
					l.Disk = v.Disk
				}
			})
		}
		out = append(out, x)
	}
	return out
}

// narrower takes of each limit the smaller; zero is none.
func narrower(a, b runner.Limits) runner.Limits {
	return runner.Limits{Wall: least(a.Wall, b.Wall), Silence: least(a.Silence, b.Silence), Log: least(a.Log, b.Log),
		Memory: least(a.Memory, b.Memory), Tasks: least(a.Tasks, b.Tasks), Disk: least(a.Disk, b.Disk)}
}

func least[T ~int | ~int64](a, b T) T {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
