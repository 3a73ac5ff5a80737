package cage

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"packmill/internal/regular"

	"golang.org/x/sys/unix"
)

// View is what a command with ranges of its own sees of the machine: all of
// it read-only, without /sys, with devices that anybody may have, and with a
// file system in memory at ViewRoot, which it may write to. It goes when the
// command's namespace does.
type View struct {
	Size     int64             // bytes of the file system in memory; 0: the kernel's half of the memory
	Dirs     []string          // made in it, owned by the account
	Text     map[string][]byte // name in it: what the file says
	Sources  []string          // names in it of the order's files, which are copied
	Binds    map[string]string // name in it: directory of the machine to mount, to write to
	Reads    map[string]string // name in it: file of the machine to mount, read-only
	Archives map[string]string // name in it: directory of the machine to mount, read-only and nameless
	Owned    []string          // names in it that root of the first range becomes the owner of
	Chroot   bool              // chroot(8) is ours
	Hand     string            // a directory in it whose plain files the warden hands out when the command has ended
}

// ViewRoot is where a view can be written to. The File Hierarchy Standard has it on
// every machine; the rest of the machine does not see the mount.
const ViewRoot = "/mnt"

// mount makes the view.
func (v *View) mount(w *Warden) error {
	// What is below ViewRoot is opened before it is hidden.
	trees, err := v.open()
	if err != nil {
		return fmt.Errorf("build view: %w", err)
	}
	defer func() {
		for _, fd := range trees {
			unix.Close(fd)
		}
	}()
	// Namespaces below this one cannot undo it. Linux before 5.12 does without.
	err = unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	if err != nil && !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("build view: see the machine read-only: %w", err)
	}
	if err := MountMemory(ViewRoot, unix.MS_NOSUID|unix.MS_NODEV, "mode=755", v.Size); err != nil {
		return fmt.Errorf("build view: %w", err)
	}
	for _, step := range []func(*Warden) error{v.fill, v.source} {
		if err := step(w); err != nil {
			return fmt.Errorf("build view: %w", err)
		}
	}
	for name, fd := range trees {
		if err := v.attach(name, fd); err != nil {
			return fmt.Errorf("build view: mount %s: %w", name, err)
		}
	}
	for _, name := range v.Owned {
		if err := os.Lchown(filepath.Join(ViewRoot, name), w.Ranges[0].UID, w.Ranges[0].GID); err != nil {
			return fmt.Errorf("build view: %w", err)
		}
	}
	return v.cover(w)
}

// open opens what the view mounts, as mounts that are nowhere yet.
func (v *View) open() (map[string]int, error) {
	trees := map[string]int{}
	for _, set := range []map[string]string{v.Binds, v.Reads} {
		for name, path := range set {
			fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
			if err != nil {
				return trees, fmt.Errorf("open %s: %w (the build user must be able to enter the directories above it): %w",
					path, err, ErrSetup)
			}
			trees[name] = fd
		}
	}
	for name, path := range v.Archives {
		fd, err := OpenDir(path)
		if err != nil {
			return trees, err
		}
		trees[name] = fd
	}
	return trees, nil
}

// attach mounts what open opened.
func (v *View) attach(name string, fd int) error {
	at := filepath.Join(ViewRoot, name)
	if v.Archives[name] != "" {
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		return MountArchive(fd, at)
	}
	var err error
	if v.Reads[name] != "" {
		err = os.WriteFile(at, nil, 0o644)
	} else {
		err = os.MkdirAll(at, 0o755)
	}
	if err != nil {
		return err
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return err
	}
	if v.Reads[name] == "" {
		return nil
	}
	err = unix.MountSetattr(unix.AT_FDCWD, at, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	if errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}

// fill makes the view's directories and the files that the order has.
func (v *View) fill(w *Warden) error {
	for _, d := range v.Dirs {
		if err := os.MkdirAll(filepath.Join(ViewRoot, d), 0o755); err != nil {
			return err
		}
	}
	text := w.subidFiles()
	hosts, _ := os.ReadFile("/etc/hosts")
	text["hosts"] = append(hosts, "\n127.0.1.1 "+hostname+"\n"...)
	maps.Copy(text, v.Text)
	for name, t := range text {
		if err := writeNew(filepath.Join(ViewRoot, name), bytes.NewReader(t)); err != nil {
			return err
		}
	}
	return nil
}

// source copies the order's files.
func (v *View) source(w *Warden) error {
	for i, name := range v.Sources {
		f := w.Sources[i]
		if err := errors.Join(writeNew(filepath.Join(ViewRoot, name), f), f.Close()); err != nil {
			return fmt.Errorf("copy %s: %w", filepath.Base(name), err)
		}
	}
	return nil
}

// writeNew makes a file, and the directories above it.
func writeNew(path string, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// cover hides of the machine what is not for builds.
func (v *View) cover(w *Warden) error {
	for _, name := range []string{"subuid", "subgid", "hosts"} {
		if err := unix.Mount(filepath.Join(ViewRoot, name), "/etc/"+name, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("build view: mount /etc/%s: %w", name, err)
		}
	}
	if v.Chroot {
		if err := ourChroot(); err != nil {
			return fmt.Errorf("build view: chroot(8): %w", err)
		}
	}
	// Programs that insist on /tmp get this one: nobody else sees what they
	// write there, and it goes too.
	for _, dir := range []string{"/tmp", "/var/tmp"} {
		if err := unix.Mount(ViewRoot+"/tmp", dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("build view: mount %s: %w", dir, err)
		}
	}
	if err := MountDev("/dev", w.Ranges[0], v.Size); err != nil {
		return fmt.Errorf("build view: %w", err)
	}
	if err := MountMemory("/run", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755", 1<<20); err != nil {
		return fmt.Errorf("build view: %w", err)
	}
	if err := MountSys("/sys"); err != nil {
		return fmt.Errorf("build view: %w", err)
	}
	return nil
}

// MountSys mounts a /sys that says how many processors there are, and no more.
func MountSys(at string) error {
	text := map[string][]byte{}
	for _, name := range []string{"online", "possible", "present"} {
		name = "devices/system/cpu/" + name
		if t, err := os.ReadFile(filepath.Join("/sys", name)); err == nil {
			text[name] = t
		}
	}
	if err := MountMemory(at, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755", 1<<20); err != nil {
		return err
	}
	for name, t := range text {
		if err := writeNew(filepath.Join(at, name), bytes.NewReader(t)); err != nil {
			return err
		}
	}
	return unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC,
		"")
}

// ourChroot puts this program in the place of chroot(8), see changeRoot. Its file
// may lie where the account cannot go, so it is copied.
func ourChroot() error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	const at = ViewRoot + "/chroot"
	if err := writeNew(at, self); err != nil {
		return err
	}
	if err := os.Chmod(at, 0o755); err != nil {
		return err
	}
	return unix.Mount(at, "/usr/sbin/chroot", "", unix.MS_BIND, "")
}

// MountMemory mounts a file system in memory; size is in bytes, 0 the kernel's
// half of the memory.
func MountMemory(at string, flags uintptr, options string, size int64) error {
	if size > 0 {
		options += fmt.Sprintf(",size=%d", size)
	}
	if err := unix.Mount("tmpfs", at, "tmpfs", flags, options); err != nil {
		return fmt.Errorf("mount a file system in memory on %s: %w", at, err)
	}
	return nil
}

// OpenDir opens a directory for MountArchive and the like.
func OpenDir(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w (the build user must be able to enter the directories above it): %w",
			path, err, ErrSetup)
	}
	return fd, nil
}

// MountArchive mounts an open directory read-only. A bind mount would show in
// mountinfo where on the machine it lies; an overlay of it and an empty
// directory does not, and nobody can write through it.
func MountArchive(fd int, at string) error {
	none, err := unix.Open(at, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(none)
	options := fmt.Sprintf("lowerdir=/proc/self/fd/%d:/proc/self/fd/%d,userxattr", fd, none)
	return unix.Mount("overlay", at, "overlay", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, options)
}

// MountDev mounts a /dev with the devices that anybody may have, terminals and
// shared memory of its own.
func MountDev(dev string, r Range, size int64) error {
	// The machine's devices are opened before the mount may hide them.
	devices := map[string]int{}
	defer func() {
		for _, fd := range devices {
			unix.Close(fd)
		}
	}()
	for name, from := range map[string]string{"null": "null", "zero": "zero", "full": "full", "random": "random",
		"urandom": "urandom", "tty": "tty", "console": "null"} {
		fd, err := unix.OpenTree(unix.AT_FDCWD, "/dev/"+from, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return fmt.Errorf("open /dev/%s: %w", from, err)
		}
		devices[name] = fd
	}
	owner := fmt.Sprintf("mode=755,uid=%d,gid=%d", r.UID, r.GID)
	if err := MountMemory(dev, unix.MS_NOSUID, owner, 1<<20); err != nil {
		return err
	}
	for name, fd := range devices {
		at := filepath.Join(dev, name)
		if err := os.WriteFile(at, nil, 0o666); err != nil {
			return err
		}
		if err := unix.MoveMount(fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("mount /dev/%s: %w", name, err)
		}
	}
	for link, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0",
		"stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"} {
		if err := os.Symlink(target, filepath.Join(dev, link)); err != nil {
			return err
		}
	}
	for _, d := range []string{"pts", "shm"} {
		if err := os.Mkdir(filepath.Join(dev, d), 0o755); err != nil {
			return err
		}
	}
	const tty = 5 // the group of Debian's base-passwd
	options := fmt.Sprintf("newinstance,uid=%d,gid=%d,mode=620,ptmxmode=666", r.UID, r.GID+tty)
	if err := unix.Mount("devpts", dev+"/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, options); err != nil {
		return fmt.Errorf("mount /dev/pts: %w", err)
	}
	return MountMemory(dev+"/shm", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777", size)
}

// HandOut writes the plain files of a directory to a pipe; TakeIn reads them.
func HandOut(to io.Writer, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("results: %w", err)
	}
	defer root.Close()
	d, err := root.Open(".")
	if err != nil {
		return fmt.Errorf("results: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("results: %w", err)
	}
	return HandOutFiles(to, root, names)
}

// HandOutFiles writes the named plain files of a directory to a pipe, and
// leaves out what is none.
func HandOutFiles(to io.Writer, root *os.Root, names []string) error {
	out := tar.NewWriter(to)
	for _, name := range names {
		if err := handOut(out, root, name); err != nil {
			return fmt.Errorf("results: %s: %w", name, err)
		}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("results: %w", err)
	}
	return nil
}

func handOut(out *tar.Writer, root *os.Root, name string) error {
	if st, err := root.Lstat(name); err != nil || !st.Mode().IsRegular() {
		return err
	}
	f, err := regular.OpenRoot(root, name)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	var sys unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &sys); err != nil || sys.Blocks*512+1<<16 < sys.Size {
		return errors.Join(err, errors.New("it has holes"))
	}
	if err := out.WriteHeader(&tar.Header{Name: name, Size: st.Size(), Mode: 0o644, ModTime: st.ModTime(),
		Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err = io.CopyN(out, f, st.Size())
	return err
}

// TakeIn writes what HandOut handed out into a directory, as plain files of
// this process. Names are a build's: those with a directory in them are refused.
func TakeIn(dir string) func(io.Reader) error {
	return func(from io.Reader) error {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return fmt.Errorf("results: %w", err)
		}
		defer root.Close()
		for r := tar.NewReader(from); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("results: %w", err)
			}
			if err := takeIn(root, h, r); err != nil {
				return fmt.Errorf("results: %q: %w", h.Name, err)
			}
		}
	}
}

func takeIn(root *os.Root, h *tar.Header, r io.Reader) error {
	if h.Typeflag != tar.TypeReg || h.Name == "" || h.Name == "." || h.Name == ".." ||
		strings.ContainsAny(h.Name, "/\x00") {
		return errors.New("not a plain file's name")
	}
	f, err := root.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
