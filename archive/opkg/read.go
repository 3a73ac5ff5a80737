package opkg

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"packmill/internal/compression"
	"packmill/internal/deb822"
	"packmill/internal/regular"
)

// A PackageFile is what an opkg package says about itself.
type PackageFile struct {
	Control *deb822.Stanza
	Text    []byte   // the control file
	Files   []string // the paths in data.tar.gz, "./usr/bin/hello"
	Info
}

// readPackage reads an opkg package by the rules that all clients need: a
// gzipped tar of ./debian-binary, ./control.tar.gz and ./data.tar.gz in this
// order, one gzip member each, USTAR or GNU headers with whole seconds. Each tar
// archive is whole blocks and ends with two of zeros: upstream's client reads it
// with libarchive, for which a cut one is "Truncated input file"
// (archive_read_support_format_tar.c), OpenWrt's installs nothing of it and says
// that it did (libbb/get_header_tar.c).
func readPackage(filename string) (*PackageFile, error) {
	f, err := regular.Open(filename)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sum := newSummer(io.Discard)
	p := new(PackageFile)
	if err := p.read(bufio.NewReader(io.TeeReader(f, sum))); err != nil {
		return nil, fmt.Errorf("%s: %w", path.Base(filename), err)
	}
	p.Info = sum.info()
	return p, nil
}

func (p *PackageFile) read(r *bufio.Reader) error {
	members := []string{"./debian-binary", "./control.tar.gz", "./data.tar.gz"}
	n := 0
	return tarball(r, "the package", func(h *tar.Header, body io.Reader) error {
		if n == len(members) || h.Name != members[n] {
			return fmt.Errorf("member %d is %q, want %q", n+1, h.Name, append(members, "nothing")[n])
		}
		n++
		if h.Typeflag != tar.TypeReg {
			return fmt.Errorf("%s is no plain file", h.Name)
		}
		switch n {
		case 1:
			text, err := io.ReadAll(io.LimitReader(body, 5))
			if err != nil {
				return err
			}
			if string(text) != "2.0\n" {
				return fmt.Errorf("debian-binary is %q, want %q", text, "2.0\n")
			}
			return nil
		case 2:
			return tarball(bufio.NewReader(body), h.Name, func(h *tar.Header, body io.Reader) error {
				if h.Name == "./" && h.Typeflag == tar.TypeDir {
					return nil
				}
				if rest, ok := strings.CutPrefix(h.Name, "./"); !ok || strings.Contains(rest, "/") || h.Typeflag != tar.TypeReg {
					return fmt.Errorf("control.tar.gz holds %q; want plain files, ./control and its like", h.Name)
				}
				if h.Name != "./control" {
					return nil
				}
				if p.Control != nil {
					return errors.New("two control files")
				}
				var err error
				if p.Text, err = io.ReadAll(io.LimitReader(body, 2<<20)); err != nil {
					return err
				}
				p.Control, err = deb822.ParseOne("control", p.Text, deb822.Hostile)
				return err
			})
		}
		return tarball(bufio.NewReader(body), h.Name, func(h *tar.Header, _ io.Reader) error {
			p.Files = append(p.Files, h.Name)
			return nil
		})
	}, func() error {
		switch {
		case n < len(members):
			return fmt.Errorf("no %s", members[n])
		case p.Control == nil:
			return errors.New("no control file")
		}
		return nil
	})
}

// tarball walks over a gzipped tar archive that must be one gzip member.
func tarball(r *bufio.Reader, name string, f func(*tar.Header, io.Reader) error, end ...func() error) error {
	z, err := oneMember(r)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer z.Close()
	e := &ending{r: z}
	tr := tar.NewReader(e)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		switch {
		case h.Format == tar.FormatPAX, h.Typeflag == tar.TypeXGlobalHeader:
			return fmt.Errorf("%s: %q has PAX headers; OpenWrt's opkg installs nothing of it", name, h.Name)
		case h.ModTime.Nanosecond() != 0:
			return fmt.Errorf("%s: the time of %q is not in whole seconds", name, h.Name)
		}
		if err := f(h, tr); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, tr); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		e.mark()
	}
	if _, err := io.Copy(io.Discard, e); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := e.check(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if _, err := r.ReadByte(); err != io.EOF {
		return fmt.Errorf("%s goes on after its gzip member; %w", name, errTail(err))
	}
	for _, f := range end {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// An ending watches how a tar archive ends, of which archive/tar forgives much.
type ending struct {
	r    io.Reader
	n    int64 // bytes read
	last int64 // where the last entry ends, in whole blocks
	text int64 // after the last byte that is not zero
}

const tarBlock = 512

func (e *ending) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if rest := bytes.TrimRight(p[:n], "\x00"); len(rest) > 0 {
		e.text = e.n + int64(len(rest))
	}
	e.n += int64(n)
	return n, err
}

// mark says that the entry has been read to its end.
func (e *ending) mark() { e.last = (e.n + tarBlock - 1) / tarBlock * tarBlock }

// check judges the archive, which has been read to its end.
func (e *ending) check() error {
	switch {
	case e.n%tarBlock != 0:
		return fmt.Errorf("ends within a block, after %d bytes; clients say that it is truncated, or install nothing", e.n)
	case e.n < e.last+2*tarBlock:
		return errors.New("ends without two blocks of zeros; clients say that it is truncated, or install nothing")
	case e.text > e.last:
		return errors.New("goes on after its end")
	}
	return nil
}

func errTail(err error) error {
	if err != nil {
		return err
	}
	return errors.New("opkg reads one member only")
}

// oneMember unpacks the one gzip member that opkg reads.
func oneMember(r io.Reader) (io.ReadCloser, error) {
	z, err := compression.Gzip.Reader(r)
	if err == nil {
		compression.OneMember(z)
	}
	return z, err
}

// readIndex reads a gzipped index of one member.
func readIndex(data []byte) ([]byte, error) {
	r := bytes.NewReader(data)
	z, err := oneMember(r)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	text, err := io.ReadAll(z)
	if err != nil {
		return nil, err
	}
	if r.Len() > 0 {
		return nil, fmt.Errorf("goes on for %d bytes after its gzip member; opkg reads one member only", r.Len())
	}
	return text, nil
}

// contentSum sums up what a package file holds, whatever way it was packed: the
// names of the members and their unpacked bytes. The file is one that readPackage takes.
func contentSum(r io.Reader) ([32]byte, error) {
	h := sha256.New()
	err := tarball(bufio.NewReader(r), "the package", func(hdr *tar.Header, body io.Reader) error {
		if strings.HasSuffix(hdr.Name, ".gz") {
			z, err := compression.Gzip.Reader(body)
			if err != nil {
				return err
			}
			defer z.Close()
			body = z
		}
		part := sha256.New()
		n, err := io.Copy(part, body)
		fmt.Fprintf(h, "%q %d %x\n", hdr.Name, n, part.Sum(nil))
		return err
	})
	return [32]byte(h.Sum(nil)), err
}
