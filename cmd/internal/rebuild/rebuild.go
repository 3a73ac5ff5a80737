// Package rebuild builds what is published once more and says of each file
// whether it has the same bits. Nothing is published.
package rebuild

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"packmill/archive"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/terminal"
	"packmill/internal/deb822"
	"packmill/internal/paper"
	"packmill/internal/policy"
	"packmill/internal/regular"
	"packmill/queue"
	"packmill/queue/runner"
	"packmill/spool"
)

// Answer is what came of one architecture.
type Answer struct {
	Source     string   `json:"source"`
	Version    string   `json:"version"`
	Suite      string   `json:"suite"`
	Arch       string   `json:"arch"`
	Same       bool     `json:"same"`
	BuiltBy    string   `json:"built_by,omitempty"`
	Builder    string   `json:"builder"`
	Files      []File   `json:"files"`
	Reason     string   `json:"reason,omitempty"`       // why there is nothing to compare
	Changed    []string `json:"dependencies,omitempty"` // build-dependencies with other versions: "NAME OLD -> NEW"
	Kept       string   `json:"kept,omitempty"`         // directory with log and results
	Diffoscope []string `json:"diffoscope,omitempty"`   // commands that show what differs
}

// File is one file of the result.
type File struct {
	Name      string `json:"name"`
	Same      bool   `json:"same"`
	Published string `json:"published,omitempty"` // SHA-256
	Rebuilt   string `json:"rebuilt,omitempty"`
}

// Ask says what is to be built again.
type Ask struct {
	Pattern     string // hello or hello_2.10-3
	Suite, Arch string // "": all
	Builder     string // the stanza that builds; "": another than built it, if there is one
	Keep        string // directory for log and results, also if all is the same
}

// Find gives what is meant and was built and published here: the newest of each
// suite and architecture, in the order of these.
func (x *Ask) Find(t *spool.Tree) ([]spool.Found, error) {
	found, err := t.Find(x.Pattern, spool.Installed)
	if err != nil {
		return nil, err
	}
	newest := map[string]spool.Found{}
	for _, f := range found {
		key := f.Place.Suite + " " + f.Arch()
		if f.Arch() == spool.SourceArch || x.Suite != "" && f.Place.Suite != x.Suite || x.Arch != "" && f.Arch() != x.Arch {
			continue
		}
		if old, ok := newest[key]; !ok || policy.CompareVersions(f.Name.Version, old.Name.Version) > 0 ||
			f.Name.Version == old.Name.Version && f.Name.Time.After(old.Name.Time) {
			newest[key] = f
		}
	}
	if len(newest) == 0 {
		return nil, daemon.Refuse("nothing that was built and published here is called %s", spool.OneLine(x.Pattern))
	}
	var out []spool.Found
	for _, key := range slices.Sorted(maps.Keys(newest)) {
		out = append(out, newest[key])
	}
	return out, nil
}

// Plan is one build that can be repeated and compared.
type Plan struct {
	ask     *Ask
	tree    *spool.Tree
	found   spool.Found
	ticket  *queue.Ticket
	suite   *control.Suite
	builder *control.Builder
	old     *buildinfo
	archive *archive.Archive
	dsc     string   // its name
	sources []string // below the archive
	pool    map[string]string
}

// Plan looks whether f can be built again: a builder, a .buildinfo to compare
// with and the source must be there.
func (x *Ask) Plan(ctx context.Context, t *spool.Tree, all *control.Settings, f spool.Found) (*Plan, error) {
	p := &Plan{ask: x, tree: t, found: f, pool: map[string]string{}}
	var err error
	if p.ticket, err = queue.TicketAt(t, f); err != nil {
		return nil, err
	}
	var ok bool
	if p.suite, ok = all.Suite(f.Place.Suite); !ok {
		return nil, daemon.Refuse("the suite %s is not in the settings any more", f.Place.Suite)
	}
	if p.builder = x.builder(all, p.suite, p.ticket, f.Arch()); p.builder == nil {
		return nil, daemon.Refuse("no builder of control/builders can build %s for %s here; "+
			"make a chroot with packmill chroot create, or name one with --builder",
			f.Name.ID(), f.Arch())
	}
	infos, err := filepath.Glob(t.Path(f.Dir(), "result", "*.buildinfo"))
	if err != nil {
		return nil, err
	}
	if len(infos) != 1 {
		return nil, daemon.Refuse("%s for %s has no .buildinfo, so there is nothing to compare with: its builder made none",
			f.Name.ID(), f.Arch())
	}
	if p.old, err = readBuildinfo(infos[0]); err != nil {
		return nil, err
	}
	if p.archive, err = archive.Open(t.Path("archive")); err != nil {
		return nil, err
	}
	return p, p.published(ctx)
}

func (p *Plan) String() string {
	return fmt.Sprintf("would build %s for %s again with the builder %s and compare %d files",
		p.found.Name.ID(), p.found.Arch(), p.builder.Name, len(p.old.files))
}

// Do builds it once more and compares. Log and results stay in a directory if
// something differs, or if the Ask names one.
func (p *Plan) Do(ctx context.Context) (*Answer, error) {
	r := &Answer{Source: p.ticket.Source, Version: p.ticket.Version, Suite: p.suite.Name, Arch: p.found.Arch(),
		BuiltBy: p.ticket.Builder, Builder: p.builder.Name}
	dir, err := os.MkdirTemp(p.ask.Keep, "packmill-rebuild-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if r.Kept == "" {
			os.RemoveAll(dir)
		}
	}()
	job, err := p.job(dir)
	if err != nil {
		return nil, err
	}
	defer job.Log.Close()
	with := *p.builder
	with.Ccache = 0 // everything is compiled again
	run, err := with.NewRunner()
	if err != nil {
		return nil, err
	}
	res, err := run.Run(ctx, job)
	if err != nil {
		return nil, err
	}
	if res.Stopped {
		return nil, context.Cause(ctx)
	}
	os.RemoveAll(job.Dir)
	if res.Outcome != runner.Good {
		r.Reason, r.Kept = "it does not build again: "+res.Reason, dir
		return r, nil
	}
	infos, err := filepath.Glob(filepath.Join(job.Result, "*.buildinfo"))
	if err != nil || len(infos) != 1 {
		r.Reason, r.Kept = "the new build made no .buildinfo", dir
		return r, err
	}
	now, err := readBuildinfo(infos[0])
	if err != nil {
		return nil, err
	}
	r.compare(p.old, now)
	if !r.Same || p.ask.Keep != "" {
		r.Kept = dir
	}
	for _, file := range r.Files {
		if at := p.pool[file.Name]; !file.Same && at != "" && file.Rebuilt != "" {
			r.Diffoscope = append(r.Diffoscope,
				fmt.Sprintf("diffoscope %s %s", filepath.Join(p.archive.Root(), at), filepath.Join(job.Result, file.Name)))
		}
	}
	return r, nil
}

// job puts the source into dir and describes the build in another directory,
// locale and time zone. Its log is open.
func (p *Plan) job(dir string) (*runner.Job, error) {
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(dir, "source"), 0o755); err != nil {
		return nil, err
	}
	for _, name := range p.sources {
		if err := regular.Copy(filepath.Join(p.archive.Root(), name),
			filepath.Join(dir, "source", path.Base(name))); err != nil {
			return nil, err
		}
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	job, err := p.builder.Job(p.tree, p.found, p.ticket, p.suite)
	if err != nil {
		log.Close()
		return nil, err
	}
	job.Dsc, job.Log = filepath.Join(dir, "source", p.dsc), log
	job.Dir, job.Result = filepath.Join(dir, "work"), filepath.Join(dir, "result")
	// What a build must not depend on: the place, the locale, the time zone.
	job.Path = "/build/rebuilt-to-compare/" + p.ticket.Source
	job.Env = []string{"LC_ALL=C", "LANG=C", "TZ=Packmill-13:45", "USER=somebody", "LOGNAME=somebody"}
	return job, nil
}

// builder chooses who builds again: the one that was asked for, or one that
// did not build it, or any.
func (x *Ask) builder(all *control.Settings, s *control.Suite, t *queue.Ticket, arch string) *control.Builder {
	on := arch
	if arch == "all" {
		on = s.IndepOf(t)
	}
	var able []*control.Builder
	for i := range all.Builders {
		b := &all.Builders[i]
		if x.Builder != "" && b.Name != x.Builder || b.Never(s, arch, t) != "" || b.Away() {
			continue
		}
		if b.OwnChroots() {
			at := on
			if b.CrossFrom != "" {
				at = b.CrossFrom
			}
			if _, err := b.ChrootStore().Lookup(s.Name, at); err != nil {
				continue
			}
		}
		if _, name, _ := strings.Cut(t.Builder, "/"); name != b.Name && name != "" {
			return b
		}
		able = append(able, b)
	}
	if len(able) == 0 {
		return nil
	}
	// A daemon that was not told its stanza's name is the first.
	return able[len(able)-1]
}

// published finds the source in the archive, and where the pool has its
// packages.
func (p *Plan) published(ctx context.Context) error {
	for _, name := range append([]string{p.ticket.Source}, p.ticket.Binary...) {
		stanzas, err := p.archive.Show(ctx, p.suite.Name, name)
		if err != nil {
			return err
		}
		for _, text := range stanzas {
			if err := p.stanza(name, text); err != nil {
				return err
			}
		}
	}
	if p.dsc == "" {
		return daemon.Refuse("the source of %s_%s is not in the suite %s any more",
			p.ticket.Source, p.ticket.Version, p.suite.Name)
	}
	return nil
}

// stanza takes what is needed from a package's stanza in the indexes.
func (p *Plan) stanza(name, text string) error {
	st, err := deb822.ParseOne(name, []byte(text), deb822.Settings)
	if err != nil {
		return err
	}
	if at := st.Get("Filename"); at != "" {
		p.pool[path.Base(at)] = at
		return nil
	}
	if st.Get("Version") != p.ticket.Version || p.dsc != "" {
		return nil
	}
	files, err := paper.Files(st, paper.Short)
	if err != nil {
		return err
	}
	for _, f := range files {
		p.sources = append(p.sources, path.Join(st.Get("Directory"), f.Name))
		if strings.HasSuffix(f.Name, ".dsc") {
			p.dsc = f.Name
		}
	}
	return nil
}

// buildinfo is what is compared of a .buildinfo (deb-buildinfo(5)).
type buildinfo struct {
	files    map[string]string // name -> SHA-256
	packages map[string]string // installed -> version
}

func readBuildinfo(name string) (*buildinfo, error) {
	st, err := paper.Read(filepath.Split(name))
	if err != nil {
		return nil, err
	}
	files, err := paper.Files(st, paper.Short, paper.SHA256)
	if err != nil {
		return nil, err
	}
	b := &buildinfo{map[string]string{}, map[string]string{}}
	for _, f := range files {
		if !strings.HasSuffix(f.Name, ".dsc") {
			b.files[f.Name] = f.SHA256
		}
	}
	deps, err := policy.ParseRelations(strings.TrimRight(strings.TrimSpace(st.Get("Installed-Build-Depends")), ","))
	if err != nil {
		return nil, fmt.Errorf("%s: Installed-Build-Depends: %w", filepath.Base(name), err)
	}
	for _, or := range deps {
		b.packages[or[0].Name] = or[0].Version
	}
	return b, nil
}

// compare says of each file whether both have it with the same bits.
func (r *Answer) compare(old, now *buildinfo) {
	r.Same = true
	names := map[string]bool{}
	for name := range old.files {
		names[name] = true
	}
	for name := range now.files {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		f := File{Name: name, Published: old.files[name], Rebuilt: now.files[name]}
		f.Same = f.Published == f.Rebuilt
		r.Same = r.Same && f.Same
		r.Files = append(r.Files, f)
	}
	for _, name := range slices.Sorted(maps.Keys(old.packages)) {
		switch v, ok := now.packages[name]; {
		case !ok:
			r.Changed = append(r.Changed, name+" "+old.packages[name]+" -> none")
		case v != old.packages[name]:
			r.Changed = append(r.Changed, name+" "+old.packages[name]+" -> "+v)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(now.packages)) {
		if _, ok := old.packages[name]; !ok {
			r.Changed = append(r.Changed, name+" none -> "+now.packages[name])
		}
	}
}

// Text is the answer for a person.
func (r *Answer) Text() string {
	var b strings.Builder
	verdict := "the same bits"
	if !r.Same {
		verdict = "different"
	}
	by := ""
	if r.BuiltBy != "" {
		by = ", which " + r.BuiltBy + " built"
	}
	fmt.Fprintf(&b, "%s_%s %s in %s%s, built again by %s: %s",
		r.Source, r.Version, r.Arch, r.Suite, by, r.Builder, verdict)
	if r.Reason != "" {
		fmt.Fprintf(&b, "\n  %s", terminal.Clean(r.Reason))
	}
	for _, f := range r.Files {
		word := "same"
		switch {
		case f.Rebuilt == "":
			word = "not made again"
		case f.Published == "":
			word = "only made now"
		case !f.Same:
			word = "different"
		}
		fmt.Fprintf(&b, "\n  %-15s %s", word, terminal.Clean(f.Name))
	}
	if !r.Same && len(r.Changed) > 0 {
		fmt.Fprintf(&b, "\n  build-dependencies that have other versions now: %s",
			terminal.Clean(strings.Join(r.Changed, ", ")))
	}
	if r.Kept != "" {
		fmt.Fprintf(&b, "\n  log and results: %s", r.Kept)
	}
	if len(r.Diffoscope) > 0 {
		if _, err := exec.LookPath("diffoscope"); err == nil {
			fmt.Fprintf(&b, "\n  what differs: %s", terminal.Clean(r.Diffoscope[0]))
		} else {
			b.WriteString("\n  what differs: install diffoscope, then: " + terminal.Clean(r.Diffoscope[0]))
		}
	}
	return b.String()
}
