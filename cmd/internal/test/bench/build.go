package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"packmill/queue/runner"
)

// buildFigures measures the runners on the same sources: a tiny package and
// hello, each built bare by dpkg-buildpackage on this machine, by the overlay
// runner, by our sbuild and by sbuild as it comes; without their tests, which
// would need more on this machine than debhelper. The chroot is kept in
// PACKMILL_TEST_CACHE, as the system tests keep it; root names the build user
// in PACKMILL_BUILD_USER.
func buildFigures(b *bench) error {
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	if err := execFigure(b); err != nil {
		return err
	}
	bin, err := programs(b, "packmill", "buildd", "internal/test/fakebuilder")
	if err != nil {
		return err
	}
	if err := overheadFigure(b, bin); err != nil {
		return fmt.Errorf("overhead: %w", err)
	}
	if err := grepFigures(b, bin); err != nil {
		return fmt.Errorf("log grep: %w", err)
	}
	chroots, arch, err := benchChroots(b)
	if err != nil {
		return err
	}
	for _, s := range []benchSource{{"tiny", makeTiny, 5}, {"hello", fetchHello, 4}} {
		if err := sourceFigures(b, s, chroots, arch); err != nil {
			return err
		}
	}
	return nil
}

// benchSource is a source whose builds are measured.
type benchSource struct {
	name string
	make func(dir string) error
	runs int // of which the quickest counts
}

// sourceFigures measures the builds of one source.
func sourceFigures(b *bench, s benchSource, chroots *runner.Chroots, arch string) error {
	dir := filepath.Join(b.dir, s.name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := s.make(dir); err != nil {
		return fmt.Errorf("source of %s: %w", s.name, err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.dsc"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("source of %s: found %v, %v", s.name, found, err)
	}
	dsc := found[0]
	version := strings.TrimSuffix(dsc[strings.LastIndex(dsc, "_")+1:], ".dsc")
	b.progress("building %s: bare, overlay, sbuild", s.name)
	run := func(r runner.Runner) func() (took, error) {
		return func() (took, error) { return runnerBuild(b, r, dsc, s.name, version, arch) }
	}
	bare, err := overlayFigures(b, s, dsc, run(&runner.Overlay{Chroots: chroots}))
	if err != nil {
		return err
	}
	best, err := inTurn(1, run(&runner.Sbuild{Chroots: chroots}))
	if err != nil {
		return err
	}
	ours := best[0]
	plain, err := plainSbuild(b, chroots, arch, dsc)
	if err != nil {
		return fmt.Errorf("sbuild as it comes, of %s: %w", s.name, err)
	}
	b.figure(Figure{
		Name: "build." + s.name + ".sbuild", Value: ours.wall.Seconds(), Unit: "s", Versus: "sbuild as it comes",
		Ratio: ours.wall.Seconds() / plain.wall.Seconds(), Goal: "ratio <= 0.95", Met: ours.wall.Seconds() <= 0.95*plain.wall.Seconds(),
	})
	b.figure(Figure{
		Name: "build." + s.name + ".sbuild.cpu", Value: ours.cpu.Seconds(), Unit: "s",
		Versus: bareBuilds, Ratio: ours.cpu.Seconds() / bare.cpu.Seconds(),
	})
	return nil
}

const bareBuilds = "bare dpkg-buildpackage"

// overlayFigures measures the overlay runner beside bare builds, and returns what those took.
func overlayFigures(b *bench, s benchSource, dsc string, overlay func() (took, error)) (took, error) {
	// The first build of a set of build-dependencies makes their layer.
	first, err := overlay()
	if err != nil {
		return took{}, err
	}
	best, err := inTurn(s.runs, func() (took, error) { return bareBuild(b, dsc) }, overlay)
	if err != nil {
		return took{}, fmt.Errorf("builds of %s: %w", s.name, err)
	}
	bare := best[0]
	b.figure(Figure{Name: "build." + s.name + ".bare", Value: bare.wall.Seconds(), Unit: "s"})
	b.figure(Figure{Name: "build." + s.name + ".bare.cpu", Value: bare.cpu.Seconds(), Unit: "s"})
	b.figure(Figure{
		Name: "build." + s.name + ".overlay.first", Value: first.wall.Seconds(), Unit: "s",
		Versus: bareBuilds, Ratio: first.wall.Seconds() / bare.wall.Seconds(),
	})
	for _, f := range []struct {
		name          string
		overlay, bare time.Duration
	}{{"overlay", best[1].wall, bare.wall}, {"overlay.cpu", best[1].cpu, bare.cpu}} {
		b.figure(Figure{
			Name: "build." + s.name + "." + f.name, Value: f.overlay.Seconds(), Unit: "s", Versus: bareBuilds,
			Ratio: f.overlay.Seconds() / f.bare.Seconds(), Goal: "at most 1.0 s more", Met: f.overlay-f.bare <= time.Second,
		})
	}
	return bare, nil
}

// took is what a build took, from outside and by the processors.
type took struct{ wall, cpu time.Duration }

// inTurn runs each n times, one after the other, and returns the smallest times
// of each: what else runs on a machine only ever adds, and to all alike.
func inTurn(n int, builds ...func() (took, error)) ([]took, error) {
	best := make([]took, len(builds))
	for i := range n {
		for j, f := range builds {
			t, err := f()
			if err != nil {
				return nil, err
			}
			if i == 0 {
				best[j] = t
			}
			best[j] = took{min(best[j].wall, t.wall), min(best[j].cpu, t.cpu)}
		}
	}
	return best, nil
}

// repeat returns the middle of several runs.
func repeat(n int, f func() (time.Duration, error)) (time.Duration, error) {
	var took []time.Duration
	for range n {
		d, err := f()
		if err != nil {
			return 0, err
		}
		took = append(took, d)
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// execFigure measures what the runner adds to a program.
func execFigure(b *bench) error {
	program := filepath.Join(b.dir, "builder")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nexit 2\n"), 0o755); err != nil {
		return err
	}
	source := filepath.Join(b.dir, "exec")
	if err := os.Mkdir(source, 0o755); err != nil {
		return err
	}
	dsc := filepath.Join(source, "none_1.dsc")
	if err := os.WriteFile(dsc, []byte("Source: none\n"), 0o644); err != nil {
		return err
	}
	const runs = 40
	bare, err := repeat(runs, func() (time.Duration, error) {
		start := time.Now()
		exec.Command(program).Run()
		return time.Since(start), nil
	})
	if err != nil {
		return err
	}
	ours, err := repeat(runs, func() (time.Duration, error) {
		start := time.Now()
		_, err := runJob(b, &runner.Exec{Path: program}, dsc, "none", "1", "amd64")
		return time.Since(start), err
	})
	if err != nil {
		return err
	}
	b.figure(Figure{Name: "build.exec.overhead", Value: (ours - bare).Seconds(), Unit: "s", Versus: "the program alone",
		Ratio: ours.Seconds() / bare.Seconds(), Goal: "< 0.3 s", Met: ours-bare < 300*time.Millisecond})
	return nil
}

// runJob builds once, in fresh directories.
func runJob(b *bench, r runner.Runner, dsc, source, version, arch string) (*runner.Result, error) {
	res, _, err := runJobLog(b, r, dsc, source, version, arch)
	return res, err
}

// runJobLog is runJob, with the log.
func runJobLog(b *bench, r runner.Runner, dsc, source, version, arch string) (*runner.Result, []byte, error) {
	dir, err := os.MkdirTemp(b.dir, "job-")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	res, err := r.Run(context.Background(), &runner.Job{
		Source: source, Version: version, Suite: "sid", Arch: arch, Dsc: dsc, Log: log, Parallel: 2,
		Profiles: []string{"nocheck"},
		Dir:      filepath.Join(dir, "work"), Result: filepath.Join(dir, "result"),
		Limits: runner.Limits{Wall: time.Hour, Disk: 8 << 30},
	})
	if err != nil {
		return nil, nil, err
	}
	text, err := os.ReadFile(log.Name())
	return res, text, err
}

// runnerBuild builds and insists on a good result.
func runnerBuild(b *bench, r runner.Runner, dsc, source, version, arch string) (took, error) {
	start := time.Now()
	res, err := runJob(b, r, dsc, source, version, arch)
	if err != nil {
		return took{}, err
	}
	wall := time.Since(start)
	if res.Outcome != runner.Good {
		return took{}, fmt.Errorf("%T: %v: %s", r, res.Outcome, res.Reason)
	}
	return took{wall, res.Usage.CPU}, nil
}

// benchChroots finds or makes the chroot.
func benchChroots(b *bench) (*runner.Chroots, string, error) {
	cache := os.Getenv("PACKMILL_TEST_CACHE")
	if cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil || os.Getuid() == 0 {
			dir = "/var/cache"
		}
		cache = filepath.Join(dir, "packmill-test")
	}
	c := &runner.Chroots{Dir: filepath.Join(cache, "chroots")}
	if os.Getuid() == 0 {
		if c.User = os.Getenv("PACKMILL_BUILD_USER"); c.User == "" {
			c.User = "packmill-test"
		}
	}
	out, err := exec.Command("dpkg", "--print-architecture").Output()
	if err != nil {
		return nil, "", err
	}
	arch := strings.TrimSpace(string(out))
	base, err := runner.SystemBase()
	if err != nil {
		return nil, "", err
	}
	b.progress("looking for a fresh chroot in %s, or making one", c.Dir)
	_, err = c.Fresh(context.Background(), runner.Recipe{Suite: "sid", Arch: arch, Base: base[:1]}, 24*time.Hour)
	return c, arch, err
}

// makeTiny makes a source package that takes nothing but make and dpkg.
func makeTiny(dir string) error {
	tree := filepath.Join(dir, "tiny-1.0")
	for path, text := range map[string]string{
		"debian/control": "Source: tiny\nSection: devel\nPriority: optional\n" +
			"Maintainer: A Builder <builder@example.org>\nStandards-Version: 4.6.2\nRules-Requires-Root: no\n\n" +
			"Package: tiny\nArchitecture: any\nDescription: tiny\n Tiny.\n",
		"debian/changelog": "tiny (1.0) unstable; urgency=medium\n\n  * First.\n\n" +
			" -- A Builder <builder@example.org>  Sat, 21 Nov 2026 00:00:00 +0000\n",
		"debian/source/format": "3.0 (native)\n",
		"debian/rules": "#!/usr/bin/make -f\nbuild build-arch build-indep clean binary-indep:\n" +
			"binary binary-arch:\n\tmkdir -p debian/tiny/DEBIAN\n\tdpkg-gencontrol -ptiny -Pdebian/tiny\n" +
			"\tdpkg-deb --root-owner-group -b debian/tiny ..\n",
	} {
		path = filepath.Join(tree, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			return err
		}
	}
	cmd := exec.Command("dpkg-source", "-b", tree)
	cmd.Dir = dir
	if err := output(cmd); err != nil {
		return err
	}
	return os.RemoveAll(tree)
}

// fetchHello downloads the source package hello from this machine's own
// mirror, with lists of its own.
func fetchHello(dir string) error {
	base, err := runner.SystemBase()
	if err != nil {
		return err
	}
	state := dir + ".apt"
	defer os.RemoveAll(state)
	if err := os.MkdirAll(filepath.Join(state, "lists/partial"), 0o755); err != nil {
		return err
	}
	list := filepath.Join(state, "sources.list")
	if err := os.WriteFile(list, []byte(strings.Replace(base[0], "deb ", "deb-src ", 1)+"\n"), 0o644); err != nil {
		return err
	}
	options := []string{"-qq", "-o", "Dir::Etc::SourceList=" + list, "-o", "Dir::Etc::SourceParts=/nonexistent",
		"-o", "Dir::State::Lists=" + state + "/lists",
		"-o", "Dir::Cache=" + state, "-o", "APT::Sandbox::User=root"}
	for _, args := range [][]string{{"update"}, {"source", "--download-only", "hello"}} {
		cmd := exec.Command("apt-get", append(options, args...)...)
		cmd.Dir = dir
		if err := output(cmd); err != nil {
			return err
		}
	}
	return nil
}

// output runs a command; its error carries what it said.
func output(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out[max(0, len(out)-1000):])
	}
	return nil
}

// bareBuild unpacks and builds on this very machine, without a chroot: what a
// person waits for who has the build-dependencies installed.
func bareBuild(b *bench, dsc string) (took, error) {
	dir, err := os.MkdirTemp(b.dir, "bare-")
	if err != nil {
		return took{}, err
	}
	defer os.RemoveAll(dir)
	start := time.Now()
	unpack := exec.Command("dpkg-source", "--no-check", "-x", dsc, dir+"/tree")
	if err := output(unpack); err != nil {
		return took{}, err
	}
	cmd := exec.Command("dpkg-buildpackage", "--sanitize-env", "-us", "-uc", "-B", "-rfakeroot", "-Pnocheck")
	cmd.Dir = dir + "/tree"
	cmd.Env = append(os.Environ(), "DEB_BUILD_OPTIONS=parallel=2 nocheck", "LC_ALL=C.UTF-8", "FORCE_UNSAFE_CONFIGURE=1")
	if err := output(cmd); err != nil {
		return took{}, err
	}
	wall := time.Since(start)
	var cpu time.Duration
	for _, p := range []*os.ProcessState{unpack.ProcessState, cmd.ProcessState} {
		cpu += p.UserTime() + p.SystemTime()
	}
	return took{wall, cpu}, nil
}

// plainSbuild builds with sbuild's own defaults and the same tarball, which
// it unpacks on the disk.
func plainSbuild(b *bench, c *runner.Chroots, arch, dsc string) (took, error) {
	ch, err := c.Lookup("sid", arch)
	if err != nil {
		return took{}, err
	}
	dir, err := os.MkdirTemp(b.dir, "plain-")
	if err != nil {
		return took{}, err
	}
	defer os.RemoveAll(dir)
	rc := filepath.Join(dir, "rc")
	text := fmt.Sprintf("$unshare_tmpdir_template = '%s/tmp.sbuild.XXXXXXXXXX';\n$log_dir = '%s';\n1;\n", dir, dir)
	if err := os.WriteFile(rc, []byte(text), 0o644); err != nil {
		return took{}, err
	}
	cmd := exec.Command("sbuild", "--chroot-mode=unshare", "--chroot="+ch.Tarball(), "--dist=sid", "--arch-any",
		"--no-arch-all", "--no-run-lintian", "--profiles=nocheck", "--build-dir="+dir, dsc)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEB_BUILD_OPTIONS=parallel=2 nocheck", "SBUILD_CONFIG="+rc, "HOME="+dir)
	if os.Getuid() == 0 {
		u, err := user.Lookup(c.User)
		if err != nil {
			return took{}, err
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2, os.Chown(dir, uid, gid), os.Chmod(dir, 0o755)); err != nil {
			return took{}, err
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		cmd.Env = append(cmd.Env, "USER="+c.User, "LOGNAME="+c.User)
	}
	start := time.Now()
	if err := output(cmd); err != nil {
		return took{}, err
	}
	return took{time.Since(start), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}, nil
}
