// Package farm is the builders on other machines, as a person makes them: a stanza of control/builders and a
// line of authorized_keys each.
package farm

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"packmill/cmd/internal/account"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/setup"
	"packmill/internal/durable"
	"packmill/queue/builders"
	"packmill/spool"
)

// Farm is the builders of a tree.
type Farm struct {
	Tree     *spool.Tree
	Settings *control.Settings
	Keys     string // the authorized_keys file; "": the usual one
}

// SystemKeys is the file that scripts/sshd/packmill.conf names for the account that builds.
const SystemKeys = "/etc/packmill/builders.keys"

// keys is the file of ssh keys: the system's where the daemons have accounts of their own, else the user's.
func (f *Farm) keys() (string, error) {
	if f.Keys != "" {
		return f.Keys, nil
	}
	if f.separate() {
		return SystemKeys, nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".ssh/authorized_keys"), err
}

// separate reports whether the queues belong to the account of buildd's unit's group.
func (f *Farm) separate() bool {
	u, err := user.Lookup(spool.UserMaster)
	return err == nil && u.Username == account.OwnerOf(f.Tree.Path("queue"))
}

// goodName is what may stand in authorized_keys between quotes, and in the name of a file.
var goodName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,62}$`)

// goodPath has nothing that a shell or sshd reads as more than a path.
var goodPath = regexp.MustCompile(`^/[A-Za-z0-9._/+-]+$`)

// readKey reads one public ssh key, without options before it.
func readKey(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	words := strings.Fields(string(data))
	good := len(words) > 1 && bytes.Count(bytes.TrimSpace(data), []byte("\n")) == 0
	if good {
		raw, err := base64.StdEncoding.DecodeString(words[1])
		good = err == nil && len(raw) >= 4+len(words[0]) && string(raw[4:4+len(words[0])]) == words[0]
	}
	if !good {
		return "", daemon.Wrong{Err: fmt.Errorf("%s holds no public ssh key; make one on the builder: "+
			"ssh-keygen -t ed25519, and give its .pub file", path)}
	}
	return words[0] + " " + words[1], nil
}

// Add makes a builder: its key may start serve-builder for it and nothing else.
func (f *Farm) Add(name, keyFile string, archs []string) (keys string, err error) {
	if !goodName.MatchString(name) {
		return "", daemon.Wrong{Err: fmt.Errorf("%q is no name of a builder: a-z, 0-9, dot and dash", name)}
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	for _, path := range []string{self, f.Tree.Root()} {
		if !goodPath.MatchString(path) {
			return "", daemon.Wrong{Err: fmt.Errorf("%s cannot stand in authorized_keys; use a path without special characters",
				path)}
		}
	}
	key, err := readKey(keyFile)
	if err != nil {
		return "", err
	}
	if keys, err = f.keys(); err != nil {
		return "", err
	}
	if err := f.account(); err != nil {
		return "", err
	}
	if err := f.addStanza(name, archs); err != nil {
		return "", err
	}
	line := fmt.Sprintf(`restrict,command="exec %s --tree %s serve-builder %s" %s %s`, self, f.Tree.Root(), name, key,
		mark(name))
	return keys, changeKeys(keys, name, line)
}

// mark ends the line of a builder's key.
func mark(name string) string { return "packmill-builder:" + name }

// changeKeys puts a builder's line into a file of keys, or with "" takes it out.
func changeKeys(path, name, line string) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var out []string
	for l := range strings.Lines(string(old)) {
		if l = strings.TrimRight(l, "\n"); !strings.HasSuffix(l, " "+mark(name)) {
			out = append(out, l)
		}
	}
	if line != "" {
		out = append(out, line)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return durable.WriteFile(path, []byte(strings.Join(append(out, ""), "\n")), 0o644)
}

// account lets the account that builds log in: sshd starts a forced command by its shell, and without PAM refuses
// an account whose password is "!".
func (f *Farm) account() error {
	if os.Getuid() != 0 || !f.separate() {
		return nil
	}
	if out, err := exec.Command("usermod", "--shell", "/bin/sh", "--password", "*",
		spool.UserBuild).CombinedOutput(); err != nil {
		return fmt.Errorf("usermod %s: %w: %s", spool.UserBuild, err, bytes.TrimSpace(out))
	}
	return nil
}

// addStanza writes the builder into control/builders, unless it is there.
func (f *Farm) addStanza(name string, archs []string) error {
	if x := f.Settings.Builder(name); x != nil {
		if !x.Elsewhere() || !slices.Equal(x.Architectures, archs) {
			return daemon.Wrong{Err: fmt.Errorf("control/builders has another builder %s; change its stanza, "+
				"or take another name", name)}
		}
		return nil
	}
	return f.change(func(old string) (string, error) {
		return strings.TrimRight(old, "\n") + fmt.Sprintf("\n\nName: %s\nArchitectures: %s\nRunner: remote\n", name,
			strings.Join(archs, " ")), nil
	})
}

// change rewrites control/builders, if it can be read afterwards.
func (f *Farm) change(how func(old string) (string, error)) error {
	path := f.Tree.Path("control", "builders")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text, err := how(string(old))
	if err != nil {
		return err
	}
	like := path
	if old == nil {
		like = filepath.Dir(path)
	}
	if err := replace(path, []byte(strings.TrimLeft(text, "\n")), like); err != nil {
		return err
	}
	_, err = control.Load(filepath.Dir(path))
	switch {
	case err == nil:
		return nil
	case old == nil:
		return errors.Join(daemon.Wrong{Err: err}, durable.Remove(path))
	}
	return errors.Join(daemon.Wrong{Err: err}, replace(path, old, path))
}

// replace writes a file whose owner and mode are those of another.
func replace(path string, text []byte, like string) error {
	tmp := filepath.Join(filepath.Dir(path), durable.NewPrefix+filepath.Base(path))
	if err := durable.WriteFile(tmp, text, 0o644); err != nil {
		return err
	}
	if err := account.OwnedAs(tmp, like); err != nil {
		return err
	}
	return durable.Replace(tmp, path)
}

// remote is a builder on another machine.
func (f *Farm) remote(name string) (*control.Builder, error) {
	if x := f.Settings.Builder(name); x != nil && x.Elsewhere() {
		return x, nil
	}
	return nil, daemon.Wrong{Err: fmt.Errorf("there is no builder %s on another machine; packmill builder ls has them",
		name)}
}

// Remove takes away the key and the stanza of a builder that has no jobs, and its session ends: nobody would look at
// the leases of a builder that the settings do not have.
func (f *Farm) Remove(name string) error {
	x, err := f.remote(name)
	if err != nil {
		return err
	}
	jobs, err := f.jobs()
	if err != nil {
		return err
	}
	if has := jobs[name]; len(has) > 0 {
		return daemon.Wrong{Err: fmt.Errorf("%s has %s: packmill builder drain %s first; if it does not come back it loses "+
			"them when its lease (%s) ends, or now by packmill wb gb PKG . ARCH --override", name, strings.Join(has, ", "), name,
			x.Lease)}
	}
	keys, err := f.keys()
	if err != nil {
		return err
	}
	if err := changeKeys(keys, name, ""); err != nil {
		return err
	}
	return f.change(func(old string) (string, error) {
		return without(old, x.Stanza.Line-1, name)
	})
}

// without takes out the stanza that begins at a line, if it is the builder's still.
func without(text string, from int, name string) (string, error) {
	lines := strings.SplitAfter(text, "\n")
	named := false
	to := from
	for ; to >= 0 && to < len(lines) && strings.TrimSpace(lines[to]) != ""; to++ {
		field, value, _ := strings.Cut(lines[to], ":")
		named = named || strings.EqualFold(field, "Name") && strings.TrimSpace(value) == name
	}
	if !named || from > 0 && strings.TrimSpace(lines[from-1]) != "" && !strings.HasPrefix(lines[from-1], "#") {
		return "", errors.New("control/builders has changed meanwhile; try again")
	}
	return strings.Join(slices.Delete(lines, from, to), ""), nil
}

// Takes writes whether a builder takes jobs: yes, no or drain.
func (f *Farm) Takes(name, word string) error {
	x := f.Settings.Builder(name)
	if x == nil {
		return daemon.Wrong{Err: fmt.Errorf("there is no builder %s in control/builders", name)}
	}
	return control.SetField(f.Tree.Path("control", "builders"), x.Stanza, "Takes", word)
}

// Row is a builder, as packmill builder ls shows it.
type Row struct {
	Name          string
	Architectures []string
	State         string // here, away, paused, draining
	Since         time.Time
	Jobs          []string // that it has
	Trouble       string
}

// String is the row for a person.
func (r *Row) String() string {
	text := fmt.Sprintf("%s  %s  %s", r.Name, strings.Join(r.Architectures, " "), r.State)
	if !r.Since.IsZero() {
		text += " since " + r.Since.UTC().Format(time.RFC3339)
	}
	if len(r.Jobs) > 0 {
		text += "; has " + strings.Join(r.Jobs, ", ")
	}
	if r.Trouble != "" {
		text += "; " + r.Trouble
	}
	return text
}

// Rows are the builders on other machines.
func (f *Farm) Rows() ([]Row, error) {
	now, err := builders.Read(f.Tree.Path(spool.BuildersDir))
	if err != nil {
		return nil, err
	}
	jobs, err := f.jobs()
	if err != nil {
		return nil, err
	}
	var out []Row
	for i := range f.Settings.Builders {
		x := &f.Settings.Builders[i]
		if !x.Elsewhere() {
			continue
		}
		r := Row{Name: x.Name, Architectures: x.Architectures, State: "away", Jobs: jobs[x.Name]}
		if j := slices.IndexFunc(now, func(e builders.Entry) bool { return e.Daemon == "buildd/"+x.Name }); j >= 0 {
			r.State, r.Since, r.Trouble = "here", now[j].Since, now[j].Trouble
			if now[j].Refuses != "" {
				r.Trouble = now[j].Refuses
			}
		}
		switch x.Takes {
		case "no":
			r.State += ", paused"
		case "drain":
			r.State += ", draining"
		}
		out = append(out, r)
	}
	return out, nil
}

// Serve becomes the build daemon of a builder that has called.
func Serve(tree, name string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, dir := range append([]string{filepath.Dir(self)}, setup.Libexec...) {
		err = syscall.Exec(filepath.Join(dir, "buildd"), []string{"buildd", "--tree", tree, "--builder", name, "--serve"},
			os.Environ())
		if !errors.Is(err, syscall.ENOENT) {
			break
		}
	}
	return fmt.Errorf("start buildd: %w", err)
}

// jobs are those that builders have, by the builder's name.
func (f *Farm) jobs() (map[string][]string, error) {
	found, err := f.Tree.Find("", spool.Building)
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, x := range found {
		if l := spool.Leased(f.Tree.Path(x.Dir()), time.Now()); l != nil {
			out[l.Builder] = append(out[l.Builder], x.Name.ID()+" "+x.Arch())
		}
	}
	return out, nil
}
