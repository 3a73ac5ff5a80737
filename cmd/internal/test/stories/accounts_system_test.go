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
	return newAccountsIn(t, t.TempDir(), lines...)
}

// newAccountsIn is newAccounts in a directory.
func newAccountsIn(t *testing.T, dir string, lines ...string) *accounts {
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
	m := newMillIn(t, dir, lines...)
	// The test's own directories are closed to others.
	for d := filepath.Dir(m.tree); d != os.TempDir() && d != "/dev/shm" && d != "/"; d = filepath.Dir(d) {
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
	m.accounts = a.dress
	a.daemon("archived") // makes the suite's directory
	return a
}

// run runs a program as one of the accounts, with the group that its unit names;
// buildd's, maild's and statusd's name none.
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
	if strings.HasPrefix(name, "packmill-") && name != spool.UserBuild && name != spool.UserMail &&
		name != spool.UserStatus {
		who.Gid = a.all
	}
	return who
}

// dress makes a command of a daemon that of its unit; a person's stays the person's.
func (a *accounts) dress(program string, cmd *exec.Cmd) {
	who, ok := map[string]string{"reviewd": spool.UserReview, "master-buildd": spool.UserMaster, "buildd": spool.UserBuild,
		"archived": spool.UserArchive, "maild": spool.UserMail}[program]
	if !ok {
		return
	}
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential(who)}
}

// daemon runs a daemon once, as the account of its unit.
func (a *accounts) daemon(program string, args ...string) {
	a.Helper()
	cmd := a.command(a.Context(), program, append([]string{"--once"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		a.Fatalf("%s: %v\n%s", program, err, out)
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

// TestJobAmongUploads: root's mv brings jobs to where reviewd takes what comes, which may
// write in none, whatever it thinks of them. It says so with the cure, and goes on with the
// others; the cure puts them where they can be, with a REASON.
func TestJobAmongUploads(t *testing.T) {
	a := newAccountsIn(t, shm(t), "Review: always")
	for _, name := range []string{"one", "two"} {
		a.drop(uploadtest.Package{Source: name, Version: "1.0"})
	}
	a.daemon("reviewd")
	a.packmill("review", "accept", "one", "two")
	a.daemon("master-buildd")
	for name, to := range map[string]string{"one": "spool/review/stable", "two": "spool/intake"} {
		from := a.item(spool.NeedsBuild, name)
		a.must(os.Rename(from, filepath.Join(a.tree, to, filepath.Base(from))))
	}
	a.drop(uploadtest.Package{Source: "three", Version: "1.0"})
	log, err := a.command(t.Context(), "reviewd", "--once").CombinedOutput()
	if n := strings.Count(string(log), spool.ForeignItem); err != nil || n < 2 {
		t.Errorf("reviewd: %v; it says %d times that it may not, want 2 at least\n%s", err, n, log)
	}
	out, err := a.try("fsck")
	if n := strings.Count(out, "it is a job of amd64"); err == nil || n != 2 {
		t.Errorf("fsck: %v\n%s", err, out)
	}
	a.packmill("fsck", "--repair")
	a.want(a.where(), "build-attempted amd64 one_1.0", "build-attempted amd64 two_1.0", "master source one_1.0",
		"master source two_1.0", "review source three_1.0")
	for _, name := range []string{"one", "two"} {
		a.says(a.reason(spool.BuildAttempted, name), "It cannot be there: it is a job of amd64")
	}
	a.packmill("requeue", "one", "two")
	a.daemon("buildd", "--arch", "amd64")
	if n := len(a.found("", spool.Uploaded)); n != 2 {
		t.Errorf("%d were built of two that were given back\n%s", n, a.packmill("ls"))
	}
	a.sound()
}

// TestEveryMoveByRoot is TestEveryMoveByHand where each daemon is an account: root's mv leaves
// an item with the owner and the group that it has, which are not those of all who meet it.
func TestEveryMoveByRoot(t *testing.T) {
	newAccountsIn(t, shm(t), "Review: never").everyMoveByHand()
}

// What a suite has again with an architecture archived takes out of records that builders'
// accounts made.
func TestArchitectureRegainedWithAccounts(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	m := newAccountsIn(t, shm(t), "Architectures: amd64 i386", "Publish: source-first")
	all := m.suites()
	m.lose(strings.Replace(all, "amd64 i386", "amd64", 1))
	m.regain(all)
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
