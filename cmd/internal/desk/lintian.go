package desk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"packmill/internal/durable"
	"packmill/internal/regular"
	"packmill/spool"
	"packmill/spool/upload"
)

// lint runs lintian over both sources and keeps the tags that are new.
func (r *Report) lint(dir, dsc, pool, oldDsc string) {
	if _, err := exec.LookPath("lintian"); err != nil {
		r.LintianNote = "lintian is not installed"
		return
	}
	now, err := lintian(dir, dsc)
	if err != nil {
		r.LintianNote = "lintian: " + err.Error()
		return
	}
	var was []string
	if oldDsc != "" {
		if was, err = lintian(pool, oldDsc); err != nil {
			r.LintianNote = "lintian of the suite's version: " + err.Error()
		}
	}
	r.Lintian, _ = apart(was, now)
}

// LintianFile in an upload that waits has what lintian found when a reviewer looked: the suite's version, then a line
// for each tag that this version has not. Nobody decides by it.
const LintianFile = "lintian"

// maxLintian bounds what is read of the file, bytes.
const maxLintian = 1 << 20

// KeepLintian leaves what lintian found in the upload for those who only look and run nothing. Who may not write
// there leaves nothing.
func (d *Desk) KeepLintian(f spool.Found, r *Report) {
	if r.LintianNote != "" {
		return
	}
	text := strings.Join(append([]string{r.Against}, r.Lintian...), "\n") + "\n"
	if len(text) <= maxLintian {
		durable.WriteFile(d.tree.Path(f.Dir(), LintianFile), []byte(text), 0o644)
	}
}

// kept fills in what a reviewer left of lintian.
func (r *Report) kept(dir string) {
	r.LintianNote = "nobody has run it yet: packmill review show does"
	text, err := regular.Read(filepath.Join(dir, LintianFile), maxLintian)
	if against, tags, ok := strings.Cut(string(text), "\n"); err == nil && ok && against == r.Against {
		r.Lintian, r.LintianNote = splitLines([]byte(tags)), ""
		if len(r.Lintian) == 0 {
			r.LintianNote = "nothing new"
		}
	}
}

// lintianTime is how long lintian may work on one source.
const lintianTime = 3 * time.Minute

// lintian gives the tags of a source package, a line each. They are kept in the
// user's cache by the checksum of the .dsc.
func lintian(dir, dsc string) ([]string, error) {
	data, err := os.ReadFile(filepath.Join(dir, dsc))
	if err != nil {
		return nil, err
	}
	cache := ""
	if home, err := os.UserCacheDir(); err == nil {
		sum := sha256.Sum256(data)
		cache = filepath.Join(home, "packmill", "lintian", hex.EncodeToString(sum[:]))
		if kept, err := os.ReadFile(cache); err == nil {
			return splitLines(kept), nil
		}
	}
	scratch, err := os.MkdirTemp("", "packmill-lintian-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	d, err := upload.ReadDscFiles(dir, dsc)
	if err != nil {
		return nil, err
	}
	for _, name := range append(d, dsc) {
		if err := regular.Copy(filepath.Join(dir, name), filepath.Join(scratch, name)); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), lintianTime)
	defer cancel()
	out, err := cage(ctx, scratch, "lintian", "--no-cfg", "--fail-on", "none", "--tag-display-limit", "0", dsc)
	if err != nil {
		return nil, err
	}
	var tags []string
	for _, line := range splitLines(out) {
		if len(line) > 2 && line[1] == ':' && !strings.HasPrefix(line, "N:") {
			tags = append(tags, line)
		}
	}
	slices.Sort(tags)
	if cache != "" && os.MkdirAll(filepath.Dir(cache), 0o755) == nil {
		// Without the cache it only takes longer.
		durable.WriteFile(cache, []byte(strings.Join(tags, "\n")), 0o644)
	}
	return tags, nil
}

func splitLines(data []byte) []string {
	return slices.DeleteFunc(strings.Split(string(data), "\n"), func(l string) bool { return l == "" })
}

// nobody is the user that unpacks strangers' sources when a reviewer is root.
const nobody = 65534

// cage runs a program that reads an upload: in a directory of its own, as an
// unprivileged user, without network where the kernel lets us, with limits of
// time, memory and size, and with nothing of the reviewer's environment.
func cage(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	argv := []string{"prlimit", "--cpu=170", "--fsize=4294967296", "--as=8589934592", "--nofile=1024", "--core=0", "--"}
	if exec.CommandContext(ctx, "unshare", "--user", "--net", "true").Run() == nil {
		argv = append(argv, "unshare", "--user", "--net", "--ipc", "--")
	}
	argv = append(append(argv, name), args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + dir, "TMPDIR=" + dir, "LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Chown(p, nobody, nobody))
		})
		if err != nil {
			return nil, err
		}
	}
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &limited{w: &out, n: 16 << 20}, &limited{w: &problems, n: 4096}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("it did not end within %v", lintianTime)
		}
		return nil, fmt.Errorf("%w: %s", err, spool.OneLine(strings.TrimSpace(problems.String())))
	}
	return out.Bytes(), nil
}

// limited keeps the first n bytes.
type limited struct {
	w *bytes.Buffer
	n int
}

func (l *limited) Write(p []byte) (int, error) {
	l.w.Write(p[:min(len(p), max(0, l.n-l.w.Len()))])
	return len(p), nil
}
