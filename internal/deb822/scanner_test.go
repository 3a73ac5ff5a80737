package deb822_test

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"

	"packmill/internal/deb822"
)

func TestScannerStanza(t *testing.T) {
	s := deb822.NewScanner(strings.NewReader("A: 1\n\nB: 2\nC:\n x\n y\n\nD: 4\nD: 5\n"))
	s.File = "index"
	for s.Next() {
		st, err := s.Stanza()
		switch s.Line() {
		case 3:
			if err != nil || st.Line != 3 || st.Get("C") != "\nx\ny" || st.Errorf("C", "x").Error() != "index:4: x" {
				t.Errorf("got %+v, %v", st, err)
			}
		case 8:
			if err == nil || !strings.HasPrefix(err.Error(), "index:9: ") {
				t.Errorf("got %v, want an error of line 9", err)
			}
		}
	}
}

// TestScannerPassesOdd reads an index in which other stanzas are refused.
func TestScannerPassesOdd(t *testing.T) {
	for _, odd := range []string{"Package: odd\nPackage: odd\n", "Package: odd\nDescription: a\r\n",
		"# a comment\nPackage: odd\n",
		"Package: odd\nno colon\nA: b\n", " begins with a blank\n", "Package: odd\nA: \x00\n", "Package: odd\n-A: b\n"} {
		text := "\nPackage: one\n\n\n" + odd + "\n\nPackage: two\n\n" + odd + "\nPackage: three\n\n" + odd
		for _, step := range []int{1, 3, 1000} {
			var got, lines []string
			sc := deb822.NewScanner(&stepReader{strings.NewReader(text), step})
			refused := 0
			sc.Odd = func(error) { refused++ }
			for sc.Next() {
				got, lines = append(got, string(sc.Get("Package"))), append(lines, strconv.Itoa(sc.Line()))
			}
			n := strings.Count(odd, "\n")
			want := fmt.Sprintf("one two three %v", []string{"2", strconv.Itoa(7 + n), strconv.Itoa(9 + 2*n + 1)})
			if g := fmt.Sprintf("%s %v", strings.Join(got, " "), lines); g != want || refused != 3 || sc.Err() != nil {
				t.Errorf("%q by %d bytes: got %s, %d refused, %v; want %s, 3", odd, step, g, refused, sc.Err(), want)
			}
		}
	}
}

type stepReader struct {
	r io.Reader
	n int
}

func (s *stepReader) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), s.n)]) }
