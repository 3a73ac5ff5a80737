package desk

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/diff"

	"packmill/internal/pattern"
	"packmill/queue"
	"packmill/spool/upload"
)

var scriptFile = pattern.Lazy(`^debian/([^/]+\.)?(preinst|postinst|prerm|postrm|config)$`)
var copyrightFile = pattern.Lazy(`(?i)(^|/)(copyright|copying|licen[cs]e)[^/]*$`)

// comparison is what an upload has beside what the suite has.
type comparison struct {
	dir, dsc       string // of the upload
	oldDir, oldDsc string // of the suite's version, which there need not be
	now, was       map[string]upload.Content
}

// compare fills in what the upload changes in the sources that the suite has.
func (r *Report) compare(ctx context.Context, dir string, tk *queue.Ticket, pool, oldDsc string) error {
	c := &comparison{dir: dir, dsc: tk.Dsc, oldDir: pool, oldDsc: oldDsc}
	// Every file is summed up, and only those below debian are kept as texts.
	if err := c.read(ctx, func(name string) bool { return strings.HasPrefix(name, "debian/") }); err != nil {
		return err
	}
	differ := r.files(c)
	r.roles(differ)
	r.control(c.was["debian/control"].Text, c.now["debian/control"].Text)
	if oldDsc == "" {
		return nil // all of it is new: no differences to show
	}
	// A second pass keeps the texts of just the files that differ.
	if err := c.read(ctx, func(name string) bool { return differ[name] }); err != nil {
		return err
	}
	r.Diff = c.text(differ)
	return nil
}

// read reads both trees, with the texts of the files that are to be kept.
func (c *comparison) read(ctx context.Context, keep func(name string) bool) (err error) {
	if c.now, err = upload.Tree(ctx, c.dir, c.dsc, upload.Limits{}, keep); err != nil {
		return fmt.Errorf("%s: %w", c.dsc, err)
	}
	c.was = map[string]upload.Content{}
	if c.oldDsc == "" {
		return nil
	}
	if c.was, err = upload.Tree(ctx, c.oldDir, c.oldDsc, upload.Limits{}, keep); err != nil {
		return fmt.Errorf("%s: %w", c.oldDsc, err)
	}
	return nil
}

// files fills in which files were added, removed and changed, and gives all of them.
func (r *Report) files(c *comparison) (differ map[string]bool) {
	differ = map[string]bool{}
	for name, now := range c.now {
		was, ok := c.was[name]
		switch {
		case !ok:
			r.Added = append(r.Added, name)
		case was.Kind != now.Kind || was.SHA256 != now.SHA256 || was.Target != now.Target || was.Mode&0o111 != now.Mode&0o111:
			r.Changed = append(r.Changed, name)
		default:
			continue
		}
		differ[name] = true
	}
	for name := range c.was {
		if _, ok := c.now[name]; !ok {
			r.Removed = append(r.Removed, name)
			differ[name] = true
		}
	}
	for _, list := range [][]string{r.Added, r.Removed, r.Changed} {
		slices.Sort(list)
	}
	return differ
}

// roles fills in which of the files that differ are maintainer scripts, and which
// are about copyright.
func (r *Report) roles(differ map[string]bool) {
	for _, name := range slices.Sorted(maps.Keys(differ)) {
		if scriptFile().MatchString(name) {
			r.Scripts = append(r.Scripts, name)
		}
		if copyrightFile().MatchString(name) {
			r.Copyright = append(r.Copyright, name)
		}
	}
}

// control fills in what changes from one debian/control to the other.
func (r *Report) control(was, now []byte) {
	r.NewBinaries, r.GoneBinaries = apart(packages(was), packages(now))
	r.NewDepends, r.GoneDepends = apart(buildDepends(was), buildDepends(now))
}

// text is the unified difference of the files, or the beginning of a very long one.
func (c *comparison) text(differ map[string]bool) string {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(differ)) {
		if b.Len() > maxDiff {
			fmt.Fprintf(&b, "... and more: this is the first %d MB\n", maxDiff>>20)
			break
		}
		b.Write(oneDiff(name, c.was[name], c.now[name]))
	}
	return b.String()
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
		return []byte(fmt.Sprintf("%s: %d bytes -> %d bytes, not shown: a %s file\n",
			name, was.Size, now.Size, max(oddA, oddB)))
	}
	if was.Mode&0o111 != now.Mode&0o111 && was.Kind != 0 && now.Kind != 0 {
		return append([]byte(fmt.Sprintf("%s: mode %o -> %o\n", name, was.Mode, now.Mode)),
			diff.Diff("a/"+name, a, "b/"+name, b)...)
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
