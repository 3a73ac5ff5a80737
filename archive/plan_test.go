package archive

import (
	"slices"
	"testing"
)

func TestShown(t *testing.T) {
	plan := &Plan{Removed: []Entry{
		{Package: "hello", Version: "2.0-1", Arch: "source"},
		{Package: "hello", Version: "2.0-1", Arch: "amd64", Source: "hello"},
		{Package: "libhello", Version: "2.0-1+b1", Arch: "amd64", Source: "hello"},
		{Package: "world", Version: "1.0-1", Arch: "amd64", Source: "lone"},
	}}
	for _, c := range []struct{ asked, want []string }{
		{[]string{"hello"}, []string{"hello_2.0-1"}},
		{[]string{"hello", "hello_2.0-1"}, []string{"hello_2.0-1"}},
		{[]string{"libhello"}, []string{"libhello_2.0-1+b1"}},
		{[]string{"lone"}, []string{"lone"}}, // whose source package the suite has not
		{[]string{"lone", "world"}, []string{"lone", "world_1.0-1"}},
		{[]string{"other"}, nil},
	} {
		if got := plan.Shown(c.asked); !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, want %q", c.asked, got, c.want)
		}
	}
}
