//go:build system

package distribution

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// withoutEpoch is a version as files' names have it.
func withoutEpoch(v string) string {
	if _, rest, ok := strings.Cut(v, ":"); ok {
		return rest
	}
	return v
}

// bring uploads what the tree does not know yet.
func (d *distribution) bring() {
	d.Helper()
	d.look()
	for _, s := range d.chosen {
		if len(d.results[s.name].states) > 0 || d.over() {
			continue
		}
		d.upload(s, d.changes(s))
	}
}

// fetch has apt download a source, once, and reports whether there is one: many a mirror has not all that its lists name.
// What was missing is not asked for again.
func (d *distribution) fetch(s *source) bool {
	d.Helper()
	there := func() bool {
		return !slices.ContainsFunc(d.paths(s), func(path string) bool { _, err := os.Stat(path); return err != nil })
	}
	missing := filepath.Join(d.dir, "missing", s.name+"_"+s.version)
	if _, err := os.Stat(missing); err == nil {
		return false
	}
	if there() {
		return true
	}
	_, err := run(d.kept, "apt-get", append(d.apt, "source", "--download-only", "--only-source", s.name+"="+s.version)...)
	if err == nil && there() {
		return true
	}
	if !strings.Contains(fmt.Sprint(err), "404 ") {
		d.Fatalf("%s: %v", s.name, err)
	}
	d.must(os.MkdirAll(filepath.Dir(missing), 0o755))
	d.must(os.WriteFile(missing, []byte(fmt.Sprint(err)), 0o644))
	return false
}

// changes makes the signed .changes of a source as Debian has it; the .dsc keeps the signature of who made it.
func (d *distribution) changes(s *source) string {
	d.Helper()
	path := filepath.Join(d.kept, fmt.Sprintf("%s_%s_source.changes", s.name, withoutEpoch(s.version)))
	dir, err := os.MkdirTemp("", "packmill-source-")
	d.must(err)
	defer os.RemoveAll(dir)
	for _, f := range s.files {
		d.must(os.Symlink(filepath.Join(d.kept, f), filepath.Join(dir, f)))
	}
	tree := filepath.Join(dir, "tree")
	d.sh(dir, "dpkg-source", "--no-check", "--no-copy", "-x", d.dsc(s), tree)
	text, err := run(tree, "sh", "-c", `dpkg-genchanges -q -S -sa -DDistribution="$1" 2>"$2/said" || { cat "$2/said"; false; }`,
		"sh", suite, dir)
	d.must(err)
	plain := filepath.Join(dir, "changes")
	d.must(os.WriteFile(plain, []byte(text), 0o644))
	d.sh(dir, "gpg", "--batch", "--yes", "--local-user", d.signer, "--output", path, "--clearsign", plain)
	return path
}

func (d *distribution) dsc(s *source) string {
	for _, f := range s.files {
		if strings.HasSuffix(f, ".dsc") {
			return f
		}
	}
	d.Fatalf("%s has no .dsc", s.name)
	return ""
}

// upload drops files as a client's server does: the .changes last, by a rename.
func (d *distribution) upload(s *source, changes string) {
	d.Helper()
	incoming, who := filepath.Join(d.tree, "spool/incoming"), credential(d, "nobody")
	for _, path := range append(d.paths(s), changes) {
		to := filepath.Join(incoming, filepath.Base(path))
		data, err := os.ReadFile(path)
		d.must(err)
		d.must(os.WriteFile(to+".part", data, 0o644))
		d.must(os.Chown(to+".part", int(who.Uid), int(who.Gid)))
		d.must(os.Rename(to+".part", to))
	}
}

func (d *distribution) paths(s *source) (out []string) {
	for _, f := range s.files {
		out = append(out, filepath.Join(d.kept, f))
	}
	return out
}
