package upload

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"strings"

	"packmill/internal/paper"
	"packmill/internal/policy"
)

// Content is one entry of a source tree.
type Content struct {
	Kind   byte   // tar's type flag: tar.TypeReg, tar.TypeSymlink, ...
	Mode   int64  // permission bits
	Size   int64  // bytes
	SHA256 string // of a plain file, lower hex
	Target string // of a link
	Text   []byte // of a plain file that was asked for; nil if not, or if it is larger than MaxText
}

// MaxText is the most that Tree keeps of one file, in bytes.
const MaxText = 1 << 20

// maxTreeText is the most that it keeps of all.
const maxTreeText = 64 << 20

// Tree reads the source package of a .dsc in dir as one tree, by the paths
// below it: the upstream tarballs, and debian/ from wherever it comes. It
// unpacks nothing to disk, applies no patches of debian/patches, and keeps the
// texts of the files that keep names. Of a .diff.gz (format 1.0) the entries are
// the files that it makes or changes: their Text is the lines that it adds.
// Nothing is verified here; signatures and checksums are Read's business. It ends when
// ctx does.
func Tree(ctx context.Context, dir, dsc string, lim Limits, keep func(name string) bool) (map[string]Content, error) {
	d, err := openDsc(dir, dsc)
	if err != nil {
		return nil, err
	}
	t := &treeReader{dir: dir, lim: lim.withDefaults(), keep: keep, out: map[string]Content{}}
	// Upstream's first: what Debian adds is laid over it.
	for _, late := range []bool{false, true} {
		for _, f := range d.Files {
			k := kindOf(f.Name)
			if k != kindTar && k != kindDiff || late != (k == kindDiff || strings.Contains(f.Name, ".debian.tar.")) {
				continue
			}
			if err := t.read(ctx, f.Name, k); err != nil {
				return nil, fmt.Errorf("%s: %w", show(f.Name), err)
			}
		}
	}
	return t.out, nil
}

type treeReader struct {
	dir  string
	lim  Limits
	keep func(string) bool
	out  map[string]Content
	text int
}

func (t *treeReader) read(ctx context.Context, name string, k kind) error {
	f, info, err := Open(t.dir, name)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := decompress(ctx, f, name, info.Size(), t.lim)
	if err != nil {
		return err
	}
	defer z.Close()
	if k == kindDiff {
		return t.diff(z)
	}
	below, strip := "", true
	if strings.Contains(name, ".debian.tar.") {
		strip = false
		// It takes the place of an upstream debian directory.
		maps.DeleteFunc(t.out, func(p string, _ Content) bool { return p == "debian" || strings.HasPrefix(p, "debian/") })
	} else if _, rest, ok := strings.Cut(name, ".orig-"); ok {
		below, _, _ = strings.Cut(rest, ".tar.")
	}
	tr := tar.NewReader(z)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return err
		}
		if n >= t.lim.Entries {
			return fmt.Errorf("more than %d entries", t.lim.Entries)
		}
		if len(h.Name) > t.lim.Name || len(h.Linkname) > t.lim.Name {
			return fmt.Errorf("a member has a name of more than %d bytes", t.lim.Name)
		}
		p := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if strip {
			_, p, _ = strings.Cut(p, "/")
		}
		if p = path.Join(below, p); p == "" || p == "." || h.Typeflag == tar.TypeDir || h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		c := Content{Kind: h.Typeflag, Mode: h.Mode & 0o7777, Size: h.Size, Target: h.Linkname}
		if h.Typeflag == tar.TypeReg {
			if c.SHA256, c.Text, err = t.body(tr, p, h.Size); err != nil {
				return err
			}
		}
		t.out[p] = c
	}
}

// body hashes a file and keeps its text if that is wanted.
func (t *treeReader) body(r io.Reader, name string, size int64) (string, []byte, error) {
	h := sha256.New()
	var text bytes.Buffer
	w := io.Writer(h)
	wanted := size <= MaxText && t.text+int(size) <= maxTreeText && t.keep != nil && t.keep(name)
	if wanted {
		t.text += int(size)
		w = io.MultiWriter(h, &text)
	}
	if _, err := io.Copy(w, r); err != nil {
		return "", nil, err
	}
	sum := hex.EncodeToString(h.Sum(nil))
	if !wanted {
		return sum, nil, nil
	}
	return sum, append([]byte{}, text.Bytes()...), nil
}

// diff reads the files of a .diff.gz: what they add, a file each.
func (t *treeReader) diff(z io.Reader) error {
	br := bufio.NewReaderSize(z, 64<<10)
	name := ""
	var added bytes.Buffer
	h := sha256.New()
	flush := func() {
		if name == "" {
			return
		}
		c := Content{Kind: tar.TypeReg, Mode: 0o644, Size: int64(added.Len()), SHA256: hex.EncodeToString(h.Sum(nil))}
		if t.keep != nil && t.keep(name) && t.text+added.Len() <= maxTreeText {
			t.text += added.Len()
			c.Text = append([]byte{}, added.Bytes()...)
		}
		t.out[name] = c
	}
	var oldLeft, newLeft int64
	for {
		line, err := br.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(line) > MaxText {
			return errors.New("a line is too long")
		}
		switch {
		case line == "":
		case oldLeft > 0 || newLeft > 0:
			io.WriteString(h, line)
			switch line[0] {
			case '-':
				oldLeft--
			case '+':
				newLeft--
				if added.Len()+len(line) <= MaxText {
					added.WriteString(line[1:])
				}
			case '\\':
			default:
				oldLeft, newLeft = oldLeft-1, newLeft-1
			}
		case strings.HasPrefix(line, "@@ "):
			oldLeft, newLeft = hunk(line)
		case strings.HasPrefix(line, "+++ "):
			flush()
			file, _, _ := strings.Cut(strings.TrimRight(line[4:], "\n"), "\t")
			_, name, _ = strings.Cut(strings.TrimPrefix(path.Clean("/"+file), "/"), "/")
			added.Reset()
			h.Reset()
		}
		if errors.Is(err, io.EOF) {
			flush()
			return nil
		}
	}
}

// ReadDscFiles lists the names of the files of a .dsc in dir; each has passed
// policy.CheckFile.
func ReadDscFiles(dir, dsc string) ([]string, error) {
	d, err := openDsc(dir, dsc)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range d.Files {
		if err := policy.CheckFile(f.Name); err != nil {
			return nil, err
		}
		out = append(out, f.Name)
	}
	return out, nil
}

// openDsc reads a .dsc without a look at its signature.
func openDsc(dir, dsc string) (*Dsc, error) {
	data, err := slurp(dir, dsc)
	if err != nil {
		return nil, err
	}
	d, _, err := parseDsc(dsc, paper.Text(data))
	return d, err
}
