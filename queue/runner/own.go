package runner

import (
	"context"
	"os"
	"path/filepath"

	"packmill/internal/durable"
	"packmill/queue/runner/cage"
)

// ownChroot is a chroot with the range of ids of one build: what that has of
// it is unpacked for these ids alone. It belongs to them, for root of a build
// must own its files. But it lies in a directory that they cannot enter, and a
// build sees it read-only below an overlay that an outer namespace has mounted.
type ownChroot struct {
	*Chroot
	store *Chroots
	user  *cage.Account
	ids   cage.Range
	held  *os.File // the range's lock
}

// own takes a range of ids, and what it has of the chroot in force.
func (c *Chroots) own(ctx context.Context, suite, arch string, log *os.File) (*ownChroot, error) {
	user, err := cage.LookupAccount(c.User)
	if err != nil {
		return nil, err
	}
	ch, err := c.use(suite, arch)
	if err != nil {
		return nil, err
	}
	ids, held, err := takeIDs(ctx, user, log)
	if err != nil {
		ch.release()
		return nil, err
	}
	return &ownChroot{ch, c, user, ids, held}, nil
}

// release gives back the ids and the chroot.
func (o *ownChroot) release() {
	o.held.Close()
	o.Chroot.release()
}

// locks are held as long as anything of the build runs.
func (o *ownChroot) locks() []*os.File { return []*os.File{o.lock, o.held} }

// home is the directory of what the range has of the chroot.
func (o *ownChroot) home() string { return filepath.Join(o.dir, o.ids.Name()) }

// root is the unpacked chroot.
func (o *ownChroot) root() string { return filepath.Join(o.home(), rootDir) }

// order is a command with the range's ids and a view.
func (o *ownChroot) order(as cage.Identity, view *cage.View, argv ...string) *cage.Order {
	return &cage.Order{Own: true, User: o.user, Ranges: []cage.Range{o.ids}, As: as, View: view, Argv: argv, Dir: "/",
		Env: []string{"PATH=" + cage.DefaultPath, "LANG=C.UTF-8", "HOME=" + cage.ViewRoot + "/tmp",
			"TMPDIR=" + cage.ViewRoot + "/tmp"}}
}

// mmdebstrap makes the chroot's tarball.
func (o *ownChroot) mmdebstrap(ctx context.Context, first string, log *os.File) error {
	// check/signed-by is for who names a mirror alone, and not apt's lines; Debian 12's complains of its own directory then.
	argv := []string{"mmdebstrap", "--mode=unshare", "--variant=buildd", "--format=tar", "--architectures=" + o.Arch,
		"--include=fakeroot,ca-certificates", "--skip=cleanup/apt/lists,output/dev,check/signed-by",
		"--dpkgopt=force-unsafe-io", "--aptopt=Acquire::Languages none"}
	for _, opt := range proxyOptions() {
		argv = append(argv, "--aptopt="+opt)
	}
	argv = append(append(argv, first, cage.ViewRoot+"/out/"+tarFile), o.Base...)
	view := &cage.View{Dirs: []string{"tmp"}, Binds: map[string]string{"out": o.dir}}
	if err := runOrder(ctx, o.order(cage.AsUser, view, argv...), log, o.locks()...); err != nil {
		return err
	}
	return os.Chmod(filepath.Join(o.dir, tarFile), 0o644)
}

// unpack unpacks the chroot for the range, if it is not there yet.
func (o *ownChroot) unpack(ctx context.Context, log *os.File) error {
	if exists(o.root()) {
		return nil
	}
	half := filepath.Join(o.home(), "half")
	// The other two are of a time when all builds had the same ids.
	for _, dir := range []string{half, filepath.Join(o.dir, rootDir), filepath.Join(o.dir, layersDir)} {
		if err := o.store.removeDir(dir); err != nil {
			return err
		}
	}
	for dir, mode := range map[string]os.FileMode{o.home(): 0o700, half: 0o755} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return err
		}
		if err := os.Chmod(dir, mode); err != nil {
			return err
		}
		if err := chown(dir, o.user); err != nil {
			return err
		}
	}
	view := &cage.View{Dirs: []string{"tmp"}, Binds: map[string]string{rootDir: half},
		Reads: map[string]string{tarFile: filepath.Join(o.dir, tarFile)}, Owned: []string{rootDir}}
	// apt's cache of its lists is made once and not in each build. Without it
	// apt is slower, no more.
	const script = `tar --numeric-owner '--exclude=./dev/*' -C "$1" -xf "$2" && { chroot "$1" apt-cache gencaches -qq || :; }`
	order := o.order(cage.AsRoot, view, "sh", "-c", script, "sh", cage.ViewRoot+"/"+rootDir, cage.ViewRoot+"/"+tarFile)
	if err := runOrder(ctx, order, log, o.locks()...); err != nil {
		return err
	}
	if err := durable.SyncFS(half); err != nil {
		return err
	}
	if err := durable.Rename(half, o.root()); err != nil {
		return err
	}
	if exists(filepath.Join(o.dir, statusFile)) {
		return nil
	}
	status, err := os.ReadFile(filepath.Join(o.root(), "var/lib/dpkg/status"))
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(o.dir, statusFile), status, 0o644)
}

// chown gives a directory to the build user, where this process is another.
func chown(dir string, user *cage.Account) error {
	if os.Getuid() != 0 {
		return nil
	}
	return os.Lchown(dir, user.UID, user.GID)
}
