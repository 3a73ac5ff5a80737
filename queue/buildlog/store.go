// Package buildlog keeps, searches and shows build logs. A log is what a
// stranger's program printed: package clean makes it fit to be seen.
package buildlog

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"packmill/internal/compression"
	"packmill/internal/durable"
	"packmill/internal/regular"

	"github.com/klauspost/compress/zstd"
)

// Suffix of compressed logs.
const Suffix = ".zst"

// window is how far back a compressed log refers. It fits into a processor's
// cache: a larger one makes logs smaller by a hundredth, and slower to read by a
// third.
const window = 1 << 20

// Compress writes the log at src, compressed with zstd, to dst, which ends in
// Suffix. When it returns without an error the copy is whole, was read back
// and is on the disk; a crash before that leaves no dst. src stays. It
// returns the sizes before and after in bytes.
func Compress(dst, src string) (before, after int64, err error) {
	fail := func(err error) (int64, int64, error) { return 0, 0, fmt.Errorf("compress log: %w", err) }
	in, err := regular.Open(src)
	if err != nil {
		return fail(err)
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(dst), "."+filepath.Base(dst)+".")
	if err != nil {
		return fail(err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	enc, err := zstd.NewWriter(out, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true), zstd.WithWindowSize(window))
	if err != nil {
		return fail(err)
	}
	if before, err = io.Copy(enc, in); err != nil {
		enc.Close()
		return fail(err)
	}
	if err := errors.Join(enc.Close(), out.Chmod(0o644)); err != nil {
		return fail(err)
	}
	if after, err = out.Seek(0, io.SeekCurrent); err != nil {
		return fail(err)
	}
	// Read it back before anybody removes the plain one.
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		return fail(err)
	}
	dec, err := compression.Zstd.Reader(out)
	if err != nil {
		return fail(err)
	}
	n, err := io.Copy(io.Discard, dec)
	dec.Close()
	if err != nil {
		return fail(err)
	}
	if n != before {
		return fail(fmt.Errorf("%d bytes were written and %d read back", before, n))
	}
	if err := durable.SyncFile(out); err != nil {
		return fail(err)
	}
	if err := durable.Replace(out.Name(), dst); err != nil {
		return fail(err)
	}
	return before, after, nil
}

// Open opens a log at path or, if there is none, at path with Suffix, and
// reads it uncompressed. What it gives is not escaped.
func Open(path string) (io.ReadCloser, error) {
	r := &reader{}
	if err := r.open(path); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// reader is Open for many logs, one after another.
type reader struct {
	io.Reader // of the log that is open
	file      *os.File
	in        *bufio.Reader
	dec       io.ReadCloser
}

// open goes on with another log. The reader stays of use after an error.
func (r *reader) open(path string) error {
	r.shut()
	f, err := regular.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !strings.HasSuffix(path, Suffix) {
		path += Suffix
		f, err = regular.Open(path)
	}
	if err != nil {
		return err
	}
	r.file, r.Reader = f, f
	if !strings.HasSuffix(path, Suffix) {
		return nil
	}
	if r.in == nil {
		r.in = bufio.NewReaderSize(nil, 256<<10)
	}
	r.in.Reset(f)
	if r.dec, err = compression.Zstd.Reader(r.in); err != nil {
		return fmt.Errorf("open log %s: %w", path, err)
	}
	r.Reader = r.dec
	return nil
}

func (r *reader) shut() error {
	if r.file == nil {
		return nil
	}
	if r.dec != nil {
		r.dec.Close()
		r.dec = nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}

// Close ends the reader and closes the log that is open.
func (r *reader) Close() error { return r.shut() }
