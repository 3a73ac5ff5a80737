package deb822_test

import (
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
