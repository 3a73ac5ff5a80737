package deb822

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

const sample = `Package: hello
Version:  2.10-3
Description: greets
 The first paragraph.
 .
	 A tab, then a blank.

Package: leer
Files:
 0123 4 a_1.dsc
X-Empty:
`

func TestParse(t *testing.T) {
	got, err := Parse("x", []byte(sample), Hostile)
	if err != nil {
		t.Fatal(err)
	}
	want := []Stanza{
		{File: "x", Line: 1, Fields: []Field{
			{"Package", "hello", 1}, {"Version", "2.10-3", 2},
			{"Description", "greets\nThe first paragraph.\n.\n A tab, then a blank.", 3},
		}},
		{File: "x", Line: 8, Fields: []Field{
			{"Package", "leer", 8}, {"Files", "\n0123 4 a_1.dsc", 9}, {"X-Empty", "", 11},
		}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Parse(sample) = %#v, want %#v", got, want)
	}
}

// Each file testdata/NAME.bad has the message it must give in NAME.want.
// Names that begin with settings- are read as settings.
func TestParseRefuses(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad")
	if err != nil || len(files) < 10 {
		t.Fatalf("bad files: %v, %v", files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(strings.TrimSuffix(file, ".bad") + ".want")
		if err != nil {
			t.Fatal(err)
		}
		lim := Limits{Size: 4000, Fields: 30, Lines: 60, LineLength: 1000}
		lim.Comments = strings.HasPrefix(filepath.Base(file), "settings-")
		_, err = ParseOne(filepath.Base(file), data, lim)
		if got := fmt.Sprintln(err); got != string(want) {
			t.Errorf("%s:\ngot  %swant %s", file, got, want)
		}
	}
}

func TestStanza(t *testing.T) {
	s, err := ParseOne("control/suites", []byte("# ours\nSuite: sid\n# more\nReview: new\n"), Settings)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Errorf("review", "no such rule %q", "new").Error(); got != `control/suites:4: no such rule "new"` {
		t.Errorf("Errorf(review) = %s", got)
	}
	if got := s.Errorf("Tries", "missing").Error(); got != "control/suites:2: missing" {
		t.Errorf("Errorf(Tries) = %s", got)
	}
	s.Set("SUITE", "trixie")
	s.Set("Text", "one\n\nFake: two\r\x00")
	s.Del("review")
	const want = "Suite: trixie\nText: one\n .\n Fake: two\ufffd\ufffd\n"
	if got := string(s.Append(nil)); got != want {
		t.Errorf("Append = %q, want %q", got, want)
	}
	if got := s.Get("suite"); got != "trixie" {
		t.Errorf("Get(suite) = %q", got)
	}
	if _, ok := s.Lookup("Review"); ok {
		t.Error("Lookup(Review) finds a deleted field")
	}
}

func TestWords(t *testing.T) {
	got := Words(" a\tb\u00a0c\n\nd ")
	if want := []string{"a", "b\u00a0c", "d"}; !reflect.DeepEqual(got, want) {
		t.Errorf("Words = %q, want %q", got, want)
	}
}

// flat reads all with a Scanner and gives the stanzas as Parse does.
func flat(r io.Reader) (out []Stanza, err error) {
	return flatten(NewScanner(r))
}

func flatten(sc *Scanner) (out []Stanza, err error) {
	for sc.Next() {
		st := Stanza{Line: sc.Line()}
		for i := range sc.fields {
			f := &sc.fields[i]
			name := string(sc.buf[sc.start+f.begin : sc.start+f.colon])
			st.Fields = append(st.Fields, Field{Name: name, Value: string(sc.Get(name))})
		}
		out = append(out, st)
	}
	return out, sc.Err()
}

func withoutPlaces(all []Stanza) []Stanza {
	for i := range all {
		all[i].File = ""
		for j := range all[i].Fields {
			all[i].Fields[j].Line = 0
		}
	}
	return all
}

func TestScannerAgreesWithParse(t *testing.T) {
	long := "Package: a\nText: " + strings.Repeat("x", 300_000) + "\n" + strings.Repeat(" y y\n", 100_000) +
		"\n\n\nPackage: b\n"
	for name, text := range map[string]string{
		"sample": sample, "empty": "", "newlines": "\n\n", "no last newline": "A: b\n\n\nC: d", "long": long,
	} {
		want, err := Parse("", []byte(text), Limits{1 << 30, 1000, 1 << 30, 1 << 30, false})
		if err != nil {
			t.Fatal(err)
		}
		for how, r := range map[string]io.Reader{
			"whole": strings.NewReader(text), "half": iotest.HalfReader(strings.NewReader(text)),
			"bytes": iotest.OneByteReader(strings.NewReader(text)), "eof": iotest.DataErrReader(strings.NewReader(text)),
		} {
			if how == "bytes" && len(text) > 100_000 {
				continue
			}
			sc := NewScanner(r)
			if how != "whole" {
				sc.buf = make([]byte, 7) // it must grow
			}
			got, err := flatten(sc)
			if err != nil || !reflect.DeepEqual(got, withoutPlaces(want)) {
				t.Errorf("%s, %s: scanner and Parse differ: %v", name, how, err)
			}
		}
	}
}

func TestScannerRaw(t *testing.T) {
	sc := NewScanner(strings.NewReader("\n" + sample))
	var got []string
	for sc.Next() {
		got = append(got, string(sc.Raw()))
	}
	want := strings.Split(sample, "\n\n")
	want[0] += "\n"
	if sc.Err() != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Raw = %q, %v, want %q", got, sc.Err(), want)
	}
	if sc.Next() || sc.Get("Package") != nil {
		t.Error("Next or Get gives something after the end")
	}
}

func TestScannerRefuses(t *testing.T) {
	many := "A: b\n\n"
	for i := range 300 {
		many += fmt.Sprintf("F%d: x\n", i)
	}
	for _, c := range []struct{ in, want string }{
		{"A: b\n\na: b\nC: d\nA: c\n", "line 5: field A is here a second time in one stanza; make the index again"},
		{" x\n", "line 1: continuation line without a field before it; make the index again"},
		{"A: b\nno colon\n", `line 2: no field name and colon at the beginning of "no colon"; make the index again`},
		{"A: b\n: x\n", `line 2: no field name and colon at the beginning of ": x"; make the index again`},
		{"A: b\n#: x\n", "line 2: field name begins with '#'; make the index again"},
		{"A: b\n\nB: \x00\n", "line 3: character 0x00; make the index again"},
		{"A: b\r\n", "line 1: character 0x0d; make the index again"},
		{many, "line 259: more than 256 fields in one stanza; make the index again"},
	} {
		_, err := flat(strings.NewReader(c.in))
		if fmt.Sprint(err) != c.want {
			t.Errorf("%.40q: got %v, want %s", c.in, err, c.want)
		}
	}
	_, err := flat(io.MultiReader(strings.NewReader("A: b\n"), iotest.ErrReader(io.ErrUnexpectedEOF)))
	if err == nil || err.Error() != "read index: unexpected EOF" {
		t.Errorf("read error: got %v", err)
	}
}

// packages makes an index of about size bytes that looks like Debian's.
func packages(size int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, `Package: libsample%d-dev
Source: sample (%d.2.3-1)
Version: %d.2.3-1+b1
Installed-Size: 1234
Maintainer: Sample Maintainers <team+sample@tracker.example.org>
Architecture: amd64
Depends: libc6 (>= 2.34), libsample%d (= %d.2.3-1+b1), libother-dev (>= 1.2~) | libother2-dev
Description: sample library with a synopsis - development files
Homepage: https://sample.example.org/
Description-md5: 0123456789abcdef0123456789abcdef
Tag: devel::library, role::devel-lib, implemented-in::c,
 interface::commandline
Section: libdevel
Priority: optional
Filename: pool/main/s/sample/libsample%d-dev_%d.2.3-1+b1_amd64.deb
Size: 123456
MD5sum: 0123456789abcdef0123456789abcdef
SHA256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef

`, i, i, i, i, i, i, i)
	}
	return b.Bytes()
}

func BenchmarkScanner(b *testing.B) {
	data := packages(16 << 20)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		sc := NewScanner(bytes.NewReader(data))
		n := 0
		for sc.Next() {
			n += len(sc.Get("Package")) + len(sc.Get("Source")) + len(sc.Get("Version")) + len(sc.Get("Architecture"))
		}
		if sc.Err() != nil || n == 0 {
			b.Fatal(sc.Err())
		}
	}
}

func BenchmarkParse(b *testing.B) {
	data := packages(1 << 20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Parse("", data, Hostile); err != nil {
			b.Fatal(err)
		}
	}
}

// 1 MB of continuation lines takes other parsers seconds.
func BenchmarkParseContinuation(b *testing.B) {
	data := []byte("A: b\n" + strings.Repeat(" 0123456789012345678901234567890123456789\n", 25_000))
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Parse("", data, Hostile); err != nil {
			b.Fatal(err)
		}
	}
}
