package runner

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"packmill/internal/deb822"

	"golang.org/x/sys/unix"
)

// This file runs in the overlay's helper: process 1 of its namespaces, root
// of a user namespace, nobody outside of it.

// buildUID is the user inside that dpkg-buildpackage runs as.
const buildUID = 1000

// section begins a part of the log, in sbuild's form.
func section(name string) {
	fmt.Printf("\n%s\n| %-77s|\n%s\n\n", boxLine, name, boxLine)
}

// overlay is the verb of the overlay runner.
func (o *order) overlay(r *report) error {
	in := o.Inside
	in.tasks = o.Tasks
	begin := time.Now()
	fmt.Print(in.Header)
	space, err := in.enter()
	if err != nil {
		return err
	}
	defer func() {
		var st unix.Statfs_t
		if in.Upper == "" && unix.Fstatfs(space, &st) == nil {
			r.Disk = int64(st.Blocks-st.Bfree) * st.Bsize
		}
	}()
	if o.Personality {
		// A thread's, and its children's.
		runtime.LockOSThread()
		const perLinux32 = 0x0008 // personality(2)
		if _, _, err := unix.Syscall(unix.SYS_PERSONALITY, perLinux32, 0, 0); err != 0 {
			return fmt.Errorf("personality: %w", err)
		}
	}
	if err := in.populate(); err != nil {
		return err
	}
	work := in.Path
	if work == "" {
		work = "/build/" + in.Source
	}
	parent := filepath.Dir(work)
	if !in.Make {
		if err := in.placeSources(parent); err != nil {
			return err
		}
	}
	r.Spent = time.Since(begin)

	ok := true
	installBegin := time.Now()
	if in.Header != "" {
		section("Install package build dependencies")
		fmt.Printf("Build-Depends: %s\nBuild-Conflicts: %s\n", in.Depends, in.Conflict)
	}
	if in.Make || in.Install {
		if ok, err = in.installDeps(r); err != nil {
			return err
		}
		killOthers()
		if in.Make && ok {
			return in.tidy()
		}
	} else if in.Header != "" {
		fmt.Println(in.Note)
	}
	installTime := time.Since(installBegin)
	buildTime := time.Duration(0)
	if ok {
		section("Build")
		buildBegin := time.Now()
		if err := in.build(r, parent, work); err != nil {
			return err
		}
		killOthers()
		buildTime = time.Since(buildBegin)
	}
	if r.Stage == "" {
		r.Status = "successful"
		copyBegin := time.Now()
		if err := in.results(parent); err != nil {
			// The daemon sees what is missing.
			fmt.Printf("E: results: %v\n", err)
		}
		r.Spent += time.Since(copyBegin)
	}
	section("Summary")
	var st unix.Statfs_t
	if unix.Fstatfs(space, &st) == nil {
		fmt.Printf("Build-Space: %d\n", int64(st.Blocks-st.Bfree)*st.Bsize>>10)
	}
	fmt.Printf("Build-Time: %.1f\nDistribution: %s\n", buildTime.Seconds(), in.Suite)
	if r.Stage != "" {
		fmt.Printf("Fail-Stage: %s\n", r.Stage)
	}
	fmt.Printf("Install-Time: %.1f\nPackage: %s\nPackage-Time: %.1f\nStatus: %s", installTime.Seconds(), in.Source, time.Since(begin).Seconds(), r.Status)
	fmt.Printf("%sFinished at %s\n", endRule, time.Now().UTC().Format(time.RFC3339))
	return nil
}

// killOthers ends everything else in the pid namespace and reaps it.
func killOthers() {
	for {
		err := unix.Kill(-1, unix.SIGKILL)
		if err == unix.ESRCH {
			return
		}
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(-1, &status, 0, nil); err == syscall.ECHILD {
			return
		}
	}
}

// enter mounts the overlay and makes it the root. It returns a descriptor of
// the file system that the build fills.
func (in *inside) enter() (space int, err error) {
	fail := func(what string, err error) (int, error) {
		return -1, fmt.Errorf("build namespace: %s: %w", what, err)
	}
	root, err := unix.Open(in.Root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("build namespace: open chroot %s: %w (the build user must be able to enter the directories above it): %w", in.Root, err, ErrSetup)
	}
	lower := fmt.Sprintf("/proc/self/fd/%d", root)
	if in.Layer != "" {
		fd, err := unix.Open(in.Layer, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fail("open layer "+in.Layer, err)
		}
		lower = fmt.Sprintf("/proc/self/fd/%d:%s", fd, lower)
	}
	var archives []int
	for _, dir := range in.Archives {
		fd := -1
		if dir != "" {
			if fd, err = unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
				return fail("open archive "+dir, err)
			}
		}
		archives = append(archives, fd)
	}
	upper := -1
	if in.Upper != "" {
		if upper, err = unix.Open(in.Upper, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return fail("open scratch space", err)
		}
	}
	options := "mode=755"
	if in.Size > 0 {
		options += fmt.Sprintf(",size=%d", in.Size)
	}
	if err := unix.Mount("tmpfs", viewRoot, "tmpfs", unix.MS_NODEV, options); err != nil {
		return fail("mount tmpfs on "+viewRoot, err)
	}
	base := viewRoot
	if upper >= 0 {
		base = fmt.Sprintf("/proc/self/fd/%d", upper)
	} else if err := unix.Setxattr(viewRoot, "user.overlay.test", []byte("y"), 0); err != nil {
		return -1, fmt.Errorf("build namespace: this kernel's tmpfs has no user attributes; it needs Linux 6.6, or a Scratch directory on a disk: %w", ErrSetup)
	}
	for _, d := range []string{base + "/upper", base + "/work", viewRoot + "/merged"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return fail("make "+d, err)
		}
	}
	if space, err = unix.Open(base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fail("open scratch space", err)
	}
	merged := viewRoot + "/merged"
	// Volatile: nothing waits for the disk. A layer is synced when it is whole.
	if err := unix.Mount("overlay", merged, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work,userxattr,volatile", lower, base, base)); err != nil {
		return fail("mount overlay", err)
	}
	for _, d := range []string{"proc", "sys", "dev", "tmp"} {
		os.Mkdir(filepath.Join(merged, d), 0o755)
	}
	if !in.Make {
		if err := in.direct(base, merged); err != nil {
			return fail("mount directories to write in", err)
		}
	}
	if err := unix.Mount("/sys", merged+"/sys", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fail("mount /sys", err)
	}
	dev := merged + "/dev"
	if err := unix.Mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID, "mode=755,size=1m"); err != nil {
		return fail("mount /dev", err)
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if err := os.WriteFile(dev+"/"+name, nil, 0o666); err != nil {
			return fail("make /dev/"+name, err)
		}
		if err := unix.Mount("/dev/"+name, dev+"/"+name, "", unix.MS_BIND, ""); err != nil {
			return fail("mount /dev/"+name, err)
		}
	}
	for link, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"} {
		if err := os.Symlink(target, dev+"/"+link); err != nil {
			return fail("make /dev/"+link, err)
		}
	}
	for _, d := range []string{"pts", "shm"} {
		if err := os.Mkdir(dev+"/"+d, 0o755); err != nil {
			return fail("make /dev/"+d, err)
		}
	}
	if err := unix.Mount("devpts", dev+"/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,gid=5,mode=620,ptmxmode=666"); err != nil {
		return fail("mount /dev/pts", err)
	}
	shm := "mode=1777"
	if in.Size > 0 {
		shm += fmt.Sprintf(",size=%d", in.Size)
	}
	if err := unix.Mount("tmpfs", dev+"/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, shm); err != nil {
		return fail("mount /dev/shm", err)
	}
	for i, fd := range archives {
		if fd < 0 {
			continue
		}
		at := merged + repoMount(i)
		// A layer that was made with an archive has the directory; nothing
		// else may be there, above all no link out of here.
		if err := os.Mkdir(at, 0o755); err != nil {
			if st, lerr := os.Lstat(at); lerr != nil || !st.IsDir() {
				return fail("mount archive", err)
			}
		}
		if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fail("mount archive", err)
		}
		// Its files belong to nobody in here, so that alone forbids writing.
		unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "")
	}
	// The old /proc stays visible until here: a new one may only be mounted
	// while a whole one is to be seen (mount_namespaces(7)).
	if err := unix.Mount("proc", merged+"/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fail("mount /proc", err)
	}
	resolv, _ := os.ReadFile("/etc/resolv.conf")
	if err := unix.Chdir(merged); err != nil {
		return fail("enter", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fail("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fail("leave the old root", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fail("enter", err)
	}
	unix.Sethostname([]byte("packmill"))
	for name, text := range map[string]string{
		"/etc/hosts":              "127.0.0.1 localhost\n127.0.1.1 packmill\n::1 localhost ip6-localhost ip6-loopback\n",
		"/etc/hostname":           "packmill\n",
		"/etc/resolv.conf":        string(resolv),
		"/usr/sbin/policy-rc.d":   "#!/bin/sh\nexit 101\n",
		"/etc/apt/apt.conf.d/99p": "Acquire::Languages \"none\";\nAPT::Install-Recommends \"false\";\nAPT::Get::Assume-Yes \"true\";\nDpkg::Use-Pty \"false\";\n",
	} {
		os.Remove(name)
		mode := os.FileMode(0o644)
		if strings.HasPrefix(name, "/usr/sbin/") {
			mode = 0o755
		}
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			return fail("write "+name, err)
		}
	}
	return space, nil
}

// direct mounts the directories that builds write in, with nothing of the
// overlay between: each file would be opened twice there. They lie on the
// upper layer's file system, and its size bounds them too.
func (in *inside) direct(base, merged string) error {
	for name, mode := range map[string]os.FileMode{"build": 0o755, "tmp": 0o777 | os.ModeSticky, "var/tmp": 0o777 | os.ModeSticky} {
		from, at := filepath.Join(base, "direct", name), filepath.Join(merged, name)
		if err := errors.Join(os.MkdirAll(from, 0o755), os.Chmod(from, mode), os.MkdirAll(at, 0o755)); err != nil {
			return err
		}
		if err := unix.Mount(from, at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// populate adds the build user, and the further repositories.
func (in *inside) populate() error {
	users := map[string]string{
		"/etc/passwd": fmt.Sprintf("packmill:x:%d:%d:build:/nonexistent:/bin/sh\n", buildUID, buildUID),
		"/etc/group":  fmt.Sprintf("packmill:x:%d:\n", buildUID),
	}
	if in.Make {
		users = nil
	}
	for name, line := range users {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return fmt.Errorf("build user: %w", err)
		}
		_, err = f.WriteString(line)
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("build user: %w", err)
		}
	}
	if in.List == "" {
		return nil
	}
	if err := os.MkdirAll("/etc/apt/keyrings", 0o755); err != nil {
		return fmt.Errorf("repositories: %w", err)
	}
	for path, key := range in.Keys {
		if err := os.WriteFile(path, []byte(key), 0o644); err != nil {
			return fmt.Errorf("repositories: %w", err)
		}
	}
	if err := os.WriteFile(extraList, []byte(in.List), 0o644); err != nil {
		return fmt.Errorf("repositories: %w", err)
	}
	return nil
}

const extraList = "/etc/apt/sources.list.d/packmill.list"

// placeSources copies the source package into the build's directory, which
// the build user owns.
func (in *inside) placeSources(parent string) error {
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("place sources: %w", err)
	}
	if err := os.Chown(parent, buildUID, buildUID); err != nil {
		return fmt.Errorf("place sources: %w", err)
	}
	for i, name := range in.Sources {
		from := os.NewFile(uintptr(sourceFd+i), name)
		to, err := os.OpenFile(filepath.Join(parent, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return fmt.Errorf("place sources: %w", err)
		}
		_, err = io.Copy(to, from)
		if err = errors.Join(err, to.Close(), from.Close()); err != nil {
			return fmt.Errorf("place sources: %w", err)
		}
	}
	return nil
}

// command runs a program as root of the namespace.
func (in *inside) command(r *report, stage string, argv ...string) (bool, error) {
	return in.commandTo(1, r, stage, argv...)
}

// commandTo is command with another standard output.
func (in *inside) commandTo(out uintptr, r *report, stage string, argv ...string) (bool, error) {
	env := []string{"PATH=" + defaultPath, "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "HOME=/root", "DEBIAN_FRONTEND=noninteractive"}
	code, signal, err := spawnTo(out, argv, env, "/", &syscall.SysProcAttr{Setsid: true})
	if err != nil {
		return false, err
	}
	if code != 0 {
		r.Exit, r.Signal, r.Stage, r.Status = code, signal, stage, "given-back"
		return false, nil
	}
	return true, nil
}

// installDeps installs the build-dependencies; false: that failed, and r says
// how.
func (in *inside) installDeps(r *report) (bool, error) {
	update := []string{"apt-get", "update"}
	if !in.Update {
		update = append(update, "-o", "Dir::Etc::sourcelist="+extraList, "-o", "Dir::Etc::sourceparts=/nonexistent", "--no-list-cleanup")
	}
	if in.Update || in.List != "" {
		// apt-get update warns of a dead mirror and goes on; that is no
		// verdict on a package.
		ok, err := in.command(r, "install-deps", append(update, "-o", "APT::Update::Error-Mode=any")...)
		if err != nil || !ok {
			r.Fetch = true
			return false, err
		}
	}
	const wish = "/build/packmill-build-deps.dsc"
	text := "Format: 3.0 (native)\nSource: packmill-build-deps\nBinary: packmill-build-deps\nArchitecture: any\nVersion: 1\nMaintainer: nobody <nobody@localhost>\n"
	if in.Depends != "" {
		text += "Build-Depends: " + in.Depends + "\n"
	}
	if in.Conflict != "" {
		text += "Build-Conflicts: " + in.Conflict + "\n"
	}
	if err := os.MkdirAll("/build", 0o755); err != nil {
		return false, fmt.Errorf("build dependencies: %w", err)
	}
	if err := os.WriteFile(wish, []byte(text), 0o644); err != nil {
		return false, fmt.Errorf("build dependencies: %w", err)
	}
	defer os.Remove(wish)
	if ok, err := in.resolve(r, wish); err != nil || !ok || slices.Contains(in.Have, r.Layer) {
		return ok, err
	}
	// What can be resolved and not be fetched says nothing about the package.
	if ok, err := in.command(r, "install-deps", "apt-get", "build-dep", "--download-only", "-q", wish); err != nil || !ok {
		r.Fetch = true
		return ok, err
	}
	return in.command(r, "install-deps", "apt-get", "build-dep", "-q", wish)
}

// resolve asks apt what it would install.
func (in *inside) resolve(r *report, wish string) (bool, error) {
	out, err := os.CreateTemp("/build", "resolved")
	if err != nil {
		return false, fmt.Errorf("build dependencies: %w", err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	ok, err := in.commandTo(out.Fd(), r, "install-deps", "apt-get", "build-dep", "--simulate", "-q", wish)
	if err != nil {
		return false, err
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		return false, fmt.Errorf("build dependencies: %w", err)
	}
	if !ok {
		os.Stdout.Write(text)
		return false, nil
	}
	r.Packages = resolved(string(text))
	r.Layer = layerKey(r.Packages)
	return true, nil
}

// tidy takes away what the making of a layer left and no build needs.
func (in *inside) tidy() error {
	junk := []string{"/build", extraList, "/var/cache/apt/pkgcache.bin", "/var/cache/apt/srcpkgcache.bin"}
	for path := range in.Keys {
		junk = append(junk, path)
	}
	for _, pattern := range []string{"/tmp/*", "/var/cache/apt/archives/*.deb", "/var/lib/apt/lists/*packmill-archive*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		junk = append(junk, found...)
	}
	for _, path := range junk {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("layer: %w", err)
		}
	}
	return nil
}

// build unpacks the source and runs dpkg-buildpackage, both as the build
// user, the second without a network.
func (in *inside) build(r *report, parent, work string) error {
	user := &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: buildUID, Gid: buildUID, Groups: []uint32{buildUID}}}
	run := func(stage, dir string, argv ...string) (bool, error) {
		if in.tasks > 0 {
			argv = append([]string{"prlimit", fmt.Sprintf("--nproc=%d:%d", in.tasks, in.tasks), "--"}, argv...)
		}
		code, signal, err := spawn(argv, in.Env, dir, user)
		if err != nil {
			return false, err
		}
		if code != 0 {
			r.Exit, r.Signal, r.Stage, r.Status = code, signal, stage, "attempted"
			return false, nil
		}
		return true, nil
	}
	if ok, err := run("unpack", parent, "dpkg-source", "-x", in.Dsc, filepath.Base(work)); !ok {
		return err
	}
	if in.Changes != "" {
		if err := in.prependChangelog(work); err != nil {
			return err
		}
	}
	// From here on this thread, and what it starts, has no network. It is
	// never given back to the runtime.
	runtime.LockOSThread()
	if !in.Network {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("switch the network off: %w", err)
		}
		if err := loopbackUp(); err != nil {
			return fmt.Errorf("loopback: %w", err)
		}
		if err := os.WriteFile("/etc/resolv.conf", nil, 0o644); err != nil {
			return fmt.Errorf("switch the network off: %w", err)
		}
	}
	argv := []string{"dpkg-buildpackage", "--sanitize-env", "-us", "-uc", in.Binary, "-rfakeroot", "--changes-option=-DDistribution=" + in.Suite}
	if len(in.Profiles) > 0 {
		argv = append(argv, "-P"+strings.Join(in.Profiles, ","))
	}
	fmt.Printf("Command: %s\n", strings.Join(argv, " "))
	_, err := run("build", work, argv...)
	return err
}

// loopbackUp switches the loopback interface of a new network namespace on.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

// prependChangelog adds a binNMU's entry. The tree is the package's, so its
// links are not followed out of it.
func (in *inside) prependChangelog(work string) error {
	root, err := os.OpenRoot(work)
	if err != nil {
		return fmt.Errorf("binNMU changelog: %w", err)
	}
	defer root.Close()
	old, err := root.ReadFile("debian/changelog")
	if err != nil {
		return fmt.Errorf("binNMU changelog: %w", err)
	}
	if err := root.WriteFile("debian/changelog", append([]byte(in.Changes), old...), 0o644); err != nil {
		return fmt.Errorf("binNMU changelog: %w", err)
	}
	return nil
}

// results copies the .changes and what it lists out of the namespace. Nothing
// of the build runs any more. The daemon checks what it gets.
func (in *inside) results(parent string) error {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return err
	}
	var changes string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".changes") {
			if changes != "" {
				return fmt.Errorf("two .changes files: %q and %q", changes, e.Name())
			}
			changes = e.Name()
		}
	}
	if changes == "" {
		return errors.New("no .changes")
	}
	text, err := readPlain(filepath.Join(parent, changes), deb822.Hostile.Size)
	if err != nil {
		return err
	}
	names := []string{changes}
	s, err := deb822.ParseOne(changes, text, deb822.Hostile)
	if err == nil {
		files, err := fileList(s)
		if err != nil {
			fmt.Printf("E: %s: %v\n", changes, err)
		}
		for _, f := range files {
			names = append(names, f.name)
		}
	} else {
		fmt.Printf("E: %v\n", err)
	}
	fmt.Println()
	os.Stdout.Write(bytes.TrimRight(text, "\n"))
	fmt.Println()
	for _, name := range names {
		if err := copyOut(filepath.Join(parent, name), fmt.Sprintf("/proc/self/fd/%d/%s", resultFd, name)); err != nil {
			return err
		}
	}
	return nil
}

func copyOut(from, to string) error {
	src, err := openPlain(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}
