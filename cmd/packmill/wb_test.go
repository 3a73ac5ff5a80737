package main

import (
	"reflect"
	"strings"
	"testing"

	"packmill/cmd/internal/control"
)

func TestParseOrder(t *testing.T) {
	for _, c := range []struct {
		line string
		want order
	}{
		{"gb hello_2.10-3 . ANY -i386 . sid -m why", order{op: "gb", packages: []string{"hello_2.10-3"}, archs: []string{"ANY", "-i386"}, suite: "sid", message: "why"}},
		{"gb a b . amd64 . sid . -m why", order{op: "gb", packages: []string{"a", "b"}, archs: []string{"amd64"}, suite: "sid", message: "why"}},
		{"nmu 3 a . ANY . -m why", order{op: "nmu", number: 3, given: true, packages: []string{"a"}, archs: []string{"ANY"}, message: "why"}},
		{"nmu a . ANY -m why", order{op: "nmu", packages: []string{"a"}, archs: []string{"ANY"}, message: "why"}},
		{"bp -20 a . all", order{op: "bp", number: -20, given: true, packages: []string{"a"}, archs: []string{"all"}}},
		{"fail a . amd64 --override --dry-run --json -m x", order{op: "fail", packages: []string{"a"}, archs: []string{"amd64"}, override: true, dry: true, json: true, message: "x"}},
		{"uploaded a . amd64 --changes f", order{op: "uploaded", packages: []string{"a"}, archs: []string{"amd64"}, changes: "f"}},
	} {
		got, err := parseOrder(strings.Fields(c.line))
		if err != nil || !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%s: got %+v, %v, want %+v", c.line, got, err, c.want)
		}
	}
	for line, want := range map[string]string{
		"":                           "what is to be done",
		"frob a . b":                 `"frob" is not an operation`,
		"gb":                         "which package",
		"gb a":                       "for which architecture",
		"gb a .":                     "for which architecture",
		"gb a . amd64 . sid . x y":   "too far behind",
		"gb a . amd64 -m":            "-m wants a value",
		"gb a . amd64 --user=root":   "not an option",
		"gb -x . amd64":              "not an option",
		"bp a . amd64":               "bp wants a number",
		"gb a . amd64 . sid --who x": "not an option",
	} {
		if got, err := parseOrder(strings.Fields(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %+v, %v, want %q", line, got, err, want)
		}
	}
}

func TestConcrete(t *testing.T) {
	s := &control.Suite{Name: "sid", Architectures: []string{"amd64", "i386", "arm64"}}
	for line, want := range map[string]string{
		"ANY": "amd64 i386 arm64", "ALL": "amd64 i386 arm64 all", "ANY -i386": "amd64 arm64", "-i386": "amd64 arm64",
		"amd64": "amd64", "all amd64": "all amd64", "ALL -all": "amd64 i386 arm64",
	} {
		got, _, err := (&order{archs: strings.Fields(line)}).concrete(s)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: got %q, %v, want %q", line, got, err, want)
		}
	}
	if _, _, err := (&order{archs: []string{"mips"}}).concrete(s); err == nil {
		t.Error("mips: not refused")
	}
}
