// Package doctor looks a server over: settings that are legal and cannot work,
// keys, builders, the machine, the daemons. It reads and changes nothing. Where
// fsck proves what is in the tree, this says what will not happen, and the cure.
package doctor

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"packmill/cmd/internal/control"
)

// Level says how bad a finding is.
type Level string

// The levels: with an error something does not work; of a warning somebody
// should know this week.
const (
	Error   Level = "error"
	Warning Level = "warning"
)

// Finding is one thing that is wrong, with its cure.
type Finding struct {
	Check string `json:"check"` // suite, key, builder, ...: who found it
	Level Level  `json:"level"`
	About string `json:"about"` // the suite, builder, file ... that it is about
	Text  string `json:"text"`
	Cure  string `json:"cure"`
}

// String is the finding on one line.
func (f Finding) String() string {
	return fmt.Sprintf("%s: %s: %s; %s", f.Level, f.About, f.Text, f.Cure)
}

// Options say what to look at.
type Options struct {
	Tree string // its directory
	// URL is where clients fetch the archive, if it is to be asked.
	URL string
	// Offline asks no mirror and no web server.
	Offline bool
	// Root is the directory that stands for / in the looks at the machine's
	// files; empty: /.
	Root string
	Now  time.Time
}

// patient is what is looked at.
type patient struct {
	Options
	ctx      context.Context
	settings *control.Settings
	found    []Finding
	check    string // the one that looks now
}

func (p *patient) say(level Level, about, cure, format string, args ...any) {
	p.found = append(p.found, Finding{p.check, level, about, fmt.Sprintf(format, args...), cure})
}

func (p *patient) error(about, cure, format string, args ...any) {
	p.say(Error, about, cure, format, args...)
}

func (p *patient) warn(about, cure, format string, args ...any) {
	p.say(Warning, about, cure, format, args...)
}

func (p *patient) control(name string) string { return filepath.Join(p.Tree, "control", name) }

func (p *patient) file(path string) string { return filepath.Join(p.Root, path) }

// checks are the looks, in the order in which their findings are told: what
// explains others first.
var checks = []struct {
	name string
	look func(*patient)
}{
	{"suites", (*patient).suites},
	{"archive-keys", (*patient).archiveKeys},
	{"builders", (*patient).builders},
	{"coverage", (*patient).coverage},
	{"uploaders", (*patient).uploaders},
	{"reviewers", (*patient).reviewers},
	{"signers", (*patient).signers},
	{"notify", (*patient).notify},
	{"drops", (*patient).disputed},
	{"letters", (*patient).letters},
	{"programs", (*patient).programs},
	{"ids", (*patient).subordinateIDs},
	{"clusters", (*patient).clusters},
	{"namespaces", (*patient).namespaces},
	{"chroots", (*patient).chroots},
	{"room", (*patient).room},
	{"clock", (*patient).clock},
	{"units", (*patient).units},
	{"sshd", (*patient).sshd},
	{"mirrors", (*patient).mirrors},
	{"web", (*patient).web},
}

// Look looks everything over. Settings that are refused are one finding, and
// nothing that depends on them is looked at.
func Look(ctx context.Context, o Options) []Finding {
	if o.Root == "" {
		o.Root = "/"
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	p := &patient{Options: o, ctx: ctx, check: "settings"}
	settings, err := control.Load(filepath.Join(o.Tree, "control"))
	if err != nil {
		for _, one := range each(err) {
			p.error("control", "mend that line; the daemons go on with the last good settings until then", "%v", one)
		}
		return p.found
	}
	p.settings = settings
	for _, c := range checks {
		p.check = c.name
		c.look(p)
	}
	return p.found
}

// each takes a joined error apart.
func each(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// Errors counts the findings that are errors.
func Errors(found []Finding) (n int) {
	for _, f := range found {
		if f.Level == Error {
			n++
		}
	}
	return n
}

// archs are all architectures that a suite is built for, and all.
func (p *patient) archs() []string {
	out := []string{"all"}
	for _, s := range p.settings.Suites {
		for _, a := range s.Architectures {
			if !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}
