//go:build system

package stories

import (
	"fmt"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"packmill/spool"
)

// TestEachAsEach: every account tries to read and to write in the directory of every
// state, and can what the one table of rights lets it, and nothing else.
func TestEachAsEach(t *testing.T) {
	a := newAccounts(t, "Review: always")
	a.daemon("master-buildd")
	// The directories of one suite, made as the daemons make them.
	var dirs []string
	want := map[string]map[string]string{}
	accounts := []string{spool.UserReview, spool.UserMaster, spool.UserBuild, spool.UserArchive, spool.UserMail, "nobody"}
	rights := map[string]spool.Right{}
	for _, r := range spool.Standard.Rights() {
		rights[r.Dir] = r
	}
	places, err := spool.Open(a.tree)
	a.must(err)
	all, err := places.Places()
	a.must(err)
	for _, p := range all {
		top := p.Dir()
		for rights[top].Dir == "" {
			top = filepath.Dir(top)
		}
		r := rights[top]
		in := r
		if top != p.Dir() {
			in = r.Below()
		}
		dirs = append(dirs, p.Dir())
		want[p.Dir()] = map[string]string{}
		for _, name := range accounts {
			enters := a.allows(r, name, 1)
			can := ""
			if enters && a.allows(in, name, 4) {
				can += "r"
			}
			if enters && a.allows(in, name, 2) {
				can += "w"
			}
			want[p.Dir()][name] = can
		}
	}
	if len(dirs) < 10 {
		t.Fatalf("only %q", dirs)
	}
	for _, name := range accounts {
		out, err := a.run(name, "sh", "-c", fmt.Sprintf("cd %s; for d in %s; do c=; ls $d >/dev/null 2>&1 && c=r; (: >$d/tried-$$) 2>/dev/null && c=${c}w && rm -f $d/tried-$$; echo $d $c; done", a.tree, strings.Join(dirs, " ")))
		a.must(err)
		for line := range strings.Lines(out) {
			dir, can, _ := strings.Cut(strings.TrimSpace(line), " ")
			if can != want[dir][name] {
				t.Errorf("%s in %s: got %q, want %q", name, dir, can, want[dir][name])
			}
		}
	}
}

// allows reports whether the mode of a right lets an account (4 read, 2 write, 1 enter),
// as the kernel decides: as its owner, or else by its groups, or else as anybody.
func (a *accounts) allows(r spool.Right, name string, bit uint32) bool {
	a.Helper()
	mode := uint32(r.Mode.Perm())
	who := a.credential(name)
	g, err := user.LookupGroup(r.Group)
	a.must(err)
	gid, err := strconv.ParseUint(g.Gid, 10, 32)
	a.must(err)
	switch {
	case name == r.Owner:
		mode >>= 6
	case who.Gid == uint32(gid), slices.Contains(who.Groups, uint32(gid)):
		mode >>= 3
	}
	return mode&bit != 0
}
