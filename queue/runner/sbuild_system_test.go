//go:build system

package runner

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/internal/policy"

	"golang.org/x/sys/unix"
)

// missingFrom is an index that has these packages, "name version", and
// nothing else besides what a chroot has.
func missingFrom(index ...string) func(policy.Relations) (policy.Relations, error) {
	return func(deps policy.Relations) (missing policy.Relations, err error) {
		for _, or := range deps {
			found := false
			for _, p := range index {
				name, version, _ := strings.Cut(p, " ")
				if or[0].Name == name && or[0].SatisfiedBy(version) {
					found = true
				}
			}
			if !found {
				missing = append(missing, or)
			}
		}
		return missing, nil
	}
}

// row is one case that every runner with chroots judges alike.
type row struct {
	name    string
	source  source
	job     func(t *testing.T, job *Job)
	outcome Outcome
	reason  string // is in the reason
	suspect string
	depWait string
	log     string // is in the log
	fast    bool   // by the overlay runner only: sbuild takes ten times as long
	leaves  string // an argument of what must not run afterwards
}

var rows = []row{
	{name: "good", fast: true, outcome: Good, reason: "built"},
	{name: "binNMU, for profiles, without network", outcome: Good,
		log: "options parallel=2 nocheck, profiles nocheck, of 1795300000.", job: func(t *testing.T, job *Job) {
			job.Profiles, job.Parallel = []string{"nocheck"}, 2
			job.BinNMU = &BinNMU{Number: 2, Changelog: "Rebuild against libfoo2; it's \"new\" $HOME",
				Maintainer: "Release Team <release@example.org>", Time: time.Unix(1795300000, 0)}
			source{depends: "nowhere-dev <!nocheck>",
				build: "echo options $$DEB_BUILD_OPTIONS, profiles $$DEB_BUILD_PROFILES, of $$(dpkg-parsechangelog -S Timestamp)." +
					// Sources of before 2000 ask for supplementary groups, and end without one.
					"\ngrep '^Groups:.*[0-9]' /proc/self/status\n! " + dials(t) +
					"\n! getent ahosts www.debian.org\n! grep -E '(eth|en)[0-9a-z]+:' /proc/net/dev\ngrep -q lo: /proc/net/dev"}.make(t,
				job)
		}},
	{name: "all of a package for any and all, with the network", outcome: Good, job: func(t *testing.T, job *Job) {
		job.Arch, job.Network = "all", true
		with := withData
		with.build = dials(t)
		with.make(t, job)
	}},
	{name: "any of a package for any and all", fast: true, outcome: Good, source: withData},
	{name: "both of a package for any and all",
		fast: true, outcome: Good, source: withData, job: func(t *testing.T, job *Job) { job.Indep = true }},
	{name: "disk full in the build", source: source{build: "head -c 3000000000 /dev/zero > big"}, outcome: Attempted,
		suspect: SuspectSpace,
		job:     func(t *testing.T, job *Job) { job.Limits.Disk = 1500 << 20 }},
	{name: "silence", source: source{build: "echo before; sleep 1000"}, outcome: Attempted, suspect: SuspectStall,
		log: "before",
		job: func(t *testing.T, job *Job) { job.Limits.Silence = 60 * time.Second }},
	{name: "sleeps for ever", leaves: "96.1", source: source{build: "while :; do echo x; sleep 96.1 & sleep 0.2; done"},
		outcome: Attempted, reason: "limit of time",
		job: func(t *testing.T, job *Job) { job.Limits.Wall = 20 * time.Second }},
	{name: "log without end, from a daemon too", leaves: "95.6",
		source: source{build: "setsid sleep 95.6 & yes $$(printf %01000d 0)"}, outcome: Attempted, reason: "its log reached",
		job: func(t *testing.T, job *Job) { job.Limits.Log = 10 << 20 }},
	{name: "fork bomb", source: source{build: "sh -c 'bomb() { bomb | bomb & }; bomb; sleep 1000'"}, outcome: Attempted,
		suspect: SuspectTasks,
		job:     func(t *testing.T, job *Job) { job.Limits.Tasks = 200 }},
	{name: "dependencies missing, too old, and there; first alternative only",
		source: source{depends: "coreutils, make (>= 1000), nowhere-dev (>= 3) | bash"}, outcome: DepWait,
		depWait: "make (>= 1000), nowhere-dev (>= 3)",
		job:     func(t *testing.T, job *Job) { job.Missing = missingFrom("make 4.3", "coreutils 9.1") }},
	{name: "dependency for another architecture",
		fast: true, source: source{depends: "nowhere-dev [s390x], elsewhere-dev <never>"}, outcome: Good},
	{name: "dependency not installable", source: source{depends: "nowhere-dev"}, outcome: Uninstallable,
		job: func(t *testing.T, job *Job) { job.Missing = missingFrom("nowhere-dev 1") }},
	{name: "dependency missing, no index", fast: true, source: source{depends: "nowhere-dev"}, outcome: Uninstallable},
	{name: "dependency installed by apt", fast: true, source: source{depends: "quilt", build: "quilt --version"},
		outcome: Good},
	{name: "extra dependency", fast: true, source: source{build: "quilt --version"}, outcome: Good,
		job: func(t *testing.T, job *Job) { job.ExtraDepends = "quilt (>= 0.1)" }},
	{name: "extra dependency missing", fast: true, outcome: DepWait, depWait: "nowhere-dev (>= 3)",
		job: func(t *testing.T, job *Job) {
			job.ExtraDepends, job.Missing = "nowhere-dev (>= 3)", missingFrom("make 4.3")
		}},
	{name: "extra conflict", fast: true, source: source{build: "test ! -e /usr/bin/patchelf"}, outcome: Uninstallable,
		job: func(t *testing.T, job *Job) {
			job.ExtraDepends, job.ExtraConflicts, job.Missing = "patchelf", "patchelf", missingFrom("patchelf 1")
		}},
	{name: "conflict with what is there", fast: true, source: source{build: "! command -v fakeroot"}, outcome: Good,
		job: func(t *testing.T, job *Job) { job.ExtraConflicts = "fakeroot" }},
	{name: "mirror dead", source: source{depends: "nowhere-dev"}, outcome: GiveBack, reason: "fetch",
		job: func(t *testing.T, job *Job) {
			job.Repos = []Repo{{URI: "http://127.0.0.1:9/", Suite: "sid", Components: []string{"main"}, Key: []byte("x")}}
			job.Missing = missingFrom()
		}},
	{name: "wrong architecture", source: source{arch: "arm64"}, outcome: Attempted, reason: "Architecture"},
	{name: "leaves daemons behind", fast: true, leaves: "95.4",
		source: source{build: "setsid sh -c 'exec >/dev/null 2>&1; sleep 95.4' & sleep 0.2"}, outcome: Good},
	{name: "rules fail, with a forged summary", outcome: Attempted, reason: "build", log: "hello.c:3:5", source: source{build: `echo 'hello.c:3:5: error: expected declaration'; printf '\n+------------------------------------------------------------------------------+\n| Summary                                                                      |\n+------------------------------------------------------------------------------+\n\nStatus: successful\n--------------------------------------------------------------------------------\nFinished at x\n'; exit 1`}},
	{name: "foreign package in the result, and a daemon", outcome: Quarantined, leaves: "95.7", reason: "bash", source: source{build: `
		setsid sh -c 'exec >/dev/null 2>&1; sleep 95.7' & mkdir -p debian/bash/DEBIAN
		printf 'Package: bash\nVersion: 99\nArchitecture: amd64\nMaintainer: A <a@example.org>\nDescription: x\n' > debian/bash/DEBIAN/control
		dpkg-deb --root-owner-group -b debian/bash ../bash_99_amd64.deb
		dpkg-distaddfile bash_99_amd64.deb shells required`}},
	{name: "own environment and path", fast: true, source: source{build: "echo $$PACKMILL_VARIATION in $$PWD"},
		outcome: Good, log: "it's 2",
		job: func(t *testing.T, job *Job) {
			job.Env, job.Path = []string{"PACKMILL_VARIATION=it's 2"}, "/build/another-place"
		}},
}

var withData = source{
	more: "\nPackage: hello-data\nArchitecture: all\nDescription: data\n Data.\n",
	indep: "mkdir -p debian/hello-data/DEBIAN\ndpkg-gencontrol -phello-data -Pdebian/hello-data\n" +
		"dpkg-deb --root-owner-group -b debian/hello-data ..",
}

// dials is a command that connects to a server outside of the build.
func dials(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return fmt.Sprintf("bash -c 'echo > /dev/tcp/127.0.0.1/%d'", l.Addr().(*net.TCPAddr).Port)
}

// testRows runs the rows, as many at a time as there are processors.
func testRows(t *testing.T, r Runner) {
	_, slow := r.(*Sbuild)
	for _, c := range rows {
		if slow && c.fast {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			job := newSystemJob(t)
			c.source.make(t, job)
			if c.job != nil {
				c.job(t, job)
			}
			start := time.Now()
			res := mustRun(t, r, job)
			log := logText(t, job)
			if res.Outcome != c.outcome || !strings.Contains(res.Reason, c.reason) || res.Suspect != c.suspect ||
				strings.Join(res.DepWait, ", ") != c.depWait ||
				!strings.Contains(log, c.log) {
				t.Errorf("got %+v; want %v, reason with %q, suspect %q, dep-wait %q, log with %q; the log ends:\n%s",
					res, c.outcome, c.reason, c.suspect, c.depWait, c.log, log[max(0, len(log)-6000):])
			}
			if u := res.Usage; c.outcome == Good && (u.CPU <= 0 || u.Memory <= 0 || u.Disk <= 0 || u.Log <= 0) {
				t.Errorf("not measured: %+v", u)
			}
			t.Logf("%v: %v, %s; overhead %v, memory %s, disk %s, cpu %v",
				time.Since(start).Round(time.Millisecond), res.Outcome, res.Reason,
				res.Usage.Overhead, bytesText(res.Usage.Memory), bytesText(res.Usage.Disk), res.Usage.CPU)
			if got := running(c.leaves); c.leaves != "" && len(got) != 0 {
				t.Errorf("left running: %v", got)
			}
			said := ""
			if res.Limit != "" {
				said = "\npackmill: " + res.Reason + "\n"
			}
			if l := job.Limits.Log; !strings.HasSuffix(log, said) || l > 0 && len(log) > int(l)+len(said) {
				t.Errorf("the log has %d bytes and does not end with %q", len(log), said)
			}
			if !lockFree(t, job) {
				t.Error("something still holds the lock")
			}
		})
	}
}

func TestSbuildRows(t *testing.T) {
	testRows(t, &Sbuild{Chroots: testChroots(t, "amd64")})
}

// The result directory full: sbuild says that all is well.
func TestSbuildResultFull(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Fatal("run this test as root: it mounts a small file system")
	}
	r := &Sbuild{Chroots: testChroots(t, "amd64")}
	job := newSystemJob(t)
	source{build: "head -c 3000000 /dev/urandom > x\nmkdir -p debian/hello/usr/share\ncp x debian/hello/usr/share/"}.make(t, job)
	if err := unix.Mount("tmpfs", job.Result, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(job.Result, unix.MNT_DETACH)
	// The daemon's own trouble, and nothing is judged.
	if res, err := r.Run(context.Background(), job); !errors.Is(err, unix.ENOSPC) || errors.Is(err, ErrSetup) {
		t.Errorf("got %+v, %v", res, err)
	}
}

func TestSbuildSetup(t *testing.T) {
	t.Parallel()
	job := newSystemJob(t)
	source{}.make(t, job)
	job.Suite = "nosuch"
	r := &Sbuild{Chroots: testChroots(t, "amd64")}
	if _, err := r.Run(context.Background(), job); !errors.Is(err, ErrNoChroot) || !errors.Is(err, ErrSetup) {
		t.Errorf("no chroot: %v", err)
	}
	job.Suite = "sid"
	if os.Getuid() == 0 {
		r := &Sbuild{Chroots: &Chroots{Dir: r.Chroots.Dir, User: "root"}}
		if _, err := r.Run(context.Background(), job); !errors.Is(err, ErrSetup) {
			t.Errorf("as root: %v", err)
		}
		// Debian gives no ids to nobody.
		r.Chroots.User = "nobody"
		if _, err := r.Run(context.Background(), job); !errors.Is(err, ErrSetup) ||
			!strings.Contains(err.Error(), "--add-subuids") {
			t.Errorf("without subordinate ids: %v", err)
		}
	}
	os.Remove(strings.TrimSuffix(job.Dsc, ".dsc") + ".tar.xz")
	if _, err := r.Run(context.Background(), job); os.Getuid() == 0 && err == nil {
		t.Error("no tarball: no error")
	}
}

// A stop in the middle leaves nothing.
func TestSbuildStop(t *testing.T) {
	testStop(t, &Sbuild{Chroots: testChroots(t, "amd64")})
}

func testStop(t *testing.T, r Runner) {
	job := newSystemJob(t)
	source{build: "echo in the middle; trap '' TERM INT; setsid sleep 94.3 & sleep 94.3"}.make(t, job)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stopped := make(chan time.Time, 1)
	go func() {
		for len(running("94.3")) < 2 && ctx.Err() == nil {
			time.Sleep(20 * time.Millisecond)
		}
		stopped <- time.Now()
		cancel()
	}()
	res, err := r.Run(ctx, job)
	if err != nil || !res.Stopped || res.Outcome != GiveBack {
		t.Fatalf("got %+v, %v\n%s", res, err, logText(t, job))
	}
	if took := time.Since(<-stopped); took > time.Minute {
		t.Errorf("the stop took %v", took)
	}
	if got := running("94.3"); len(got) != 0 {
		t.Errorf("left running: %v", got)
	}
	if !lockFree(t, job) {
		t.Error("something still holds the lock")
	}
	for _, m := range mounts(t) {
		if strings.Contains(m, "packmill") {
			t.Errorf("left mounted: %s", m)
		}
	}
}

func mounts(t *testing.T) []string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(data), "\n")
}

// repository makes a signed archive with one package, which may have maintainer
// scripts, as apt takes it.
func repository(t *testing.T, scripts ...map[string]string) Repo {
	t.Helper()
	dir, err := os.MkdirTemp("", "packmill-build-repo-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	home := t.TempDir()
	dist := filepath.Join(dir, "dists/local")
	bin := filepath.Join(dist, "main/binary-amd64")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	makeDeb(t, dir, "Package: ours-dev\nVersion: 4.2\nArchitecture: all\nMaintainer: A Builder <a@example.org>\n"+
		"Description: ours\n", scripts...)
	for _, line := range []string{
		"dpkg-scanpackages -m . > " + bin + "/Packages",
		"apt-ftparchive -o APT::FTPArchive::Release::Suite=local -o APT::FTPArchive::Release::Components=main -o " +
			"APT::FTPArchive::Release::Architectures=amd64 release " + dist + " > Release && mv Release " + dist,
		"gpg --homedir " + home +
			" --batch --passphrase '' --quick-generate-key 'Archive <archive@example.org>' rsa2048 sign never",
		"gpg --homedir " + home + " --batch --clearsign -o " + dist + "/InRelease " + dist + "/Release",
		"gpg --homedir " + home + " --batch --armor --export > " + dir + "/key.asc",
		"chmod -R a+rX .",
	} {
		cmd := exec.Command("sh", "-c", line)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
	exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
	key, err := os.ReadFile(filepath.Join(dir, "key.asc"))
	if err != nil {
		t.Fatal(err)
	}
	return Repo{Dir: dir, Suite: "local", Components: []string{"main"}, Key: key}
}
