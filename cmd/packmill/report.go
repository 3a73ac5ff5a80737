package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/diff"

	"packmill/cmd/internal/control"
	"packmill/internal/durable"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/spool"
	"packmill/spool/upload"
)

// report is all that a reviewer is shown of an upload.
type report struct {
	waiting
	Fingerprint  string      `json:"fingerprint,omitempty"`
	ChangedBy    string      `json:"changed_by,omitempty"`
	Rights       string      `json:"rights,omitempty"` // the stanza of control/uploaders that applied
	Files        []string    `json:"files"`
	Against      string      `json:"against,omitempty"` // the suite's version
	Added        []string    `json:"added,omitempty"`
	Removed      []string    `json:"removed,omitempty"`
	Changed      []string    `json:"changed,omitempty"`
	Scripts      []string    `json:"scripts,omitempty"`   // maintainer scripts that differ
	Copyright    []string    `json:"copyright,omitempty"` // copyright files that differ
	NewBinaries  []string    `json:"new_binaries,omitempty"`
	GoneBinaries []string    `json:"gone_binaries,omitempty"`
	NewDepends   []string    `json:"new_build_depends,omitempty"`
	GoneDepends  []string    `json:"gone_build_depends,omitempty"`
	Lintian      []string    `json:"lintian,omitempty"` // tags that the suite's version has not
	LintianNote  string      `json:"lintian_note,omitempty"`
	Opinions     []opinion   `json:"opinions,omitempty"`
	Earlier      []rejection `json:"earlier,omitempty"`
	Changelog    string      `json:"changelog,omitempty"` // what Changes says
	Diff         string      `json:"diff,omitempty"`
}

// rejection is an earlier upload of the same source that was refused.
type rejection struct {
	Version string    `json:"version"`
	Time    time.Time `json:"time"`
	Who     string    `json:"who"`
	Reason  string    `json:"reason"`
}

var scriptFile = regexp.MustCompile(`^debian/([^/]+\.)?(preinst|postinst|prerm|postrm|config)$`)
var copyrightFile = regexp.MustCompile(`(?i)(^|/)(copyright|copying|licen[cs]e)[^/]*$`)

// report gathers everything. Nothing of the upload is run or unpacked to disk
// but by lintian, which does it in a cage.
func (d *desk) report(f spool.Found, withLintian bool) (*report, error) {
	x, tk, err := d.look(f)
	if err != nil {
		return nil, err
	}
	dir := d.tree.Path(f.Dir())
	r := &report{waiting: x, Fingerprint: tk.Fingerprint, ChangedBy: tk.ChangedBy, Opinions: readOpinions(dir)}
	for _, u := range d.set.Uploaders {
		if u.Name == tk.Uploader {
			r.Rights = rights(u.Allow)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && policy.CheckFile(e.Name()) == nil {
			r.Files = append(r.Files, fmt.Sprintf("%10d  %s", info.Size(), e.Name()))
		}
	}
	if r.Earlier, err = d.earlier(f); err != nil {
		return nil, err
	}
	if data, err := os.ReadFile(filepath.Join(dir, tk.Changes)); err == nil {
		r.Changelog = changesField(string(data))
	}
	if tk.Dsc == "" {
		return r, nil
	}
	old, component, err := d.published(f.Place.Suite, f.Name.Source)
	if err != nil {
		return nil, err
	}
	pool, oldDsc := "", ""
	if old != "" {
		r.Against = old
		pool = filepath.Join(d.archive.Root(), "pool", component, spool.Hash(f.Name.Source), f.Name.Source)
		oldDsc = f.Name.Source + "_" + policy.WithoutEpoch(old) + ".dsc"
	}
	if err := r.compare(dir, tk, pool, oldDsc); err != nil {
		return nil, err
	}
	if withLintian {
		r.lint(dir, tk.Dsc, pool, oldDsc)
	}
	return r, nil
}

// rights says in words what a stanza allows.
func rights(a control.Allow) string {
	var out []string
	if a.Source {
		out = append(out, "source")
	}
	for k, v := range map[string][]string{"binary": a.Binary, "sign": a.Sign, "suites": a.Suites, "components": a.Components, "packages": a.Packages} {
		if len(v) > 0 {
			out = append(out, k+"="+strings.Join(v, " "))
		}
	}
	if !a.New {
		out = append(out, "new=no")
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// earlier finds refused uploads of the same source.
func (d *desk) earlier(f spool.Found) ([]rejection, error) {
	found, err := d.tree.Find(f.Name.Source, spool.Rejected, spool.Attic)
	if err != nil {
		return nil, err
	}
	var out []rejection
	for _, x := range found {
		events, err := spool.ReadHistory(d.tree.Path(x.Dir()))
		if err != nil {
			continue
		}
		for _, e := range slices.Backward(events) {
			if p, _ := d.tree.PlaceOf(e.To); p.State == spool.Rejected && e.From != e.To {
				out = append(out, rejection{x.Name.Version, e.Time, e.Who, e.Reason})
				break
			}
		}
	}
	slices.SortFunc(out, func(a, b rejection) int { return a.Time.Compare(b.Time) })
	return out, nil
}

// changesField is the text of the field Changes, as it stands in the file.
func changesField(text string) string {
	_, rest, ok := strings.Cut(text, "\nChanges:\n")
	if !ok {
		return ""
	}
	var b strings.Builder
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, " ") {
			break
		}
		b.WriteString(strings.TrimPrefix(line, " "))
	}
	return b.String()
}

// compare fills in what the upload changes in the sources that the suite has.
func (r *report) compare(dir string, tk *queue.Ticket, pool, oldDsc string) error {
	debian := func(name string) bool { return strings.HasPrefix(name, "debian/") }
	now, err := upload.Tree(dir, tk.Dsc, upload.Limits{}, debian)
	if err != nil {
		return fmt.Errorf("%s: %w", tk.Dsc, err)
	}
	was := map[string]upload.Content{}
	if oldDsc != "" {
		if was, err = upload.Tree(pool, oldDsc, upload.Limits{}, debian); err != nil {
			return fmt.Errorf("%s: %w", oldDsc, err)
		}
	}
	differ := map[string]bool{}
	for name, c := range now {
		o, ok := was[name]
		switch {
		case !ok:
			r.Added = append(r.Added, name)
		case o.Kind != c.Kind || o.SHA256 != c.SHA256 || o.Target != c.Target || o.Mode&0o111 != c.Mode&0o111:
			r.Changed = append(r.Changed, name)
		default:
			continue
		}
		differ[name] = true
	}
	for name := range was {
		if _, ok := now[name]; !ok {
			r.Removed = append(r.Removed, name)
			differ[name] = true
		}
	}
	for name := range differ {
		if scriptFile.MatchString(name) {
			r.Scripts = append(r.Scripts, name)
		}
		if copyrightFile.MatchString(name) {
			r.Copyright = append(r.Copyright, name)
		}
	}
	for _, list := range [][]string{r.Added, r.Removed, r.Changed, r.Scripts, r.Copyright} {
		slices.Sort(list)
	}
	r.NewBinaries, r.GoneBinaries = apart(packages(was["debian/control"].Text), packages(now["debian/control"].Text))
	r.NewDepends, r.GoneDepends = apart(buildDepends(was["debian/control"].Text), buildDepends(now["debian/control"].Text))
	if oldDsc == "" {
		return nil // all of it is new: no differences to show
	}
	// A second pass keeps the texts of just the files that differ.
	keep := func(name string) bool { return differ[name] }
	if now, err = upload.Tree(dir, tk.Dsc, upload.Limits{}, keep); err != nil {
		return err
	}
	if was, err = upload.Tree(pool, oldDsc, upload.Limits{}, keep); err != nil {
		return err
	}
	var b bytes.Buffer
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for n := range differ {
			if !yield(n) {
				return
			}
		}
	}) {
		if b.Len() > maxDiff {
			fmt.Fprintf(&b, "... and more: this is the first %d MB\n", maxDiff>>20)
			break
		}
		b.Write(oneDiff(name, was[name], now[name]))
	}
	r.Diff = b.String()
	return nil
}

// maxDiff bounds the differences that are shown, in bytes.
const maxDiff = 8 << 20

// oneDiff is the unified difference of one file.
func oneDiff(name string, was, now upload.Content) []byte {
	text := func(c upload.Content) ([]byte, string) {
		switch {
		case c.Kind == 0:
			return nil, ""
		case c.Kind != tar.TypeReg:
			return []byte(fmt.Sprintf("(a link to %q)\n", c.Target)), ""
		case c.Text == nil && c.Size > 0:
			return nil, "large"
		case bytes.IndexByte(c.Text, 0) >= 0 || !utf8.Valid(c.Text):
			return nil, "binary"
		}
		return c.Text, ""
	}
	a, oddA := text(was)
	b, oddB := text(now)
	if oddA+oddB != "" {
		return []byte(fmt.Sprintf("%s: %d bytes -> %d bytes, not shown: a %s file\n", name, was.Size, now.Size, max(oddA, oddB)))
	}
	if was.Mode&0o111 != now.Mode&0o111 && was.Kind != 0 && now.Kind != 0 {
		return append([]byte(fmt.Sprintf("%s: mode %o -> %o\n", name, was.Mode, now.Mode)), diff.Diff("a/"+name, a, "b/"+name, b)...)
	}
	return diff.Diff("a/"+name, a, "b/"+name, b)
}

// packages are the binary packages that a debian/control makes.
func packages(control []byte) []string {
	var out []string
	for line := range bytes.Lines(control) {
		if k, v, ok := bytes.Cut(line, []byte(":")); ok && strings.EqualFold(string(k), "Package") {
			out = append(out, string(bytes.TrimSpace(v)))
		}
	}
	return out
}

// buildDepends are the build dependencies and conflicts of a debian/control, a
// relation an entry.
func buildDepends(control []byte) []string {
	first, _, _ := strings.Cut(string(control), "\n\n")
	var out []string
	in := ""
	for line := range strings.Lines(first) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		if !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "\t") {
			k, v, _ := strings.Cut(line, ":")
			in, line = "", v
			if k = strings.ToLower(k); strings.HasPrefix(k, "build-depends") || strings.HasPrefix(k, "build-conflicts") {
				in = k
			}
		}
		if in == "" {
			continue
		}
		for rel := range strings.SplitSeq(line, ",") {
			if rel = strings.Join(strings.Fields(rel), " "); rel != "" {
				if in != "build-depends" {
					rel = in + ": " + rel
				}
				out = append(out, rel)
			}
		}
	}
	return out
}

// apart gives what is only in now, and what is only in was.
func apart(was, now []string) (fresh, gone []string) {
	for _, x := range now {
		if !slices.Contains(was, x) {
			fresh = append(fresh, x)
		}
	}
	for _, x := range was {
		if !slices.Contains(now, x) {
			gone = append(gone, x)
		}
	}
	return fresh, gone
}

// lint runs lintian over both sources and keeps the tags that are new.
func (r *report) lint(dir, dsc, pool, oldDsc string) {
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
		if err := copyFile(filepath.Join(dir, name), filepath.Join(scratch, name)); err != nil {
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

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	if cerr := dst.Close(); err == nil {
		err = cerr
	}
	return err
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
		err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error { return errors.Join(err, os.Chown(p, nobody, nobody)) })
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

// print writes the report for a person. Every line of the upload is cleaned.
func (r *report) print(w io.Writer) {
	line := func(k, v string) {
		if v != "" {
			fmt.Fprintf(w, "%-14s %s\n", k+":", clean(v))
		}
	}
	list := func(title string, items []string) {
		if len(items) == 0 {
			return
		}
		fmt.Fprintf(w, "\n%s:\n", title)
		for i, x := range items {
			if i == 40 && len(items) > 45 {
				fmt.Fprintf(w, "  ... and %d more\n", len(items)-i)
				break
			}
			fmt.Fprintf(w, "  %s\n", clean(x))
		}
	}
	kind := "update of " + r.Against
	if r.Against == "" {
		kind = "new"
	}
	line("Source", r.Source)
	line("Version", r.Version+" ("+kind+")")
	line("Suite", r.Suite)
	line("Waits since", r.Since.Format(time.RFC3339))
	line("Uploader", r.Uploader)
	line("Signed by", r.Fingerprint)
	line("Rights", r.Rights)
	line("Changed by", r.ChangedBy)
	line("Maintainer", r.Maintain)
	line("On hold by", r.Hold)
	line("Waits for it", strings.Join(r.Waits, " "))
	line("Item", r.Dir)
	list("Files", r.Files)
	list("Changes", splitLines([]byte(r.Changelog)))
	list("Remarks of the checks", r.Remarks)
	var said []string
	for _, o := range r.Opinions {
		said = append(said, fmt.Sprintf("%s  %s  %s  %s", o.Time.Format(time.RFC3339), o.Who, o.Verb, o.Text))
	}
	list("What reviewers said", said)
	said = nil
	for _, e := range r.Earlier {
		said = append(said, fmt.Sprintf("%s  %s by %s: %s", e.Time.Format(time.RFC3339), e.Version, e.Who, e.Reason))
	}
	list("Refused before", said)
	list("New binary packages", r.NewBinaries)
	list("Binary packages that are gone", r.GoneBinaries)
	list("New build dependencies", r.NewDepends)
	list("Build dependencies that are gone", r.GoneDepends)
	list("Maintainer scripts that differ", r.Scripts)
	list("Copyright files that differ", r.Copyright)
	list("New tags of lintian", r.Lintian)
	line("\nLintian", r.LintianNote)
	if r.Against != "" {
		list("Files added", r.Added)
		list("Files removed", r.Removed)
		list("Files changed", r.Changed)
	} else {
		list("Files", r.Added)
	}
	if r.Diff != "" {
		fmt.Fprintf(w, "\nDifferences to %s:\n", r.Against)
		for l := range strings.Lines(r.Diff) {
			fmt.Fprintln(w, strings.TrimRight(strings.Map(visible, l), "\n"))
		}
	}
	fmt.Fprintln(w)
}

// visible keeps tabs, which differences need, and cleans the rest.
func visible(c rune) rune {
	if c == '\t' || c == '\n' {
		return c
	}
	return []rune(spool.OneLine(string(c)))[0]
}
