package runner

import (
	"fmt"
	"strings"
	"testing"
)

// TestPlace: where a set of packages is installed.
func TestPlace(t *testing.T) {
	// setOf is one of letters, each of which stands for ten packages, or for one if it is small.
	setOf := func(letters string) *set {
		x := &set{key: letters}
		for _, l := range letters {
			n := 10
			if l >= 'a' {
				n = 1
			}
			for i := range n {
				x.Packages = append(x.Packages, fmt.Sprintf("Inst %c%d (1 sid [amd64])", l, i))
				x.Files = append(x.Files, fmt.Sprintf("%c%d_1_amd64.deb 1 SHA256:%[1]c", l, i))
			}
		}
		return x
	}
	for _, c := range []struct{ want, have, below, common string }{
		{"AB", "", "", ""},
		{"AB", "A", "A", ""},
		{"AB", "A Aa AB", "AB", ""},
		{"AB", "AC", "", "A"},
		{"AB", "AC A", "A", ""},
		{"ABCD", "A ABCE", "A", "ABC"},
		{"ABCD", "A AB ABCE ABC", "ABC", ""},
		{"abc", "abd", "", ""},
		{"ABab", "AB ABac", "AB", ""},
		{"A", "B", "", ""},
		{"AB", "ABC", "", ""},
		{"AB", "A ABC", "A", ""},
	} {
		all := map[string]*set{}
		for _, name := range strings.Fields(c.have) {
			all[name] = setOf(name)
		}
		below, common := setOf(c.want).place(all)
		if (below == nil) != (c.below == "") || below != nil && below.key != c.below {
			t.Errorf("%+v: below is %v", c, below)
		}
		if (common == nil) != (c.common == "") || common != nil && len(common.Packages) != len(setOf(c.common).Packages) {
			t.Errorf("%+v: common is %v", c, common)
		}
	}
	gone := setOf("AB")
	gone.Packages = append(gone.Packages, "Remv Z [1]")
	if below, common := setOf("ABC").place(map[string]*set{"gone": gone}); below != nil || common == nil {
		t.Errorf("over one that removes: %v, %v", below, common)
	}
}
