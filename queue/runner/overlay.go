package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/internal/deb822"
	"packmill/internal/policy"
)

// Overlay builds without root, without unpacking and without waiting: each
// build gets a user, mount, pid, ipc and uts namespace with an overlay file
// system on a chroot of Chroots, whose upper layer lies in memory (of the
// size of Limits.Disk) and is gone with the build. Build-dependencies come
// from apt, once for each set of packages: they are kept as a layer beside the
// chroot. When the chroot has them all, or a layer is there, apt is not
// started. The build itself runs as an ordinary user in a network namespace
// of its own.
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
}

// inside is what the overlay's helper is told: all names are relative, all
// text is checked by the daemon.
type inside struct {
	Root     string   // the chroot's directory
	Layer    string   // directory with installed build-dependencies, above Root; empty: none
	Make     bool     // make such a directory and end
	Have     []string // keys of those that are there; then it is not made
	Install  bool     // install the build-dependencies in the build's own layer
	Note     string   // what the log says of build-dependencies that are installed
	Upper    string   // directory for the upper layer; empty: in memory
	Size     int64    // bytes of the file system in memory; 0: half of the memory
	Sources  []string // names of the files whose descriptors begin at sourceFd
	Source   string   // source package, for the name of the build's directory
	Dsc      string
	Path     string // build directory; empty: /build/<source>
	Suite    string
	Binary   string // dpkg-buildpackage's -b, -B or -A
	Profiles []string
	Env      []string
	Network  bool
	Update   bool   // apt-get update
	List     string // apt lines of further repositories
	Keys     map[string]string
	Archives []string // local archives to mount, by number
	Depends  string   // build-dependencies, first alternatives only
	Conflict string
	Changes  string // text before the changelog, for a binNMU
	Header   string // first lines of the log

	key   string // of the layer
	tasks int    // more processes than this are refused to the build; 0: no limit
}

// Further descriptors of an overlay's helper.
const (
	chrootFd = 6 // the chroot's lock
	resultFd = 7 // the result directory
	sourceFd = 8 // the first of the source files
)

// Ready looks for the build user, and what chroots of the architecture need.
func (r *Overlay) Ready(arch string) error { return r.Chroots.Ready(arch) }

// Run builds the job.
func (r *Overlay) Run(ctx context.Context, job *Job) (*Result, error) {
	begin := time.Now()
	if err := job.check(); err != nil {
		return nil, err
	}
	machine := Machine()
	on := job.chrootArch(machine)
	if job.Arch != "all" && job.Arch != on {
		return nil, fmt.Errorf("the overlay runner does not cross-build %s on %s; use sbuild for this builder: %w", job.Arch, on, ErrSetup)
	}
	user, err := lookupAccount(r.Chroots.User)
	if err != nil {
		return nil, err
	}
	ids, err := user.subordinates()
	if err != nil {
		return nil, err
	}
	dsc, err := readDsc(job)
	if err != nil {
		return nil, err
	}
	if err := r.Chroots.forJob(ctx, job, on); err != nil {
		return nil, err
	}
	chroot, err := r.Chroots.use(job.Suite, on)
	if err != nil {
		return nil, err
	}
	defer chroot.release()
	if err := errors.Join(empty(job.Dir), empty(job.Result)); err != nil {
		return nil, err
	}
	res := &Result{}
	archs, err := policy.ArchList(dsc.stanza.Get("Architecture"))
	if err != nil {
		return nil, fmt.Errorf("read source package: %w", dsc.stanza.Errorf("Architecture", "%v", err))
	}
	if !policy.BuildsOn(archs, job.Arch) {
		fmt.Fprintf(job.Log, "The source's Architecture, %s, does not have %s.\n", strings.Join(archs, " "), job.Arch)
		res.Stage, res.Status = "arch-check", "skipped"
		res.Outcome, res.Reason = Attempted, fmt.Sprintf("skipped: the source's Architecture field does not allow %s", job.Arch)
		return res, nil
	}

	in, err := r.inside(job, dsc, chroot, on)
	if err != nil {
		return nil, err
	}
	if os.Getuid() == 0 {
		if err := os.Chown(job.Result, user.UID, user.GID); err != nil {
			return nil, fmt.Errorf("result directory: %w", err)
		}
	}
	result, err := os.Open(job.Result)
	if err != nil {
		return nil, fmt.Errorf("result directory: %w", err)
	}
	defer result.Close()
	hold, disk := []*os.File{chroot.lock, result}, []string{job.Result}
	for _, name := range dsc.files {
		f, err := os.Open(filepath.Join(filepath.Dir(job.Dsc), name))
		if err != nil {
			return nil, fmt.Errorf("read source package: %w", err)
		}
		defer f.Close()
		hold = append(hold, f)
	}
	in.Sources = dsc.files
	ready := time.Now()
	var x *exit // of the runs so far
	run := func(in *inside, hold []*os.File, disk []string) (*exit, error) {
		o := &order{Verb: "overlay", Init: true, Roots: ids, Nice: job.Nice, Inside: in, Personality: personalityOf(on) != "" && personalityOf(machine) == ""}
		return (&cage{log: job.Log, lock: job.Lock, limits: job.Limits.after(x), hold: hold, disk: disk}).run(ctx, o, ids.mapLater())
	}
	keep := in.Install
	if err := chroot.layers(); keep && err != nil {
		keep = false
		fmt.Fprintf(job.Log, "W: build-dependencies are installed for this build alone: %v\n", err)
	}
	if keep {
		l, made, err := r.layer(ctx, job, *in, chroot, ids, run)
		if err != nil {
			return nil, err
		}
		x = made
		if l != nil {
			defer l.lock.Close()
			hold = append(hold, l.lock)
			in.Layer, in.Install = l.upper(), false
			in.Note = fmt.Sprintf("Installed at %s, and kept since: %s", l.made, l.packages)
			if made != nil {
				in.Header = ""
			}
		}
	}
	if in.Layer != "" || x == nil {
		if r.Scratch != "" {
			dir, lock, err := scratchDir(r.Scratch, "packmill-overlay.", func(dir string) error { return r.Chroots.removeDir(dir, ids) })
			if err != nil {
				return nil, err
			}
			defer lock.Close()
			defer r.Chroots.removeDir(dir, ids)
			in.Upper = dir
			hold = append(hold, lock)
			if os.Getuid() == 0 {
				if err := os.Chown(in.Upper, user.UID, user.GID); err != nil {
					return nil, fmt.Errorf("scratch space for builds: %w", err)
				}
			}
			disk = append(disk, in.Upper)
		}
		built, err := run(in, hold, disk)
		if err != nil {
			return nil, err
		}
		built.after(x)
		x = built
	}
	after := time.Now()
	res.Exit, res.Usage, res.Limit, res.Stopped, res.Stage, res.Status = x.Exit, x.Usage, x.Limit, x.Stopped, x.Stage, x.Status
	defer func() { res.Usage.Overhead = ready.Sub(begin) + time.Since(after) + x.Spent }()
	if err := takeBack(job.Result); err != nil {
		return nil, err
	}
	if res.ended(job, x) {
		return res, nil
	}
	switch {
	case x.Signal != 0 && x.Stage != "build":
		res.Exit, res.Reason = -1, fmt.Sprintf("stage %s was ended by signal %d", x.Stage, x.Signal)
	case x.Stage == "":
		res.judge(job)
	case x.Stage == "build":
		res.attempted(job, "the build failed in stage build")
	case x.Stage == "unpack":
		tail, err := tailOf(job.Log, 256<<10)
		if err != nil {
			return nil, err
		}
		res.unpacked(job, tail)
	case x.Stage == "install-deps" && x.Fetch:
		res.Reason = "build-dependencies could not be fetched"
	case x.Stage == "install-deps":
		res.dependencies(job, dsc)
	default:
		res.Reason = fmt.Sprintf("stage %s ended with exit status %d: trouble of the builder", x.Stage, x.Exit)
	}
	return res, nil
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

// inside writes down what happens in the namespace.
func (r *Overlay) inside(job *Job, dsc *dscFile, chroot *Chroot, on string) (*inside, error) {
	in := &inside{
		Root: filepath.Join(chroot.dir, rootDir), Size: job.Limits.Disk, Source: job.Source, Dsc: filepath.Base(job.Dsc), Path: job.Path,
		Suite: job.Suite, Profiles: job.Profiles, Network: job.Network, Keys: map[string]string{},
		Env: environment([]string{
			"PATH=" + defaultPath + ":/usr/games", "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "HOME=/nonexistent", "SHELL=/bin/sh",
			"USER=packmill", "LOGNAME=packmill", "DEB_BUILD_OPTIONS=" + job.buildOptions(),
		}, job.Env),
	}
	if in.Path != "" && (!filepath.IsAbs(in.Path) || filepath.Clean(in.Path) != in.Path) {
		return nil, fmt.Errorf("build path %q is not a clean absolute path", in.Path)
	}
	switch {
	case job.Arch == "all":
		in.Binary = "-A"
	case job.Indep:
		in.Binary = "-b"
	default:
		in.Binary = "-B"
	}
	refresh := r.Refresh
	if refresh == 0 {
		refresh = 24 * time.Hour
	}
	in.Update = chroot.Stale(nil, refresh, time.Now()) != ""
	for i := range job.Repos {
		line, err := job.Repos[i].lines(i)
		if err != nil {
			return nil, err
		}
		key := fmt.Sprintf("/etc/apt/keyrings/packmill%d.asc", i)
		in.Keys[key] = string(job.Repos[i].Key)
		in.List += strings.Replace(line, "deb ", "deb [signed-by="+key+"] ", 1) + "\n"
		in.Archives = append(in.Archives, job.Repos[i].Dir)
	}
	deps, conflicts, err := dsc.wishes(job, on)
	if err != nil {
		return nil, err
	}
	in.Depends, in.Conflict = deps.String(), conflicts.String()
	have, err := chroot.installed(deps, conflicts)
	if err != nil {
		return nil, err
	}
	in.Install = !have
	in.Note = "All are installed."
	if b := job.BinNMU; b != nil {
		maintainer := b.Maintainer
		if maintainer == "" {
			maintainer = "Build daemon <nobody@localhost>"
		}
		in.Changes = fmt.Sprintf("%s (%s) %s; urgency=low, binary-only=yes\n\n  * Binary-only non-maintainer upload for %s; no source changes.\n  * %s\n\n -- %s  %s\n\n",
			job.Source, job.BinaryVersion(), job.Suite, job.Arch, b.Changelog, maintainer, b.Time.UTC().Format(time.RFC1123Z))
	}
	in.Header = fmt.Sprintf("packmill: %s %s for %s and %s on %s, %s\n", job.Source, job.BinaryVersion(), job.Suite, job.Arch, on, time.Now().UTC().Format(time.RFC3339))
	return in, nil
}

// installed reports whether the chroot itself has the dependencies and none of
// the conflicts.
func (c *Chroot) installed(deps, conflicts policy.Relations) (bool, error) {
	st, err := readStatus(filepath.Join(c.dir, rootDir, "var/lib/dpkg/status"))
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
