package overlay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"packmill/internal/deb822"
	"packmill/internal/paper"
	"packmill/internal/policy"
	"packmill/internal/regular"
	"packmill/queue/runner/cage"
)

// placeSources copies the source package into the build's directory, which
// the build user owns.
func (b *build) placeSources() error {
	parent := b.parent()[1:]
	if err := b.root.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("place sources: %w", err)
	}
	r := b.w.Ranges[0]
	if err := b.root.Lchown(parent, r.UID+BuildUID, r.GID+BuildUID); err != nil {
		return fmt.Errorf("place sources: %w", err)
	}
	for i, name := range b.Sources {
		from := b.w.Sources[i]
		to, err := b.root.OpenFile(filepath.Join(parent, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
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

// compile unpacks the source and runs dpkg-buildpackage, both as the build
// user, and without a network.
func (b *build) compile() error {
	defer cage.KillOthers()
	if err := b.cutNetwork(); err != nil {
		return err
	}
	if ok, err := b.run("unpack", b.parent(), "dpkg-source", "-x", b.Dsc, filepath.Base(b.work)); !ok {
		return err
	}
	if b.Changes != "" {
		if err := b.prependChangelog(); err != nil {
			return fmt.Errorf("binNMU changelog: %w", err)
		}
	}
	argv := []string{"dpkg-buildpackage", "--sanitize-env", "-us", "-uc", b.Binary, "-rfakeroot",
		"--changes-option=-DDistribution=" + b.Suite}
	if len(b.Profiles) > 0 {
		argv = append(argv, "-P"+strings.Join(b.Profiles, ","))
	}
	fmt.Printf("Command: %s\n", strings.Join(argv, " "))
	_, err := b.run("build", b.work, argv...)
	return err
}

// run runs a program as the build user.
func (b *build) run(stage, dir string, argv ...string) (bool, error) {
	c := &cage.Command{Argv: argv, Env: b.env(), Dir: dir, Attr: b.w.Ranges[0].Inside(BuildUID)}
	code, signal, err := c.LimitTasks(b.w.Tasks).Run()
	if err != nil {
		return false, err
	}
	if r := b.report; code != 0 {
		r.Exit, r.Signal, r.Stage, r.Status = code, signal, stage, "attempted"
	}
	return code == 0, nil
}

// prependChangelog adds a binNMU's entry.
func (b *build) prependChangelog() error {
	root, err := b.root.OpenRoot(b.work[1:])
	if err != nil {
		return err
	}
	defer root.Close()
	old, err := root.ReadFile("debian/changelog")
	if err != nil {
		return err
	}
	return root.WriteFile("debian/changelog", append([]byte(b.Changes), old...), 0o644)
}

// results hands out the .changes and what it lists. Nothing of the build runs
// any more. The daemon checks what it gets.
func (b *build) results() error {
	root, err := b.root.OpenRoot(b.parent()[1:])
	if err != nil {
		return err
	}
	defer root.Close()
	changes, err := findChanges(root)
	if err != nil {
		return err
	}
	text, err := readPlain(root, changes, deb822.Hostile.Size)
	if err != nil {
		return err
	}
	names := append([]string{changes}, listed(changes, text)...)
	fmt.Println()
	os.Stdout.Write(bytes.TrimRight(text, "\n"))
	fmt.Println()
	return cage.HandOutFiles(b.w.Out, root, names)
}

// findChanges returns the name of the only .changes.
func findChanges(root *os.Root) (string, error) {
	d, err := root.Open(".")
	if err != nil {
		return "", err
	}
	defer d.Close()
	all, err := d.Readdirnames(-1)
	if err != nil {
		return "", err
	}
	found := slices.DeleteFunc(all, func(name string) bool { return !strings.HasSuffix(name, ".changes") })
	switch len(found) {
	case 0:
		return "", errors.New("no .changes")
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("several .changes files: %q", found)
}

// readPlain reads a plain file that is not larger than limit.
func readPlain(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := regular.OpenRoot(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return regular.ReadAll(f, limit)
}

// listed are the names of the files of a .changes that lie beside it.
func listed(changes string, text []byte) (names []string) {
	s, err := paper.Parse(changes, text)
	if err != nil {
		fmt.Printf("E: %v\n", err)
		return nil
	}
	files, _ := paper.Lists(s, paper.Long)
	for _, f := range files {
		if f.Name != changes && policy.CheckFile(f.Name) == nil {
			names = append(names, f.Name)
		}
	}
	return names
}
