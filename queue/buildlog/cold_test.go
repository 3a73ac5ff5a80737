package buildlog

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"packmill/internal/clean"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 123456000, time.UTC)

// keep puts a build into a store.
func keep(t *testing.T, s Store, log string, b Build) *Build {
	t.Helper()
	if err := s.Keep(log, &b); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestStore(t *testing.T) {
	dir := t.TempDir()
	s := Store{filepath.Join(dir, "logs")}
	log := put(t, filepath.Join(dir, "log"), strings.Repeat("gcc -c x.c\n", 1000))
	a := keep(t, s, log,
		Build{Source: "hello", Version: "1:2.10-3+b1", Suite: "sid", Arch: "amd64", Start: noon, Outcome: Attempted,
			Error: &FirstError{Kind: "compiler", Line: 3, Text: "x.c:1: error", Before: []string{"a"}}})
	if want := "2026-11-21/sid/hello_1%3a2.10-3+b1_amd64_120000.123456Z_attempted.zst"; a.Log != want || a.Size != 11000 {
		t.Errorf("got %q of %d bytes, want %q", a.Log, a.Size, want)
	}
	keep(t, s, log, Build{Source: "hello", Version: "1:2.10-3", Suite: "sid", Arch: "i386", Start: noon.Add(time.Hour),
		Outcome: Good, Wall: 3})
	keep(t, s, log, Build{Source: "world", Version: "1", Suite: "stable", Arch: "amd64", Start: noon.AddDate(0, 0, -40),
		Outcome: Good, Wall: 9})
	// Without a log the numbers are kept all the same.
	if b := keep(t, s, filepath.Join(dir, "none"),
		Build{Source: "hello", Version: "2", Suite: "sid", Arch: "amd64", Start: noon, Outcome: Lost}); b.Log != "" {
		t.Errorf("the log of nothing: %+v", b)
	}
	put(t, filepath.Join(s.Dir, "2026-11-21/sid/README"), "not a log")
	for _, tc := range []struct {
		f          Filter
		logs, want string
	}{
		{Filter{}, "hello/i386 hello/amd64 world/amd64", "hello/amd64 hello/i386 hello/amd64 world/amd64"},
		{Filter{Source: "hello"}, "hello/i386 hello/amd64", "hello/amd64 hello/i386 hello/amd64"},
		{Filter{Source: "hello", Version: "1:2.10-3"}, "hello/i386 hello/amd64", "hello/i386 hello/amd64"},
		{Filter{Version: "1:2.10-3+b1"}, "hello/amd64", "hello/amd64"},
		{Filter{Suite: "stable"}, "world/amd64", "world/amd64"},
		{Filter{Arch: "i386"}, "hello/i386", "hello/i386"},
		{Filter{Since: noon.Add(time.Minute)}, "hello/i386", "hello/i386"},
		{Filter{Outcomes: []string{Attempted, Lost}}, "hello/amd64", "hello/amd64 hello/amd64"},
		{Filter{Source: "hell"}, "", ""},
	} {
		logs, err := s.Logs(tc.f)
		var got, all []string
		for _, b := range logs {
			got = append(got, b.Source+"/"+b.Arch)
			if _, err := os.Stat(s.Path(b.Log)); err != nil {
				t.Error(err)
			}
		}
		err2 := s.Builds(tc.f, func(b *Build) bool { all = append(all, b.Source+"/"+b.Arch); return true })
		if g := strings.Join(got, " "); g != tc.logs || err != nil {
			t.Errorf("Logs(%+v) = %q, %v, want %q", tc.f, g, err, tc.logs)
		}
		if g := strings.Join(all, " "); g != tc.want || err2 != nil {
			t.Errorf("Builds(%+v) = %q, %v, want %q", tc.f, g, err2, tc.want)
		}
	}
	n := 0
	if err := s.Builds(Filter{}, func(*Build) bool { n++; return false }); err != nil || n != 1 {
		t.Errorf("a walk that was ended: %d, %v", n, err)
	}
	s.Builds(Filter{Version: "1:2.10-3+b1"}, func(b *Build) bool {
		if b.Error == nil || b.Error.Text != "x.c:1: error" || b.Error.Before != nil {
			t.Errorf("the error in the record: %+v", b.Error)
		}
		return true
	})
	// A torn line is passed over.
	f, _ := os.OpenFile(filepath.Join(s.Dir, "2026-11-21/sid/builds"), os.O_APPEND|os.O_WRONLY, 0)
	io.WriteString(f, `{"source":"hello","ver`)
	f.Close()
	if n, err := s.Sweep(noon.AddDate(0, 0, -30)); n != 1 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	left, _ := s.Logs(Filter{})
	n = 0
	if err := s.Builds(Filter{}, func(*Build) bool { n++; return true }); err != nil || n != 4 || len(left) != 2 {
		t.Errorf("after the sweep: %d logs, %d builds, %v", len(left), n, err)
	}
	if x, err := (Store{filepath.Join(dir, "nothing")}).Logs(Filter{}); x != nil || err != nil {
		t.Errorf("no store: %v, %v", x, err)
	}
	// A pipe or link in a log's place is not read.
	os.Symlink("/etc/passwd", filepath.Join(dir, "link"))
	if err := s.Keep(filepath.Join(dir, "link"), &Build{Source: "x", Suite: "sid", Start: noon}); err == nil {
		t.Error("a link was kept as a log")
	}
}

func TestEstimate(t *testing.T) {
	s := Store{t.TempDir()}
	if _, ok := must(s.Times("hello"))(t).Of("hello", "sid", "amd64"); ok {
		t.Error("an estimate of nothing")
	}
	add := func(source, suite, arch, outcome string, walls ...float64) {
		for i, w := range walls {
			keep(t, s, "/nonexistent/log",
				Build{Source: source, Version: "1", Suite: suite, Arch: arch, Outcome: outcome,
					Start: noon.Add(time.Duration(i) * time.Hour), Wall: w})
		}
	}
	add("hello", "sid", "amd64", Good, 1000, 100, 110, 90, 5000, 120) // the oldest does not count
	add("hello", "sid", "amd64", Attempted, 1, 1, 1)
	add("hello", "stable", "i386", Good, 60, 70)
	add("other", "sid", "amd64", Good, 7200)
	for _, tc := range []struct{ source, suite, arch, want string }{
		{"hello", "sid", "amd64", "about 2 min"},
		{"hello", "stable", "amd64", "about 2 min (by its builds in other suites)"},
		{"hello", "stable", "i386", "about 65 s"},
		{"other", "sid", "i386", "about 2.0 h (by its builds on other architectures)"},
		{"hello", "sid", "arm64", "about 100 s (by its builds on other architectures)"},
		{"nothing", "sid", "i386", "about 65 s (by other packages on i386)"},
		{"nothing", "sid", "arm64", "about"},
	} {
		for _, only := range []string{tc.source, ""} {
			e, ok := must(s.Times(only))(t).Of(tc.source, tc.suite, tc.arch)
			got := e.String()
			if tc.want == "about" && strings.HasSuffix(got, "(by other packages on other architectures)") {
				got = "about"
			}
			// Which of two architectures' builds are newer is not told.
			if tc.arch == "arm64" && tc.source == "hello" {
				got, tc.want = "", ""
			}
			if !ok || got != tc.want {
				t.Errorf("Times(%q).Of(%s, %s, %s): got %q, %v, want %q", only, tc.source, tc.suite, tc.arch, got, ok, tc.want)
			}
		}
	}
}

// must fails the test that is given it.
func must[T any](x T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
}

func TestBuildsOfAnItem(t *testing.T) {
	dir := t.TempDir()
	if got, err := BuildsAt(dir); got != nil || err != nil {
		t.Errorf("no record: %v, %v", got, err)
	}
	for i := range 3 {
		b := Build{Source: "hello", Version: fmt.Sprint(i), Start: noon, Outcome: Good}
		if err := b.AddTo(dir); err != nil {
			t.Fatal(err)
		}
	}
	got, err := BuildsAt(dir)
	if err != nil || len(got) != 3 || got[2].Version != "2" || !got[2].Start.Equal(noon) {
		t.Errorf("%+v, %v", got, err)
	}
	// Hostile bytes in the file stay inside.
	put(t, filepath.Join(dir, FirstErrorFile), "\x1b]0;x\x07\x00")
	if got := ErrorAt(dir); got != `\x1b]0;x\x07\x00` {
		t.Errorf("first error: %q", got)
	}
	os.Remove(filepath.Join(dir, FirstErrorFile))
	os.Symlink("/etc/hostname", filepath.Join(dir, FirstErrorFile))
	if got := ErrorAt(dir); got != "" {
		t.Errorf("through a link: %q", got)
	}
}

// hugeLine is many times what any buffer holds. Its middle is none's end.
const hugeLine = 12<<20 - 7000

// line is a reader of one line without an end, of hostile bytes, with a text in
// its middle.
func line(text string) io.Reader {
	half := bytes.Repeat([]byte("\x00\x1b]0;"), hugeLine/10)
	return struct{ io.Reader }{io.MultiReader(bytes.NewReader(half), strings.NewReader(text), bytes.NewReader(half))}
}

// A line that never ends is shown, searched and read in little memory, and
// nothing in it gets through.
func TestHugeLine(t *testing.T) {
	const text = "x.c:1:2: error: it"
	w := &watcher{t: t}
	e := clean.NewEscaper(w)
	if _, err := io.Copy(e, line(text)); err != nil || e.Close() != nil || w.n < 2*hugeLine {
		t.Errorf("%v: %d bytes shown", err, w.n)
	}
	if first, err := Find(line(text)); err != nil || first != nil && len(first.Text) > 5*shownLine {
		t.Errorf("Find: %v, %v", first, err)
	}
	path := filepath.Join(t.TempDir(), "log")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, line(text)); err != nil || out.Close() != nil {
		t.Fatal(err)
	}
	found, err := Grep(t.Context(), []string{path}, Query{Pattern: "x.c:1:2", Fixed: true}, func(m Match) error {
		if len(m.Text) > 5*maxLine || strings.ContainsAny(m.Text, "\x00\x1b") {
			t.Errorf("shown: %d bytes", len(m.Text))
		}
		return nil
	}, nil)
	if err != nil || found.Matches == 0 {
		t.Errorf("%+v, %v", found, err)
	}
}

// watcher looks for what must not get through.
type watcher struct {
	t *testing.T
	n int
}

func (w *watcher) Write(p []byte) (int, error) {
	for _, c := range []byte("\x00\x1b") {
		if bytes.IndexByte(p, c) >= 0 {
			w.t.Fatalf("%q gets through", c)
		}
	}
	w.n += len(p)
	return len(p), nil
}

// Names are read back as they are written.
func TestParseName(t *testing.T) {
	for _, name := range []string{"hello_1_amd64_120000.123456Z_good",
		"hello_1_amd64_1200_good.zst", ".hello_1_amd64_120000.123456Z_good.zst.123", "builds"} {
		if b, ok := parseName("2026-11-21", "sid", name); ok {
			t.Errorf("%q: %+v", name, b)
		}
	}
	b, ok := parseName("2026-11-21", "sid", "hello_1%3a1_amd64_120000.123456Z_good.zst")
	if want := []string{"hello", "1:1", "sid", "amd64", Good}; !ok ||
		!slices.Equal(want, []string{b.Source, b.Version, b.Suite, b.Arch, b.Outcome}) || !b.Start.Equal(noon) {
		t.Errorf("%+v, %v", b, ok)
	}
}
