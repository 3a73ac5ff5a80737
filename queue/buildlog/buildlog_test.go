package buildlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func put(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCompress(t *testing.T) {
	dir := t.TempDir()
	text := strings.Repeat("dpkg-buildpackage: info: binary-only upload\n", 10000)
	src := put(t, filepath.Join(dir, "log"), text)
	before, after, err := Compress(src+Suffix, src)
	if err != nil || before != int64(len(text)) || after <= 0 || after > before/50 {
		t.Fatalf("Compress: %d, %d, %v", before, after, err)
	}
	if err := os.Remove(src); err != nil {
		t.Fatal(err)
	}
	r, err := Open(src)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || string(got) != text || r.Close() != nil {
		t.Errorf("read back %d bytes, %v", len(got), err)
	}
	// Nothing half-made stays.
	if _, _, err := Compress(filepath.Join(dir, "x"+Suffix), filepath.Join(dir, "nothing")); err == nil {
		t.Error("no error for a missing log")
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("left: %v", names)
	}
	// A link is not a log.
	os.Symlink("/etc/passwd", filepath.Join(dir, "link"))
	if _, err := Open(filepath.Join(dir, "link")); err == nil {
		t.Error("followed a link")
	}
}

// buildLog is text like a build's, with some lines to find.
func buildLog(size int, seed int64) string {
	r := rand.New(rand.NewSource(seed))
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		switch r.Intn(4) {
		case 0:
			fmt.Fprintf(&b, "gcc -DHAVE_CONFIG_H -I. -I.. -Wdate-time -D_FORTIFY_SOURCE=2 -g -O2 "+
				"-ffile-prefix-map=/build/hello-%d=. -fstack-protector-strong -Wformat -Werror=format-security -c -o obj%d.o "+
				"obj%d.c\n", seed, i, i)
		case 1:
			fmt.Fprintf(&b, "checking for function_%d... yes\n", r.Intn(1000))
		case 2:
			fmt.Fprintf(&b, "  CC       lib/module-%d/file_%x.lo\n", r.Intn(50), r.Int63())
		default:
			fmt.Fprintf(&b, "Get:%d http://mirror/debian sid/main amd64 libfoo%d amd64 1.%d-1 [%d kB]\n",
				i, r.Intn(9), r.Intn(99), r.Intn(9999))
		}
		if i%5000 == 4999 {
			b.WriteString("foo.c:12:3: Error: expected Declaration before `}' token\n")
		}
	}
	return b.String()
}

// begin is the beginning of a line; of one longer than a block, some part is
// shown.
func begin(line string) string {
	if strings.HasSuffix(line, "very long line") {
		return "x"
	}
	return line[:min(len(line), 30)]
}

func TestGrep(t *testing.T) {
	dir := t.TempDir()
	var files []string
	texts := map[string]string{}
	// Two are longer than a block, plain and compressed; one line is too.
	for i, size := range []int{1300, 100, 200, 1400, 100, 100} {
		text := buildLog(size<<10, int64(i))
		if i == 3 {
			text += "the last line has no newline: Error: expected" // and no end
		}
		if i == 4 {
			text = strings.Repeat("x", 3<<20) + " Error: expected in a very long line\n" + text
		}
		path := put(t, filepath.Join(dir, fmt.Sprint(i)), text)
		texts[path] = text
		if i%2 == 1 {
			if _, _, err := Compress(path+Suffix, path); err != nil {
				t.Fatal(err)
			}
			os.Remove(path)
		}
		files = append(files, path)
	}
	for _, q := range []Query{
		{Pattern: "Error: expected", Fixed: true},
		{Pattern: "error: EXPECTED declaration", IgnoreCase: true},
		{Pattern: "ask", IgnoreCase: true},
		{Pattern: `^foo\.c:\d+:\d+: Error`},
		{Pattern: `(module-4[0-9]/file_0+|Error: expected)`},
		{Pattern: `function_99[0-9]\.\.\. yes$`},
		{Pattern: "a.c", Fixed: true},
		{Pattern: "nothing has this"},
		{Pattern: `[0-9]+:[0-9]+: [Ee]rror: e`},
		{Pattern: `(?i:ERROR): (?i:EX)pected|Module-9|module-8/file_f+`},
		{Pattern: `module-1/|xpected Dec|[0-9]{9}`},
		{Pattern: `mirror/.*[Ss]ID MAIN/amd64|Kb\]$`, IgnoreCase: true},
	} {
		t.Run(fmt.Sprintf("%+v", q), func(t *testing.T) {
			q.PerFile = 1 << 30
			pattern := q.Pattern
			if q.Fixed {
				pattern = regexp.QuoteMeta(pattern)
			}
			if q.IgnoreCase {
				pattern = "(?i)" + pattern
			}
			re := regexp.MustCompile(pattern)
			var want, got []string
			var bytes int64
			for _, f := range files {
				bytes += int64(len(texts[f]))
				for i, line := range strings.Split(texts[f], "\n") {
					if line != "" && re.MatchString(line) {
						want = append(want, fmt.Sprintf("%s:%d:%s", f, i+1, begin(line)))
					}
				}
			}
			found, err := Grep(context.Background(), files, q, func(m Match) error {
				got = append(got, fmt.Sprintf("%s:%d:%s", m.File, m.Line, begin(m.Text)))
				return nil
			}, func(file string, err error) { t.Errorf("%s: %v", file, err) })
			if err != nil || found.Files != len(files) || found.Matches != len(want) || found.Bytes != bytes {
				t.Errorf("found %+v, %v; want %d matches in %d bytes", found, err, len(want), bytes)
			}
			if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
				t.Errorf("got %d lines, want %d; first got %.300s\nwant %.300s", len(got), len(want), g, w)
			}
		})
	}
}

func TestGrepErrors(t *testing.T) {
	dir := t.TempDir()
	good := put(t, filepath.Join(dir, "good"), strings.Repeat("find me \x1b]0;x\x07\n", 50))
	broken := put(t, filepath.Join(dir, "broken"+Suffix), "not zstd")
	var bad []string
	n := 0
	found, err := Grep(context.Background(), []string{good, broken, filepath.Join(dir, "none"), good},
		Query{Pattern: "find", PerFile: 5},
		func(m Match) error {
			n++
			if m.Text != `find me \x1b]0;x\x07` {
				t.Errorf("text %q", m.Text)
			}
			return nil
		}, func(file string, err error) { bad = append(bad, filepath.Base(file)) })
	if err != nil || found.Files != 4 || n != 10 || strings.Join(bad, " ") != "broken.zst none" {
		t.Errorf("found %+v, %v; %d matches; bad: %v", found, err, n, bad)
	}
	if _, err := Grep(context.Background(), nil, Query{Pattern: "("}, nil, nil); err == nil {
		t.Error("bad pattern: no error")
	}
	enough := errors.New("enough")
	if _, err := Grep(context.Background(), []string{good, good}, Query{Pattern: "find"},
		func(Match) error { return enough }, nil); !errors.Is(err, enough) {
		t.Errorf("emit's error: got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Grep(ctx, []string{good}, Query{Pattern: "find"}, func(Match) error { return nil }, nil); !errors.Is(err,
		context.Canceled) {
		t.Errorf("context: got %v", err)
	}
}

func TestLower(t *testing.T) {
	var all []byte
	for i := range 256 {
		all = append(all, byte(i), byte(255-i), byte(i))
	}
	want := append([]byte(nil), all...)
	for i, c := range want {
		if c >= 'A' && c <= 'Z' {
			want[i] = c + 'a' - 'A'
		}
	}
	for i := range 9 {
		if got := appendLower([]byte("X"), all[i:]); string(got[1:]) != string(want[i:]) || got[0] != 'X' {
			t.Errorf("from %d: got %q, want %q", i, got[1:], want[i:])
		}
	}
}

func BenchmarkGrep(b *testing.B) {
	dir := b.TempDir()
	var files []string
	for i := range 16 {
		path := put(b, filepath.Join(dir, fmt.Sprint(i)), buildLog(8<<20, int64(i)))
		if _, _, err := Compress(path+Suffix, path); err != nil {
			b.Fatal(err)
		}
		os.Remove(path)
		files = append(files, path)
	}
	for _, q := range []Query{
		{Pattern: "Error: expected", Fixed: true},
		{Pattern: "error: expected declaration", IgnoreCase: true},
		{Pattern: `^foo\.c:\d+:\d+: Error`},
		{Pattern: `[0-9]+:[0-9]+: [Ee]rror`},
		{Pattern: `undefined reference|rror: expected|No space left`},
	} {
		b.Run(fmt.Sprintf("%s,%v", q.Pattern, q.IgnoreCase), func(b *testing.B) {
			var ru, ru2 unix.Rusage
			unix.Getrusage(unix.RUSAGE_SELF, &ru)
			total := int64(0)
			for b.Loop() {
				found, err := Grep(context.Background(), files, q, func(Match) error { return nil }, nil)
				if err != nil || found.Matches == 0 {
					b.Fatal(found, err)
				}
				b.SetBytes(found.Bytes)
				total += found.Bytes
			}
			// What a busy machine does not blur.
			unix.Getrusage(unix.RUSAGE_SELF, &ru2)
			cpu := float64(ru2.Utime.Nano()+ru2.Stime.Nano()-ru.Utime.Nano()-ru.Stime.Nano()) / 1e9
			b.ReportMetric(float64(total)/1e6/cpu, "MB/cpu-s")
		})
	}
}
