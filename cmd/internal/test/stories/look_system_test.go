//go:build system

package stories

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// TestWhoLooks: statusd's account reads every state and every file there, whoever made it, and
// the settings, and neither keys nor letters; beside the drop directory, which is anybody's, it
// can write nowhere. fsck finds a directory that is closed to it, and mends that.
func TestWhoLooks(t *testing.T) {
	a := newAccounts(t)
	a.told()
	a.drop(uploadtest.Package{Source: "hello", Version: "1.0"})
	a.through()
	a.control("suites", strings.Replace(a.suites(), "Review: never", "Review: always", 1))
	for _, source := range []string{"waits", "bad"} {
		a.drop(uploadtest.Package{Source: source, Version: "1.0"})
	}
	a.daemon("reviewd")
	a.packmill("review", "reject", "bad", "-m", "no")
	a.packmill("init", "--users")

	who := a.credential(spool.UserStatus)
	find := func(test string) []string {
		out, _ := a.sh(who, "find . -path ./spool/incoming -prune -o ! -type l "+test+" -print 2>/dev/null || true")
		return strings.Fields(out)
	}
	read := strings.Join(find("-readable"), "\n")
	for _, file := range []string{"control/suites", "queue/stable", "spool/review/stable/*_waits_1.0/waits_1.0.dsc",
		"spool/rejected/*_bad_1.0/REASON", "archive/installed/stable/amd64/h/*_hello_1.0/history",
		"archive/installed/stable/source/h/*_hello_1.0/ticket"} {
		if path := "." + strings.TrimPrefix(a.one(file), a.tree); !strings.Contains(read+"\n", path+"\n") {
			t.Errorf("statusd cannot read %s", path)
		}
	}
	closed := []string{"./control/private", "./spool/mail", "./spool/yes", "./tmp", "./archive/cache", "./archive/.lock"}
	for _, path := range find("! -readable") {
		if !slices.Contains(closed, path) {
			t.Errorf("statusd cannot read %s", path)
		}
	}
	for _, dir := range closed[:5] {
		if out, err := a.sh(who, "ls "+dir); err == nil {
			t.Errorf("statusd lists %s: %s", dir, out)
		}
	}
	if write := find("-writable"); len(write) > 0 {
		t.Errorf("statusd can write to %q", write)
	}

	a.sound()
	a.must(unix.Removexattr(a.tree+"/attic", "system.posix_acl_access"))
	if out, err := a.try("fsck"); err == nil || !strings.Contains(out, spool.GroupStatus) {
		t.Errorf("fsck of an attic without its list: %v\n%s", err, out)
	}
	a.packmill("fsck", "--repair")
	a.sound()
	if out, err := a.sh(who, "ls attic"); err != nil {
		t.Errorf("statusd after the repair: %v: %s", err, out)
	}
}
