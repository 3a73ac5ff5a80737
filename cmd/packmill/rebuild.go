package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"packmill/archive"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/internal/deb822"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/queue/runner"
	"packmill/spool"
)

type rebuildCmd struct {
	Package string `arg:"" help:"hello or hello_2.10-3, as it is published."`
	Check   bool   `help:"Compare with what is published, and publish nothing. Needed: there is no other way yet to rebuild here; packmill wb nmu makes a new binary version."`
	Suite   string `short:"s" help:"Only of this suite." placeholder:"SUITE"`
	Arch    string `short:"a" help:"Only this architecture." placeholder:"ARCH"`
	Builder string `help:"The stanza of control/builders that builds (default: another one than built it, if there is one)." placeholder:"NAME"`
	Keep    string `help:"Keep log and results below this directory, also if all is the same." placeholder:"DIR" type:"path"`
}

func (rebuildCmd) Help() string {
	return `Builds a published package once more, from the source in the pool, in another directory, another locale and time zone and now, and says of each file whether it has the same bits as what was published, by the .buildinfo that is kept. Nothing is published. Run it as the build user, or as root. What differs is kept, with the log; diffoscope shows where. The runner exec does not know of directory and locale.

Exit status: 0 the same, 1 different (or it does not build any more, or nothing fits), 100 wrong use, 111 may pass.

Examples:
  packmill rebuild --check hello
  packmill rebuild --check hello -s stable -a amd64 --json`
}

// rebuilt is the answer for one architecture.
type rebuilt struct {
	Source     string        `json:"source"`
	Version    string        `json:"version"`
	Suite      string        `json:"suite"`
	Arch       string        `json:"arch"`
	Same       bool          `json:"same"`
	BuiltBy    string        `json:"built_by,omitempty"`
	Builder    string        `json:"builder"`
	Files      []rebuiltFile `json:"files"`
	Reason     string        `json:"reason,omitempty"`       // why there is nothing to compare
	Changed    []string      `json:"dependencies,omitempty"` // build-dependencies with other versions: "NAME OLD -> NEW"
	Kept       string        `json:"kept,omitempty"`         // directory with log and results
	Diffoscope []string      `json:"diffoscope,omitempty"`   // commands that show what differs
	pool       map[string]string
}

type rebuiltFile struct {
	Name      string `json:"name"`
	Same      bool   `json:"same"`
	Published string `json:"published,omitempty"` // SHA-256
	Rebuilt   string `json:"rebuilt,omitempty"`
}

func (x *rebuildCmd) Run(c *cli) error {
	if !x.Check {
		return daemon.Wrong{Err: errors.New("say --check: the result is compared and never published; for a new binary version there is packmill wb nmu")}
	}
	t, err := c.open()
	if err != nil {
		return err
	}
	all, err := c.control()
	if err != nil {
		return err
	}
	found, err := t.Find(x.Package, spool.Installed)
	if err != nil {
		return err
	}
	// The newest of each suite and architecture.
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
		return fmt.Errorf("%w: nothing that was built and published here is called %s", errRefused, spool.OneLine(x.Package))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	same := true
	for _, key := range slices.Sorted(maps.Keys(newest)) {
		r, err := x.again(ctx, c, t, all, newest[key])
		if err != nil {
			return err
		}
		if r == nil {
			continue
		}
		c.print(os.Stdout, r, r.text())
		same = same && r.Same
	}
	if !same {
		return fmt.Errorf("%w: not all of it came out the same", errRefused)
	}
	return nil
}

// again builds one architecture once more and compares.
func (x *rebuildCmd) again(ctx context.Context, c *cli, t *spool.Tree, all *control.Settings, f spool.Found) (*rebuilt, error) {
	tk, err := queue.TicketAt(t, f)
	if err != nil {
		return nil, err
	}
	s, ok := all.Suite(f.Place.Suite)
	if !ok {
		return nil, fmt.Errorf("%w: the suite %s is not in the settings any more", errRefused, f.Place.Suite)
	}
	on := f.Arch()
	if on == "all" {
		on = s.IndepOn
	}
	b := x.builder(all, s, tk, f.Arch(), on)
	if b == nil {
		return nil, fmt.Errorf("%w: no builder of control/builders can build %s for %s here; make a chroot with packmill chroot create, or name one with --builder", errRefused, f.Name.ID(), f.Arch())
	}
	infos, err := filepath.Glob(t.Path(f.Dir(), "result", "*.buildinfo"))
	if err != nil {
		return nil, err
	}
	if len(infos) != 1 {
		return nil, fmt.Errorf("%w: %s for %s has no .buildinfo, so there is nothing to compare with: its builder made none", errRefused, f.Name.ID(), f.Arch())
	}
	old, err := readBuildinfo(infos[0])
	if err != nil {
		return nil, err
	}
	r := &rebuilt{Source: tk.Source, Version: tk.Version, Suite: s.Name, Arch: f.Arch(), BuiltBy: tk.Builder, Builder: b.Name, pool: map[string]string{}}
	a, err := archive.Open(t.Path("archive"))
	if err != nil {
		return nil, err
	}
	dsc, sources, err := r.published(ctx, a, tk)
	if err != nil {
		return nil, err
	}
	if c.DryRun {
		fmt.Printf("would build %s for %s again with the builder %s and compare %d files\n", f.Name.ID(), f.Arch(), b.Name, len(old.files))
		return nil, nil
	}
	dir, err := os.MkdirTemp(x.Keep, "packmill-rebuild-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if r.Kept == "" {
			os.RemoveAll(dir)
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(dir, "source"), 0o755); err != nil {
		return nil, err
	}
	for _, name := range sources {
		if err := copyFile(filepath.Join(a.Root(), name), filepath.Join(dir, "source", path.Base(name))); err != nil {
			return nil, err
		}
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	job := &runner.Job{
		Source: tk.Source, Version: tk.Version, Suite: s.Name, Arch: f.Arch(), On: on, Base: s.Base, Network: s.BuildNetwork,
		ExtraDepends: tk.ExtraDepends, ExtraConflicts: tk.ExtraConflicts, Nice: b.Nice, Log: log, Limits: b.LimitsOf(s, tk.Source),
		Dsc: filepath.Join(dir, "source", dsc), Dir: filepath.Join(dir, "work"), Result: filepath.Join(dir, "result"),
		// What a build must not depend on: the place, the locale, the time zone.
		Path: "/build/rebuilt-to-compare/" + tk.Source,
		Env:  []string{"LC_ALL=C", "LANG=C", "TZ=Packmill-13:45", "USER=somebody", "LOGNAME=somebody"},
	}
	b.Cross(job)
	if tk.BinNMU > 0 {
		job.BinNMU = &runner.BinNMU{Number: tk.BinNMU, Changelog: tk.BinNMUText, Maintainer: tk.BinNMUBy, Time: tk.BinNMUTime}
	}
	if err := control.Prepare(t, job, b, s); err != nil {
		return nil, err
	}
	run, err := b.NewRunner()
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
	if infos, err = filepath.Glob(filepath.Join(job.Result, "*.buildinfo")); err != nil || len(infos) != 1 {
		r.Reason, r.Kept = "the new build made no .buildinfo", dir
		return r, err
	}
	now, err := readBuildinfo(infos[0])
	if err != nil {
		return nil, err
	}
	r.compare(old, now)
	if !r.Same || x.Keep != "" {
		r.Kept = dir
	}
	for _, file := range r.Files {
		if at := r.pool[file.Name]; !file.Same && at != "" && file.Rebuilt != "" {
			r.Diffoscope = append(r.Diffoscope, fmt.Sprintf("diffoscope %s %s", filepath.Join(a.Root(), at), filepath.Join(job.Result, file.Name)))
		}
	}
	return r, nil
}

// builder chooses who builds again: the one that was asked for, or one that
// did not build it, or any.
func (x *rebuildCmd) builder(all *control.Settings, s *control.Suite, t *queue.Ticket, arch, on string) *control.Builder {
	var able []*control.Builder
	for i := range all.Builders {
		b := &all.Builders[i]
		if x.Builder != "" && b.Name != x.Builder || b.Never(s, arch, t) != "" {
			continue
		}
		if b.Runner != "exec" && b.Mode != "schroot" {
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

// published finds the source in the archive, its .dsc first, and where the
// pool has its packages. Names are relative to the archive.
func (r *rebuilt) published(ctx context.Context, a *archive.Archive, t *queue.Ticket) (dsc string, sources []string, err error) {
	for _, name := range append([]string{t.Source}, t.Binary...) {
		stanzas, err := a.Show(ctx, r.Suite, name)
		if err != nil {
			return "", nil, err
		}
		for _, text := range stanzas {
			st, err := deb822.ParseOne(name, []byte(text), deb822.Settings)
			if err != nil {
				return "", nil, err
			}
			if at := st.Get("Filename"); at != "" {
				r.pool[path.Base(at)] = at
				continue
			}
			if st.Get("Version") != t.Version || dsc != "" {
				continue
			}
			for line := range strings.Lines(st.Get("Files")) {
				w := deb822.Words(line)
				if len(w) != 3 {
					continue
				}
				if err := policy.CheckFile(w[2]); err != nil {
					return "", nil, err
				}
				sources = append(sources, path.Join(st.Get("Directory"), w[2]))
				if strings.HasSuffix(w[2], ".dsc") {
					dsc = w[2]
				}
			}
		}
	}
	if dsc == "" {
		return "", nil, fmt.Errorf("%w: the source of %s_%s is not in the suite %s any more", errRefused, t.Source, t.Version, r.Suite)
	}
	return dsc, sources, nil
}

// buildinfo is what is compared of a .buildinfo (deb-buildinfo(5)).
type buildinfo struct {
	files    map[string]string // name -> SHA-256
	packages map[string]string // installed -> version
}

func readBuildinfo(name string) (*buildinfo, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	st, err := deb822.ParseOne(filepath.Base(name), data, deb822.Hostile)
	if err != nil {
		return nil, err
	}
	b := &buildinfo{map[string]string{}, map[string]string{}}
	for line := range strings.Lines(st.Get("Checksums-Sha256")) {
		if w := deb822.Words(line); len(w) == 3 && !strings.HasSuffix(w[2], ".dsc") {
			b.files[w[2]] = w[0]
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
func (r *rebuilt) compare(old, now *buildinfo) {
	r.Same = true
	names := map[string]bool{}
	for name := range old.files {
		names[name] = true
	}
	for name := range now.files {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		f := rebuiltFile{Name: name, Published: old.files[name], Rebuilt: now.files[name]}
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

func (r *rebuilt) text() string {
	var b strings.Builder
	verdict := "the same bits"
	if !r.Same {
		verdict = "different"
	}
	by := ""
	if r.BuiltBy != "" {
		by = ", which " + r.BuiltBy + " built"
	}
	fmt.Fprintf(&b, "%s_%s %s in %s%s, built again by %s: %s", r.Source, r.Version, r.Arch, r.Suite, by, r.Builder, verdict)
	if r.Reason != "" {
		fmt.Fprintf(&b, "\n  %s", clean(r.Reason))
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
		fmt.Fprintf(&b, "\n  %-15s %s", word, clean(f.Name))
	}
	if !r.Same && len(r.Changed) > 0 {
		fmt.Fprintf(&b, "\n  build-dependencies that have other versions now: %s", clean(strings.Join(r.Changed, ", ")))
	}
	if r.Kept != "" {
		fmt.Fprintf(&b, "\n  log and results: %s", r.Kept)
	}
	if len(r.Diffoscope) > 0 {
		if _, err := exec.LookPath("diffoscope"); err == nil {
			fmt.Fprintf(&b, "\n  what differs: %s", clean(r.Diffoscope[0]))
		} else {
			b.WriteString("\n  what differs: install diffoscope, then: " + clean(r.Diffoscope[0]))
		}
	}
	return b.String()
}
