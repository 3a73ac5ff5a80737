package desk

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
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

// compare fills in what the upload changes in the sources that the suite has.
func (r *Report) compare(dir string, tk *queue.Ticket, pool, oldDsc string) error {
	debian := func(name string) bool { return strings.HasPrefix(name, "debian/") }
	now, err := upload.Tree(context.Background(), dir, tk.Dsc, upload.Limits{}, debian)
	if err != nil {
		return fmt.Errorf("%s: %w", tk.Dsc, err)
	}
	was := map[string]upload.Content{}
	if oldDsc != "" {
		if was, err = upload.Tree(context.Background(), pool, oldDsc, upload.Limits{}, debian); err != nil {
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
		if scriptFile().MatchString(name) {
			r.Scripts = append(r.Scripts, name)
		}
		if copyrightFile().MatchString(name) {
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
	if now, err = upload.Tree(context.Background(), dir, tk.Dsc, upload.Limits{}, keep); err != nil {
		return err
	}
	if was, err = upload.Tree(context.Background(), pool, oldDsc, upload.Limits{}, keep); err != nil {
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
