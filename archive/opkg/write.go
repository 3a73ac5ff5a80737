package opkg

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/klauspost/compress/flate"
	"golang.org/x/sys/unix"

	"packmill/internal/openpgp"
)

func create(dir, name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
}

// sign writes the signatures over the plain index, and the second feed where
// there are two keys of a kind.
func (f *Feed) sign(dir string, now time.Time) error {
	if f.Manifest {
		if err := os.Link(filepath.Join(dir, "Packages"), filepath.Join(dir, "Packages.manifest")); err != nil {
			return err
		}
	}
	if len(f.Usign) == 0 && len(f.OpenPGP) == 0 {
		return nil
	}
	plain, err := os.Open(filepath.Join(dir, "Packages"))
	if err != nil {
		return err
	}
	defer plain.Close()
	fi, err := plain.Stat()
	if err != nil {
		return err
	}
	var text []byte
	if size := fi.Size(); size > 0 {
		// Both signatures need the text as one piece; it is in the page cache.
		if text, err = unix.Mmap(int(plain.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED); err != nil {
			return fmt.Errorf("map %s: %w", plain.Name(), err)
		}
		defer unix.Munmap(text)
	}
	if err := writeSignatures(dir, text, f.Usign, f.OpenPGP, now); err != nil {
		return err
	}
	if len(f.Usign) < 2 && len(f.OpenPGP) < 2 {
		return nil
	}
	next := filepath.Join(dir, "next")
	if err := os.Mkdir(next, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"Packages", "Packages.gz", "Packages.manifest"} {
		if err := os.Link(filepath.Join(dir, name), filepath.Join(next, name)); err != nil && (f.Manifest || name != "Packages.manifest") {
			return err
		}
	}
	if err := os.Symlink("../../../pool/"+form, filepath.Join(next, "pool")); err != nil {
		return err
	}
	usign, pgp := slices.Clone(f.Usign), slices.Clone(f.OpenPGP)
	slices.Reverse(usign)
	slices.Reverse(pgp)
	return writeSignatures(next, text, usign, pgp, now)
}

func writeSignatures(dir string, text []byte, usign []*Key, pgp []*openpgp.Signer, now time.Time) error {
	if len(usign) > 0 {
		if err := os.WriteFile(filepath.Join(dir, "Packages.sig"), usign[0].Sign(text), 0o644); err != nil {
			return err
		}
	}
	if len(pgp) == 0 {
		return nil
	}
	sig, err := openpgp.Detach(text, now, pgp...)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "Packages.asc"), sig, 0o644)
}

// pieces writes Packages, and Packages.gz beside it. The gzip file is one
// member, as opkg needs it, but its deflate stream is made of pieces, one for each
// block of the index, that do not look back beyond their beginning: a piece whose
// text was in the last generation too is copied from there. So the file's bytes
// do not depend on how the feed came to be.
type pieces struct {
	plain, packed         *bufio.Writer
	plainFile, packedFile *os.File
	out                   bytes.Buffer
	deflate               *flate.Writer
	crc                   uint32 // of Packages
	size                  int64  // of Packages
	at                    int64  // in Packages.gz
}

// gzipHead is the header of a gzip member (RFC 1952) without name and time.
const gzipHead = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"

// gzipTail is the size of what ends the member: an empty fixed block, checksum and
// size.
const gzipTail = 2 + 4 + 4

func newPieces(dir string) (*pieces, error) {
	plain, err := create(dir, "Packages")
	if err != nil {
		return nil, err
	}
	packed, err := create(dir, "Packages.gz")
	if err != nil {
		plain.Close()
		return nil, err
	}
	p := &pieces{plainFile: plain, packedFile: packed, plain: bufio.NewWriterSize(plain, 256<<10), packed: bufio.NewWriterSize(packed, 64<<10)}
	p.packed.WriteString(gzipHead)
	p.at = int64(len(gzipHead))
	return p, nil
}

// add appends a text, with the piece that it is packed in, or nil, and returns
// where both lie.
func (p *pieces) add(text, packed []byte) (in, at span, err error) {
	if packed == nil && len(text) > 0 {
		if packed, err = p.pack(text); err != nil {
			return in, at, err
		}
	}
	in, at = span{p.size, p.size + int64(len(text))}, span{p.at, p.at + int64(len(packed))}
	p.size, p.at = in.to, at.to
	p.crc = crc32.Update(p.crc, crc32.IEEETable, text)
	if _, err := p.plain.Write(text); err != nil {
		return in, at, err
	}
	_, err = p.packed.Write(packed)
	return in, at, err
}

// pack returns the piece of a text; it is valid until the next call.
func (p *pieces) pack(text []byte) ([]byte, error) {
	p.out.Reset()
	if p.deflate == nil {
		w, err := flate.NewWriter(&p.out, flate.BestCompression)
		if err != nil {
			return nil, err
		}
		p.deflate = w
	} else {
		p.deflate.Reset(&p.out)
	}
	if _, err := p.deflate.Write(text); err != nil {
		return nil, err
	}
	// A flush ends on a byte's boundary, with an empty stored block.
	if err := p.deflate.Flush(); err != nil {
		return nil, err
	}
	if !bytes.HasSuffix(p.out.Bytes(), []byte("\x00\x00\xff\xff")) {
		return nil, errors.New("compress: a flush did not end on a boundary")
	}
	return p.out.Bytes(), nil
}

// finish ends both files.
func (p *pieces) finish() error {
	// The last block, empty and fixed; then checksum and size (RFC 1951, 1952).
	tail := []byte("\x03\x00")
	tail = binary.LittleEndian.AppendUint32(tail, p.crc)
	tail = binary.LittleEndian.AppendUint32(tail, uint32(p.size))
	_, err := p.packed.Write(tail)
	return errors.Join(err, p.packed.Flush(), p.plain.Flush())
}

func (p *pieces) close() error { return errors.Join(p.plainFile.Close(), p.packedFile.Close()) }
