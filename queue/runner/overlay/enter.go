package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"packmill/queue/runner/cage"

	"golang.org/x/sys/unix"
)

const merged = cage.ViewRoot + "/merged"

// opened are the directories of the machine that the root is made of. They are
// closed before anything of a build is started.
type opened struct {
	root, upper      int
	layers, archives []int
}

func (o *opened) close() {
	for _, fd := range slices.Concat(o.archives, o.layers, []int{o.root, o.upper}) {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// enter makes the overlay and what belongs into it, and makes it the root. Of
// the machine's mounts none is left then.
func (b *build) enter() error {
	dirs, err := b.open()
	defer dirs.close()
	if err != nil {
		return err
	}
	if err := b.become(); err != nil {
		return err
	}
	base, err := b.mountOverlay(dirs)
	if err != nil {
		return err
	}
	if err := b.mountRest(dirs, base); err != nil {
		return err
	}
	resolv, _ := os.ReadFile("/etc/resolv.conf")
	dirs.close()
	*dirs = opened{root: -1, upper: -1}
	if err := cage.Pivot(merged); err != nil {
		return err
	}
	if b.root, err = os.OpenRoot("/"); err != nil {
		return err
	}
	return b.configure(resolv)
}

// open opens the directories as the account, who may enter those above them.
func (b *build) open() (*opened, error) {
	o := &opened{root: -1, upper: -1}
	var err error
	dir := func(path string) int {
		fd := -1
		if err == nil && path != "" {
			fd, err = cage.OpenDir(path)
		}
		return fd
	}
	o.root, o.upper = dir(b.Root), dir(b.Upper)
	for _, path := range b.Layers {
		o.layers = append(o.layers, dir(path))
	}
	for _, path := range b.Archives {
		o.archives = append(o.archives, dir(path))
	}
	return o, err
}

// become has what this thread makes belong to root of the build. The process
// stays the account's: nobody in the build may send it a signal, or look into it.
func (b *build) become() error {
	r := b.w.Ranges[0]
	unix.Setfsgid(r.GID)
	unix.Setfsuid(r.UID)
	// Only a second call tells whether the first was allowed.
	if uid, _ := unix.SetfsuidRetUid(r.UID); uid != r.UID {
		return fmt.Errorf("become the build's root: user %d has no such right", uid)
	}
	// Or this process could not map the ids of its children.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the build's root: %w", err)
	}
	return nil
}

// mountOverlay mounts the overlay and returns where its upper layer lies.
func (b *build) mountOverlay(dirs *opened) (base string, err error) {
	if err := cage.MountMemory(cage.ViewRoot, unix.MS_NODEV, "mode=755", b.Size); err != nil {
		return "", err
	}
	if base = cage.ViewRoot; dirs.upper >= 0 {
		base = fmt.Sprintf("/proc/self/fd/%d", dirs.upper)
	} else if err := unix.Setxattr(base, "user.overlay.test", []byte("y"), 0); err != nil {
		return "", fmt.Errorf("this kernel's tmpfs has no user attributes; it needs Linux 6.6, "+
			"or a Scratch directory on a disk: %w", cage.ErrSetup)
	}
	for _, d := range []string{base + "/upper", base + "/work", merged} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return "", err
		}
	}
	var lower []string
	for _, fd := range append(slices.Clone(dirs.layers), dirs.root) {
		lower = append(lower, fmt.Sprintf("/proc/self/fd/%d", fd))
	}
	// Volatile: nothing waits for the disk. A layer is synced when it is whole.
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work,userxattr,volatile",
		strings.Join(lower, ":"), base, base)
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return "", fmt.Errorf("mount overlay: %w", err)
	}
	return base, nil
}

// mountRest mounts what else a root has.
func (b *build) mountRest(dirs *opened, base string) error {
	for _, d := range []string{"proc", "sys", "dev", "tmp"} {
		if err := plainDir(d); err != nil {
			return err
		}
	}
	if b.Make == nil && b.Upper == "" {
		if err := mountDirect(base); err != nil {
			return fmt.Errorf("mount directories to write in: %w", err)
		}
	}
	if err := cage.MountSys(merged + "/sys"); err != nil {
		return err
	}
	if err := cage.MountDev(merged+"/dev", b.w.Ranges[0], b.Size); err != nil {
		return err
	}
	for i, fd := range dirs.archives {
		if fd < 0 {
			continue
		}
		// A layer that was made with an archive has the directory.
		if err := plainDir(ArchiveMount(i)[1:]); err != nil {
			return err
		}
		if err := cage.MountArchive(fd, merged+ArchiveMount(i)); err != nil {
			return fmt.Errorf("mount archive: %w", err)
		}
	}
	// The old /proc stays visible until here: a new one may only be mounted
	// while a whole one is to be seen (mount_namespaces(7)).
	return cage.MountProc(merged + "/proc")
}

// plainDir sees to it that a name in the overlay is a directory. What a layer
// has there was made by maintainer scripts, and may be a link that leads out.
func plainDir(name string) error {
	root, err := os.OpenRoot(merged)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(name, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make /%s: %w", name, err)
	}
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(unix.AT_FDCWD, filepath.Join(merged, name), how)
	if err != nil {
		return fmt.Errorf("/%s in the chroot is not a directory: %w", name, err)
	}
	return unix.Close(fd)
}

// mountDirect mounts the directories that builds write in, with nothing of the
// overlay between: each file would be opened twice there. They lie on the
// upper layer's file system, and its size bounds them too.
func mountDirect(base string) error {
	for name, mode := range map[string]os.FileMode{"build": 0o755, "tmp": 0o777 | os.ModeSticky,
		"var/tmp": 0o777 | os.ModeSticky} {
		from := filepath.Join(base, "direct", name)
		if err := errors.Join(os.MkdirAll(from, 0o755), os.Chmod(from, mode), plainDir(name)); err != nil {
			return err
		}
		if err := unix.Mount(from, filepath.Join(merged, name), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// configure writes the files by which this root differs from the chroot.
func (b *build) configure(resolv []byte) error {
	for name, text := range map[string]string{
		"etc/hosts":            "127.0.0.1 localhost\n127.0.1.1 packmill\n::1 localhost ip6-localhost ip6-loopback\n",
		"etc/hostname":         "packmill\n",
		"etc/resolv.conf":      string(resolv),
		"usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n",
		"etc/apt/apt.conf.d/99p": "Acquire::Languages \"none\";\nAPT::Install-Recommends \"false\";\n" +
			"APT::Get::Assume-Yes \"true\";\nDpkg::Use-Pty \"false\";\n",
	} {
		b.root.Remove(name)
		mode := os.FileMode(0o644)
		if strings.HasPrefix(name, "usr/sbin/") {
			mode = 0o755
		}
		if err := b.root.WriteFile(name, []byte(text), mode); err != nil {
			return fmt.Errorf("write /%s: %w", name, err)
		}
	}
	return nil
}
