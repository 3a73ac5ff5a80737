package upload_test

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"packmill/spool/upload"
	"packmill/spool/upload/corpus"
	"packmill/spool/upload/uploadtest"
)

func TestTake(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, 2 << 20, 5<<20 + 12345, 13 << 20} {
		src, dst := t.TempDir(), t.TempDir()
		data := []byte(corpus.Noise(size))
		put(t, filepath.Join(src, "a_1.tar.gz"), data)
		got, err := upload.Take(t.Context(), src, dst, "a_1.tar.gz", upload.TakeOptions{MD5: true, SHA1: true})
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		m, s1, s2 := md5.Sum(data), sha1.Sum(data), sha256.Sum256(data)
		want := upload.Sums{Size: int64(size), MD5: hex.EncodeToString(m[:]), SHA1: hex.EncodeToString(s1[:]),
			SHA256: hex.EncodeToString(s2[:])}
		if got != want {
			t.Errorf("%d bytes: got %+v, want %+v", size, got, want)
		}
		copied, err := os.ReadFile(filepath.Join(dst, "a_1.tar.gz"))
		if err != nil || !bytes.Equal(copied, data) {
			t.Errorf("%d bytes: the copy differs (%v)", size, err)
		}
		var a, b unix.Stat_t
		if err := unix.Stat(filepath.Join(src, "a_1.tar.gz"), &a); err != nil {
			t.Fatal(err)
		}
		if err := unix.Stat(filepath.Join(dst, "a_1.tar.gz"), &b); err != nil {
			t.Fatal(err)
		}
		if a.Ino == b.Ino || b.Mode&0o700 != 0o600 {
			t.Errorf("inodes %d and %d, mode %04o", a.Ino, b.Ino, b.Mode&0o777)
		}
		if again, err := upload.Sum(t.Context(), dst, "a_1.tar.gz", upload.TakeOptions{MD5: true, SHA1: true}); err != nil ||
			again != want {
			t.Errorf("Sum: got %+v, %v, want %+v", again, err, want)
		}
		if _, err := upload.Take(t.Context(), src, dst, "a_1.tar.gz", upload.TakeOptions{}); !errors.Is(err, fs.ErrExist) {
			t.Errorf("a name that is there: got %v, want fs.ErrExist", err)
		}
		if copied, err := os.ReadFile(filepath.Join(dst, "a_1.tar.gz")); err != nil || !bytes.Equal(copied, data) {
			t.Errorf("%d bytes: a failed second Take changed the copy (%v)", size, err)
		}
	}
}

func put(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestTakeRefuses: what is not an ordinary file of the uploader's own is not taken,
// at once and without leaving anything.
func TestTakeRefuses(t *testing.T) {
	rows := []struct {
		name string
		file string
		make func(dir, path string) error
		opt  upload.TakeOptions
		want string // "" for fs.ErrNotExist
	}{
		{"symbolic link", "a_1", func(dir, path string) error { return os.Symlink("/etc/passwd", path) }, upload.TakeOptions{}, `^a_1: it is a symbolic link; upload`},
		{"dangling link", "a_1", func(dir, path string) error { return os.Symlink("nowhere", path) }, upload.TakeOptions{}, `symbolic link`},
		{"hard link", "a_1", func(dir, path string) error {
			if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
				return err
			}
			return os.Link(path, filepath.Join(dir, "b_1"))
		}, upload.TakeOptions{}, `2 hard links`},
		{"FIFO", "a_1", func(dir, path string) error { return unix.Mkfifo(path, 0o644) }, upload.TakeOptions{}, `not a regular file`},
		{"directory", "a_1", func(dir, path string) error { return os.Mkdir(path, 0o755) }, upload.TakeOptions{}, `not a regular file`},
		{"socket", "a_1", func(dir, path string) error {
			return unix.Mknod(path, unix.S_IFSOCK|0o644, 0)
		}, upload.TakeOptions{}, `not a regular file`},
		{"too large", "a_1", func(dir, path string) error { return os.WriteFile(path, make([]byte, 101), 0o644) }, upload.TakeOptions{MaxSize: 100}, `101 bytes, and 100 are the limit`},
		{"sparse and huge", "a_1", func(dir, path string) error {
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				return err
			}
			return os.Truncate(path, 1<<40)
		}, upload.TakeOptions{}, `are the limit`},
		{"gone", "a_1", func(dir, path string) error { return nil }, upload.TakeOptions{}, ""},
		{"path", "../a_1", func(dir, path string) error { return nil }, upload.TakeOptions{}, `file name "\.\./a_1"`},
		{"dot", ".", func(dir, path string) error { return nil }, upload.TakeOptions{}, `file name`},
		{"empty name", "", func(dir, path string) error { return nil }, upload.TakeOptions{}, `file name`},
		{"device", "a_1", func(dir, path string) error { return unix.Mknod(path, unix.S_IFCHR|0o644, 1<<8|3) }, upload.TakeOptions{}, `not a regular file`},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			src, dst := t.TempDir(), t.TempDir()
			if err := r.make(src, filepath.Join(src, "a_1")); err != nil {
				if r.name == "device" && os.Geteuid() != 0 {
					return // only root can plant one
				}
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				_, err := upload.Take(t.Context(), src, dst, r.file, r.opt)
				done <- err
			}()
			select {
			case err := <-done:
				var fileErr *upload.FileError
				switch {
				case r.want == "" && !errors.Is(err, fs.ErrNotExist):
					t.Errorf("got %v, want fs.ErrNotExist", err)
				case r.want != "" && (!errors.As(err, &fileErr) || !regexp.MustCompile(r.want).MatchString(fileErr.Text)):
					t.Errorf("got %v, want a *FileError like %s", err, r.want)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("Take blocks")
			}
			left, err := os.ReadDir(dst)
			if err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
	// A directory that is a symbolic link is not followed.
	dir := t.TempDir()
	if err := os.Symlink("/etc", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := upload.Take(t.Context(), filepath.Join(dir, "link"), t.TempDir(), "nsswitch_conf",
		upload.TakeOptions{}); !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
		t.Errorf("a linked directory: got %v", err)
	}
	// Two links are fine where the caller says so.
	src := t.TempDir()
	put(t, filepath.Join(src, "a_1"), []byte("x"))
	if err := os.Link(filepath.Join(src, "a_1"), filepath.Join(src, "b_1")); err != nil {
		t.Fatal(err)
	}
	if _, err := upload.Take(t.Context(), src, t.TempDir(), "a_1", upload.TakeOptions{Links: true}); err != nil {
		t.Error(err)
	}
}

// TestTakeSwap: while a loop swaps, overwrites, shortens and grows the source, whatever
// Take hashed is what lies in the destination, and what has another size at the end than
// at the beginning is refused.
func TestTakeSwap(t *testing.T) {
	t.Parallel()
	src := t.TempDir()
	path := filepath.Join(src, "a_1.tar")
	one, two := bytes.Repeat([]byte("one "), 600_000), bytes.Repeat([]byte("two!"), 600_000)
	put(t, path, one)
	held, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; !stop.Load(); i++ {
			data := one
			if i%2 == 0 {
				data = two
			}
			switch i % 4 {
			case 0, 1: // through a handle that was opened before
				_, _ = held.WriteAt(data[:len(data)/2], 0)
			case 2:
				_ = os.Truncate(path, int64(i%7)*1000+1_000_000)
			case 3:
				_ = os.Remove(path + ".new")
				_ = os.WriteFile(path+".new", data, 0o644)
				_ = os.Rename(path+".new", path)
			}
		}
	})
	taken, changed := 0, 0
	for i, end := 0, time.Now().Add(time.Minute); i < 60 || (taken == 0 || changed == 0) && time.Now().Before(end); i++ {
		dst := t.TempDir()
		got, err := upload.Take(t.Context(), src, dst, "a_1.tar", upload.TakeOptions{MD5: true})
		var fileErr *upload.FileError
		if errors.As(err, &fileErr) {
			if strings.Contains(fileErr.Text, "it changed while it was read") {
				changed++
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		taken++
		data, err := os.ReadFile(filepath.Join(dst, "a_1.tar"))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(data)
		if hex.EncodeToString(sum[:]) != got.SHA256 || int64(len(data)) != got.Size {
			t.Fatalf("round %d: what was hashed is not what was kept", i)
		}
	}
	stop.Store(true)
	wg.Wait()
	if taken == 0 || changed == 0 {
		t.Errorf("%d rounds took the file, and %d saw it change: one of the two was not tested", taken, changed)
	}
}

// TestTakeGrows: a file to which somebody appends without end is refused, and nothing
// of it stays.
func TestTakeGrows(t *testing.T) {
	t.Parallel()
	src, dst := t.TempDir(), t.TempDir()
	path := filepath.Join(src, "a_1.tar")
	put(t, path, bytes.Repeat([]byte("x"), 1<<20))
	held, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		more := bytes.Repeat([]byte("y"), 4<<10)
		for n := 0; n < 64<<20 && !stop.Load(); n += len(more) {
			_, _ = held.Write(more)
		}
	})
	for round := 1; ; round++ {
		_, err = upload.Take(t.Context(), src, dst, "a_1.tar", upload.TakeOptions{})
		if err != nil || round == 10 {
			break
		}
		_ = os.Remove(filepath.Join(dst, "a_1.tar")) // nothing was written meanwhile
	}
	stop.Store(true)
	wg.Wait()
	var fileErr *upload.FileError
	if !errors.As(err, &fileErr) || !strings.Contains(fileErr.Text, "it changed while it was read") {
		t.Errorf("got %v, want that it changed", err)
	}
	if left, err := os.ReadDir(dst); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestPeek(t *testing.T) {
	t.Parallel()
	w := theWorld()
	dir := t.TempDir()
	name, err := pkg{Source: "fresh", Version: "1.0-1", Signer: w.Ann, Date: now}.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	files, err := upload.Peek(dir, name)
	for _, f := range files {
		names = append(names, f.Name)
		if info, err := os.Stat(filepath.Join(dir, f.Name)); err != nil || info.Size() != f.Size {
			t.Errorf("%s: size %d, %v", f.Name, f.Size, err)
		}
	}
	if got, want := strings.Join(names,
		" "), "fresh_1.0-1.dsc fresh_1.0.orig.tar.gz fresh_1.0-1.debian.tar.gz"; err != nil || got != want {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
	// However a transfer is cut off, the file is not finished; or, if nothing but its
	// last byte is missing, whole.
	for i := range len(signed) - 1 {
		put(t, filepath.Join(dir, name), signed[:i])
		if _, err := upload.Peek(dir, name); err == nil || i > 40 && !errors.Is(err, upload.ErrUnfinished) {
			t.Fatalf("signed, cut at %d of %d: got %v, want ErrUnfinished", i, len(signed), err)
		}
	}
	plainDir := t.TempDir()
	name, err = pkg{Source: "fresh", Version: "1.0-1", Date: now}.Write(plainDir)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := os.ReadFile(filepath.Join(plainDir, name))
	if err != nil {
		t.Fatal(err)
	}
	for i := range plain {
		put(t, filepath.Join(plainDir, name), plain[:i])
		if _, err := upload.Peek(plainDir, name); !errors.Is(err, upload.ErrUnfinished) {
			t.Fatalf("unsigned, cut at %d of %d: got %v, want ErrUnfinished", i, len(plain), err)
		}
	}
	put(t, filepath.Join(plainDir, name), plain)
	if files, err := upload.Peek(plainDir, name); err != nil || len(files) != 3 {
		t.Errorf("unsigned: got %v, %v", files, err)
	}
	for _, bad := range corpus.OddNames {
		text := corpus.List(string(plain), bad, []byte("x"), "misc optional ")
		put(t, filepath.Join(plainDir, name), []byte(text))
		var fileErr *upload.FileError
		if _, err := upload.Peek(plainDir, name); !errors.As(err, &fileErr) {
			t.Errorf("%q: got %v, want a *FileError", bad, err)
		}
	}
}

func TestWriting(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a_1")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if busy, err := upload.Writing(dir, "a_1"); err != nil || !busy {
		t.Errorf("open for writing: got %v, %v, want true", busy, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if busy, err := upload.Writing(dir, "a_1"); err != nil || busy {
		t.Errorf("closed: got %v, %v, want false", busy, err)
	}
	r, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if busy, err := upload.Writing(dir, "a_1"); err != nil || busy {
		t.Errorf("open for reading: got %v, %v, want false", busy, err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo_1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if busy, err := upload.Writing(dir, "fifo_1"); err != nil || busy {
		t.Errorf("a FIFO: got %v, %v, want false", busy, err)
	}
	if _, err := upload.Writing(dir, "gone_1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: got %v, want fs.ErrNotExist", err)
	}
}

// BenchmarkTake sets Take beside one pass of copy and SHA-256 in one loop, the least
// that intake could do. They take turns, and the best time of each counts: the
// metrics are shares of that pass's speed, of which the goal is 0.8.
func BenchmarkTake(b *testing.B) {
	const size = 256 << 20
	src, dst := b.TempDir(), b.TempDir()
	if err := os.WriteFile(filepath.Join(src, "a_1.tar"), []byte(corpus.Noise(size)), 0o644); err != nil {
		b.Fatal(err)
	}
	take := func(opt upload.TakeOptions) func() error {
		return func() error {
			_, err := upload.Take(b.Context(), src, dst, "a_1.tar", opt)
			return err
		}
	}
	ways := []struct {
		name string
		run  func() error
	}{
		{"bare", func() error { return bareCopy(filepath.Join(src, "a_1.tar"), filepath.Join(dst, "a_1.tar")) }},
		{"sha256", take(upload.TakeOptions{})},
		{"sha256+md5", take(upload.TakeOptions{MD5: true})},
		{"all", take(upload.TakeOptions{MD5: true, SHA1: true})},
	}
	best := make([]time.Duration, len(ways))
	b.SetBytes(size * int64(len(ways)))
	for b.Loop() {
		for i, w := range ways {
			began := time.Now()
			if err := w.run(); err != nil {
				b.Fatal(err)
			}
			if d := time.Since(began); best[i] == 0 || d < best[i] {
				best[i] = d
			}
			if err := os.Remove(filepath.Join(dst, "a_1.tar")); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(size/best[0].Seconds()/1e6, "MB/s-bare")
	for i, w := range ways[1:] {
		b.ReportMetric(float64(best[0])/float64(best[i+1]), w.name)
	}
}

func bareCopy(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	buf := make([]byte, 1<<20)
	h := sha256.New()
	for {
		n, err := in.Read(buf)
		h.Write(buf[:n])
		if _, err := out.Write(buf[:n]); err != nil {
			return err
		}
		if err == io.EOF {
			return out.Sync()
		}
		if err != nil {
			return err
		}
	}
}

// BenchmarkRead is a small upload from Take to the verdict, with syncs.
func BenchmarkRead(b *testing.B) {
	w := theWorld()
	src := b.TempDir()
	name, err := pkg{Source: "fresh", Version: "1.0-1", Signer: w.Ann, Date: now}.Write(src)
	if err != nil {
		b.Fatal(err)
	}
	c := w.Context()
	for b.Loop() {
		dst := b.TempDir()
		files, err := upload.Peek(src, name)
		if err != nil {
			b.Fatal(err)
		}
		c.Sums = map[string]upload.Sums{}
		for _, f := range append(files, upload.File{Name: name}) {
			if c.Sums[f.Name], err = upload.Take(b.Context(), src, dst, f.Name,
				upload.TakeOptions{MD5: true, SHA1: true}); err != nil {
				b.Fatal(err)
			}
		}
		if _, findings, err := upload.Read(b.Context(), dst, name, c); err != nil || len(findings) > 0 {
			b.Fatal(findings, err)
		}
	}
}

// TestTakeLists: what is seen of a large tarball while it is copied is what
// Read would see, and Read does not look again.
func TestTakeLists(t *testing.T) {
	t.Parallel()
	w := theWorld()
	for _, packing := range []string{"gz", "xz"} {
		src, dst := t.TempDir(), t.TempDir()
		p := pkg{Source: "fresh", Version: "1.0-1", Signer: w.Ann, Date: now, Packing: packing, Tree: []uploadtest.Member{
			uploadtest.Text("fresh-1.0/large", corpus.Noise(5<<20)), uploadtest.Text("/etc/passwd", "x"),
		}}
		name, err := p.Write(src)
		if err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(src)
		if err != nil {
			t.Fatal(err)
		}
		taken := w.Context()
		taken.Sums = map[string]upload.Sums{}
		for _, e := range entries {
			if taken.Sums[e.Name()], err = upload.Take(t.Context(), src, dst, e.Name(),
				upload.TakeOptions{MD5: true, SHA1: true, List: true}); err != nil {
				t.Fatal(err)
			}
		}
		_, want, err := upload.Read(t.Context(), src, name, w.Context())
		if err != nil || upload.Worst(want) < upload.Error {
			t.Fatalf("%s: %v, %v", packing, want, err)
		}
		put(t, filepath.Join(dst, "fresh_1.0.orig.tar."+packing), []byte("nobody reads this"))
		_, got, err := upload.Read(t.Context(), dst, name, taken)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", packing, diff)
		}
		// Other limits, other eyes.
		for _, s := range taken.Suites {
			s.Limits.Entries = 1
		}
		if _, got, err := upload.Read(t.Context(), dst, name, taken); err != nil || cmp.Diff(want, got) == "" {
			t.Errorf("%s: under other limits: %v, %v", packing, got, err)
		}
	}
}
