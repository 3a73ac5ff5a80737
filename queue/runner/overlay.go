package runner

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/internal/deb822"
	"packmill/internal/policy"
	"packmill/queue/runner/cage"
	"packmill/queue/runner/overlay"
)

// Overlay builds without root, without unpacking and without waiting: each
// build gets namespaces of its own of every kind, and an overlay file system on
// a chroot of Chroots, whose upper layer lies in memory (of the size of
// Limits.Disk) and is gone with the build. Build-dependencies come from apt,
// once for each set of packages: they are kept as a layer beside the chroot.
// When the chroot has them all, or a layer is there, apt is not started. Root of
// the build, and every other user in it, is a subordinate id that no other build
// has at that time. Maintainer scripts and the build have no network, the build
// itself is an ordinary user.
//
// The log has sbuild's sections and footer, and results and dependencies are
// judged alike. What differs from sbuild: build-essential is not asked for
// (the chroot has it), the build user has the uid 1000, and the build path
// is always the same, /build/<source>. Needs Linux 6.6, or 5.11 with Scratch
// on a disk.
type Overlay struct {
	Chroots *Chroots
	Refresh time.Duration // apt-get update first if the chroot is older; 0: 24 h
	Scratch string        // directory for upper layers; empty: in memory
	Layers  int64         // bytes of installed build-dependencies that are kept; 0: 8 GiB
	Ccache  int64         // bytes of all compiler caches, see ccache.go; 0: builds have none
}

// Ready looks for the build user, and what chroots of the architecture need.
func (r *Overlay) Ready(arch string) error { return r.Chroots.Ready(arch) }

// overlayBuild is one build of the overlay runner.
type overlayBuild struct {
	*ownChroot
	job     *Job
	dsc     *dscFile
	on      string // the chroot's architecture
	size    int64  // of layers that are kept
	scratch string // directory for upper layers; empty: in memory
	refresh time.Duration
	order   overlay.Order
	layer   *layer
	cache   *cache     // nil: none
	exit    *cage.Exit // of the runs so far
}

// Run builds the job.
func (r *Overlay) Run(ctx context.Context, job *Job) (*Result, error) {
	begin := time.Now()
	b := &overlayBuild{job: job, on: job.chrootArch(Machine()), size: r.Layers, scratch: r.Scratch,
		refresh: r.Refresh}
	if err := b.check(); err != nil {
		return nil, err
	}
	if res, err := b.allowed(); res != nil || err != nil {
		return res, err
	}
	if err := r.Chroots.forJob(ctx, job, b.on); err != nil {
		return nil, err
	}
	var err error
	if b.ownChroot, err = r.Chroots.own(ctx, job.Suite, b.on, job.Log); err != nil {
		if ctx.Err() != nil {
			res := &Result{Stopped: true}
			res.ended(job, &cage.Exit{Stopped: true})
			return res, nil
		}
		return nil, err
	}
	defer b.release()
	if err := errors.Join(empty(job.Dir), empty(job.Result)); err != nil {
		return nil, err
	}
	if err := b.unpack(ctx, job.Log); err != nil {
		return nil, fmt.Errorf("unpack chroot: %w", err)
	}
	if b.cache = r.cacheFor(job); b.cache != nil {
		defer b.cache.end()
	}
	if err := b.describe(); err != nil {
		return nil, err
	}
	ready := time.Now()
	if err := b.install(ctx); err != nil {
		return nil, err
	}
	defer b.layer.release()
	if err := b.build(ctx); err != nil {
		return nil, err
	}
	after := time.Now()
	res := b.result()
	b.keepCache(res)
	res.Usage.Overhead = ready.Sub(begin) + time.Since(after) + b.exit.Spent
	return res, nil
}

// check refuses what cannot be built, and reads the .dsc.
func (b *overlayBuild) check() (err error) {
	job := b.job
	if err := job.check(); err != nil {
		return err
	}
	if job.Arch != "all" && job.Arch != b.on {
		return fmt.Errorf("the overlay runner does not cross-build %s on %s; use sbuild for this builder: %w",
			job.Arch, b.on, ErrSetup)
	}
	if job.Path != "" &&
		(!filepath.IsAbs(job.Path) || filepath.Clean(job.Path) != job.Path || filepath.Dir(job.Path) == "/") {
		return fmt.Errorf("build path %q is not a clean absolute path with a directory above it", job.Path)
	}
	b.dsc, err = readDsc(job)
	return err
}

// allowed returns a result if the source does not build on the architecture.
func (b *overlayBuild) allowed() (*Result, error) {
	archs, err := policy.ArchList(b.dsc.stanza.Get("Architecture"))
	if err != nil {
		return nil, fmt.Errorf("read source package: %w", b.dsc.stanza.Errorf("Architecture", "%v", err))
	}
	if policy.BuildsOn(archs, b.job.Arch) {
		return nil, nil
	}
	fmt.Fprintf(b.job.Log, "The source's Architecture, %s, does not have %s.\n", strings.Join(archs, " "), b.job.Arch)
	return &Result{Stage: "arch-check", Status: "skipped", Outcome: Attempted,
		Reason: fmt.Sprintf("skipped: the source's Architecture field does not allow %s", b.job.Arch)}, nil
}

// run runs an order in the namespaces. The size of these directories is watched.
func (b *overlayBuild) run(
	ctx context.Context, in *overlay.Order, files []*os.File, disk ...string,
) (*cage.Exit, error) {
	detail, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("build order: %w", err)
	}
	o := b.ownChroot.order(cage.AsRoot, nil)
	o.Verb, o.Detail, o.Nice = overlay.Verb, detail, b.job.Nice
	o.Linux32 = personalityOf(b.on) != "" && personalityOf(Machine()) == ""
	c := b.job.cage(disk...)
	c.Lock = append(c.Lock, b.locks()...)
	for _, l := range b.layer.chain() {
		c.Lock = append(c.Lock, l.lock)
	}
	c.Limits, c.Files, c.Take = c.Limits.After(b.exit), files, cage.TakeIn(b.job.Result)
	if in.Ccache != nil {
		c.Take = b.cache.behind(c.Take)
	}
	x, err := c.Run(ctx, o)
	if err != nil {
		return nil, err
	}
	x.After(b.exit)
	b.exit = x
	return x, nil
}

// install sees to a layer with the build-dependencies, where they are kept.
func (b *overlayBuild) install(ctx context.Context) (err error) {
	if !b.order.Install {
		return nil
	}
	if err := b.keepsLayers(); err != nil {
		fmt.Fprintf(b.job.Log, "W: build-dependencies are installed for this build alone: %v\n", err)
		return b.withoutCache("ccache would be installed for this build alone, too")
	}
	if b.layer, err = b.findLayer(ctx); err != nil {
		return err
	}
	if x := b.exit; b.layer == nil && b.cache != nil && x.Stage == "install-deps" && !x.Fetch {
		if err := b.withoutCache("ccache cannot be installed beside the build-dependencies"); err != nil {
			return err
		}
		return b.install(ctx)
	}
	if b.layer == nil && b.otherwise() {
		fmt.Fprintln(b.job.Log, "W: what apt would install has changed meanwhile, so this build installs it for itself")
		b.order.Header = "" // the log has it
		return b.withoutCache("ccache would be installed for this build alone, too")
	}
	if b.layer == nil {
		return nil
	}
	b.order.Layers, b.order.Install = b.layer.uppers(), false
	b.order.Note = fmt.Sprintf("Installed at %s, and kept since: %s", b.layer.made, b.layer.packages)
	if b.exit != nil { // the making of the layer has written it
		b.order.Header = ""
	}
	return nil
}

// otherwise reports whether no layer was made because apt would not install any more what it had said: something was
// published between the two.
func (b *overlayBuild) otherwise() bool {
	x := b.exit
	return x != nil && x.Layer == "" && x.Stage == "" && !x.Killed && x.Limit == "" && !x.Stopped
}

// build builds, unless the making of a layer came to another end.
func (b *overlayBuild) build(ctx context.Context) error {
	if b.exit != nil && b.layer == nil && !b.otherwise() {
		return nil
	}
	var files []*os.File
	for _, name := range b.dsc.files {
		f, err := os.Open(filepath.Join(filepath.Dir(b.job.Dsc), name))
		if err != nil {
			return fmt.Errorf("read source package: %w", err)
		}
		defer f.Close()
		files = append(files, f)
	}
	b.order.Sources = b.dsc.files
	if b.cache != nil {
		f := b.cache.open()
		if b.order.Ccache = (&overlay.Ccache{Full: f != nil, Most: b.cache.most}); f != nil {
			defer f.Close()
			files = append(files, f)
		}
	}
	disk := []string{b.job.Result}
	if b.scratch != "" {
		dir, lock, err := scratchDir(b.scratch, "packmill-overlay.", b.store.removeDir)
		if err != nil {
			return err
		}
		defer lock.Close()
		defer b.store.removeDir(dir)
		if err := chown(dir, b.user); err != nil {
			return fmt.Errorf("scratch space for builds: %w", err)
		}
		b.order.Upper = dir
		disk = append(disk, dir)
	}
	_, err := b.run(ctx, &b.order, files, disk...)
	return err
}

// result judges how the build ended.
func (b *overlayBuild) result() *Result {
	x, job := b.exit, b.job
	res := &Result{Exit: x.Exit, Usage: x.Usage, Limit: x.Limit, Stopped: x.Stopped, Stage: x.Stage, Status: x.Status}
	res.Usage.CacheHits, res.Usage.CacheMisses = x.Hits, x.Misses
	if res.ended(job, x) {
		return res
	}
	switch {
	case x.Signal != 0 && x.Stage != "build":
		res.Exit, res.Reason = -1, fmt.Sprintf("stage %s was ended by signal %d", x.Stage, x.Signal)
	case x.Stage == "":
		res.Judge(job)
	case x.Stage == "build":
		res.attempted(job, "the build failed in stage build")
	case x.Stage == "unpack":
		tail, err := tailOf(job.Log, 256<<10)
		if err != nil {
			res.Reason = fmt.Sprintf("the log cannot be read: %v", err)
			break
		}
		res.unpacked(job, tail)
	case x.Stage == "install-deps" && x.Fetch:
		res.Reason = "build-dependencies could not be fetched"
	case x.Stage == "install-deps":
		res.dependencies(job, b.dsc)
	default:
		res.Reason = fmt.Sprintf("stage %s ended with exit status %d: trouble of the builder", x.Stage, x.Exit)
	}
	return res
}

// environment is base with more, each variable once: what comes later counts.
func environment(base, more []string) []string {
	var out []string
	at := map[string]int{}
	for _, e := range append(base, more...) {
		key, _, _ := strings.Cut(e, "=")
		if i, ok := at[key]; ok {
			out[i] = e
			continue
		}
		at[key] = len(out)
		out = append(out, e)
	}
	return out
}

// describe writes down what happens in the namespaces.
func (b *overlayBuild) describe() error {
	job := b.job
	in := overlay.Order{
		Root: b.root(), Size: job.Limits.Disk, Source: job.Source, Dsc: filepath.Base(job.Dsc), Path: job.Path,
		Suite: job.Suite, Binary: job.binary(), Profiles: job.Profiles, Network: job.Network, Keys: map[string]string{},
		Env: environment([]string{
			"PATH=" + cage.DefaultPath + ":/usr/games", "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "HOME=/nonexistent", "SHELL=/bin/sh",
			"USER=packmill", "LOGNAME=packmill", "DEB_BUILD_OPTIONS=" + job.buildOptions(),
		}, job.Env),
		Note: "All are installed.",
		Header: fmt.Sprintf("packmill: %s %s for %s and %s on %s, %s\n",
			job.Source, job.BinaryVersion(), job.Suite, job.Arch, b.on, time.Now().UTC().Format(time.RFC3339)),
	}
	in.Update = b.Stale(nil, cmp.Or(b.refresh, 24*time.Hour), time.Now()) != ""
	for i := range job.Repos {
		line, err := job.Repos[i].lines(i)
		if err != nil {
			return err
		}
		key := fmt.Sprintf("/etc/apt/keyrings/packmill%d.asc", i)
		in.Keys[key] = string(job.Repos[i].Key)
		in.List += strings.Replace(line, "deb ", "deb [signed-by="+key+"] ", 1) + "\n"
		in.Archives = append(in.Archives, job.Repos[i].Dir)
		in.Pin = cmp.Or(in.Pin, job.Repos[i].PinOf())
	}
	deps, conflicts, err := b.dsc.wishes(job, b.on)
	if err != nil {
		return err
	}
	if b.cache != nil {
		deps = append(deps, []policy.Relation{{Name: "ccache"}})
	}
	in.Depends, in.Conflict = deps.String(), conflicts.String()
	have, err := b.installed(deps, conflicts)
	if err != nil {
		return err
	}
	in.Install = !have
	if job.BinNMU != nil {
		in.Changes = job.binNMUEntry()
	}
	b.order = in
	return nil
}

// binary is the option of dpkg-buildpackage for the packages that are built.
func (j *Job) binary() string {
	switch {
	case j.Arch == "all":
		return "-A"
	case j.Indep:
		return "-b"
	}
	return "-B"
}

// binNMUEntry is the changelog's entry of a binNMU.
func (j *Job) binNMUEntry() string {
	return fmt.Sprintf("%s (%s) %s; urgency=low, binary-only=yes\n\n"+
		"  * Binary-only non-maintainer upload for %s; no source changes.\n  * %s\n\n -- %s  %s\n\n",
		j.Source, j.BinaryVersion(), j.Suite, j.Arch, j.BinNMU.Changelog, j.BinNMU.maintainer(),
		j.BinNMU.Time.UTC().Format(time.RFC1123Z))
}

// maintainer is who stands in the changelog.
func (b *BinNMU) maintainer() string {
	if b.Maintainer == "" {
		return "Build daemon <nobody@localhost>"
	}
	return b.Maintainer
}

// installed reports whether the chroot itself has the dependencies and none of
// the conflicts.
func (c *Chroot) installed(deps, conflicts policy.Relations) (bool, error) {
	st, err := readStatus(filepath.Join(c.dir, statusFile))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // apt is asked
	}
	if err != nil {
		return false, fmt.Errorf("chroot's dpkg status: %w", err)
	}
	return !slices.ContainsFunc(deps, func(or []policy.Relation) bool { return !st.has(or[0]) }) &&
		!slices.ContainsFunc(conflicts, func(or []policy.Relation) bool {
			return st.has(policy.Relation{Name: or[0].Name, Op: or[0].Op, Version: or[0].Version})
		}), nil
}

// installed is what dpkg's status file says of the packages in a chroot.
type installed struct {
	versions map[string][]string // of a real package
	provided map[string][]string // of a name, by Provides; "" without a version
}

// readStatus reads dpkg's status file.
func readStatus(path string) (*installed, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st := &installed{map[string][]string{}, map[string][]string{}}
	s := deb822.NewScanner(f)
	for s.Next() {
		if string(s.Get("Status")) != "install ok installed" {
			continue
		}
		name := string(s.Get("Package"))
		st.versions[name] = append(st.versions[name], string(s.Get("Version")))
		if p := s.Get("Provides"); len(p) > 0 {
			rel, err := policy.ParseRelations(string(p))
			if err != nil {
				continue
			}
			for _, or := range rel {
				st.provided[or[0].Name] = append(st.provided[or[0].Name], or[0].Version)
			}
		}
	}
	return st, s.Err()
}

// has reports whether a package that satisfies the relation is installed. It
// may say no where apt would say yes, never the other way round.
func (st *installed) has(r policy.Relation) bool {
	if r.Qualifier != "" && r.Qualifier != "any" && r.Qualifier != "native" {
		return false
	}
	p := policy.Relation{Name: r.Name, Op: r.Op, Version: r.Version} // whatever the architecture
	if slices.ContainsFunc(st.versions[r.Name], p.SatisfiedBy) {
		return true
	}
	for _, v := range st.provided[r.Name] {
		if r.Op == "" || v != "" && p.SatisfiedBy(v) {
			return true
		}
	}
	return false
}
