package archive

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"packmill/archive/index"
	"packmill/archive/pool"
	"packmill/internal/deb"
	"packmill/internal/deb822"
	"packmill/internal/paper"
)

// Kind says which of an upload's files are included.
type Kind uint8

const (
	Source Kind = 1 << iota
	Binary
)

// Inclusion is one upload that is to be published. Its files must be ours: who
// could write to them before must not have them open any more.
type Inclusion struct {
	Dir     string
	Changes string // the .changes in Dir, which names the files and their checksums
	Kind    Kind   // both if zero

	// Text, if set, is the content of the .changes as the caller verified it.
	// Then the file is not read again: what was checked is what is used.
	Text []byte

	// These replace what the packages say; "" leaves it. The suite's overrides
	// go before Section and Priority.
	Component, Section, Priority string

	// Architectures, if set, are those for which the upload may bring binaries:
	// the caller knows what its sender is allowed.
	Architectures []string

	// Declared binds binary packages to their source: each must be named by it
	// (Package-List or Binary), or be the -dbgsym of one, and one that another
	// source has in the suite must stand in TakesOver, as PACKAGE=SOURCE.
	Declared  bool
	TakesOver []string

	// Overrides are for single packages what Section and Priority are for all,
	// by the names of Suite.Overrides, which go before them.
	Overrides map[string]Override

	Without []string // packages that the upload names and the suite does not get

	Force bool // the version may go down

	// Whole has packages wait that need others of their own source, which another
	// build makes: see Waits.
	Whole bool

	// Sourceless takes binaries whose source package is not in the suite: of a
	// repository that has none.
	Sourceless bool
}

// Outcome is what became of an inclusion.
type Outcome int

const (
	Published Outcome = iota
	AlreadyThere
	Refused
	Waits // for other packages of its source, which the Reason names; include it again then
)

func (o Outcome) String() string {
	return [...]string{"published", "already there", "refused", "waits"}[o]
}

// Result is the outcome of one inclusion.
type Result struct {
	Changes string // as in the Inclusion
	Outcome Outcome
	Reason  string   // of a refusal: a sentence that says what helps
	Notes   []string // what a person may want to know, a sentence each
	Files   []string // the upload's files in the pool, relative to the archive

	NoSource bool // refused because the suite lacks the source package: see Inclusion.Sourceless
}

// refusal is a fault of the upload.
type refusal string

func (r refusal) Error() string { return string(r) }

// waiting is what an inclusion waits for.
type waiting string

func (w waiting) Error() string { return string(w) }

func refuse(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

// item is a file of an upload on its way into the pool.
type item struct {
	f    *os.File
	from string
	name string // in the pool
	sum  index.Sum
}

// change is one edit of an index; they are made when the whole upload is good.
type change struct {
	path, key string
	records   []byte
}

// inclusion is the work on one upload.
type inclusion struct {
	*Inclusion
	t       *transaction
	ch      *deb822.Stanza
	source  string
	version string
	dir     string         // of its source in the pool
	dsc     *deb822.Stanza // of its source, if it comes with it
	names   []string       // of the packages that its source makes
	files   map[string]*paper.File
	items   []item
	changes []change
	notes   []string
	news    bool // it changes the suite

	noSource bool // it is refused for that
}

// include checks an upload, puts its files into the pool and notes what
// changes in the indexes. An error that is no refusal is our own trouble.
func (t *transaction) include(inc *Inclusion) (Result, error) {
	in := &inclusion{Inclusion: inc, t: t}
	if inc.Kind == 0 {
		in.Kind = Source | Binary
	}
	defer func() {
		for _, it := range in.items {
			it.f.Close()
		}
	}()
	res := Result{Changes: inc.Changes}
	err := in.run()
	var r refusal
	if errors.As(err, &r) {
		res.Outcome, res.Reason, res.NoSource = Refused, string(r), in.noSource
		return res, nil
	}
	if w := waiting(""); errors.As(err, &w) {
		res.Outcome, res.Reason = Waits, string(w)
		return res, nil
	}
	if err != nil {
		return res, fmt.Errorf("include %s: %w", inc.Changes, err)
	}
	for _, it := range in.items {
		res.Files = append(res.Files, it.name)
	}
	slices.Sort(res.Files)
	res.Files = slices.Compact(res.Files)
	res.Notes = in.notes
	if !in.news {
		res.Outcome = AlreadyThere
	}
	return res, nil
}

func (in *inclusion) run() error {
	if err := in.readChanges(); err != nil {
		return err
	}
	if err := in.gather(); err != nil {
		return err
	}
	if len(in.items) == 0 {
		return refuse("%s: names nothing that could be published; it must list a .dsc or a .deb", in.Changes)
	}
	if in.Whole {
		if needs, err := in.waits(); err != nil || needs != "" {
			return cmp.Or(err, error(waiting("waits for the other packages of its source: "+needs)))
		}
	}
	// Everything is good so far; a name that is taken is the last thing that
	// can be wrong.
	for i := range in.items {
		it := &in.items[i]
		if _, err := in.t.pool.Check(it.name, it.sum.SHA256, it.sum.Size); errors.Is(err, pool.ErrClash) {
			return refuse("%s: the archive has a file of this name with other content; "+
				"published files never change, so give the package a new version", filepath.Base(it.name))
		} else if err != nil {
			return err
		}
	}
	for _, it := range in.items {
		if err := in.t.pool.Place(it.f, it.from, it.name, it.sum.SHA256); err != nil {
			return err
		}
	}
	return in.apply()
}

// gather finds what of the listed files is to be published, in the order of their
// names: sources, binaries, and the papers about them.
func (in *inclusion) gather() error {
	names := make([]string, 0, len(in.files))
	for n := range in.files {
		names = append(names, n)
	}
	slices.Sort(names)
	if in.Kind&Source != 0 {
		if err := in.includeSource(names); err != nil {
			return err
		}
	}
	if in.Kind&Binary != 0 {
		for _, n := range names {
			if name, _, _ := strings.Cut(n, "_"); deb.IsFile(n) && !slices.Contains(in.Without, name) {
				if err := in.includeDeb(in.files[n]); err != nil {
					return err
				}
			}
		}
	}
	for _, n := range names {
		if filepath.Ext(n) == ".buildinfo" && in.dir != "" {
			if err := in.keepPaper(in.files[n]); err != nil {
				return err
			}
		}
	}
	return nil
}

// apply puts the changes into the suite's indexes.
func (in *inclusion) apply() error {
	for _, c := range in.changes {
		old, err := in.t.p.get(c.path, c.key)
		if err != nil {
			return err
		}
		if !bytes.Equal(old, c.records) {
			in.news = true
			in.t.p.set(c.path, c.key, c.records)
		}
	}
	return nil
}

// component is the one that a package goes to.
func (in *inclusion) component(section string) (string, error) {
	c := in.Component
	if c == "" {
		if pre, _, ok := strings.Cut(section, "/"); ok {
			c = pre
		}
	}
	all := in.t.suite.components()
	switch {
	case c == "" || c == "main" && !slices.Contains(all, "main"):
		return all[0], nil
	case !slices.Contains(all, c):
		return "", refuse("%s: the suite %s has no component %q, only %s; "+
			"change the Section of the package or the component of the upload",
			in.Changes, in.t.suite.Name, c, strings.Join(all, ", "))
	}
	return c, nil
}

func (in *inclusion) override(key, section, priority string) (string, string) {
	pick := func(first ...string) string {
		for _, s := range first {
			if s != "" {
				return s
			}
		}
		return ""
	}
	o, own := in.t.suite.Overrides[key], in.Overrides[key]
	return pick(o.Section, own.Section, in.Section, section), pick(o.Priority, own.Priority, in.Priority, priority)
}

func (in *inclusion) note(format string, args ...any) {
	if n := fmt.Sprintf(format, args...); !slices.Contains(in.notes, n) {
		in.notes = append(in.notes, n)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
