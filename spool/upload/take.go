package upload

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"packmill/internal/bound"
	"packmill/internal/openpgp"
	"packmill/internal/paper"
	"packmill/internal/policy"
	"packmill/internal/regular"
)

// Sums are what one pass over a file found.
type Sums struct {
	Size   int64
	MD5    string // lower hex; "" if not asked for
	SHA1   string // lower hex; "" if not asked for
	SHA256 string // lower hex

	listing *listing // of a large tarball, if TakeOptions.List asked for it
}

// FileError says that a file is not one that can be taken: the uploader's
// fault, and a sentence for him.
type FileError struct {
	Name  string
	Text  string
	Check string // that Read would have refused it by; "" if it would not have come so far
}

func (e *FileError) Error() string { return e.Text }

func fileErrorf(name, format string, args ...any) error {
	return &FileError{Name: name, Text: show(name) + ": " + fmt.Sprintf(format, args...)}
}

// TakeOptions bounds and widens Take.
type TakeOptions struct {
	MaxSize  int64  // bytes; 0: DefaultLimits.FileSize
	Sized    bool   // the file must have Size bytes
	Size     int64  // what is listed
	Owner    string // that lists it
	Links    bool   // a file with more than one hard link is taken too
	MD5      bool   // compute it as well
	SHA1     bool   // compute it as well
	Unsynced bool   // the caller syncs the copy
	// look into a large tarball on the way, so that Read need not read it again: for what somebody vouches for
	List bool
	Mode fs.FileMode // of the copy; 0: 0644
}

// Open opens a file of an upload for reading: a plain name in dir, a regular
// file, no symbolic link; a FIFO does not block it. A *FileError says that it is none such.
func Open(dir, name string) (*os.File, fs.FileInfo, error) {
	if err := policy.CheckFile(name); err != nil {
		return nil, nil, &FileError{Name: name, Text: err.Error()}
	}
	return open(dir, name)
}

// open is Open for a name that was checked otherwise.
func open(dir, name string) (*os.File, fs.FileInfo, error) {
	f, err := regular.OpenIn(dir, name)
	switch {
	case errors.Is(err, regular.ErrLink):
		return nil, nil, fileErrorf(name, "it is a symbolic link; upload the file itself")
	case errors.Is(err, regular.ErrNotRegular):
		return nil, nil, fileErrorf(name, "it is not a regular file; upload the file itself")
	case err != nil:
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// Take copies the file of this name from srcDir to a new file in dstDir and
// hashes what it copies, in one pass; the copy is synced (but see Unsynced), its directory is not. The
// source must be a regular file with one hard link, of the right size and with
// every byte of it written: that is seen before any is read. It is not trusted to
// keep still: what was hashed is what lies in dstDir. Take ends when ctx does.
//
// A *FileError says that the file cannot be taken; fs.ErrExist that dstDir has
// the name already (an earlier run left it: remove it first); fs.ErrNotExist that
// srcDir does not have it. After an error dstDir does not have the copy.
func Take(ctx context.Context, srcDir, dstDir, name string, opt TakeOptions) (Sums, error) {
	if opt.MaxSize == 0 {
		opt.MaxSize = DefaultLimits.FileSize
	}
	if opt.Mode == 0 {
		opt.Mode = 0o644
	}
	src, info, err := Open(srcDir, name)
	if err != nil {
		return Sums{}, err
	}
	defer src.Close()
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink != 1 && !opt.Links {
		return Sums{}, fileErrorf(name, "it has %d hard links; upload a file of its own", st.Nlink)
	}
	if opt.MaxSize == MaxChanges && info.Size() > MaxChanges {
		return Sums{}, largeControl(name, info.Size())
	}
	if info.Size() > opt.MaxSize {
		return Sums{}, fileErrorf(name, "it is of %d bytes, and %d are the limit; make it smaller, or ask for a higher limit",
			info.Size(), opt.MaxSize)
	}
	if opt.Sized && info.Size() != opt.Size {
		return Sums{}, &FileError{name, fmt.Sprintf("%s is of %d bytes, but %s says %d; upload it again",
			show(name), info.Size(), show(opt.Owner), opt.Size), "checksum"}
	}
	if at, ok := hole(src, info.Size()); ok {
		return Sums{}, fileErrorf(name,
			"it is of %d bytes, but those from byte %d on were never written (a hole); upload it again", info.Size(), at)
	}
	path := filepath.Join(dstDir, name)
	dst, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, opt.Mode)
	if err != nil {
		return Sums{}, err
	}
	// One byte more than there were shows that the file grows.
	sums, err := hashCopy(ctx, dst, io.LimitReader(src, info.Size()+1), name, info.Size(), opt)
	if err == nil && sums.Size != info.Size() {
		err = fileErrorf(name, "it changed while it was read; upload it again and leave it alone")
	}
	if err == nil && !opt.Unsynced {
		err = dst.Sync()
	}
	if cerr := dst.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		if rerr := os.Remove(path); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		return Sums{}, err
	}
	return sums, nil
}

// Hole reports whether a file of an upload has bytes that nobody has written,
// and where they begin. It costs nobody anything to make such a file, and a copy of
// it takes the room that it claims.
func Hole(dir, name string) (at int64, yes bool) {
	f, info, err := Open(dir, name)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	return hole(f, info.Size())
}

// hole is Hole; the file is at its beginning afterwards. Where a file system
// cannot say it, there is none.
func hole(f *os.File, size int64) (at int64, yes bool) {
	at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE)
	if _, serr := f.Seek(0, io.SeekStart); serr != nil {
		return 0, true
	}
	return at, err == nil && at < size
}

// Sum hashes a file of an upload where it lies. It ends when ctx does.
func Sum(ctx context.Context, dir, name string, opt TakeOptions) (Sums, error) {
	f, info, err := Open(dir, name)
	if err != nil {
		return Sums{}, err
	}
	defer f.Close()
	return hashCopy(ctx, nil, f, name, info.Size(), opt)
}

const block = 1 << 20

// buffer is a piece of a file that several hashes read at once.
type buffer struct {
	data []byte
	n    int
	left sync.WaitGroup // readers that are not done with it
}

var buffers = sync.Pool{New: func() any { return &buffer{data: make([]byte, block)} }}

// hashCopy reads r to its end, writes it to dst (unless nil) and hashes it. Small
// files are done in place; for large ones each hash has a goroutine of its own,
// so that the copy costs what the slowest of them costs.
func hashCopy(ctx context.Context, dst io.Writer, r io.Reader, name string, size int64, opt TakeOptions) (Sums, error) {
	first := sha256.New()
	sinks := []io.Writer{first}
	var m, s hash.Hash
	if opt.MD5 {
		m = md5.New()
		sinks = append(sinks, m)
	}
	if opt.SHA1 {
		s = sha1.New()
		sinks = append(sinks, s)
	}
	large := size >= 2*block
	var look *looker
	if opt.List && large && kindOf(name) == kindTar {
		look = newLooker(ctx, name, size)
		sinks = append(sinks, look.in)
	}
	total, err := pump(dst, bound.Reader(ctx, r), sinks, large)
	out := Sums{Size: total, SHA256: hex.EncodeToString(first.Sum(nil))}
	if look != nil {
		out.listing = look.end()
	}
	if err != nil {
		return Sums{}, err
	}
	if m != nil {
		out.MD5 = hex.EncodeToString(m.Sum(nil))
	}
	if s != nil {
		out.SHA1 = hex.EncodeToString(s.Sum(nil))
	}
	return out, nil
}

// looker lists a tarball that is written into it.
type looker struct {
	in   *io.PipeWriter
	done chan *listing
}

func newLooker(ctx context.Context, name string, size int64) *looker {
	out, in := io.Pipe()
	l := &looker{in, make(chan *listing, 1)}
	go func() {
		found := list(ctx, out, name, size, time.Now(), DefaultLimits)
		io.Copy(io.Discard, out) // it may have seen enough; a pipe never fails
		l.done <- found
	}()
	return l
}

func (l *looker) end() *listing {
	l.in.Close()
	return <-l.done
}

// pump writes all of r to dst (unless nil) and to each of the sinks, which must not fail.
func pump(dst io.Writer, r io.Reader, sinks []io.Writer, parallel bool) (total int64, err error) {
	if parallel {
		return pumpBeside(dst, r, sinks)
	}
	b := buffers.Get().(*buffer)
	defer buffers.Put(b)
	for {
		n, rerr := r.Read(b.data)
		for _, h := range sinks {
			h.Write(b.data[:n])
		}
		if dst != nil && n > 0 {
			if _, err := dst.Write(b.data[:n]); err != nil {
				return total, err
			}
		}
		total += int64(n)
		if rerr == io.EOF {
			return total, nil
		}
		if rerr != nil {
			return total, rerr
		}
	}
}

// pumpBeside is pump with a goroutine for each sink.
func pumpBeside(dst io.Writer, r io.Reader, sinks []io.Writer) (total int64, err error) {
	ring := newRing(sinks)
	defer ring.close()
	file, _ := dst.(*os.File)
	for err == nil {
		b := <-ring.free
		var rerr error
		b.n, rerr = io.ReadFull(r, b.data)
		total += int64(b.n)
		ring.send(b)
		if dst != nil && b.n > 0 {
			_, err = dst.Write(b.data[:b.n])
			if file != nil && total%(8*block) == 0 {
				// The disk begins now, beside the hashing, what the sync at the end waits
				// for. It is a hint: an error of the disk is still fsync's to tell.
				_ = unix.SyncFileRange(int(file.Fd()), total-8*block, 8*block, unix.SYNC_FILE_RANGE_WRITE)
			}
		}
		ring.out <- b
		if rerr == io.EOF || rerr == io.ErrUnexpectedEOF {
			break
		}
		if err == nil {
			err = rerr
		}
	}
	return total, err
}

// ring is the buffers' way: free, filled and read by every sink, out, and free
// again in the order in which they went out.
type ring struct {
	free    chan *buffer
	full    []chan *buffer // one for each sink
	out     chan *buffer
	workers sync.WaitGroup
}

func newRing(sinks []io.Writer) *ring {
	const depth = 8
	g := &ring{free: make(chan *buffer, depth), out: make(chan *buffer, depth)}
	for range depth {
		g.free <- buffers.Get().(*buffer)
	}
	for _, h := range sinks {
		ch := make(chan *buffer, depth)
		g.full = append(g.full, ch)
		g.workers.Go(func() {
			for b := range ch {
				h.Write(b.data[:b.n])
				b.left.Done()
			}
		})
	}
	g.workers.Go(func() {
		for b := range g.out {
			b.left.Wait()
			g.free <- b
		}
	})
	return g
}

// send gives a filled buffer to every sink.
func (g *ring) send(b *buffer) {
	b.left.Add(len(g.full))
	for _, ch := range g.full {
		ch <- b
	}
}

// close waits until every sink has what was sent. Each buffer must have gone out.
func (g *ring) close() {
	for _, ch := range g.full {
		close(ch)
	}
	close(g.out)
	g.workers.Wait()
	close(g.free)
	for b := range g.free {
		buffers.Put(b)
	}
}

// ErrUnfinished says that a .changes is not whole yet: it is still arriving, or its
// transfer was cut off.
var ErrUnfinished = errors.New("the file is not complete yet")

// sumsOf are the size and the SHA-256 of a file's bytes.
func sumsOf(data []byte) Sums {
	sum := sha256.Sum256(data)
	return Sums{Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}
}

// readSmall reads a whole control file of an upload.
func readSmall(dir, name string) ([]byte, error) {
	if err := policy.CheckFile(name); err != nil {
		return nil, &FileError{Name: name, Text: err.Error()}
	}
	return slurp(dir, name)
}

func largeControl(name string, size int64) error {
	return &FileError{name, fmt.Sprintf("%s: it is of %d bytes, and %d are the limit for such a file; split the upload",
		show(name), size, MaxChanges), "signature"}
}

func slurp(dir, name string) ([]byte, error) {
	f, info, err := open(dir, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := regular.ReadAll(f, MaxChanges)
	if errors.Is(err, regular.ErrLarge) {
		err = largeControl(name, info.Size())
	}
	return data, err
}

// Peek lists the files that a .changes names, without verifying anything: it says
// only whether an upload is complete, and nothing else may follow from it. The
// names have passed policy.CheckFile, each is there once.
//
// ErrUnfinished: wait. A *FileError or *deb822.Error: the file will never be
// good, and Read says what is wrong. Other errors are ours.
func Peek(dir, name string) ([]File, error) {
	data, err := readSmall(dir, name)
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		return nil, ErrUnfinished
	}
	signed := openpgp.IsSigned(data)
	if signed && !bytes.Contains(data, []byte("\n-----END PGP SIGNATURE-----")) || !signed && data[len(data)-1] != '\n' {
		return nil, ErrUnfinished
	}
	st, err := paper.Parse(show(name), data)
	if err != nil {
		return nil, err
	}
	var bad problems
	files := parseFiles(st, name, paper.Long, &bad)
	for _, f := range files {
		if f.MD5 == "" && !signed {
			return nil, ErrUnfinished // cut off inside Files, which comes last
		}
		if err := policy.CheckFile(f.Name); err != nil {
			bad.check(err)
		} else if f.Name == name {
			bad.addf("%s lists itself; list the files that belong to it", show(name))
		}
	}
	if len(bad) > 0 {
		return nil, &FileError{Name: name, Text: strings.Join(bad, "; ")}
	}
	if st.Get("Files") == "" {
		// An unsigned file may be cut off at any line's end; Files is its last field.
		if !signed {
			return nil, ErrUnfinished
		}
		return nil, &FileError{Name: name, Text: show(name) + ": field Files is missing or empty; dpkg-genchanges writes it"}
	}
	return files, nil
}

// Writing reports whether anybody has the file open for writing: it is still
// arriving. It is exact on local file systems, for the file's owner or root; where
// it cannot know it says no, as it does of what is no regular file.
func Writing(dir, name string) (bool, error) {
	f, _, err := Open(dir, name)
	var fileErr *FileError
	if errors.As(err, &fileErr) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	// A read lease is granted only while nobody has the file open for writing.
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return errors.Is(err, unix.EAGAIN), nil
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	return false, err
}
