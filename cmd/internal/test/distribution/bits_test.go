//go:build system

package distribution

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// bits is one of our packages beside Debian's of that name and version.
type bits struct {
	file string
	same bool
	why  string // it is not
}

// bits compares what was built first with what Debian has, which says the SHA-256 of each in its index. Of those that
// differ Debian's is fetched, once, and what differs in it is the reason.
func (d *distribution) bits() {
	d.Helper()
	found := map[string]string{}
	d.must(filepath.WalkDir(filepath.Join(d.tree, "archive/pool"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".deb") {
			found[e.Name()] = path
		}
		return err
	}))
	of := map[string][]*binary{}
	for _, b := range d.lists.binaries {
		of[b.source] = append(of[b.source], b)
	}
	for _, s := range d.chosen {
		o := d.results[s.name]
		slices.SortFunc(of[s.name], func(a, b *binary) int { return strings.Compare(a.name, b.name) })
		for _, b := range of[s.name] {
			version := rebuilt.ReplaceAllString(b.version, "")
			name := b.name + "_" + withoutEpoch(version) + "_" + b.arch + ".deb"
			path := found[name]
			switch {
			case path == "":
			case version != b.version:
				o.bits = append(o.bits, bits{name, false, "Debian's is a binNMU, " + b.version})
			default:
				data, err := os.ReadFile(path)
				d.must(err)
				sum := sha256.Sum256(data)
				x := bits{name, hex.EncodeToString(sum[:]) == b.sha256, ""}
				if !x.same {
					x.why = d.differs(path, b)
				}
				o.bits = append(o.bits, x)
			}
		}
	}
}

var rebuilt = regexp.MustCompile(`\+b[0-9]+$`)

// differs says what a package of ours has otherwise than Debian's.
func (d *distribution) differs(ours string, b *binary) string {
	d.Helper()
	debs := filepath.Join(d.kept, "debs")
	d.must(os.MkdirAll(debs, 0o755))
	theirs := filepath.Join(debs, strings.ReplaceAll(filepath.Base(ours), "%3a", ":"))
	if _, err := os.Stat(theirs); err != nil {
		dir, err := os.MkdirTemp(debs, "new-")
		d.must(err)
		defer os.RemoveAll(dir)
		if _, err := run(dir, "apt-get", append(d.apt, "download", b.name+"="+b.version)...); err != nil {
			return "Debian's could not be fetched"
		}
		got, err := filepath.Glob(filepath.Join(dir, "*.deb"))
		d.must(err)
		if len(got) == 1 {
			d.must(os.Rename(got[0], theirs))
		}
	}
	dir, err := os.MkdirTemp("", "packmill-bits-")
	d.must(err)
	defer os.RemoveAll(dir)
	for name, deb := range map[string]string{"ours": ours, "theirs": theirs} {
		if _, err := run(dir, "dpkg-deb", "-R", deb, name); err != nil {
			return err.Error()
		}
	}
	out, _ := run(dir, "diff", "-rq", "--no-dereference", "theirs", "ours")
	var whys []string
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if w := strings.Fields(line); len(w) == 5 && w[0] == "Files" {
			rel := strings.TrimPrefix(w[1], "theirs/")
			if rel != "DEBIAN/md5sums" {
				whys = append(whys, rel+" ("+otherwise(dir, rel)+")")
			}
		} else if line != "" {
			whys = append(whys, line)
		}
	}
	if len(whys) == 0 {
		return "the same files, packed otherwise: times, order or compression"
	}
	return strings.Join(whys, "; ")
}

// otherwise says in what two versions of a file differ: two texts by their first line that does, two programs by the
// compiler that they name, or by their being made of other objects.
func otherwise(dir, rel string) string {
	var data [2][]byte
	for i, side := range []string{"theirs", "ours"} {
		data[i], _ = os.ReadFile(filepath.Join(dir, side, rel))
		if strings.HasSuffix(rel, ".gz") {
			if out, err := run(dir, "gzip", "-dc", filepath.Join(side, rel)); err == nil {
				data[i] = []byte(out)
			}
		}
	}
	if bytes.HasPrefix(data[0], []byte("\x7fELF")) {
		var compiler [2]string
		for i := range data {
			compiler[i] = string(regexp.MustCompile(`GCC: \([^)]*\)[ 0-9.]*`).Find(data[i]))
		}
		switch {
		case compiler[0] != compiler[1]:
			return "compiled by " + compiler[0] + ", ours by " + compiler[1]
		case compiler[0] == "":
			return "machine code, by a compiler that it does not name"
		}
		return "machine code, by the same " + compiler[0]
	}
	a, b := strings.Split(string(data[0]), "\n"), strings.Split(string(data[1]), "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] && printable(a[i]) && printable(b[i]) {
			return fmt.Sprintf("theirs %.60q, ours %.60q", a[i], b[i])
		} else if a[i] != b[i] {
			return "bytes"
		}
	}
	return fmt.Sprintf("%d lines, ours %d", len(a), len(b))
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' })
}
