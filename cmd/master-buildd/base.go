package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"packmill/cmd/internal/control"
	"packmill/internal/durable"
	"packmill/spool"
)

// How often a suite's Base is fetched, and how soon again after a failure.
const (
	baseAge   = time.Hour
	baseRetry = 10 * time.Minute
	baseLimit = 10 * time.Minute // of one fetch
)

// bases keeps the Packages of what suites are built on, as apt fetches and
// verifies them, below archive/cache/base/SUITE/ARCH.
type bases struct {
	m     *master
	nudge chan struct{}

	mu      sync.Mutex
	running map[string]bool
	tried   map[string]time.Time
}

// lists returns the Packages files of a suite's Base on an architecture;
// complete says that they are all there is. A suite without Base has none,
// and what its builders are given besides is not known.
func (b *bases) lists(ctx context.Context, s *control.Suite, arch string) (paths []string, complete bool) {
	if len(s.Base) == 0 {
		return nil, false
	}
	dir := b.m.Tree.Path(spool.BaseDir, s.Name, arch)
	if b.due(dir, s) {
		if b.m.Once {
			b.fetch(ctx, dir, s, arch)
		} else {
			go b.fetch(ctx, dir, s, arch)
		}
	}
	paths, err := filepath.Glob(filepath.Join(dir, "lists/*_Packages"))
	if err != nil || len(paths) == 0 || !fetched(dir, s) {
		return nil, false
	}
	slices.Sort(paths)
	return paths, true
}

// fetched reports whether the lists are those of the suite's Base lines.
func fetched(dir string, s *control.Suite) bool {
	data, err := os.ReadFile(filepath.Join(dir, "fetched"))
	return err == nil && string(data) == sourcesList(s)
}

func sourcesList(s *control.Suite) string { return strings.Join(s.Base, "\n") + "\n" }

// due reports whether it is time to fetch, and takes it down.
func (b *bases) due(dir string, s *control.Suite) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running[dir] || time.Since(b.tried[dir]) < baseRetry {
		return false
	}
	if st, err := os.Stat(filepath.Join(dir, "fetched")); err == nil && time.Since(st.ModTime()) < baseAge && fetched(dir, s) {
		return false
	}
	b.running[dir], b.tried[dir] = true, time.Now()
	return true
}

func (b *bases) fetch(ctx context.Context, dir string, s *control.Suite, arch string) {
	err := aptUpdate(ctx, dir, s, arch)
	b.mu.Lock()
	delete(b.running, dir)
	b.mu.Unlock()
	if err != nil {
		b.m.Log.Warn("no new indexes of the Base: what is there is used, or the suite's own packages alone", "suite", s.Name, "arch", arch, "err", err)
		return
	}
	b.m.Log.Info("fetched the indexes of the Base", "suite", s.Name, "arch", arch)
	select {
	case b.nudge <- struct{}{}:
	default:
	}
}

// aptUpdate lets apt fetch and verify the Base's indexes into dir, with
// nothing of the machine's own settings but its keys.
func aptUpdate(ctx context.Context, dir string, s *control.Suite, arch string) error {
	for _, d := range []string{"lists/partial", "cache/archives/partial", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	list := filepath.Join(dir, "etc/sources.list")
	for path, text := range map[string]string{list: sourcesList(s), filepath.Join(dir, "status"): ""} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, baseLimit)
	defer cancel()
	args := []string{"update", "-q"}
	for k, v := range map[string]string{
		"Dir::State": dir, "Dir::State::lists": filepath.Join(dir, "lists"), "Dir::State::status": filepath.Join(dir, "status"),
		"Dir::Cache": filepath.Join(dir, "cache"), "Dir::Etc::sourcelist": list, "Dir::Etc::sourceparts": "-",
		"APT::Architecture": arch, "APT::Architectures": arch, "Acquire::GzipIndexes": "false", "Acquire::Languages": "none",
		"Acquire::Retries": "0", "Acquire::http::Timeout": "20", "Acquire::https::Timeout": "20",
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
	return durable.WriteFile(filepath.Join(dir, "fetched"), []byte(sourcesList(s)), 0o644)
}
