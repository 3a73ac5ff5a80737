package opkg

import (
	"archive/tar"
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"

	"packmill/internal/deb"
	"packmill/internal/durable"
	"packmill/internal/policy"
	"packmill/internal/regular"
)

// Info is what an index says about a package file.
type Info struct {
	Size        int64
	MD5, SHA256 string // lower-case hexadecimal
}

// Options say how packages are written. The zero value keeps Debian's names of
// architectures and writes .opk files.
type Options struct {
	// Arch maps Debian's names of architectures to the clients', such as
	// amd64 to amd64-linux-glibc. What is not in it keeps its name.
	Arch map[string]string

	// Extension is "opk" (ProteanOS; the default) or "ipk" (OpenWrt, Yocto).
	Extension string
}

// arch is the clients' name of a Debian architecture.
func (o Options) arch(debian string) string {
	if a := o.Arch[debian]; a != "" {
		return a
	}
	return debian
}

func (o Options) extension() string {
	if o.Extension == "" {
		return "opk"
	}
	return o.Extension
}

// Check says what is wrong with the options: a name that is no architecture's,
// two architectures under one name, an unknown extension.
func (o Options) Check() error {
	back := map[string]string{}
	for from, to := range o.Arch {
		if err := policy.CheckArch(from); err != nil {
			return err
		}
		// A client's name may have the underscores of x86_64.
		if err := policy.CheckArch(strings.ReplaceAll(to, "_", "-")); err != nil {
			return fmt.Errorf("opkg's name for %s: %w", from, err)
		}
		if to == Sources || to == sourceArch {
			return fmt.Errorf("opkg's name for %s is %s, which is that of sources; choose another", from, to)
		}
		if other, twice := back[to]; twice {
			return fmt.Errorf("architectures %s and %s have the same name %s for opkg; give each its own",
				min(from, other), max(from, other), to)
		}
		back[to] = from
	}
	if e := o.extension(); e != "opk" && e != "ipk" {
		return fmt.Errorf("extension %q of opkg packages; use opk or ipk", e)
	}
	return nil
}

// Seen are the architectures that a client of the named feed is set up for.
func (o Options) Seen(feed string) []string {
	feed, _, _ = strings.Cut(feed, ",")
	if feed == Sources {
		return []string{sourceArch}
	}
	return []string{feed, o.arch("all")}
}

// FileName is the name of a package file: the version has no epoch, the
// architecture is the clients'.
func (o Options) FileName(name, version, debianArch string) string {
	return name + "_" + policy.WithoutEpoch(version) + "_" + o.arch(debianArch) + "." + o.extension()
}

// repack writes the .deb at debPath as an opkg package to f, which is neither
// synced nor named, and returns what the .deb says beside the new file's size
// and sums. The same .deb gives the same bytes.
//
// The new file is a gzipped tar of debian-binary, control.tar.gz and
// data.tar.gz, the only form that all opkg clients install. The archives in it
// are the .deb's, unpacked and packed again, but for a data.tar.gz of one gzip
// member, which stays; the control file says in opkg's words what the .deb's
// says (see control). The error is a *deb.Refusal if the
// .deb is at fault.
func repack(debPath string, f *os.File, opt Options) (*deb.Package, Info, error) {
	in, err := regular.Open(debPath)
	if err != nil {
		return nil, Info{}, err
	}
	defer in.Close()
	var control bytes.Buffer
	data := &spill{dir: filepath.Dir(f.Name())}
	defer data.close()
	p, err := unpack(in, &control, data)
	if err != nil {
		return nil, Info{}, err
	}
	controlTar, when, err := controlArchive(p, control.Bytes(), opt)
	if err != nil {
		return nil, Info{}, fmt.Errorf("repack %s: %w", debPath, err)
	}
	packed, size := io.Reader(io.NewSectionReader(in, p.DataAt, p.DataSize)), p.DataSize
	if p.DataMember != keptMember || data.size > 0 {
		if packed, err = data.reader(); err != nil {
			return nil, Info{}, err
		}
		size = data.size
	}
	sum := newSummer(f)
	if err := writeOuter(sum, when, controlTar, packed, size); err != nil {
		return nil, Info{}, fmt.Errorf("repack %s: %w", debPath, err)
	}
	if err := f.Chmod(0o644); err != nil {
		return nil, Info{}, err
	}
	return p, sum.info(), nil
}

// keptMember is the data.tar that becomes the package's as it is. dpkg-deb packs
// it harder than we would, and nothing is unpacked and packed again.
const keptMember = "data.tar.gz"

// unpack reads a .deb: its control.tar goes to control, and its data.tar to data,
// packed with gzip, unless it can be kept.
func unpack(in *os.File, control *bytes.Buffer, data *spill) (*deb.Package, error) {
	gz := gzips.Get().(*gzip.Writer)
	defer gzips.Put(gz)
	gz.Reset(data)
	opt := deb.Options{SkipContents: true, Old: true, ControlTar: control, DataTar: gz, KeepGzip: true}
	p, err := deb.Read(in, in.Name(), opt)
	if errors.Is(err, deb.ErrGzips) {
		if _, err := in.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		control.Reset()
		opt.KeepGzip = false
		p, err = deb.Read(in, in.Name(), opt)
	}
	if err == nil && (p.DataMember != keptMember || !opt.KeepGzip) {
		err = gz.Close()
	}
	return p, err
}

// writeOuter writes the gzipped tar around the three members. They are packed
// already, so this layer does little.
func writeOuter(w io.Writer, when time.Time, controlTar []byte, data io.Reader, size int64) error {
	var packed bytes.Buffer
	gz := gzips.Get().(*gzip.Writer)
	defer gzips.Put(gz)
	gz.Reset(&packed)
	gz.Write(controlTar)
	if err := gz.Close(); err != nil {
		return err
	}
	outer := fasts.Get().(*gzip.Writer)
	defer fasts.Put(outer)
	outer.Reset(w)
	tw := tar.NewWriter(outer)
	for _, m := range []struct {
		name string
		size int64
		body io.Reader
	}{
		{"./debian-binary", 4, strings.NewReader("2.0\n")},
		{"./control.tar.gz", int64(packed.Len()), &packed},
		{"./data.tar.gz", size, data},
	} {
		err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: m.name, Size: m.size, Mode: 0o644, ModTime: when,
			Uname: "root", Gname: "root", Format: tar.FormatGNU})
		if err == nil {
			_, err = io.Copy(tw, m.body)
		}
		if err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	return outer.Close()
}

// controlArchive returns the control.tar for opkg, and the time of its control
// file, which becomes that of the members. All but the control file is the .deb's.
func controlArchive(p *deb.Package, raw []byte, opt Options) ([]byte, time.Time, error) {
	var (
		out  bytes.Buffer
		tr   = tar.NewReader(bytes.NewReader(raw))
		tw   = tar.NewWriter(&out)
		when time.Time
	)
	text, err := control(p.Control, opt)
	if err != nil {
		return nil, when, &deb.Refusal{File: p.FileName(".deb"), Text: err.Error()}
	}
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, when, err
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			return nil, when, err
		}
		name := "./" + strings.TrimPrefix(h.Name, "./")
		if h.Typeflag == tar.TypeDir {
			name = "./"
		}
		if name == "./control" {
			when, body = h.ModTime.UTC(), text
		}
		if err := addMember(tw, name, h.Typeflag, h.Mode&0o7777, h.ModTime, body); err != nil {
			return nil, when, err
		}
	}
	// The archive is whole only now: Close writes the last padding and the end.
	if err := tw.Close(); err != nil {
		return nil, when, err
	}
	return out.Bytes(), when, nil
}

func addMember(tw *tar.Writer, name string, kind byte, mode int64, when time.Time, body []byte) error {
	err := tw.WriteHeader(&tar.Header{Typeflag: kind, Name: name, Size: int64(len(body)), Mode: mode, ModTime: when,
		Uname: "root", Gname: "root", Format: tar.FormatGNU})
	if err == nil {
		_, err = tw.Write(body)
	}
	return err
}

// Level 6 takes a quarter of level 9's time for 1.7 % more bytes. The writers cost
// a megabyte each.
var (
	gzips = writers(6)
	fasts = writers(gzip.BestSpeed)
)

func writers(level int) *sync.Pool {
	return &sync.Pool{New: func() any {
		w, _ := gzip.NewWriterLevel(nil, level) // the level is a constant
		return w
	}}
}

// A spill holds a packed member until its size is known: in memory while it is
// small, in a nameless file when it is not.
type spill struct {
	dir  string
	buf  bytes.Buffer
	file *os.File
	size int64
}

const spillAt = 4 << 20

func (s *spill) Write(p []byte) (int, error) {
	if s.file == nil && s.buf.Len()+len(p) > spillAt {
		f, err := os.CreateTemp(s.dir, durable.NewPrefix+"*")
		if err != nil {
			return 0, err
		}
		os.Remove(f.Name())
		s.file = f
		if _, err := s.buf.WriteTo(f); err != nil {
			return 0, err
		}
	}
	s.size += int64(len(p))
	if s.file != nil {
		return s.file.Write(p)
	}
	return s.buf.Write(p)
}

func (s *spill) reader() (io.Reader, error) {
	if s.file == nil {
		return &s.buf, nil
	}
	_, err := s.file.Seek(0, io.SeekStart)
	return s.file, err
}

func (s *spill) close() {
	if s.file != nil {
		s.file.Close()
	}
}

// A summer sums up what it passes on.
type summer struct {
	w    io.Writer
	size int64
	md5  hash.Hash
	sha  hash.Hash
}

func newSummer(w io.Writer) *summer { return &summer{w: w, md5: md5.New(), sha: sha256.New()} }

func (s *summer) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.size += int64(n)
	s.md5.Write(p[:n])
	s.sha.Write(p[:n])
	return n, err
}

func (s *summer) info() Info {
	return Info{s.size, hex.EncodeToString(s.md5.Sum(nil)), hex.EncodeToString(s.sha.Sum(nil))}
}
