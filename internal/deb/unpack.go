package deb

import (
	"compress/bzip2"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
)

// Decompressors are costly to make and cheap to use again: an xz stream written
// by dpkg-deb asks for a dictionary of 8 MiB, however small it is.
var (
	gzips = sync.Pool{New: func() any { return new(gzip.Reader) }}
	xzs   = sync.Pool{New: func() any { z, _ := xz.NewReader(nil, dictMax); return z }}
	zstds = sync.Pool{New: func() any {
		// One goroutine, the caller's; the options are constants that it accepts.
		z, _ := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(windowMax))
		return z
	}}
)

const (
	dictMax   = 64 << 20  // xz -9, the most that dpkg-deb writes
	windowMax = 128 << 20 // zstd -22, the most that dpkg-deb writes
)

// An unpacker reads what a member holds, within limits.
type unpacker struct {
	m       *member
	r       io.Reader
	limit   int64 // output bytes at all
	lim     *Limits
	n       int64 // output bytes so far
	copyTo  io.Writer
	release func()
}

// unpack opens a member named stem, stem.gz, stem.xz, stem.zst or, if old ones
// are accepted, stem.bz2.
func unpack(m *member, stem string, old bool, limit int64, lim *Limits, copyTo io.Writer) (*unpacker, error) {
	u := &unpacker{m: m, limit: limit, lim: lim, copyTo: copyTo, release: func() {}}
	err := packing(m, stem, old)
	if err != nil {
		return nil, err
	}
	switch m.name[len(stem):] {
	case "":
		u.r = m
	case ".gz":
		z := gzips.Get().(*gzip.Reader)
		u.release = func() { gzips.Put(z) }
		u.r, err = z, z.Reset(m)
	case ".xz":
		z := xzs.Get().(*xz.Reader)
		u.release = func() { xzs.Put(z) }
		u.r, err = z, z.Reset(m)
	case ".zst":
		z := zstds.Get().(*zstd.Decoder)
		u.release = func() { z.Reset(nil); zstds.Put(z) }
		u.r, err = z, z.Reset(m)
	case ".bz2":
		u.r = bzip2.NewReader(m)
	}
	if err != nil {
		u.release()
		return nil, u.fault(err)
	}
	return u, nil
}

// packing refuses a member whose name promises another compression.
func packing(m *member, stem string, old bool) error {
	switch m.name[len(stem):] {
	case "", ".gz", ".xz", ".zst":
		return nil
	case ".bz2":
		if old {
			return nil
		}
	}
	return fault("%s is packed in a way that is not accepted; build the package again with dpkg-deb -Zxz (or -Zzstd, -Zgzip, -Znone)", m.name)
}

// fault tells trouble of the reader from a fault of the member.
func (u *unpacker) fault(err error) error {
	if u.m.src.err != nil {
		return u.m.src.err
	}
	if e := errFault(""); errors.As(err, &e) {
		return e
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, xz.ErrBuf):
		return fault("%s ends too early; build the package again with dpkg-deb", u.m.name)
	case errors.Is(err, xz.ErrMemlimit), errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return fault("%s needs more memory to unpack than dpkg-deb's highest level does; build the package again with dpkg-deb", u.m.name)
	}
	return fault("%s is damaged (%v); build the package again with dpkg-deb", u.m.name, err)
}

func (u *unpacker) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if n > 0 {
		u.n += int64(n)
		if u.n > u.limit {
			return 0, fault("%s unpacks to more than %d bytes; split the package", u.m.name, u.limit)
		}
		// Both sides are counted at the same moment, so a bomb is known as
		// soon as it has passed the floor.
		if packed := u.m.size - u.m.left; u.n > u.lim.Floor && (u.n-u.lim.Floor)/u.lim.Ratio > packed {
			return 0, fault("%s unpacks to more than %d times its size, as bombs do; split the package, or leave out what is empty in it", u.m.name, u.lim.Ratio)
		}
		if u.copyTo != nil {
			if _, werr := u.copyTo.Write(p[:n]); werr != nil {
				return 0, writeError{werr}
			}
		}
	}
	if err != nil && err != io.EOF {
		err = u.fault(err)
	}
	return n, err
}

// A writeError comes from the caller's writer: it is no fault of the package.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }
