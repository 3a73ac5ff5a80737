package deb

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"strconv"
	"sync"
)

// Sums are a file's size in bytes and its checksums in lower-case hexadecimal.
type Sums struct {
	Size              int64
	MD5, SHA1, SHA256 string
}

// A source hashes everything that passes, also what its reader skips.
type source struct {
	r    io.Reader
	buf  []byte
	a, b int   // buf[a:b] is hashed and not yet handed out
	size int64 // bytes hashed
	eof  bool
	err  error // the first trouble of r; io.EOF is none

	md5, sha1, sha256 hash.Hash
	out               [sha256.Size]byte
	text              [2 * sha256.Size]byte
}

var sources = sync.Pool{New: func() any {
	return &source{buf: make([]byte, 64<<10), md5: md5.New(), sha1: sha1.New(), sha256: sha256.New()}
}}

func newSource(r io.Reader) *source {
	s := sources.Get().(*source)
	s.r, s.a, s.b, s.size, s.eof, s.err = r, 0, 0, 0, false, nil
	s.md5.Reset()
	s.sha1.Reset()
	s.sha256.Reset()
	return s
}

func (s *source) release() {
	s.r = nil
	sources.Put(s)
}

// fill gets more bytes, if there are any; io.EOF says that there are none.
func (s *source) fill() error {
	if s.a < s.b {
		return nil
	}
	for idle := 0; ; idle++ {
		if s.err != nil {
			return s.err
		}
		if s.eof {
			return io.EOF
		}
		n, err := s.r.Read(s.buf)
		s.a, s.b = 0, n
		if err == io.EOF {
			s.eof = true
		} else if err != nil {
			s.err = err
		} else if n == 0 && idle == 100 {
			s.err = io.ErrNoProgress
		}
		if n > 0 {
			s.size += int64(n)
			s.md5.Write(s.buf[:n])
			s.sha1.Write(s.buf[:n])
			s.sha256.Write(s.buf[:n])
			return nil
		}
	}
}

// at is how many bytes have been handed out.
func (s *source) at() int64 { return s.size - int64(s.b-s.a) }

func (s *source) drain() error {
	for {
		s.a = s.b
		if err := s.fill(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func (s *source) sums() Sums {
	hexed := func(h hash.Hash) string {
		sum := h.Sum(s.out[:0])
		return string(s.text[:hex.Encode(s.text[:], sum)])
	}
	return Sums{Size: s.size, MD5: hexed(s.md5), SHA1: hexed(s.sha1), SHA256: hexed(s.sha256)}
}

// full reads exactly len(p) bytes; io.ErrUnexpectedEOF says that the file is
// shorter, io.EOF that nothing was left of it.
func (s *source) full(p []byte) error {
	for n := 0; n < len(p); {
		if err := s.fill(); err != nil {
			if err == io.EOF && n > 0 {
				return io.ErrUnexpectedEOF
			}
			return err
		}
		k := copy(p[n:], s.buf[s.a:s.b])
		s.a += k
		n += k
	}
	return nil
}

// arReader takes an ar container apart as deb(5) describes it: the common
// format, names of up to 15 characters, no symbol table, no long names.
type arReader struct {
	src   *source
	count int // members seen
	head  [60]byte
}

var errTruncated = errFault("the file ends in the middle of a member; it is truncated: send the whole file")

func (ar *arReader) magic() error {
	m := ar.head[:8]
	if err := ar.src.full(m); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		err == nil && string(m) != "!<arch>\n" {
		return fault("is no ar container, so no Debian package; build it with dpkg-deb")
	} else if err != nil {
		return err
	}
	return nil
}

// A member is one file in the container, read through the source.
type member struct {
	name string
	left int64
	size int64
	src  *source
}

// next reads a member's header. io.EOF says that the container ends here.
func (ar *arReader) next() (*member, error) {
	h := ar.head[:]
	err := ar.src.full(h)
	if err == io.ErrUnexpectedEOF {
		return nil, errTruncated
	}
	if err != nil {
		return nil, err
	}
	ar.count++
	if h[58] != '`' || h[59] != '\n' {
		return nil, fault("header %d of the container is damaged; build the package again with dpkg-deb", ar.count)
	}
	name := string(bytes.TrimSuffix(bytes.TrimRight(h[:16], " "), []byte("/")))
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || c == '/' {
			return nil, fault("header %d of the container has the name %q; build the package again with dpkg-deb",
				ar.count, name)
		}
	}
	size, ok := number(h[48:58])
	if !ok {
		return nil, fault("member %q of the container has the size %q; build the package again with dpkg-deb", name, h[48:58])
	}
	return &member{name: name, left: size, size: size, src: ar.src}, nil
}

// number reads a decimal number that blanks fill up to the field's width. Ten
// digits are the most there can be, so nothing overflows.
func number(field []byte) (int64, bool) {
	field = bytes.TrimRight(field, " ")
	for _, c := range field {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(string(field), 10, 64)
	return n, err == nil
}

func (m *member) Read(p []byte) (int, error) {
	if m.left == 0 {
		return 0, io.EOF
	}
	if err := m.src.fill(); err == io.EOF {
		return 0, errTruncated
	} else if err != nil {
		return 0, err
	}
	if int64(len(p)) > m.left {
		p = p[:m.left]
	}
	n := copy(p, m.src.buf[m.src.a:m.src.b])
	m.src.a += n
	m.left -= int64(n)
	return n, nil
}

// ReadByte spares the decompressors a buffer of their own.
func (m *member) ReadByte() (byte, error) {
	if m.left == 0 {
		return 0, io.EOF
	}
	if err := m.src.fill(); err == io.EOF {
		return 0, errTruncated
	} else if err != nil {
		return 0, err
	}
	c := m.src.buf[m.src.a]
	m.src.a++
	m.left--
	return c, nil
}

// close passes over what is left of the member, and over the byte that makes
// its size even. The last member of a file may lack that byte.
func (m *member) close() error {
	for m.left > 0 {
		if err := m.src.fill(); err == io.EOF {
			return errTruncated
		} else if err != nil {
			return err
		}
		n := min(m.left, int64(m.src.b-m.src.a))
		m.src.a += int(n)
		m.left -= n
	}
	if m.size%2 == 0 {
		return nil
	}
	var pad [1]byte
	if err := m.src.full(pad[:]); err == io.EOF {
		return nil
	} else if err != nil {
		return err
	}
	if pad[0] != '\n' {
		return fault("the byte after member %q of the container is %#02x, not a line end; "+
			"build the package again with dpkg-deb", m.name, pad[0])
	}
	return nil
}
