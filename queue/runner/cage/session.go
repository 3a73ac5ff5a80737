package cage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// SessionFlag is chroot(8)'s first argument where it is called for a command of sbuild's; what follows
// it is CUT DIRECTORY USER WHERE [FROM AT]... -- COMMAND...: in the chroot at the directory, with
// the directories FROM mounted in it, as the user; CUT is yes without a network.
const SessionFlag = "--session"

// session mounts what a command of sbuild's sees in its chroot, in namespaces that
// the command alone has, and returns the command. sbuild before 0.86 starts forty programs for
// that, and has some sixty commands in each build; later ones have a program of their own.
func session(args []string) (root string, argv []string, err error) {
	if len(args) < 5 {
		return "", nil, errors.New("a session's chroot, user, directory and command are needed")
	}
	cut, root, user, where := args[0] == "yes", args[1], args[2], args[3]
	at := func(name string) string { return filepath.Join(root, name) }
	args = args[4:]
	for len(args) > 2 && args[0] != "--" {
		if err := os.MkdirAll(at(args[1]), 0o755); err != nil {
			return "", nil, err
		}
		if err := unix.Mount(args[0], at(args[1]), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return "", nil, fmt.Errorf("mount %s: %w", args[0], err)
		}
		args = args[2:]
	}
	if err := sessionFiles(root, cut); err != nil {
		return "", nil, err
	}
	for _, d := range []string{"dev", "sys", "proc"} {
		if err := os.MkdirAll(at(d), 0o755); err != nil {
			return "", nil, err
		}
	}
	if err := MountDev(at("dev"), Range{}, 0); err != nil {
		return "", nil, err
	}
	if err := unix.Mount("/sys", at("sys"), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", nil, fmt.Errorf("mount /sys: %w", err)
	}
	if err := MountProc(at("proc")); err != nil {
		return "", nil, err
	}
	return root, append([]string{"/sbin/runuser", "-u", user, "--", "sh", "-c", `cd "$1" && shift && "$@"`, "--", where},
		args[1:]...), nil
}

// sessionFiles gives the chroot its name and its network, or takes that.
func sessionFiles(dir string, cut bool) error {
	const hostname = "sbuild"
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return fmt.Errorf("name the machine: %w", err)
	}
	var resolv []byte
	if cut {
		if err := LoopbackUp(); err != nil {
			return fmt.Errorf("loopback: %w", err)
		}
	} else if text, err := os.ReadFile("/etc/resolv.conf"); err == nil {
		resolv = text
	} else {
		resolv = []byte("nameserver 127.0.0.53\n") // systemd-resolved needs no file
	}
	// What the build's root has put there may be a link.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for name, text := range map[string][]byte{"etc/hosts": []byte("127.0.0.1 localhost\n127.0.1.1 " + hostname + "\n"),
		"etc/resolv.conf": resolv} {
		root.Remove(name)
		if err := root.WriteFile(name, text, 0o644); err != nil {
			return fmt.Errorf("write /%s: %w", name, err)
		}
	}
	return nil
}

// LoopbackUp switches the loopback interface of a new network namespace on.
func LoopbackUp() error {
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
