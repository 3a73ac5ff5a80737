package mirror

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"packmill/internal/deb822"
	"packmill/internal/policy"
)

func scan(text string, f func(*deb822.Scanner) error) error {
	s := deb822.NewScanner(strings.NewReader(text))
	for s.Next() {
		if err := f(s); err != nil {
			return err
		}
	}
	return s.Err()
}

const (
	sha     = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	aBinary = "Package: hello\nSource: greet (1:1.0)\nVersion: 1:1.0+b1\nArchitecture: amd64\n" +
		"Filename: pool/g/hello.deb\nSize: 5\nSHA256: " + sha + "\n"
	aSource = "Package: greet\nVersion: 1:1.0\nDirectory: pool/g\nFiles:\n" +
		" d41d8cd98f00b204e9800998ecf8427e 5 greet_1.0.dsc\nChecksums-Sha256:\n " + sha + " 5 greet_1.0.dsc\n"
)

func TestGrouping(t *testing.T) {
	g := newGrouping()
	for range 2 { // once for each architecture's index
		if err := scan(aBinary, func(s *deb822.Scanner) error { return g.binary(s, "main") }); err != nil {
			t.Fatal(err)
		}
	}
	if err := scan(aSource, func(s *deb822.Scanner) error { return g.source(s, "main") }); err != nil {
		t.Fatal(err)
	}
	if len(g.list) != 1 || !g.list[0].HasSource || g.list[0].Size() != 10 {
		t.Fatalf("got %+v", g.list)
	}
	if f := g.list[0].Files; f[0].Name != "hello_1.0+b1_amd64.deb" || f[0].Path != "pool/g/hello.deb" ||
		f[1].Path != "pool/g/greet_1.0.dsc" {
		t.Errorf("files: %+v", f)
	}
}

// TestHostileIndexes holds that no index names a file out of the repository, or
// one without a checksum.
func TestHostileIndexes(t *testing.T) {
	for from, to := range map[string]string{
		"Filename: pool/g/hello.deb": "Filename: ../../etc/shadow",
		"Filename: pool":             "Filename: /pool",
		"Package: hello":             "Package: ../hello",
		"Version: 1:1.0+b1":          "Version: 1:",
		"Architecture: amd64":        "Architecture: any",
		"Size: 5":                    "Size: -5",
		"SHA256: " + sha:             "SHA256: " + sha[2:],
		"Source: greet":              "Source: a/b",
		"(1:1.0)":                    "(../1)",
	} {
		g := newGrouping()
		if err := scan(strings.Replace(aBinary, from, to, 1), func(s *deb822.Scanner) error {
			return g.binary(s, "main")
		}); err == nil {
			t.Errorf("%s: accepted as %+v", to, g.list)
		}
	}
	for from, to := range map[string]string{
		"Directory: pool/g":      "Directory: ../g",
		"Package: greet":         "Package: /",
		"5 greet_1.0.dsc\nChec":  "greet_1.0.dsc\nChec",
		sha + " 5":               sha + " five",
		sha:                      "00",
		sha + " 5 greet_1.0.dsc": sha + " 5 ../greet_1.0.dsc",
	} {
		g := newGrouping()
		if err := scan(strings.Replace(aSource, from, to, 1), func(s *deb822.Scanner) error {
			return g.source(s, "main")
		}); err == nil {
			t.Errorf("%s: accepted as %+v", to, g.list)
		}
	}
}

func FuzzGrouping(f *testing.F) {
	f.Add([]byte(aBinary + "\n" + aSource))
	f.Fuzz(func(t *testing.T, data []byte) {
		g := newGrouping()
		for _, add := range []func(*deb822.Scanner, string) error{g.binary, g.source} {
			s := deb822.NewScanner(bytes.NewReader(data))
			for s.Next() {
				if add(s, "main") != nil {
					break
				}
			}
		}
		for _, u := range g.list {
			for _, file := range u.Files {
				if !filepath.IsLocal(file.Path) || policy.CheckFile(file.Name) != nil || !isSHA256(file.SHA256) || file.Size < 0 {
					t.Fatalf("accepted %+v", file)
				}
			}
		}
	})
}
