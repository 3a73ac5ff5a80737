package deb822

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

func seeds(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("A:b\n c\n\t.\n\n\n# x\nB :"))
	f.Add([]byte("A: \u00a0\u0085\n  \xff"))
	files, err := filepath.Glob("testdata/*.bad")
	if err != nil || len(files) == 0 {
		f.Fatalf("bad files: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
}

// What Parse accepts keeps its promises, and comes back from Append.
func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, lim := range []Limits{Hostile, Settings} {
			all, err := Parse("f", data, lim)
			if err != nil {
				if e, ok := err.(*Error); !ok || all != nil || !utf8.ValidString(e.Error()) ||
					strings.ContainsAny(e.Msg, "\x00\x1b\r\n") {
					t.Fatalf("error %q with %d stanzas", err, len(all))
				}
				continue
			}
			var text []byte
			for i := range all {
				if len(all[i].Fields) == 0 {
					t.Fatal("a stanza without fields")
				}
				seen := make(map[string]bool)
				for _, field := range all[i].Fields {
					key := strings.ToLower(field.Name)
					if seen[key] || field.Name == "" || strings.ContainsAny(field.Value, "\x00\r") ||
						strings.Contains(field.Value, "\n\n") {
						t.Fatalf("field %+q: %+q", field.Name, field.Value)
					}
					seen[key] = true
				}
				text = append(all[i].Append(text), '\n')
			}
			again, err := Parse("", text, lim)
			if err != nil {
				t.Fatalf("Parse refuses what Append made: %v\n%s", err, text)
			}
			if !reflect.DeepEqual(withoutLines(again), withoutLines(all)) {
				t.Fatalf("Parse(Append(x)) is not x:\n%#v\n%#v", again, all)
			}
		}
	})
}

func withoutLines(all []Stanza) []Stanza {
	withoutPlaces(all)
	for i := range all {
		all[i].Line = 0
	}
	return all
}

// The Scanner reads what Parse reads, and the same however the bytes come.
func FuzzScanner(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		sc := NewScanner(bytes.NewReader(data))
		got, err := flatten(sc)
		sc = &Scanner{r: iotest.OneByteReader(bytes.NewReader(data)), buf: make([]byte, 5)}
		slow, slowErr := flatten(sc)
		if (err == nil) != (slowErr == nil) || err == nil && !reflect.DeepEqual(got, slow) {
			t.Fatalf("whole: %v, %v; byte by byte: %v, %v", got, err, slow, slowErr)
		}
		want, parseErr := Parse("", data, Hostile)
		if parseErr == nil && (err != nil || !reflect.DeepEqual(withoutPlaces(got), withoutPlaces(want))) {
			t.Fatalf("Scanner: %#v, %v\nParse:   %#v", got, err, want)
		}
	})
}
