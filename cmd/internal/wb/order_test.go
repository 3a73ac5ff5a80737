package wb

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"packmill/cmd/internal/control"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		line string
		want Order
	}{
		{"gb hello_2.10-3 . ANY -i386 . sid -m why",
			Order{Op: "gb", Packages: []string{"hello_2.10-3"}, Archs: []string{"ANY", "-i386"}, Suites: []string{"sid"},
				Message: "why"}},
		{"gb a b . amd64 . sid . -m why",
			Order{Op: "gb", Packages: []string{"a", "b"}, Archs: []string{"amd64"}, Suites: []string{"sid"}, Message: "why"}},
		{"nmu 3 a . ANY . -m why",
			Order{Op: "nmu", Number: 3, Given: true, Packages: []string{"a"}, Archs: []string{"ANY"}, Message: "why"}},
		{"nmu a . ANY -m why", Order{Op: "nmu", Packages: []string{"a"}, Archs: []string{"ANY"}, Message: "why"}},
		{"bp -20 a . all", Order{Op: "bp", Number: -20, Given: true, Packages: []string{"a"}, Archs: []string{"all"}}},
		{"fail a . amd64 --override --dry-run --json -m x",
			Order{Op: "fail", Packages: []string{"a"}, Archs: []string{"amd64"}, Override: true, Dry: true, JSON: true,
				Message: "x"}},
		{"uploaded a . amd64 --changes f",
			Order{Op: "uploaded", Packages: []string{"a"}, Archs: []string{"amd64"}, Changes: "f"}},
	} {
		got, err := Parse(strings.Fields(c.line))
		if err != nil || !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%s: got %+v, %v, want %+v", c.line, got, err, c.want)
		}
	}
	for line, want := range map[string]string{
		"":                            "what is to be done",
		"frob a . b":                  `"frob" is not an operation`,
		"gb":                          "which package",
		"gb a":                        "for which architecture",
		"gb a .":                      "for which architecture",
		"gb a . amd64 . sid . x y":    "too far behind",
		"nmu a . ANY --extra-depends": "wants a value",
		"gb a . amd64 -m":             "-m wants a value",
		"gb a . amd64 --user=root":    "not an option",
		"gb -x . amd64":               "not an option",
		"bp a . amd64":                "bp wants a number",
		"gb a . amd64 . sid --who x":  "not an option",
	} {
		if got, err := Parse(strings.Fields(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %+v, %v, want %q", line, got, err, want)
		}
	}
}

func TestReadFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "orders")
	if err := os.WriteFile(file, []byte("# a comment\nwb gb a . ANY\nfail b . amd64 . -m \"two words\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := ReadFile([]string{file, "--dry-run"})
	if err != nil || len(got) != 2 || got[1].Message != "two words" || !got[0].Dry || !got[1].Dry {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, words := range [][]string{nil, {file + ".none"}, {file, "--frob"}} {
		if got, err := ReadFile(words); err == nil {
			t.Errorf("%q: got %+v", words, got)
		}
	}
}

func TestConcrete(t *testing.T) {
	s := &control.Suite{Name: "sid", Architectures: []string{"amd64", "i386", "arm64"}}
	for line, want := range map[string]string{
		"ANY": "amd64 i386 arm64", "ALL": "amd64 i386 arm64 all", "ANY -i386": "amd64 arm64", "-i386": "amd64 arm64",
		"amd64": "amd64", "all amd64": "all amd64", "ALL -all": "amd64 i386 arm64",
	} {
		got, _, err := (&Order{Archs: strings.Fields(line)}).Concrete(s)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: got %q, %v, want %q", line, got, err, want)
		}
	}
	if _, _, err := (&Order{Archs: []string{"mips"}}).Concrete(s); err == nil {
		t.Error("mips: not refused")
	}
}
