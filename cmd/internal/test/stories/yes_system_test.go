//go:build system

package stories

import (
	"path/filepath"
	"strings"
	"testing"

	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// TestYes: where two persons must accept, one cannot be both: not by a line in a
// shared file, nor by a file of his in the other's name, or of the other's moved or
// linked to another upload.
func TestYes(t *testing.T) {
	a := newAccounts(t, "Review: always")
	a.control("general", "Two-Persons: yes")
	one := a.somebody(reviewerUID, spool.GroupAll, spool.GroupReview, spool.GroupDesk)
	two := a.somebody(secondUID, spool.GroupAll, spool.GroupReview, spool.GroupDesk)
	for _, source := range []string{"hello", "other", "third"} {
		a.drop(uploadtest.Package{Source: source, Version: "1.0"})
	}
	a.daemon("reviewd")
	accept := func(who int, source string, done bool) {
		t.Helper()
		c := one
		if who == 2 {
			c = two
		}
		out, err := a.sh(c, "packmill review accept "+source)
		if err != nil || strings.Contains(out, "a second person") == done {
			t.Errorf("person %d accepts %s: %v\n%s", who, source, err, out)
		}
	}
	accept(2, "other", false)
	accept(1, "hello", false)
	accept(1, "hello", false)
	hello := filepath.Base(a.one("spool/review/stable/*_hello_1.0"))
	other := filepath.Base(a.one("spool/yes/*_other_1.0.*"))
	for _, try := range []string{
		"printf '2026-11-29T00:00:00Z\\tsomebody\\taccept\\tfine\\n' >>spool/review/stable/" + hello + "/opinions",
		"cp spool/yes/" + hello + ".* spool/yes/" + hello + ".64002",
		"mv spool/yes/" + other + " spool/yes/" + hello + ".x",
		"ln spool/yes/" + other + " spool/yes/" + hello + ".y",
		"echo x >spool/yes/" + other,
		"rm -f spool/yes/" + other,
	} {
		out, err := a.sh(one, try)
		t.Logf("%s: %v %s", try, err, out)
		accept(1, "hello", false)
	}
	accept(2, "hello", true)
	accept(1, "other", true) // the other's yes is still there
	// Root's commands act as reviewd's account, and root's yes is root's, or of who called sudo.
	for i, sudo := range []string{"", "SUDO_UID=64001 SUDO_USER=rita "} {
		out, err := a.run("root", "sh", "-c", sudo+filepath.Join(bin, "packmill")+" --tree "+a.tree+" review accept third")
		if err != nil || strings.Contains(out, "a second person") != (i == 0) {
			t.Errorf("%sroot accepts: %v\n%s", sudo, err, out)
		}
	}
	a.want(a.where(), "accepted source hello_1.0", "accepted source other_1.0", "accepted source third_1.0")
	a.sound()
}
