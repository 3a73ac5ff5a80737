//go:build system

package runner

import (
	"bytes"
	_ "embed"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"packmill/queue/runner/cage"

	"golang.org/x/sys/unix"
)

//go:embed testdata/hostile.sh
var hostile string

// A hostile package attacks from debian/rules and from a maintainer script of
// a build-dependency, in each runner, beside another build of the same user:
// it finds nothing of the machine, and leaves nothing. Root starts it once more
// as the build user, as init --users has it.
func TestHostile(t *testing.T) {
	c := testChroots(t, "amd64")
	if os.Getuid() == 0 {
		user, err := cage.LookupAccount(buildUser())
		if err != nil {
			t.Fatal(err)
		}
		t.Run("another user", func(t *testing.T) { asUser(t, user, "", "TestHostile") })
	}
	for name, r := range map[string]Runner{"overlay": &Overlay{Chroots: c}, "sbuild": &Sbuild{Chroots: c}} {
		t.Run(name, func(t *testing.T) { attack(t, c, r) })
	}
}

// attack builds a hostile package beside another, and looks what came of it.
func attack(t *testing.T, c *Chroots, r Runner) {
	const mark, key = "packmill-hostile-mark", "packmill-hostile-key"
	socket := fmt.Sprintf("packmill-hostile-%d", os.Getpid())
	l, err := net.Listen("unix", "@"+socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// A key of the daemon's session, which its children would have.
	if _, err := unix.AddKey("user", key, []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING); err != nil {
		t.Fatal(err)
	}
	job, victim := newSystemJob(t), newSystemJob(t)
	secret := filepath.Join(filepath.Dir(job.Dir), "secret")
	write(t, secret, "of the machine")
	args := strings.Join([]string{mark, socket, key, secret, filepath.Dir(job.Dir), filepath.Dir(victim.Dir), c.Dir}, " ")
	repo := repository(t, hostilePackage(args))
	args += " " + repo.Dir

	before := snapshot(t, c.Dir)
	source{version: "1.0", depends: "ours-dev",
		build: "printf '%s' '" + encode(hostile) + "' | base64 -d > /tmp/attack\nsh /tmp/attack " + args}.make(t, job)
	job.Repos = []Repo{repo}
	source{version: "2.0", build: "cat /proc/self/uid_map; echo victim > victim\n" +
		"while ! test -e /tmp/never && test $$(( $$(date +%s) - $$(stat -c %Y victim) )) -lt 8; do sleep 1; done\n" +
		"ls -lan . .. /tmp\ntest \"$$(cat victim)\" = victim"}.make(t, victim)
	var both sync.WaitGroup
	both.Go(func() {
		if res := mustRun(t, r, job); res.Outcome != Good {
			t.Errorf("the hostile build: %v: %s", res.Outcome, res.Reason)
		}
	})
	both.Go(func() {
		if res := mustRun(t, r, victim); res.Outcome != Good {
			t.Errorf("the build beside: %v: %s\n%s", res.Outcome, res.Reason, logText(t, victim))
		}
	})
	both.Wait()
	log := logText(t, job)
	for _, line := range regexp.MustCompile(`(?m)^.*BREACH.*$`).FindAllString(log, -1) {
		t.Error(line)
	}
	for _, who := range []string{`(?m)^WALKED as 0$`, `(?m)^WALKED as [1-9][0-9]*$`} {
		if !regexp.MustCompile(who).MatchString(log) {
			t.Errorf("no line %q; the log ends:\n%s", who, log[max(0, len(log)-8000):])
		}
	}
	apart(t, log, logText(t, victim))
	if strings.Contains(logText(t, victim), mark) {
		t.Errorf("the build beside saw the mark:\n%s", logText(t, victim))
	}
	within(t, 10*time.Second, "nothing runs", func() bool { return len(running("92.4")) == 0 })
	if !lockFree(t, job) {
		t.Error("something still holds the lock")
	}
	for _, dir := range []string{filepath.Dir(job.Dir), filepath.Dir(victim.Dir), repo.Dir, os.TempDir(), "/var/tmp",
		"/dev/shm", "/mnt", "/run/lock"} {
		findMark(t, dir, mark)
	}
	after := snapshot(t, c.Dir)
	for path, sum := range before {
		if after[path] != sum {
			t.Errorf("%s was %s, is %s", path, sum, after[path])
		}
	}
	if _, ok := r.(*Overlay); !ok {
		return // what its builds are made of is the tarball alone
	}
	equalTarball(t, c)
	// A build after it, with the same ids or others.
	next := newSystemJob(t)
	source{version: "3.0", build: "! ls -a / /tmp /build /usr/bin /usr/local/bin /bin /etc /usr/sbin | grep " + mark +
		"\n! grep " + mark + " /etc/profile /usr/bin/dpkg-gencontrol"}.make(t, next)
	if res := mustRun(t, r, next); res.Outcome != Good {
		t.Errorf("the next build: %v: %s\n%s", res.Outcome, res.Reason, logText(t, next))
	}
}

func encode(text string) string {
	cmd := exec.Command("base64", "-w0")
	cmd.Stdin = strings.NewReader(text)
	out, _ := cmd.Output()
	return string(out)
}

// hostilePackage is a build-dependency that attacks when it is configured.
func hostilePackage(args string) map[string]string {
	return map[string]string{"postinst": strings.Replace(hostile, "mark=$1", "set -- "+args+"\nmark=$1", 1)}
}

var uidMap = regexp.MustCompile(`(?m)^IDS \d+ +0 +(\d+) +(\d+)|^ +0 +(\d+) +(\d+)$`)

// apart finds that two builds at a time have no id in common. Numbers are those
// of the namespace above, which are the machine's.
func apart(t *testing.T, log, other string) {
	t.Helper()
	first := func(log string) string {
		m := uidMap.FindStringSubmatch(log)
		if m == nil {
			t.Fatalf("no uid_map in:\n%s", log)
		}
		return m[1] + m[3]
	}
	if a, b := first(log), first(other); a == b {
		t.Errorf("both builds have the ids from %s on", a)
	}
}

// findMark finds no file of that name.
func findMark(t *testing.T, dir, mark string) {
	t.Helper()
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == mark {
			t.Errorf("a build made %s", path)
		}
		return nil
	})
}

// snapshot sums up the files of the chroots, and their owners and modes: tarballs,
// what is unpacked of them, and layers.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		// The time of a layer's info is that of its last use.
		if err != nil || unix.Lstat(path, &st) != nil || d.Name() == infoFile || strings.HasPrefix(d.Name(), "wish.") ||
			st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return nil
		}
		all[path] = fmt.Sprintf("inode %d, mode %o, owner %d:%d, %d bytes, changed %d.%09d",
			st.Ino, st.Mode, st.Uid, st.Gid, st.Size, st.Ctim.Sec, st.Ctim.Nsec)
		return nil
	})
	return all
}

// equalTarball has GNU tar compare what is unpacked of a chroot with its tarball.
func equalTarball(t *testing.T, c *Chroots) {
	t.Helper()
	own, err := c.own(t.Context(), "sid", "amd64", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer own.release()
	found, err := filepath.Glob(filepath.Join(own.dir, "*", rootDir))
	if err != nil || len(found) == 0 {
		t.Fatalf("no unpacked chroot in %s: %v", own.dir, err)
	}
	for _, root := range found {
		fmt.Sscan(filepath.Base(filepath.Dir(root)), &own.ids.UID)
		own.ids.GID = groupOf(t, own.user, own.ids.UID)
		log, err := os.Create(filepath.Join(t.TempDir(), "compare"))
		if err != nil {
			t.Fatal(err)
		}
		view := &cage.View{Dirs: []string{"tmp"}, Binds: map[string]string{rootDir: root},
			Reads: map[string]string{tarFile: own.Tarball()}}
		o := own.order(cage.AsRoot, view, "tar", "--compare", "--numeric-owner", "--exclude=./dev/*", "-C",
			cage.ViewRoot+"/"+rootDir, "-f", cage.ViewRoot+"/"+tarFile)
		err = runOrder(t.Context(), o, log)
		said, _ := os.ReadFile(log.Name())
		log.Close()
		// Of the file's directory, apt's cache was made after.
		said = regexp.MustCompile(`(?m)^\./var/cache/apt: Mod time differs\n`).ReplaceAll(said, nil)
		if len(bytes.TrimSpace(said)) > 0 {
			t.Errorf("%s and its tarball: %v\n%s", root, err, said)
		}
	}
}

func groupOf(t *testing.T, user *cage.Account, uid int) int {
	t.Helper()
	ranges, err := user.Ranges()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range ranges {
		if r.UID == uid {
			return r.GID
		}
	}
	t.Fatalf("%s has no range from %d on", user.Name, uid)
	return 0
}
