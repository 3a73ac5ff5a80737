package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/mail"
	"packmill/internal/openpgp"
	"packmill/spool"
)

// Accounts makes the daemons' accounts, and a home for the one that builds. gave
// reports whether that one got subordinate ids.
func Accounts() (gave bool, err error) {
	for _, name := range []string{"packmill.conf", "packmill.sysusers"} {
		if path := filepath.Join("/usr/lib/sysusers.d", name); fileExists(path) {
			if out, err := exec.Command("systemd-sysusers", path).CombinedOutput(); err != nil {
				return false, fmt.Errorf("systemd-sysusers: %w: %s", err, out)
			}
		}
	}
	if gave, err = SubordinateIDs(spool.UserBuild); err != nil {
		return gave, err
	}
	// Its home is below a directory of root's.
	out, err := exec.Command("install", "-d", "-o", spool.UserBuild, "-g", spool.UserBuild,
		home(spool.UserBuild)).CombinedOutput()
	if err != nil {
		return gave, fmt.Errorf("%w: %s", err, out)
	}
	return gave, nil
}

// Control writes the settings of a tree that has its keys, and reads them as the
// daemons will. It returns the names of the files that it wrote, and of those
// that had settings already.
func Control(tree string, a *Answers) (wrote, kept []string, err error) {
	dir := filepath.Join(tree, "control")
	key, err := openpgp.ReadSigner(filepath.Join(dir, "private/builder.key"))
	if err != nil {
		return nil, nil, err
	}
	a.Fingerprint = key.Fingerprint()
	if wrote, kept, err = WriteSettings(dir, Settings(a)); err != nil {
		return wrote, kept, err
	}
	set, err := control.Load(dir)
	if err == nil {
		a.follow(set)
	}
	return wrote, kept, err
}

// follow makes the answers those of the settings in force: what a person wrote stays, whatever was answered, and units
// and advice are for that.
func (a *Answers) follow(set *control.Settings) {
	if _, there := set.Suite(a.Suite); !there && len(set.Suites) > 0 {
		a.Suite = set.Suites[0].Name
	}
	a.Archs = nil
	for _, b := range set.Builders {
		if b.Elsewhere() {
			continue
		}
		for _, arch := range b.Architectures {
			if arch != "all" && !slices.Contains(a.Archs, arch) {
				a.Archs = append(a.Archs, arch)
			}
		}
	}
}

// Chroots makes the chroots that the builders of the tree need and that are missing, or
// old; root makes them as the user who builds, whose they are.
func Chroots(tree string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// Interrupted, it takes away the half that it has made; the terminal is not given back before.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	cmd := exec.CommandContext(ctx, self, "--tree", tree, "chroot", "update")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	err = cmd.Run()
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return err
}

// home is the account's directory, by getent(1): os/user alone reads it.
func home(account string) string {
	out, err := exec.Command("getent", "passwd", account).Output()
	if w := strings.Split(strings.TrimSpace(string(out)), ":"); err == nil && len(w) > 5 {
		return w[5]
	}
	return "/var/lib/packmill-build"
}

func fileExists(path string) bool { _, err := os.Stat(path); return err == nil }

// File finds a file of the package that is no program of a person's; beside the
// source in a checkout.
func File(name string) string {
	dirs := append([]string{"/usr/share/packmill"}, Libexec...)
	if self, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Join(filepath.Dir(self), "../scripts/sshd"))
	}
	if i := slices.IndexFunc(dirs, func(d string) bool { return fileExists(filepath.Join(d, name)) }); i >= 0 {
		return filepath.Join(dirs[i], name)
	}
	return filepath.Join(dirs[0], name)
}

// UploaderAccounts runs the script that knows the system's accounts.
func UploaderAccounts(args ...string) error {
	cmd := exec.Command(File("uploader"), args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	var status *exec.ExitError
	switch {
	case errors.As(err, &status) && status.ExitCode() == daemon.ExitWrong:
		return daemon.Wrong{Err: errors.New("no account was changed")}
	case errors.As(err, &status):
		return daemon.Refuse("no account was changed")
	}
	return err
}

// Uploader is a person who may upload.
type Uploader struct {
	Name, Allow string
	Email       string // where mail about uploads goes; "": nowhere
	fingerprint string
	key         []byte // public; none: the account alone is trusted
}

// ReadUploader reads the person's public OpenPGP key from a file, if one is named. Without an address it takes the
// one that the key has, unless there are several to choose from.
func ReadUploader(name, allow, email, file string) (*Uploader, error) {
	u := &Uploader{Name: name, Allow: allow}
	var err error
	if email != "" {
		if u.Email, err = mail.Address(email); err != nil {
			return nil, daemon.Wrong{Err: err}
		}
	}
	if file == "" {
		return u, nil
	}
	if u.key, err = os.ReadFile(file); err != nil {
		return nil, err
	}
	ring, err := openpgp.ReadKeyring(u.key)
	if err != nil || len(ring.Fingerprints()) != 1 {
		return nil, daemon.Wrong{Err: fmt.Errorf("%s: not one public OpenPGP key that can be used; export it with: "+
			"gpg --export --armor ADDRESS", file)}
	}
	u.fingerprint = ring.Fingerprints()[0]
	if all := ring.Addresses(time.Now()); u.Email == "" && len(all) == 1 {
		// What a mail program would refuse is none.
		u.Email, _ = mail.Address(all[0])
	}
	return u, nil
}

// Add gives the person a stanza of control/uploaders, or reports that there is
// one already, which stays.
func (u *Uploader) Add(dir string) (there bool, err error) {
	all, err := control.Load(dir)
	if err != nil {
		return false, daemon.Wrong{Err: err}
	}
	if slices.ContainsFunc(all.Uploaders, func(x control.Uploader) bool {
		return x.Name == u.Name || x.Account == u.Name
	}) {
		return true, nil
	}
	if err := u.add(dir); err != nil {
		return false, err
	}
	if _, err := control.Load(dir); err != nil {
		return false, daemon.Wrong{Err: err}
	}
	return false, nil
}
