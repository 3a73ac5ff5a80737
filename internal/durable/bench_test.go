package durable

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"packmill/internal/below"
)

// benchmarkMoves lets 8 goroutines move directories from one place to another.
func benchmarkMoves(b *testing.B, move func(from, to string) error) {
	dir := b.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for _, d := range []string{from, to} {
		if err := os.Mkdir(d, 0o755); err != nil {
			b.Fatal(err)
		}
	}
	for i := range b.N {
		if err := os.Mkdir(filepath.Join(from, fmt.Sprint(i)), 0o755); err != nil {
			b.Fatal(err)
		}
	}
	unix.Sync()
	b.ResetTimer()
	var g sync.WaitGroup
	var next atomic.Int64
	for range 8 {
		g.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				if err := move(fmt.Sprintf("%s/%d", from, i), fmt.Sprintf("%s/%d", to, i)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	g.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "moves/s")
}

func BenchmarkGroupRename(b *testing.B) {
	var g Group
	benchmarkMoves(b, func(from, to string) error {
		src, err := below.Open(filepath.Dir(from), ".")
		if err != nil {
			return err
		}
		defer src.Close()
		dst, err := below.Open(filepath.Dir(to), ".")
		if err != nil {
			return err
		}
		defer dst.Close()
		return g.Rename(src, filepath.Base(from), dst, filepath.Base(to))
	})
}

// The raw calls: rename and fsync of both directories.
func BenchmarkBareRename(b *testing.B) {
	sync := func(dir string) error {
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer d.Close()
		return d.Sync()
	}
	benchmarkMoves(b, func(from, to string) error {
		if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE); err != nil {
			return err
		}
		if err := sync(filepath.Dir(to)); err != nil {
			return err
		}
		return sync(filepath.Dir(from))
	})
}
