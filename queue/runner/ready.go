package runner

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"packmill/queue/runner/cage"
)

// Machine is the Debian architecture of this machine's own programs.
var Machine = sync.OnceValue(func() string {
	if out, err := exec.Command("dpkg", "--print-architecture").Output(); err == nil {
		return strings.TrimSpace(string(out))
	}
	return "amd64"
})

// Native reports whether the processor runs the architecture's programs itself.
func Native(arch string) bool {
	return arch == Machine() || exec.Command("arch-test", "-n", arch).Run() == nil
}

// Ready says what this machine lacks to make chroots of an architecture and to
// build in them: an ErrSetup with its cure, or nil.
func (c *Chroots) Ready(arch string) error {
	user, err := cage.LookupAccount(c.User)
	if err != nil {
		return err
	}
	if _, err := user.Ranges(); err != nil {
		return err
	}
	for _, p := range []string{"mmdebstrap", "newuidmap"} {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%s is missing; install mmdebstrap and uidmap: %w", p, ErrSetup)
		}
	}
	return Runs(arch)
}

// Runs says why programs of an architecture do not run on this machine, an
// ErrSetup with its cure, or nil. arch-test(1) runs a small one; what it does
// not know is left to the build.
func Runs(arch string) error {
	machine := Machine()
	if arch == "" || arch == machine {
		return nil
	}
	err := exec.Command("arch-test", arch).Run()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("whether programs of %s run on this machine cannot be told; install arch-test: %w", arch, ErrSetup)
	}
	var status *exec.ExitError
	if errors.As(err, &status) && status.ExitCode() == 1 {
		cure := "install qemu-user-static (and binfmt-support, if it has no systemd; for a container, on its host)"
		if there, err := filepath.Glob("/usr/lib/binfmt.d/qemu-*.conf"); err == nil && len(there) > 0 {
			cure = "qemu-user-static is installed and the kernel does not know of it: systemctl restart systemd-binfmt, " +
				"or without systemd: mount -t binfmt_misc none /proc/sys/fs/binfmt_misc; update-binfmts --enable"
		}
		return fmt.Errorf("programs of %s do not run on this machine; %s; or cross-build: Cross-From: "+
			"%s in control/builders: %w", arch, cure, machine, ErrSetup)
	}
	return nil
}
