//go:build system

package runner

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"packmill/queue/runner/cage"

	"golang.org/x/sys/unix"
)

// TestLimitsOfUser: limits where the daemon is an ordinary user, with control
// groups of its own and without any. Root starts it so.
func TestLimitsOfUser(t *testing.T) {
	if os.Getuid() != 0 {
		limitsOfUser(t)
		return
	}
	testChroots(t, "amd64")
	user, err := cage.LookupAccount(buildUser())
	if err != nil {
		t.Fatal(err)
	}
	for _, delegated := range []bool{true, false} {
		name, enter := "without control groups", ""
		if delegated {
			name = "with control groups"
			for _, own := range cage.Groups() {
				dir := filepath.Join(own, "packmill-test-of-limits")
				if os.Mkdir(dir, 0o755) != nil {
					continue
				}
				defer unix.Rmdir(dir)
				files, err := os.ReadDir(dir)
				if err != nil {
					t.Fatal(err)
				}
				os.Chown(dir, user.UID, user.GID)
				for _, f := range files {
					os.Chown(filepath.Join(dir, f.Name()), user.UID, user.GID)
				}
				enter += "echo $$ > " + dir + "/cgroup.procs\n"
			}
			if enter == "" {
				t.Fatal("no control group can be made here; mount cgroup2")
			}
		}
		t.Run(name, func(t *testing.T) {
			asUser(t, user, enter, "TestLimitsOfUser")
		})
	}
}

// asUser runs a test of this program as the user, in a home of its own, after
// some lines of shell.
func asUser(t *testing.T, user *cage.Account, enter, test string) {
	home := t.TempDir()
	for d := home; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	os.Chown(home, user.UID, user.GID)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(home, "test")
	run(t, "install", "-m", "755", program, copied)
	cmd := exec.Command("sh", "-c", enter+"exec prlimit --nproc=1500 setpriv --reuid \"$1\" --regid \"$1\" "+
		"--init-groups -- \"$2\" -test.v -test.run \"^$3\\$\"", "sh", user.Name, copied, test)
	cmd.Dir = home
	cmd.Env = append(os.Environ(), "TMPDIR="+home, "HOME="+home)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

// TestClosedHome: a user whose home nobody else may enter, as Debian makes it,
// makes chroots in it. Without a mirror it comes as far as apt's complaint.
func TestClosedHome(t *testing.T) {
	if os.Getuid() == 0 {
		user, err := cage.LookupAccount(buildUser())
		if err != nil {
			t.Fatal(err)
		}
		asUser(t, user, "", "TestClosedHome")
		return
	}
	c := &Chroots{Dir: filepath.Join(os.Getenv("HOME"), "closed/chroots")}
	if err := os.Mkdir(filepath.Dir(c.Dir), 0o700); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	err = c.Create(context.Background(), Recipe{"sid", Machine(), []string{"deb file:///nowhere sid main"}, log})
	said, _ := os.ReadFile(log.Name())
	if err == nil || !strings.Contains(string(said), "does not have a Release file") {
		t.Errorf("got %v and:\n%s\nwant apt's complaint of the mirror", err, said)
	}
	used := regexp.MustCompile(`using (/mnt/tmp/\S+) as tempdir`).FindSubmatch(said)
	if used == nil || exists(string(used[1])) {
		t.Errorf("got the directory %q; want one that only this chroot's making sees", used)
	}
}

// limitsOfUser runs as that user.
func limitsOfUser(t *testing.T) {
	delegated := false
	for _, own := range cage.Groups() {
		delegated = delegated || exists(filepath.Join(own, "pids.max")) && unix.Access(own, unix.W_OK) == nil
	}
	t.Logf("control groups: %q, delegated: %v", cage.Groups(), delegated)
	c := testChroots(t, "amd64")
	overlay, sbuild := &Overlay{Chroots: c}, &Sbuild{Chroots: c, Scratch: os.Getenv("TMPDIR")}
	// One that is still there when forks are refused.
	const bomb = "sh -c 'while :; do sleep 93.6 & done'"
	for _, x := range []struct {
		name    string
		runner  Runner
		build   string
		limits  Limits
		limit   string
		suspect string
	}{
		{"fork bomb", overlay, bomb, Limits{Tasks: 150}, "", SuspectTasks},
		{"sleep for ever, and a daemon", overlay, "echo x; setsid sleep 93.6 & sleep 93.6",
			Limits{Wall: 15 * time.Second}, LimitWall, ""},
		{"log without end", overlay, "setsid sleep 93.6 & yes $$(printf %01000d 0)", Limits{Log: 10 << 20}, LimitLog, ""},
		{"full disk", overlay, "setsid sleep 93.6 & head -c 900000000 /dev/zero > big",
			Limits{Disk: 300 << 20}, "", SuspectSpace},
		{"memory", overlay, "head -c 2000000000 /dev/zero | tail | sleep 93.6",
			Limits{Memory: 300 << 20}, LimitMemory, SuspectMemory},
		{"fork bomb in sbuild", sbuild, bomb, Limits{Tasks: 150}, "", SuspectTasks},
	} {
		if x.runner == Runner(sbuild) && delegated {
			continue // as root's, by the rows
		}
		t.Run(x.name, func(t *testing.T) {
			job := newSystemJob(t)
			source{build: x.build}.make(t, job)
			job.Limits = x.limits
			if job.Limits.Wall == 0 {
				job.Limits.Wall = 10 * time.Minute
			}
			if job.Limits.Disk == 0 {
				job.Limits.Disk = 2 << 30
			}
			begin := time.Now()
			res := mustRun(t, x.runner, job)
			if res.Outcome != Attempted || x.limit != "" && res.Limit != x.limit || res.Suspect != x.suspect {
				log := logText(t, job)
				t.Errorf("got %+v; want limit %q, suspect %q; the log ends:\n%s",
					res, x.limit, x.suspect, log[max(0, len(log)-1500):])
			}
			if res.Usage.Memory <= 0 || res.Usage.CPU <= 0 {
				t.Errorf("not measured: %+v", res.Usage)
			}
			t.Logf("%v: %s", time.Since(begin).Round(time.Millisecond), res.Reason)
			within(t, 30*time.Second, "nothing runs any more", func() bool { return len(running("93.6")) == 0 })
			if !lockFree(t, job) {
				t.Error("something still holds the lock")
			}
		})
	}
	if left, _ := filepath.Glob(os.Getenv("TMPDIR") + "/packmill-sbuild.*"); len(left) != 0 {
		t.Errorf("left: %s", strings.Join(left, " "))
	}
}
