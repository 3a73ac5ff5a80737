package opkg

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/klauspost/compress/flate"

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
	// Both signatures need the text as one piece; it is in the page cache.
	text, err := mapped(filepath.Join(dir, "Packages"))
	if err != nil {
		return err
	}
	defer unmap(text)
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
		if err := os.Link(filepath.Join(dir, name), filepath.Join(next, name)); err != nil &&
			(f.Manifest || name != "Packages.manifest") {
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
	sig, err := openpgp.DetachLarge(text, now, pgp...)
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

	old  *last
	kept run // of the last generation, to be copied from there: several runs that follow each other
}

// gzipHead is the header of a gzip member (RFC 1952) without name and time.
const gzipHead = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"

// gzipTail is the size of what ends the member: an empty fixed block, checksum and
// size.
const gzipTail = 2 + 4 + 4

func newPieces(dir string, old *last) (*pieces, error) {
	plain, err := create(dir, "Packages")
	if err != nil {
		return nil, err
	}
	packed, err := create(dir, "Packages.gz")
	if err != nil {
		plain.Close()
		return nil, err
	}
	p := &pieces{old: old, plainFile: plain, packedFile: packed, plain: bufio.NewWriterSize(plain, 256<<10),
		packed: bufio.NewWriterSize(packed, 64<<10)}
	p.packed.WriteString(gzipHead)
	p.at = int64(len(gzipHead))
	return p, nil
}

// add appends a run of this text.
func (p *pieces) add(k run, text []byte) (run, error) {
	if err := p.copyKept(); err != nil {
		return k, err
	}
	var packed []byte
	if len(text) > 0 {
		var err error
		if packed, err = p.pack(text); err != nil {
			return k, err
		}
	}
	k.crc = crc32.ChecksumIEEE(text)
	p.place(&k, int64(len(text)), int64(len(packed)))
	if _, err := p.plain.Write(text); err != nil {
		return k, err
	}
	_, err := p.packed.Write(packed)
	return k, err
}

// keep appends a run of the last generation. The kernel copies those that follow each
// other at once, and shares their blocks where the file system can.
func (p *pieces) keep(k run) (run, error) {
	if p.kept.text.to != k.text.from || p.kept.packed.to != k.packed.from {
		if err := p.copyKept(); err != nil {
			return k, err
		}
		p.kept.text.from, p.kept.packed.from = k.text.from, k.packed.from
	}
	p.kept.text.to, p.kept.packed.to = k.text.to, k.packed.to
	p.place(&k, k.text.size(), k.packed.size())
	return k, nil
}

// place says where a run lies from now on, behind what there is.
func (p *pieces) place(k *run, text, packed int64) {
	k.text, k.packed = span{p.size, p.size + text}, span{p.at, p.at + packed}
	p.size, p.at = k.text.to, k.packed.to
	p.crc = joinCRC(p.crc, k.crc, text)
}

// copyKept copies what is kept so far.
func (p *pieces) copyKept() error {
	k := p.kept
	p.kept = run{}
	if k.text.size() == 0 && k.packed.size() == 0 {
		return nil
	}
	if err := errors.Join(p.plain.Flush(), p.packed.Flush()); err != nil {
		return err
	}
	return errors.Join(copySpan(p.plainFile, p.old.packages, k.text), copySpan(p.packedFile, p.old.packed, k.packed))
}

// copySpan is copy_file_range(2) where that works.
func copySpan(to, from *os.File, s span) error {
	if _, err := from.Seek(s.from, io.SeekStart); err != nil {
		return err
	}
	_, err := io.CopyN(to, from, s.size())
	return err
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
	if err := p.copyKept(); err != nil {
		return err
	}
	// The last block, empty and fixed; then checksum and size (RFC 1951, 1952).
	tail := []byte("\x03\x00")
	tail = binary.LittleEndian.AppendUint32(tail, p.crc)
	tail = binary.LittleEndian.AppendUint32(tail, uint32(p.size))
	_, err := p.packed.Write(tail)
	return errors.Join(err, p.packed.Flush(), p.plain.Flush())
}

func (p *pieces) close() error { return errors.Join(p.plainFile.Close(), p.packedFile.Close()) }
