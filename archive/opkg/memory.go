package opkg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
)

// memory is the name of the file in a generation in which this package notes
// what the generation was made from. Clients do not fetch it; without it the
// next publication takes longer.
//
// Two lines: the format; "input", the sum of the input, the number of entries.
// Then, with numbers as uvarints and everything else after its length: the
// settings; the namer; for each run its id, the lengths of its text and of its
// piece, how many packages were skipped in it, its entries. At the end the CRC-32C
// of all before.
const memory = ".made"

// A run is what a block of an index became: entries that lie together in Packages,
// and a piece of Packages.gz.
type run struct {
	id           [32]byte // SHA-256 of the block
	text, packed span
	skipped      int
	entries      []byte // see record
}

type span struct{ from, to int64 }

func (s span) size() int64 { return s.to - s.from }

// A record is an entry of a run.
type record struct {
	mark
	size     int64
	name     string
	provides []provided
}

// A mark tells whether an entry is made from the same stanza as before.
type mark struct {
	stanza [16]byte // of the SHA-256 of the archive's stanza
	deb    [32]byte // SHA-256 of the .deb
}

// last is the generation before, as far as it is known.
type last struct {
	runs     map[[32]byte]run
	names    namer
	packages *os.File
	packed   *os.File
}

func (l *last) close() {
	for _, f := range []*os.File{l.packages, l.packed} {
		if f != nil {
			f.Close()
		}
	}
}

// readInput reads only what the generation at dir was made from, and the number
// of its entries.
func readInput(dir string) (input string, entries int, err error) {
	f, err := os.Open(filepath.Join(dir, memory))
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	head := make([]byte, 256)
	n, err := f.Read(head)
	if err != nil {
		return "", 0, err
	}
	lines := strings.SplitN(string(head[:n]), "\n", 3)
	if len(lines) < 3 || lines[0] != format {
		return "", 0, fmt.Errorf("%s: damaged", f.Name())
	}
	_, err = fmt.Sscanf(lines[1], "input %s %d", &input, &entries)
	return input, entries, err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errDamaged = errors.New("the memory of a generation is damaged")

// readLast reads the memory of the generation at dir, if it was made under the
// same settings.
func readLast(dir, settings string) (*last, error) {
	data, err := os.ReadFile(filepath.Join(dir, memory))
	if err != nil {
		return nil, err
	}
	body, err := checked(data)
	if err != nil {
		return nil, err
	}
	r := &reader{b: body}
	if string(r.bytes()) != settings {
		return nil, errDamaged
	}
	l := &last{runs: map[[32]byte]run{}, names: newNamer()}
	for _, set := range l.names.sets() {
		for n := r.number(); n > 0 && !r.bad; n-- {
			set[string(r.bytes())] = true
		}
	}
	text, packed := int64(0), int64(len(gzipHead))
	for n := r.number(); n > 0 && !r.bad; n-- {
		var k run
		copy(k.id[:], r.bytes())
		k.text = span{text, text + r.number()}
		k.packed = span{packed, packed + r.number()}
		text, packed = k.text.to, k.packed.to
		k.skipped = int(r.number())
		k.entries = r.bytes()
		l.runs[k.id] = k
	}
	if r.bad || len(r.b) != 0 {
		return nil, errDamaged
	}
	if l.packages, err = openSized(filepath.Join(dir, "Packages"), text); err == nil {
		l.packed, err = openSized(filepath.Join(dir, "Packages.gz"), packed+gzipTail)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// checked returns what lies between the two lines and the checksum.
func checked(data []byte) ([]byte, error) {
	n := len(data) - 4
	if n < 0 || binary.LittleEndian.Uint32(data[n:]) != crc32.Checksum(data[:n], castagnoli) {
		return nil, errDamaged
	}
	lines := bytes.SplitN(data[:n], []byte("\n"), 3)
	if len(lines) < 3 || string(lines[0]) != format {
		return nil, errDamaged
	}
	return lines[2], nil
}

func openSized(name string, size int64) (*os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err != nil || fi.Size() != size {
		f.Close()
		return nil, errDamaged
	}
	return f, nil
}

// writeMemory writes the memory of the generation at dir.
func writeMemory(dir, input, settings string, names namer, runs []run) error {
	entries := 0
	for _, k := range runs {
		entries += countRecords(k.entries)
	}
	b := fmt.Appendf(nil, "%s\ninput %s %d\n", format, input, entries)
	b = appendBytes(b, settings)
	for _, set := range names.sets() {
		b = binary.AppendUvarint(b, uint64(len(set)))
		for name := range set {
			b = appendBytes(b, name)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(runs)))
	for _, k := range runs {
		b = appendBytes(b, k.id[:])
		b = binary.AppendUvarint(b, uint64(k.text.size()))
		b = binary.AppendUvarint(b, uint64(k.packed.size()))
		b = binary.AppendUvarint(b, uint64(k.skipped))
		b = appendBytes(b, k.entries)
	}
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return os.WriteFile(filepath.Join(dir, memory), b, 0o644)
}

func appendBytes[T string | []byte](b []byte, v T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

// append appends an entry to those of a run, which begin with nothing.
func (e *record) append(b []byte) []byte {
	b = append(append(b, e.stanza[:]...), e.deb[:]...)
	b = binary.AppendUvarint(b, uint64(e.size))
	b = appendBytes(b, e.name)
	b = binary.AppendUvarint(b, uint64(len(e.provides)))
	for _, p := range e.provides {
		versioned := uint64(0)
		if p.versioned {
			versioned = 1
		}
		b = binary.AppendUvarint(appendBytes(b, p.name), versioned)
	}
	return b
}

// eachRecord calls yield with each entry of a run.
func eachRecord(entries []byte, yield func(*record)) error {
	r := &reader{b: entries}
	for len(r.b) > 0 && !r.bad {
		var e record
		r.fixed(e.stanza[:])
		r.fixed(e.deb[:])
		e.size = r.number()
		e.name = string(r.bytes())
		for n := r.number(); n > 0 && !r.bad; n-- {
			e.provides = append(e.provides, provided{string(r.bytes()), r.number() == 1})
		}
		yield(&e)
	}
	if r.bad {
		return errDamaged
	}
	return nil
}

func countRecords(entries []byte) (n int) {
	r := &reader{b: entries}
	for ; len(r.b) > 0 && !r.bad; n++ {
		r.take(48)
		r.number()
		r.bytes()
		for p := r.number(); p > 0 && !r.bad; p-- {
			r.bytes()
			r.number()
		}
	}
	return n
}

// A reader reads numbers and texts; what is not there makes it bad.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) number() int64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > 1<<50 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return int64(v)
}

func (r *reader) take(n int64) []byte {
	if n < 0 || n > int64(len(r.b)) {
		r.bad = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) bytes() []byte { return r.take(r.number()) }

func (r *reader) fixed(to []byte) { copy(to, r.take(int64(len(to)))) }
