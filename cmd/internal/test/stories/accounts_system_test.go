//go:build system

package stories

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// accounts is a mill each of whose daemons runs as its own account, as on a
// server: what its tests show holds where the kernel keeps the accounts apart.
type accounts struct {
	*mill
	all uint32 // the group that the units name
}

// newAccounts makes one, or skips the test where only root can.
func newAccounts(t *testing.T, lines ...string) *accounts {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can run the daemons as different users")
	}
	sysusers, err := filepath.Abs("../../../../scripts/systemd/packmill.sysusers")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-sysusers", sysusers).CombinedOutput(); err != nil {
		t.Fatalf("systemd-sysusers: %v (Debian's package systemd has it)\n%s", err, out)
	}
	m := newMill(t, lines...)
	// The test's own directories are closed to others.
	for d := filepath.Dir(m.tree); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		m.must(os.Chmod(d, 0o755))
	}
	m.must(os.Chmod(bin, 0o755))
	own(t, spool.UserBuild, filepath.Join(m.tree, "control/private/builder.key"), m.home)
	own(t, spool.UserArchive, filepath.Join(m.tree, "control/private/archive.key"))
	m.packmill("init", "--users")
	all, err := user.LookupGroup(spool.GroupAll)
	m.must(err)
	gid, err := strconv.ParseUint(all.Gid, 10, 32)
	m.must(err)
	a := &accounts{m, uint32(gid)}
	a.daemon("archived") // makes the suite's directory
	return a
}

// run runs a program as one of the accounts, with the group that its unit names;
// buildd's and maild's name none.
func (a *accounts) run(name string, argv ...string) (string, error) {
	a.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential(name)}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (a *accounts) credential(name string) *syscall.Credential {
	who := credential(a.T, name)
	if strings.HasPrefix(name, "packmill-") && name != spool.UserBuild && name != spool.UserMail {
		who.Gid = a.all
	}
	return who
}

// daemon runs a daemon once, as the account of its unit.
func (a *accounts) daemon(program string, args ...string) {
	a.Helper()
	who := map[string]string{"reviewd": spool.UserReview, "master-buildd": spool.UserMaster, "buildd": spool.UserBuild,
		"archived": spool.UserArchive, "maild": spool.UserMail}[program]
	argv := append([]string{filepath.Join(bin, program), "--tree", a.tree, "--once"}, args...)
	if out, err := a.run(who, argv...); err != nil {
		a.Fatalf("%s as %s: %v\n%s", program, who, err, out)
	}
}

// drop writes a signed upload into the drop directory, as somebody else's files.
func (a *accounts) drop(p uploadtest.Package) {
	a.Helper()
	a.upload(p)
	dropped, err := filepath.Glob(filepath.Join(a.tree, "spool/incoming", p.Source+"*"))
	a.must(err)
	own(a.T, "nobody", dropped...)
}

// through takes all uploads to the archive.
func (a *accounts) through() {
	a.Helper()
	for _, d := range []string{"reviewd", "master-buildd", "buildd --arch amd64", "master-buildd", "archived",
		"master-buildd"} {
		words := strings.Fields(d)
		a.daemon(words[0], words[1:]...)
	}
}

// TestWithoutOrig: a new revision that leaves its upstream tarball to the pool
// goes its way where the pool is another account's (protected_hardlinks: the
// kernel lets nobody link a file that he could not write to). reviewd notes in what
// archived filed that it told of it.
func TestWithoutOrig(t *testing.T) {
	a := newAccounts(t)
	a.told()
	day := time.Now().Add(-time.Minute) // of the tarball, in both
	a.drop(uploadtest.Package{Source: "hello", Version: "1.0-1", Date: day})
	a.through()
	a.want(a.where(), "installed amd64 hello_1.0-1", "installed source hello_1.0-1")
	a.drop(uploadtest.Package{Source: "hello", Version: "1.0-2", NoOrig: true, Date: day})
	a.through()
	a.want(a.where(), "installed amd64 hello_1.0-1", "installed amd64 hello_1.0-2", "installed source hello_1.0-1",
		"installed source hello_1.0-2")
	a.daemon("reviewd")
	a.daemon("reviewd")
	letters, err := filepath.Glob(filepath.Join(a.tree, spool.LettersDir, "*"))
	a.must(err)
	published := 0
	for _, l := range letters {
		data, err := os.ReadFile(l)
		a.must(err)
		published += strings.Count(string(data), "\nX-Packmill-Event: published\n")
	}
	if published != 2 {
		t.Errorf("%d letters say what is published, want one of each version", published)
	}
	a.sound()
}
