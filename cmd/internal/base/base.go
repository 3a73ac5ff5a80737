// Package base keeps the indexes of what suites are built on, as apt fetches and
// verifies them: archive/cache/base/SUITE/ARCH.
package base

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/cmd/internal/control"
	"packmill/internal/durable"
	"packmill/spool"
)

// Age is how old fetched indexes may be.
const Age = time.Hour

// limit is how long one fetch may take.
const limit = 10 * time.Minute

// Base is what a suite is built on, on one architecture.
type Base struct {
	dists string // of the tree
	dir   string
	lines string
	arch  string
}

// Of is the Base of a suite of the tree at root; nil, if it has none.
func Of(root string, s *control.Suite, arch string) *Base {
	if len(s.Base) == 0 {
		return nil
	}
	return &Base{filepath.Join(root, "archive/dists"), filepath.Join(root, spool.BaseDir, s.Name, arch),
		strings.Join(s.Base, "\n") + "\n", arch}
}

// Dir is where its files are.
func (b *Base) Dir() string { return b.dir }

// Lists are the paths of its Packages files; none, if what was fetched is not what the
// settings name now. Beside them lie apt's copies of the Release files.
func (b *Base) Lists() []string {
	if b.Fetched().IsZero() {
		return nil
	}
	paths, err := filepath.Glob(filepath.Join(b.dir, "lists/*_Packages"))
	if err != nil {
		return nil
	}
	slices.Sort(paths)
	return paths
}

// fetchedFile holds the lines that were fetched last, at its time. oursFile names the
// suites of this tree that were among them.
const (
	fetchedFile = "fetched"
	oursFile    = "ours"
)

// Fetched says when it was; the zero time says never, or with other lines.
func (b *Base) Fetched() time.Time {
	data, err := os.ReadFile(filepath.Join(b.dir, fetchedFile))
	if err != nil || string(data) != b.lines {
		return time.Time{}
	}
	st, err := os.Stat(filepath.Join(b.dir, fetchedFile))
	if err != nil {
		return time.Time{}
	}
	return st.ModTime()
}

// Moved says when a suite of this tree, among those that it names, was published last: it
// is to be fetched again then, however young it is. The zero time says that it names none.
func (b *Base) Moved() (last time.Time) {
	data, _ := os.ReadFile(filepath.Join(b.dir, oursFile))
	for _, suite := range strings.Fields(string(data)) {
		if st, err := os.Stat(filepath.Join(b.dists, suite, "InRelease")); err == nil && st.ModTime().After(last) {
			last = st.ModTime()
		}
	}
	return last
}

// Due reports whether it is time to fetch it.
func (b *Base) Due() bool {
	at := b.Fetched()
	return time.Since(at) >= Age || b.Moved().After(at)
}

// Fetch lets apt fetch and verify the indexes, with nothing of the machine's own settings
// but its keys.
func (b *Base) Fetch(ctx context.Context) error {
	for _, d := range []string{"lists/partial", "cache/archives/partial", "etc"} {
		if err := os.MkdirAll(filepath.Join(b.dir, d), 0o755); err != nil {
			return err
		}
	}
	begun := time.Now()
	list := filepath.Join(b.dir, "etc/sources.list")
	for path, text := range map[string]string{list: b.lines, filepath.Join(b.dir, "status"): ""} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	args := []string{"update", "-q"}
	for k, v := range map[string]string{
		"Dir::State": b.dir, "Dir::State::lists": filepath.Join(b.dir, "lists"),
		"Dir::State::status": filepath.Join(b.dir, "status"),
		"Dir::Cache":         filepath.Join(b.dir, "cache"), "Dir::Etc::sourcelist": list, "Dir::Etc::sourceparts": "-",
		"APT::Architecture": b.arch, "APT::Architectures": b.arch, "Acquire::GzipIndexes": "false",
		"Acquire::Languages": "none",
		"Acquire::Retries":   "0", "Acquire::http::Timeout": "20", "Acquire::https::Timeout": "20",
		"APT::Update::Error-Mode": "any", "APT::Sandbox::User": "", "APT::Update::Post-Invoke-Success": "",
	} {
		args = append(args, "-o", k+"="+v)
	}
	// apt makes its files by its umask, which is the group's here, and takes that
	// right away only when a file is whole.
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", `umask 022; exec apt-get "$@"`, "apt-get"}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() == 127 {
		return errors.New("apt-get is not installed")
	}
	if err != nil {
		return fmt.Errorf("apt-get update: %w: %.500q", err, string(out))
	}
	if err := b.ours(); err != nil {
		return err
	}
	fetched := filepath.Join(b.dir, fetchedFile)
	if err := durable.WriteFile(fetched, []byte(b.lines), 0o644); err != nil {
		return err
	}
	return os.Chtimes(fetched, begun, begun) // what is published meanwhile is newer
}

// ours notes which suites of this tree are among the Base's, by whatever address: those
// whose InRelease apt has just fetched. One that was is still.
func (b *Base) ours() error {
	got, err := filepath.Glob(filepath.Join(b.dir, "lists/*_InRelease"))
	if err != nil {
		return err
	}
	suites, err := filepath.Glob(filepath.Join(b.dists, "*", "InRelease"))
	if err != nil {
		return err
	}
	var names []string
	if old, err := os.ReadFile(filepath.Join(b.dir, oursFile)); err == nil && !b.Fetched().IsZero() {
		names = strings.Fields(string(old))
	}
	for _, path := range suites {
		mine, err := os.ReadFile(path)
		if err != nil {
			continue // it goes at this moment
		}
		name := filepath.Base(filepath.Dir(path))
		for _, g := range got {
			if theirs, err := os.ReadFile(g); err == nil && bytes.Equal(mine, theirs) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return durable.WriteFile(filepath.Join(b.dir, oursFile), []byte(strings.Join(names, "\n")+"\n"), 0o644)
}
