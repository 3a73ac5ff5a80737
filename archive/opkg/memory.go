package opkg

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// memory is the name of the file in a generation in which this package notes
// what the generation was made from. Clients do not fetch it; without it the
// next publication takes longer.
//
// Two lines: the format; "input", the sum of the input, the number of entries.
// Then, with numbers as uvarints and everything else after its length: the
// settings; the namer; for each run its id, the lengths of its text and of its
// piece, the text's CRC-32 as gzip has it, how many packages were skipped in it, how
// many entries it has, and these. At the end the CRC-32C of all before.
const (
	memory       = ".made"
	memoryFormat = format + ", memory 2"
)

// A run is what a block of an index became: entries that lie together in Packages,
// and a piece of Packages.gz.
type run struct {
	id           [32]byte // SHA-256 of the block
	text, packed span
	crc          uint32 // of the text
	skipped, n   int    // packages that are missing, and entries
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

const markSize = 16 + 32

// last is the generation before, as far as it is known.
type last struct {
	runs     map[[32]byte]run
	names    namer
	packages *os.File
	packed   *os.File
	memory   []byte // the file as the kernel has it; the runs' entries lie in it
}

func (l *last) close() {
	for _, f := range []*os.File{l.packages, l.packed} {
		if f != nil {
			f.Close()
		}
	}
	unmap(l.memory)
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
	if len(lines) < 3 || lines[0] != memoryFormat {
		return "", 0, fmt.Errorf("%s: damaged", f.Name())
	}
	_, err = fmt.Sscanf(lines[1], "input %s %d", &input, &entries)
	return input, entries, err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errDamaged = errors.New("the memory of a generation is damaged")

// readLast reads the memory of the generation at dir, if it was made under the
// same settings.
func readLast(dir, settings string) (_ *last, err error) {
	l := &last{runs: map[[32]byte]run{}, names: newNamer()}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.memory, err = mapped(filepath.Join(dir, memory)); err != nil {
		return nil, err
	}
	body, err := checked(l.memory)
	if err != nil {
		return nil, err
	}
	r := &reader{b: body}
	if string(r.bytes()) != settings {
		return nil, errDamaged
	}
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
		k.crc, k.skipped, k.n = uint32(r.number()), int(r.number()), int(r.number())
		k.entries = r.bytes()
		l.runs[k.id] = k
	}
	if r.bad || len(r.b) != 0 {
		return nil, errDamaged
	}
	if l.packages, err = openSized(filepath.Join(dir, "Packages"), text); err == nil {
		l.packed, err = openSized(filepath.Join(dir, "Packages.gz"), packed+gzipTail)
	}
	return l, err
}

// mapped is a file as the kernel has it.
func mapped(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || fi.Size() == 0 {
		return nil, err // nothing cannot be mapped
	}
	text, err := unix.Mmap(int(f.Fd()), 0, int(fi.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", name, err)
	}
	return text, nil
}

func unmap(text []byte) {
	if text != nil {
		unix.Munmap(text)
	}
}

// checked returns what lies between the two lines and the checksum.
func checked(data []byte) ([]byte, error) {
	n := len(data) - 4
	if n < 0 || binary.LittleEndian.Uint32(data[n:]) != crc32.Checksum(data[:n], castagnoli) {
		return nil, errDamaged
	}
	lines := bytes.SplitN(data[:n], []byte("\n"), 3)
	if len(lines) < 3 || string(lines[0]) != memoryFormat {
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
		entries += k.n
	}
	f, err := create(dir, memory)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := crc32.New(castagnoli)
	w := bufio.NewWriterSize(io.MultiWriter(f, sum), 64<<10)
	fmt.Fprintf(w, "%s\ninput %s %d\n", memoryFormat, input, entries)
	writeBytes(w, settings)
	for _, set := range names.sets() {
		writeNumbers(w, len(set))
		for name := range set {
			writeBytes(w, name)
		}
	}
	writeNumbers(w, len(runs))
	for _, k := range runs {
		writeBytes(w, k.id[:])
		writeNumbers(w, int(k.text.size()), int(k.packed.size()), int(k.crc), k.skipped, k.n)
		writeBytes(w, k.entries)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := binary.Write(f, binary.LittleEndian, sum.Sum32()); err != nil {
		return err
	}
	return f.Close()
}

// writeNumbers and writeBytes keep their errors for Flush.
func writeNumbers(w *bufio.Writer, numbers ...int) {
	for _, n := range numbers {
		w.Write(binary.AppendUvarint(w.AvailableBuffer(), uint64(n)))
	}
}

func writeBytes[T string | []byte](w *bufio.Writer, v T) {
	writeNumbers(w, len(v))
	w.Write([]byte(v))
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

// eachName calls yield with the name of each entry of a run, and with those that
// it provides. The name is valid during the call.
func eachName(entries []byte, yield func(name []byte, provided, versioned bool)) error {
	r := &reader{b: entries}
	for len(r.b) > 0 && !r.bad {
		r.take(markSize)
		r.number()
		yield(r.bytes(), false, false)
		for n := r.number(); n > 0 && !r.bad; n-- {
			name := r.bytes()
			yield(name, true, r.number() == 1)
		}
	}
	if r.bad {
		return errDamaged
	}
	return nil
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
