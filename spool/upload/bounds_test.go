package upload_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"packmill/internal/deb/debtest"
	"packmill/spool/upload"
	"packmill/spool/upload/corpus"
	"packmill/spool/upload/uploadtest"
)

// worst is the dearest input that somebody thought of for one of the limits.
type worst struct {
	name  string
	bend  func(*pkg)
	lower upload.Limits // to reach the limit sooner
	check string        // that refuses it; "" if it is judged like any other
}

// inTarball puts these members behind those of the orig tarball.
func inTarball(members func(add func(h tar.Header, body string))) func(*pkg) {
	return func(p *pkg) {
		p.Members = func(which string, m []uploadtest.Member) []uploadtest.Member {
			if which == "orig" {
				members(func(h tar.Header, body string) {
					if h.Mode == 0 {
						h.Mode = 0o644
					}
					h.Format = tar.FormatGNU
					m = append(m, uploadtest.Member{Header: h, Body: body})
				})
			}
			return m
		}
	}
}

func packed(data func() []byte, packing string) func(*pkg) {
	return func(p *pkg) {
		p.Packing = packing
		p.Tarball = func(which string, packed []byte) []byte {
			if which == "orig" {
				return data()
			}
			return packed
		}
	}
}

func inChanges(from, to string) func(*pkg) {
	return func(p *pkg) { p.Changes = corpus.Sub(from, to) }
}

func inDsc(from, to string) func(*pkg) {
	return func(p *pkg) { p.Dsc = corpus.Sub(from, to) }
}

// lines is a folded field of so many bytes: %d counts.
func lines(bytes int, form string) string {
	var b strings.Builder
	for i := 0; b.Len() < bytes; i++ {
		line := " "
		for len(line) < 200 {
			line += fmt.Sprintf(form, i*1000+len(line))
		}
		b.WriteString("\n" + line)
	}
	return b.String()
}

const nearly = upload.MaxChanges - 100<<10

// theWorst has a row for each field of upload.Limits, and for what no field but
// MaxChanges bounds.
var theWorst = map[string][]worst{
	"Files": {
		{"listed in the .changes", func(p *pkg) {
			p.Changes = func(s string) string {
				for i := range 9000 {
					s = strings.Replace(s, "\nFiles:\n",
						fmt.Sprintf("\nFiles:\n d41d8cd98f00b204e9800998ecf8427e 0 misc optional fresh_%d.deb\n", i), 1)
				}
				return s
			}
		}, upload.Limits{}, "fields"},
		{"listed in the .dsc", func(p *pkg) {
			p.Dsc = func(s string) string {
				more := strings.Builder{}
				for i := range 60_000 {
					fmt.Fprintf(&more, " %s 0 fresh_1.0.orig-%d.tar.gz\n", strings.Repeat("0", 64), i)
				}
				return strings.Replace(s, "\nChecksums-Sha256:\n", "\nChecksums-Sha256:\n"+more.String(), 1)
			}
		}, upload.Limits{}, "dsc-fields"},
	},
	"FileSize": {{"more than the suite takes of one", func(*pkg) {}, upload.Limits{FileSize: 10}, "size"}},
	"Size":     {{"more than the suite takes", func(*pkg) {}, upload.Limits{Size: 10}, "size"}},
	"Words": {
		{"architectures", inChanges("Architecture: source\n", "Architecture: source"+lines(nearly, "a%d ")+"\n"),
			upload.Limits{}, "fields"},
		{"architectures of the .dsc", inDsc("Architecture: any\n", "Architecture: any"+lines(nearly, "a%d ")+"\n"),
			upload.Limits{}, "dsc-fields"},
		{"packages", inChanges("Changes:\n", "Binary: fresh"+lines(nearly, "a%d ")+"\nChanges:\n"), upload.Limits{},
			"fields"},
		{"packages of the .dsc", inDsc("Binary: fresh\n", "Binary: fresh"+lines(nearly, ", a%d")+"\n"), upload.Limits{},
			"dsc-fields"},
		{"bugs", inChanges("Changes:\n", "Closes:"+lines(nearly, "%d ")+"\nChanges:\n"), upload.Limits{}, "fields"},
	},
	"MaxChanges": {
		{"changes", inChanges("Changes:\n", "Changes:"+lines(nearly, "* a%d ")+"\n"), upload.Limits{}, ""},
		{"relations", inDsc("Architecture: any\n",
			"Architecture: any\nBuild-Depends: a"+lines(nearly, ", a%d | b [any] <!c>")+"\n"), upload.Limits{}, ""},
		{"relations that are none",
			inDsc("Architecture: any\n",
				"Architecture: any\nBuild-Depends: a"+lines(nearly, "((a%d ")+"\n"), upload.Limits{}, "relations"},
		{"package list", inDsc("Architecture: any\n", "Architecture: any\nPackage-List:"+lines(nearly, "a%d ")+"\n"),
			upload.Limits{}, ""},
	},
	"Age": {{"signed long ago", func(p *pkg) { p.Date = now.AddDate(-2, 0, 0) }, upload.Limits{}, "signature-age"}},
	"Entries": {{"empty files", inTarball(func(add func(tar.Header, string)) {
		repeat(20_000, "fresh-1.0/%d", add)
	}), upload.Limits{Entries: 10_000}, "tar-size"}},
	"Name": {
		{"a megabyte of directories", inTarball(func(add func(tar.Header, string)) {
			add(tar.Header{Name: "fresh-1.0/" + strings.Repeat("a/", 500_000) + "b"}, "")
		}), upload.Limits{}, "tar-name"},
		{"a link to a megabyte of directories", inTarball(func(add func(tar.Header, string)) {
			add(tar.Header{Name: "fresh-1.0/l", Typeflag: tar.TypeLink,
				Linkname: "fresh-1.0/" + strings.Repeat("a/", 500_000) + "b"}, "")
		}), upload.Limits{}, "tar-name"},
		{"many names of the most directories, and a link to look for above each",
			inTarball(func(add func(tar.Header, string)) {
				add(tar.Header{Name: "fresh-1.0/x", Typeflag: tar.TypeSymlink, Linkname: "y"}, "")
				repeat(5000, "fresh-1.0/"+strings.Repeat("a/", 2000)+"%d", add)
			}), upload.Limits{}, ""},
	},
	"Links": {{"long names of symbolic links", inTarball(func(add func(tar.Header, string)) {
		for i := range 1000 {
			add(tar.Header{Name: fmt.Sprintf("fresh-1.0/%d%s", i, strings.Repeat("x", 4000)), Typeflag: tar.TypeSymlink,
				Linkname: "y"}, "")
		}
	}), upload.Limits{Links: 2 << 20}, "tar-size"}},
	"Unpacked": {{"a sparse file", packed(corpus.SparseBomb, "gz"), upload.Limits{}, "tar-size"}},
	"Ratio":    {{"zeros", packed(corpus.XzBomb, "xz"), upload.Limits{}, "tar-size"}},
	"Dict":     {{"a large dictionary", packed(corpus.BigDictionary, "xz"), upload.Limits{}, "tar"}},
	"Changelog": {{"forty megabytes of one line", func(p *pkg) {
		p.Members = func(_ string, m []uploadtest.Member) []uploadtest.Member {
			for i := range m {
				if m[i].Header.Name == "debian/changelog" {
					m[i].Body = strings.Repeat("a", 40<<20)
				}
			}
			return m
		}
	}, upload.Limits{}, "changelog"}},
	"Time": {{"", nil, upload.Limits{}, ""}}, // TestTimeIsBounded
}

func repeat(n int, form string, add func(tar.Header, string)) {
	for i := range n {
		add(tar.Header{Name: fmt.Sprintf(form, i)}, "")
	}
}

// TestWorstInputs: of each limit the dearest upload that it lets through, or stops:
// judged within seconds and half a gigabyte, in which everything else that runs
// beside is counted too.
func TestWorstInputs(t *testing.T) {
	limits := reflect.TypeFor[upload.Limits]()
	for i := range limits.NumField() {
		if len(theWorst[limits.Field(i).Name]) == 0 {
			t.Errorf("nobody has thought of the worst for the limit %s", limits.Field(i).Name)
		}
	}
	w := theWorld()
	for field, rows := range theWorst {
		for _, row := range rows {
			if row.bend == nil {
				continue
			}
			t.Run(field+"/"+row.name, func(t *testing.T) {
				p := pkg{Source: "fresh", Version: "1.0-1", Signer: w.Ann, Date: now}
				row.bend(&p)
				dir := t.TempDir()
				name, err := p.Write(dir)
				if err != nil {
					t.Fatal(err)
				}
				c := w.Context()
				for i, s := range c.Suites {
					lower := *s
					lower.Limits = row.lower
					c.Suites[i] = &lower
				}
				runtime.GC()
				peak := watchHeap()
				began := time.Now()
				_, findings, err := upload.Read(t.Context(), dir, name, c)
				if took := time.Since(began); took > 30*time.Second {
					t.Errorf("it took %v", took)
				}
				if got := peak(); got > 768<<20 {
					t.Errorf("it took %d MiB", got>>20)
				}
				if err != nil {
					t.Fatal(err)
				}
				said := row.check == ""
				for _, f := range findings {
					said = said || f.Check == row.check && f.Level == upload.Error
				}
				if !said {
					t.Errorf("got %v, want an error of %s", findings, row.check)
				}
			})
		}
	}
}

// watchHeap measures the most that the heap holds until the function is called
// that it returns.
func watchHeap() func() uint64 {
	var top atomic.Uint64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			if m.HeapInuse > top.Load() {
				top.Store(m.HeapInuse)
			}
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return func() uint64 {
		close(stop)
		<-done
		return top.Load()
	}
}

// slow is a gzip tarball whose listing takes seconds: two million members.
func slow() []byte {
	var raw bytes.Buffer
	tw := tar.NewWriter(&raw)
	for i := range 1000 {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("fresh-1.0/%d", i), Mode: 0o644,
			ModTime: now}); err != nil {
			panic(err)
		}
	}
	tw.Flush()
	return bytes.Repeat(debtest.Pack("gz", raw.Bytes()), 1900)
}

// TestTimeIsBounded: whatever Read, Take and Tree are in the middle of, they end when their
// context does, with its cause; what Take had begun is gone.
func TestTimeIsBounded(t *testing.T) {
	w := theWorld()
	p := pkg{Source: "fresh", Version: "1.0-1", Signer: w.Ann, Date: now}
	packed(slow, "gz")(&p)
	dir, to := t.TempDir(), t.TempDir()
	name, err := p.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	for what, work := range map[string]func(context.Context) error{
		"Read": func(ctx context.Context) error {
			_, _, err := upload.Read(ctx, dir, name, w.Context())
			return err
		},
		"Take": func(ctx context.Context) error {
			_, err := upload.Take(ctx, dir, to, "fresh_1.0.orig.tar.gz", upload.TakeOptions{List: true})
			return err
		},
		"Tree": func(ctx context.Context) error {
			_, err := upload.Tree(ctx, dir, strings.TrimSuffix(name, "_source.changes")+".dsc", upload.Limits{}, nil)
			return err
		},
	} {
		ctx, stop := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, upload.ErrCost)
		began := time.Now()
		err := work(ctx)
		stop()
		if took := time.Since(began); !errors.Is(err, upload.ErrCost) || took > 5*time.Second {
			t.Errorf("%s ended after %v: %v", what, took, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(to, "fresh_1.0.orig.tar.gz")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Take left what it had begun: %v", err)
	}
}

// TestTakeReadsNothing: what cannot be taken is refused before a byte of it is read or
// written: another size than the one that is listed, a hole, a .changes that is too large.
func TestTakeReadsNothing(t *testing.T) {
	for _, x := range []struct {
		name string
		size int64
		opt  upload.TakeOptions
		want string
	}{
		{"another size", 3 << 30, upload.TakeOptions{Sized: true, Size: 10, Owner: "big_1_source.changes"},
			"is of 3221225473 bytes, but big_1_source.changes says 10"},
		{"a hole", 3 << 30, upload.TakeOptions{Sized: true, Size: 3<<30 + 1}, "were never written"},
		{"a huge .changes", 3 << 30, upload.TakeOptions{MaxSize: upload.MaxChanges}, "8388608 are the limit"},
		{"a hole of a block", 1 << 16, upload.TakeOptions{Sized: true, Size: 1<<16 + 1}, "were never written"},
	} {
		src, dst := t.TempDir(), t.TempDir()
		f, err := os.Create(filepath.Join(src, "big_1.dsc"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("x"), x.size); err != nil {
			t.Fatal(err)
		}
		f.Close()
		began := time.Now()
		_, err = upload.Take(t.Context(), src, dst, "big_1.dsc", x.opt)
		var bad *upload.FileError
		if took := time.Since(began); !errors.As(err, &bad) || !strings.Contains(bad.Text, x.want) || took > time.Second {
			t.Errorf("%s: after %v: %v, want %q", x.name, took, err, x.want)
		}
		if left, _ := os.ReadDir(dst); len(left) > 0 {
			t.Errorf("%s: %v was written", x.name, left)
		}
	}
}
