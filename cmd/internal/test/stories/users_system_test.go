//go:build system

package stories

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// credential is a user with all its groups.
func credential(t *testing.T, name string) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	number := func(s string) uint32 {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(n)
	}
	c := &syscall.Credential{Uid: number(u.Uid), Gid: number(u.Gid)}
	groups, err := u.GroupIds()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		c.Groups = append(c.Groups, number(g))
	}
	return c
}

// own gives a file to a user.
func own(t *testing.T, name string, paths ...string) {
	t.Helper()
	c := credential(t, name)
	for _, p := range paths {
		if err := os.Chown(p, int(c.Uid), int(c.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}

// Each daemon as its own user: the way of a package, and what each of them
// cannot reach.
func TestUsers(t *testing.T) {
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
	m := newMill(t, "Review: always")
	// The test's own directories are closed to others.
	for d := filepath.Dir(m.tree); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		m.must(os.Chmod(d, 0o755))
	}
	m.must(os.Chmod(bin, 0o755))
	own(t, spool.UserBuild, filepath.Join(m.tree, "control/private/builder.key"), m.home)
	own(t, spool.UserArchive, filepath.Join(m.tree, "control/private/archive.key"))
	m.packmill("init", "--users")

	// The daemons but buildd have the group that their units name.
	all, err := user.LookupGroup(spool.GroupAll)
	m.must(err)
	as := func(name string, argv ...string) (string, error) {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir = "/"
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent"}
		who := credential(t, name)
		if n, err := strconv.ParseUint(all.Gid, 10, 32); err == nil && name != spool.UserBuild && name != "nobody" {
			who.Gid = uint32(n)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	daemon := func(name, program string, args ...string) {
		t.Helper()
		argv := append([]string{filepath.Join(bin, program), "--tree", m.tree, "--once"}, args...)
		if out, err := as(name, argv...); err != nil {
			t.Fatalf("%s as %s: %v\n%s", program, name, err, out)
		}
	}

	// Where the units keep chroots is its home: root sees whose they are.
	builder, err := user.Lookup(spool.UserBuild)
	m.must(err)
	name := fmt.Sprintf("test%d-amd64", os.Getpid())
	dir := filepath.Join(builder.HomeDir, ".cache/packmill/chroots", name)
	m.must(os.MkdirAll(filepath.Join(dir, "20261121T000000.000000Z"), 0o755))
	defer os.RemoveAll(dir)
	own(t, spool.UserBuild, filepath.Dir(dir))
	m.must(os.WriteFile(filepath.Join(dir, "20261121T000000.000000Z/info"),
		[]byte("Suite: "+strings.TrimSuffix(name, "-amd64")+"\nArchitecture: amd64\nMade: 2026-11-21T00:00:00Z\n"), 0o644))
	for _, args := range [][]string{{"chroot", "ls"}, {"chroot", "ls", "--json"}} {
		if out := m.packmill(args...); !regexp.MustCompile(`(?m)^.*test\d+.*packmill-build.*` + regexp.QuoteMeta(filepath.Dir(dir))).MatchString(out) {
			t.Errorf("packmill %q does not have %s of %s:\n%s", args, name, spool.UserBuild, out)
		}
	}
	if out, want := m.packmill("chroot", "rm", strings.TrimSuffix(name, "-amd64"), "amd64",
		"-n"), "would remove "+name+" from "+filepath.Dir(dir); !strings.Contains(out, want) {
		t.Errorf("packmill chroot rm -n: %q, want %q", out, want)
	}

	// A stranger drops an upload, and one in alice's own directory.
	m.must(os.MkdirAll(filepath.Join(m.tree, "spool/incoming/alice"), 0o770))
	m.must(os.Chmod(filepath.Join(m.tree, "spool/incoming/alice"), 0o770))
	own(t, spool.UserReview, filepath.Join(m.tree, "spool/incoming/alice"))
	m.must(os.WriteFile(filepath.Join(m.tree, "spool/incoming/alice/secret"), []byte("x"), 0o644))
	m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
	dropped, err := filepath.Glob(filepath.Join(m.tree, "spool/incoming/hello*"))
	m.must(err)
	own(t, "nobody", dropped...)

	daemon(spool.UserArchive, "archived") // makes the suite's directory
	daemon(spool.UserReview, "reviewd")
	m.want(m.where(), "review source hello_1.0")
	m.packmill("review", "accept", "hello")
	daemon(spool.UserMaster, "master-buildd")
	daemon(spool.UserBuild, "buildd", "--arch", "amd64")
	daemon(spool.UserMaster, "master-buildd")
	daemon(spool.UserArchive, "archived")
	m.want(m.where(), "installed amd64 hello_1.0", "installed source hello_1.0")
	m.sound()

	// A tree of an earlier time has places of archived's and master-buildd's that
	// buildd's group may write to.
	m.must(os.MkdirAll(filepath.Join(m.tree, spool.BaseDir, "stable"), 0o755))
	for _, dir := range []string{spool.KeysDir, spool.BaseDir + "/stable", "archive/installed/stable",
		"archive/installed/stable/amd64"} {
		m.must(os.Chmod(filepath.Join(m.tree, dir), 0o775))
	}
	if out, err := m.try("fsck"); err == nil || strings.Count(out, "packmill init --users") < 4 {
		t.Errorf("packmill fsck of a tree that is open to a group: %v\n%s", err, out)
	}
	m.packmill("init", "--users")
	m.sound()

	// Who reads the mail takes a signature, and buildd's own counts for nothing
	// where a person signs.
	m.control("suites", m.suites()+"Log-Review: manual")
	m.control("notify", "Event: log\nTo: build-signers\nVia: /bin/true")
	ann := m.person("ann", "sign=amd64")
	m.upload(uploadtest.Package{Source: "sealed", Version: "1.0"})
	daemon(spool.UserReview, "reviewd")
	m.packmill("review", "accept", "sealed")
	daemon(spool.UserMaster, "master-buildd")
	daemon(spool.UserBuild, "buildd", "--arch", "amd64")
	changes, err := os.ReadFile(m.one("queue/stable/amd64/built/*/result/*.changes"))
	m.must(err)
	answer := filepath.Join(m.home, "answer")
	m.must(os.WriteFile(answer, []byte(clear(t, ann, string(changes))), 0o644))
	if out, err := as(spool.UserMail, "sh", "-c",
		filepath.Join(bin, "packmill")+" --tree "+m.tree+" mail <"+answer); err != nil {
		t.Errorf("packmill mail as %s: %v\n%s", spool.UserMail, err, out)
	}
	daemon(spool.UserMaster, "master-buildd")
	daemon(spool.UserArchive, "archived")
	m.want(m.where(), "installed amd64 hello_1.0", "installed source hello_1.0", "installed amd64 sealed_1.0",
		"installed source sealed_1.0")
	m.sound()

	// A second one waits in review, to be reached for.
	m.upload(uploadtest.Package{Source: "world", Version: "1.0"})
	daemon(spool.UserReview, "reviewd")
	waiting, err := filepath.Glob(filepath.Join(m.tree, "spool/review/stable/*world*"))
	if err != nil || len(waiting) != 1 {
		t.Fatalf("review: %v %v", waiting, err)
	}
	deb := filepath.Join(m.tree, "archive/pool/main/h/hello/hello_1.0_amd64.deb")
	theirs := filepath.Join(m.tree, "spool/incoming/theirs")
	m.must(os.WriteFile(theirs, nil, 0o644))
	own(t, spool.UserMail, theirs)
	for _, tc := range []struct {
		who   string
		shell string
		ok    bool
	}{
		{spool.UserBuild, "cat " + deb, true},
		{spool.UserBuild, "echo x >>" + deb, false},
		{spool.UserBuild, "rm " + deb, false},
		{spool.UserBuild, "touch " + m.tree + "/archive/dists/stable/InRelease", false},
		{spool.UserBuild, "touch " + m.tree + "/archive/published/stable/x", false},
		{spool.UserBuild, "touch " + m.tree + "/archive/keys/x", false},
		{spool.UserBuild, "! find " + m.tree +
			"/archive \\( -path '*/incoming' -o -path '*/installed/*/*/*/*' \\) -prune -o -writable -print | grep .", true},
		{spool.UserMail, "ls " + m.tree + "/spool/review", false},
		{spool.UserMail, "touch " + m.tree + "/archive/published/stable/x", false},
		{spool.UserMail, "cat " + m.tree + "/control/private/builder.key", false},
		{spool.UserMail, "touch " + m.tree + "/archive/pool/x", false},
		{spool.UserMail, "echo x >>" + deb, false},
		{spool.UserMail, "touch " + m.tree + "/archive/dists/stable/InRelease", false},
		{spool.UserArchive, "mv " + waiting[0] + " " + m.tree + "/spool/accepted/stable/", false},
		{"nobody", "touch " + waiting[0] + "/ticket", false},
		{"nobody", "cat " + waiting[0] + "/ticket", false},
		{"nobody", "rm -f " + theirs, false},
		{spool.UserBuild, "mv " + waiting[0] + " " + m.tree + "/archive/incoming/stable/", false},
		{spool.UserBuild, "ls " + filepath.Dir(waiting[0]), false},
		{spool.UserBuild, "touch " + waiting[0] + "/ticket", false},
		{spool.UserBuild, "ls " + m.tree + "/spool/accepted", false},
		{spool.UserBuild, "cat " + m.tree + "/control/private/archive.key", false},
		{spool.UserMaster, "cat " + m.tree + "/control/private/archive.key", false},
		{spool.UserMaster, "touch " + m.tree + "/archive/pool/x", false},
		{spool.UserReview, "touch " + m.tree + "/archive/pool/x", false},
		{spool.UserArchive, "ls " + m.tree + "/spool/review", false},
		{"nobody", "touch " + m.tree + "/spool/incoming/mine", true},
		{"nobody", "ls " + m.tree + "/spool/incoming", false},
		{"nobody", "ls " + m.tree + "/archive/incoming/stable", false},
		{"nobody", "ls " + m.tree + "/archive/installed/stable", false},
		{"nobody", "ls " + m.tree + "/archive/cache/base", false},
		{"nobody", "cat " + m.tree + "/archive/dists/stable/InRelease " + m.tree + "/archive/keys/stable.asc", true},
		{spool.UserReview, "ls " + m.tree + "/archive/incoming/stable " + m.tree + "/archive/installed/stable", true},
		{spool.UserReview, "mkdir " + m.tree + "/archive/incoming/x", false},
		{"nobody", "cat " + m.tree + "/spool/incoming/alice/secret", false},
		{"nobody", "ls " + filepath.Dir(waiting[0]), false},
		{"nobody", "touch " + m.tree + "/tmp/x", false},
		{"nobody", "touch " + m.tree + "/queue/stable/amd64/needs-build/x", false},
		{"nobody", "cat " + m.tree + "/control/suites", false},
		{spool.UserReview, "touch " + m.tree + "/queue/stable/amd64/building/x", false},
		{spool.UserReview, "mkdir " + m.tree + "/queue/stable/amd64/needs-build/x", false},
		{spool.UserReview, "touch " + m.tree + "/archive/incoming/stable/x", false},
		{spool.UserReview, "touch " + m.tree + "/archive/dists/stable/InRelease", false},
		{spool.UserReview, "cat " + m.tree + "/control/private/builder.key", false},
		{spool.UserReview, "touch " + m.tree + "/control/suites", false},
		{spool.UserMaster, "touch " + filepath.Dir(waiting[0]) + "/x", false},
		{spool.UserMaster, "ls " + m.tree + "/spool/intake", false},
		{spool.UserMaster, "cat " + m.tree + "/spool/incoming/alice/secret", false},
		{spool.UserMaster, "touch " + m.tree + "/archive/dists/stable/InRelease", false},
		{spool.UserBuild, "touch " + m.tree + "/spool/intake/x", false},
		{spool.UserBuild, "touch " + m.tree + "/spool/rejected/x", false},
		{spool.UserBuild, "cat " + m.tree + "/spool/incoming/alice/secret", false},
		{spool.UserBuild, "touch " + m.tree + "/control/builders", false},
		{spool.UserArchive, "touch " + m.tree + "/spool/intake/x", false},
		{spool.UserArchive, "touch " + filepath.Dir(waiting[0]) + "/x", false},
		{spool.UserArchive, "ls " + m.tree + "/spool/incoming", false},
		{spool.UserArchive, "cat " + m.tree + "/spool/incoming/alice/secret", false},
		// It may drop an upload, as everybody may, and take none away.
		{spool.UserArchive, "rm -f " + m.tree + "/spool/incoming/mine", false},
		{spool.UserArchive, "cat " + m.tree + "/control/private/builder.key", false},
	} {
		out, err := as(tc.who, "sh", "-c", tc.shell)
		if (err == nil) != tc.ok {
			t.Errorf("%s: %s: got %v (%s), want success %v", tc.who, tc.shell, err, strings.TrimSpace(out), tc.ok)
		}
		// A path that is not there is refused to everybody.
		if !tc.ok && !strings.Contains(out, "ermission denied") && !strings.Contains(out, "not permitted") {
			t.Errorf("%s: %s: %v (%s), want that the kernel denies it", tc.who, tc.shell, err, strings.TrimSpace(out))
		}
	}
	// Another user ends a build, and its log is there for everybody.
	m.script("ended_1.0_amd64", "wait "+filepath.Join(m.home, "never"))
	m.upload(uploadtest.Package{Source: "ended", Version: "1.0"})
	daemon(spool.UserReview, "reviewd")
	m.packmill("review", "accept", "ended")
	daemon(spool.UserMaster, "master-buildd")
	build := m.command(t.Context(), "buildd-amd64")
	build.Dir, build.SysProcAttr = "/", &syscall.SysProcAttr{Credential: credential(t, spool.UserBuild)}
	m.must(build.Start())
	m.until("it is being built", func() bool { return m.builds()["ended_1.0_amd64"] == 1 })
	if out, err := as(spool.UserMaster, filepath.Join(bin, "packmill"), "--tree", m.tree, "cancel", "ended", "amd64", "-m",
		"not wanted"); err != nil {
		t.Errorf("packmill cancel as %s: %v\n%s", spool.UserMaster, err, out)
	}
	m.must(build.Process.Signal(syscall.SIGTERM))
	m.must(build.Wait())
	if out := m.packmill("show", "ended"); !strings.Contains(out, "cancelled by "+spool.UserMaster+": not wanted") {
		t.Errorf("packmill show:\n%s", out)
	}
	if out, err := as("nobody", filepath.Join(bin, "packmill"), "--tree", m.tree, "log", "ended"); err != nil ||
		!strings.Contains(out, "building ended_1.0_amd64") {
		t.Errorf("packmill log as nobody: %v\n%s", err, out)
	}
	// What init made and somebody changed, fsck says and mends: a part, a state
	// in one architecture, an item.
	m.must(os.Chmod(filepath.Join(m.tree, "spool/review"), 0o777))
	m.must(os.Chmod(filepath.Join(m.tree, "queue/stable/amd64/needs-build"), 0o755))
	m.must(os.Lchown(filepath.Join(m.tree, "archive/incoming/stable"), 0, 0))
	m.must(os.Chmod(waiting[0], 0o700))
	out, err := m.try("fsck")
	for _, dir := range []string{"spool/review", "queue/stable/amd64/needs-build",
		"archive/incoming/stable", strings.TrimPrefix(waiting[0], m.tree+"/")} {
		if err == nil || !strings.Contains(out, dir+": wrong right") {
			t.Errorf("fsck does not say that %s has wrong rights: %v\n%s", dir, err, out)
		}
	}
	m.says(m.packmill("why", "world"), "who else could write in it", "as root: packmill fsck --repair")
	m.packmill("fsck", "--repair")
	m.sound()
}
