// Package setup makes a server of a machine: what packmill setup does beside
// making the tree, its keys and its chroots.
package setup

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/internal/deb822"
	"packmill/internal/durable"
)

// Answers are what a server is made of.
type Answers struct {
	Suite  string
	Archs  []string
	Base   []string // apt lines
	From   string   // of mail: "" sends none
	Runner string   // sbuild or overlay
	Review string   // always, new or never
	Opkg   bool     // feeds for opkg too
	Pages  bool     // statusd runs, too
	// Fingerprint of the key that signs what is built.
	Fingerprint string
}

// The mirrors of the releases whose names Base knows.
const (
	debianSecurity = "http://security.debian.org/debian-security"
	ubuntuMirror   = "http://archive.ubuntu.com/ubuntu"
)

// Mirrors are where Debian's releases and their security updates come from.
type Mirrors struct{ Main, Security string }

// releases are the names that stand for a Base, with the apt lines that they
// mean; MIRROR and SECURITY are those that apt itself uses on a machine of that release.
var releases = map[string][]string{
	"bookworm": debian("bookworm"),
	"trixie":   debian("trixie"),
	"sid":      {"deb MIRROR sid main"},
	"noble": {
		"deb " + ubuntuMirror + " noble main universe",
		"deb " + ubuntuMirror + " noble-updates main universe",
		"deb " + ubuntuMirror + " noble-security main universe",
	},
}

func debian(codename string) []string {
	return []string{"deb MIRROR " + codename + " main", "deb MIRROR " + codename + "-updates main",
		"deb SECURITY " + codename + "-security main"}
}

// Releases are the names that Base takes in the place of apt lines.
func Releases() []string {
	names := make([]string, 0, len(releases))
	for n := range releases {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Base turns a release's name, or an apt line, into apt lines, with the mirrors that
// Machine found.
func Base(word string, m Mirrors) ([]string, error) {
	if control.IsAptLine(word) {
		return []string{word}, nil
	}
	lines, ok := releases[word]
	if !ok {
		return nil, fmt.Errorf("%q is no release that is known (%s); write an apt line: deb MIRROR SUITE main",
			word, strings.Join(Releases(), ", "))
	}
	if m.Main == "" && strings.Contains(strings.Join(lines, ""), "MIRROR") {
		return nil, fmt.Errorf("%s: apt of this machine names no mirror of Debian to take it from; write an apt line: "+
			"deb MIRROR %s main", word, word)
	}
	out := slices.Clone(lines)
	for i := range out {
		out[i] = strings.NewReplacer("MIRROR", m.Main, "SECURITY", cmp.Or(m.Security, debianSecurity)).Replace(out[i])
	}
	return out, nil
}

// Machine is the release that runs here, and the mirrors that its apt uses; ""
// where os-release(5) or apt does not tell.
func Machine() (codename string, m Mirrors) {
	if f, err := os.Open("/etc/os-release"); err == nil {
		defer f.Close()
		for sc := bufio.NewScanner(f); sc.Scan(); {
			if v, ok := strings.CutPrefix(sc.Text(), "VERSION_CODENAME="); ok {
				codename = strings.Trim(v, `"`)
			}
		}
	}
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(ORIGIN) $(RELEASE) $(REPO_URI)",
		"Created-By: Packages").Output()
	if err != nil {
		return codename, m
	}
	for line := range strings.Lines(string(out)) {
		w := strings.Fields(line)
		if len(w) != 3 || w[0] != "Debian" {
			continue
		}
		switch uri := strings.TrimSuffix(w[2], "/"); w[1] {
		case codename:
			m.Main = cmp.Or(m.Main, uri)
		case codename + "-security":
			m.Security = cmp.Or(m.Security, uri)
		}
	}
	return codename, m
}

// Settings are the control files that the answers make, by name.
func Settings(a *Answers) map[string]string {
	var suites strings.Builder
	fmt.Fprintf(&suites, "# One stanza a suite; man 5 packmill has every field.\nSuite: %s\nArchitectures: %s\n",
		a.Suite, strings.Join(a.Archs, " "))
	fmt.Fprintf(&suites, "# Signs what apt's users fetch.\nSign-With: private/archive.key\n")
	fmt.Fprintf(&suites, "# What builds stand on.\nBase:\n")
	for _, line := range a.Base {
		fmt.Fprintf(&suites, " %s\n", line)
	}
	fmt.Fprintf(&suites,
		"# A person accepts every upload (always), those of new packages (new), or none (never).\nReview: %s\n", a.Review)
	feeds := map[bool]string{true: "yes", false: "no"}[a.Opkg]
	fmt.Fprintf(&suites,
		"# Feeds for opkg: each package is there once more, about one and a half times as large.\nOpkg: %s\n", feeds)
	builders := fmt.Sprintf("# One stanza a builder; man 5 packmill has every field.\nName: here\n"+
		"Architectures: %s all\nRunner: %s\n"+
		"# Signs what it built.\nKey: private/builder.key\nFingerprint: %s\n",
		strings.Join(a.Archs, " "), a.Runner, a.Fingerprint)
	files := map[string]string{"suites": suites.String(), "builders": builders}
	if a.From != "" {
		files["notify"] = fmt.Sprintf("# Who hears of what. One stanza an event; * is every event but rebuilt.\n"+
			"Event: *\nTo: signer\nFrom: %s\n", a.From)
	}
	return files
}

// Check reports what the daemons would refuse in the settings of these answers. What
// setup has written stays, so it asks before it makes anything.
func (a *Answers) Check() error {
	dir, err := os.MkdirTemp("", "packmill-setup-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	mine := *a
	mine.Fingerprint = cmp.Or(a.Fingerprint, strings.Repeat("0", 40)) // the key is made later
	if _, _, err := WriteSettings(dir, Settings(&mine)); err != nil {
		return err
	}
	if _, err := control.Load(dir); err != nil {
		return daemon.Wrong{Err: errors.New(strings.ReplaceAll(err.Error(), dir+"/", ""))}
	}
	return nil
}

// WriteSettings writes the files into control, but for those that have a
// stanza already: what a person wrote stays. It returns the names of both.
func WriteSettings(control string, files map[string]string) (wrote, kept []string, err error) {
	names := make([]string, 0, len(files))
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		path := filepath.Join(control, n)
		if used, err := hasStanza(path); err != nil {
			return wrote, kept, err
		} else if used {
			kept = append(kept, n)
			continue
		}
		if err := durable.WriteFile(path, []byte(files[n]), 0o644); err != nil {
			return wrote, kept, err
		}
		wrote = append(wrote, n)
	}
	return wrote, kept, nil
}

func hasStanza(path string) (bool, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	stanzas, err := deb822.Parse(path, data, deb822.Settings)
	return len(stanzas) > 0, err
}

// add writes the stanza into control/uploaders of that directory, and the key into its keys.
func (u *Uploader) add(control string) error {
	path := filepath.Join(control, "uploaders")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var st strings.Builder
	if len(bytes.TrimSpace(old)) > 0 {
		st.WriteString("\n")
	}
	fmt.Fprintf(&st, "Name: %s\n", u.Name)
	if u.fingerprint != "" {
		fmt.Fprintf(&st, "Fingerprint: %s\n", u.fingerprint)
		if err := durable.WriteFile(filepath.Join(control, "keys", u.Name+".asc"), u.key, 0o644); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(&st, "Account: %s\n", u.Name)
	}
	if u.Email != "" {
		fmt.Fprintf(&st, "Email: %s\n", u.Email)
	}
	fmt.Fprintf(&st, "Allow: %s\n", u.Allow)
	return durable.WriteFile(path, append(bytes.TrimRight(old, "\n"), append([]byte("\n"), st.String()...)...), 0o644)
}

// idsWanted is how many subordinate ids an account gets: each build at a time
// takes 65536 of them (useradd(8)'s own number), and eight may run.
const idsWanted = 8 * 65536

// SubordinateIDs gives the account subordinate users and groups, behind every
// range that is given out already, unless it has as many. It reports whether it
// did.
func SubordinateIDs(account string) (did bool, err error) {
	for _, kind := range []struct{ file, flag string }{{"/etc/subuid", "--add-subuids"},
		{"/etc/subgid", "--add-subgids"}} {
		mine, top, err := subranges(kind.file, account)
		if err != nil {
			return did, err
		}
		if mine >= idsWanted {
			continue
		}
		span := fmt.Sprintf("%d-%d", top, top+idsWanted-1)
		if out, err := exec.Command("usermod", kind.flag, span, account).CombinedOutput(); err != nil {
			return did, fmt.Errorf("usermod %s %s %s: %w: %s", kind.flag, span, account, err, bytes.TrimSpace(out))
		}
		did = true
	}
	return did, nil
}

// subranges reads subuid(5): the account's longest range, and the first id
// behind every range.
func subranges(file, account string) (longest, top int, err error) {
	top = 100000
	f, err := os.OpenFile(file, os.O_RDONLY|os.O_CREATE, 0o644)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		w := strings.Split(sc.Text(), ":")
		if len(w) != 3 {
			continue
		}
		from, err1 := strconv.Atoi(w[1])
		n, err2 := strconv.Atoi(w[2])
		if err1 != nil || err2 != nil {
			continue
		}
		top = max(top, from+n)
		if w[0] == account {
			longest = max(longest, n)
		}
	}
	return longest, top, sc.Err()
}

// Libexec are the directories in which a Debian package, or a person, puts what
// only programs start.
var Libexec = []string{"/usr/libexec/packmill", "/usr/local/libexec/packmill"}

// Sshd puts the fragment for uploaders' accounts into sshd's settings, shows
// them to sshd, and makes it read them again: also when the fragment was there, since who was
// interrupted may have left it unread. It reports whether it put it there.
func Sshd(fragment, tree string) (bool, error) {
	const to = "/etc/ssh/sshd_config.d/packmill.conf"
	if _, err := os.Stat("/etc/ssh/sshd_config"); errors.Is(err, fs.ErrNotExist) {
		return false, errors.New("there is no OpenSSH server: apt install openssh-server, then packmill setup --sshd")
	}
	put := !fileExists(to)
	if put {
		data, err := os.ReadFile(fragment)
		if err != nil {
			return false, err
		}
		data = bytes.ReplaceAll(data, []byte(OfUnits+"/"), []byte(strings.TrimSuffix(tree, "/")+"/"))
		if err := durable.WriteFile(to, data, 0o644); err != nil {
			return false, err
		}
	}
	// sshd -t wants its directory, which a fresh machine without a running one lacks.
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		return false, err
	}
	if out, err := exec.Command("/usr/sbin/sshd", "-t").CombinedOutput(); err != nil {
		err = fmt.Errorf("sshd refuses its settings with %s: %w: %s", to, err, bytes.TrimSpace(out))
		if put {
			err = errors.Join(err, durable.Remove(to))
		}
		return false, err
	}
	if Systemd() {
		// Where a socket starts sshd, it reads them by itself.
		return put, systemctl("try-reload-or-restart", "ssh.service")
	}
	return put, nil
}

// OfUnits is the tree of the units.
const OfUnits = "/var/lib/packmill"

// Systemd reports whether systemd runs this machine.
func Systemd() bool {
	st, err := os.Stat("/run/systemd/system")
	return err == nil && st.IsDir()
}

func systemctl(args ...string) error {
	if out, err := exec.Command("systemctl", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// PagesAddress is where statusd.socket listens.
const PagesAddress = "127.0.0.1:8077"

// Units are the units of a server with these answers.
func (a *Answers) Units() []string {
	units := []string{"reviewd.service", "master-buildd.service", "archived.service", "maild.service",
		"buildd@all.service"}
	for _, arch := range a.Archs {
		units = append(units, "buildd@"+arch+".service")
	}
	if a.Pages {
		units = append(units, "statusd.socket", "statusd.service")
	}
	return append(units, "packmill-chroots.timer", "packmill-fsck.timer")
}

// Unit is what systemd says of a unit.
type Unit struct {
	Active, Sub string // its ActiveState and SubState
	Job         bool   // a job of it (its start) still waits its turn, or is not done
}

// ReadUnit asks systemd about a unit.
func ReadUnit(ctx context.Context, name string) (Unit, error) {
	out, err := exec.CommandContext(ctx, "systemctl", "show", "-p", "ActiveState", "-p", "SubState", "-p", "Job", name).Output()
	if err != nil {
		return Unit{}, fmt.Errorf("systemctl show %s: %w", name, err)
	}
	return parseUnit(string(out)), nil
}

// parseUnit reads the properties, a line each.
func parseUnit(text string) (u Unit) {
	for line := range strings.Lines(text) {
		switch name, value, _ := strings.Cut(strings.TrimSpace(line), "="); name {
		case "ActiveState":
			u.Active = value
		case "SubState":
			u.Sub = value
		case "Job":
			u.Job = value != "" && value != "0"
		}
	}
	return u
}

// Runs reports whether it does what it is for.
func (u Unit) Runs() bool { return u.Active == "active" || u.Active == "reloading" }

// Repeats reports whether it has ended and is started again and again.
func (u Unit) Repeats() bool {
	return u.Active == "activating" && strings.HasPrefix(u.Sub, "auto-restart")
}

// Down reports whether nothing will make it run: it has failed, has ended, or a condition of it does not hold.
func (u Unit) Down() bool { return u.Active == "failed" || u.Active == "inactive" && !u.Job }

// startWait is how long Start waits for daemons that begin after something else.
const startWait = 20 * time.Second

// Start makes the units start now and at each boot, and returns those that do not run yet. Builders begin when the
// network is there, and on a machine where nothing says so systemd takes minutes to believe it.
func Start(units []string) (waiting []string, err error) {
	if err := systemctl(append([]string{"enable", "--quiet"}, units...)...); err != nil {
		return nil, err
	}
	if err := systemctl(append([]string{"start", "--no-block"}, units...)...); err != nil {
		return nil, err
	}
	for end := time.Now().Add(startWait); ; time.Sleep(200 * time.Millisecond) {
		late := time.Now().After(end)
		waiting = nil
		for _, u := range units {
			unit, err := ReadUnit(context.Background(), u)
			if err != nil {
				return nil, err
			}
			if unit.Down() || unit.Repeats() && late {
				return nil, fmt.Errorf("%s does not start: journalctl -u %s says why", u, u)
			}
			if !unit.Runs() {
				waiting = append(waiting, u)
			}
		}
		if len(waiting) == 0 || late {
			return waiting, nil
		}
	}
}
