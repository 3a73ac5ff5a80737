package spool

import (
	"maps"
	"os"
	"testing"
)

// TestRecordAccounts: the file comes up to the machine only where it is of this machine.
func TestRecordAccounts(t *testing.T) {
	tree, err := Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, old, want string }{
		{"a tree of one user", "", ""},
		{"restored here from elsewhere", "user daemon 4711\n", "user daemon 4711\n"},
		{"who has gone since", "user packmill-nobody-here 4711\n", "gone"},
	} {
		if err := os.Remove(tree.Path(AccountsFile)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if c.old != "" {
			if err := os.WriteFile(tree.Path(AccountsFile), []byte(c.old), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := tree.RecordAccounts(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		got, err := os.ReadFile(tree.Path(AccountsFile))
		if os.IsNotExist(err) {
			err = nil
		}
		if err != nil || c.want != "gone" && string(got) != c.want || c.want == "gone" && string(got) == c.old {
			t.Errorf("%s: got %q, %v", c.name, got, err)
		}
	}
}

// TestSpares: numbers that change hands among accounts go by way of numbers that are nobody's; others do not.
func TestSpares(t *testing.T) {
	taken := map[int]bool{60001: true}
	got := spares(map[int]int{990: 988, 988: 990, 7: 8, 60000: 9}, func(id int) bool { return !taken[id] })
	if want := map[int]int{988: 60002, 990: 60003}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := spares(map[int]int{1: 2, 3: 4}, func(int) bool { return true }); len(got) != 0 {
		t.Errorf("nobody's number changes hands: got %v", got)
	}
}
