//go:build system

package stories

import (
	"debug/elf"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"packmill/internal/deb/debtest"
	"packmill/queue/runner"
	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

var long = flag.Bool("stories.long", false,
	"build for arm64 too, emulated and crossed, in chroots that packmill makes: half an hour; scripts/test long")

// chroots are kept from one run to the next, as the tests of queue/runner keep
// them: of this machine's own release, under the name sid.
func chroots(t *testing.T) *runner.Chroots {
	t.Helper()
	dir := os.Getenv("PACKMILL_TEST_CACHE")
	if dir == "" {
		t.Fatal("no PACKMILL_TEST_CACHE: run scripts/test system ./cmd/internal/test/stories")
	}
	c := &runner.Chroots{Dir: filepath.Join(dir, "chroots")}
	if os.Getuid() == 0 {
		c.User = os.Getenv("PACKMILL_BUILD_USER")
	}
	return c
}

func base(t *testing.T) string {
	t.Helper()
	lines, err := runner.SystemBase()
	if err != nil {
		t.Fatal(err)
	}
	return lines[0]
}

// realMill is a mill with the suite sid for one architecture, whose builder is
// a real one: what it says comes from lines.
func realMill(t *testing.T, arch string, lines ...string) *mill {
	t.Helper()
	m := newMill(t)
	m.control("suites", fmt.Sprintf("Suite: sid\nArchitectures: %s\nReview: never\nSign-With: private/archive.key\n"+
		"Base: %s", arch, base(t)))
	old, err := os.ReadFile(filepath.Join(m.tree, "control/builders"))
	m.must(err)
	stanza, _, _ := strings.Cut(string(old), "Jobs: 2")
	stanza = strings.Replace(stanza, "amd64 i386 all", arch, 1)
	c := chroots(t)
	if c.User != "" {
		stanza += "User: " + c.User + "\n"
	}
	if !strings.Contains(strings.Join(lines, "\n"), "Chroots:") {
		stanza += "Chroots: " + c.Dir + "\n"
	}
	m.control("builders", stanza+strings.Join(lines, "\n"))
	return m
}

// sleepers counts the processes that sleep for so long.
func sleepers(time string) (n int) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		if data, err := os.ReadFile(path); err == nil && string(data) == "sleep\x00"+time+"\x00" {
			n++
		}
	}
	return n
}

// A real build, without network and as nice as its builder is set, is followed
// from elsewhere and cancelled in the middle: all that it started is gone then,
// and its item says who wanted it and why.
func TestCancelReal(t *testing.T) {
	c := chroots(t)
	if _, err := c.Fresh(t.Context(), runner.Recipe{Suite: "sid", Arch: runner.Machine(), Base: []string{base(t)}}, 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	ours, err := exec.Command("nice").Output()
	if err != nil {
		t.Fatal(err)
	}
	nice, err := strconv.Atoi(strings.TrimSpace(string(ours)))
	if err != nil {
		t.Fatal(err)
	}
	settings := fmt.Sprintf("! bash -c ': > /dev/tcp/127.0.0.1/%d' && test $$(nice) = %d",
		l.Addr().(*net.TCPAddr).Port, min(nice+3, 19))
	for name, nap := range map[string]string{"overlay": "97.31", "sbuild": "97.32"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := realMill(t, runner.Machine(), "Runner: "+name, "Nice: 3")
			p := uploadtest.Package{Source: "stays", Version: "1.0", Distribution: "sid", Debian: func(files map[string]string) {
				files["rules"] = strings.Replace(files["rules"], "/usr/bin\n",
					"/usr/bin\n\t"+settings+"\n\techo in the middle; trap '' TERM INT; setsid sleep "+nap+" & sleep "+nap+"\n", 1)
			}}
			m.queued(p)
			out, end := m.follow("stays")
			r := m.start("buildd-" + runner.Machine())
			m.until("the build is in the middle, and its follower sees it", func() bool {
				return sleepers(nap) == 2 && strings.Contains(out.String(), "\nin the middle\n")
			})
			begin := time.Now()
			m.packmill("cancel", "stays", runner.Machine(), "-m", "the wrong branch")
			m.until("all that the build started is gone", func() bool { return sleepers(nap) == 0 })
			t.Logf("gone after %v", time.Since(begin).Round(time.Millisecond))
			if status := end(); status != 4 || !strings.Contains(out.String(), "the wrong branch") {
				t.Errorf("log -f of a cancelled build ended with %d\n%s", status, tail(out.String()))
			}
			if show := m.packmill("show", "stays"); !strings.Contains(show, "Cancelled by ") ||
				!strings.Contains(show, "the wrong branch") {
				t.Errorf("packmill show:\n%s", show)
			}
			// Of the daemon's children none is left, and no mount.
			children, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", r.cmd.Process.Pid))
			if err != nil || len(children) != 0 {
				t.Errorf("children of buildd: %q, %v", children, err)
			}
			mounts, err := os.ReadFile("/proc/self/mountinfo")
			if err != nil || strings.Contains(string(mounts), m.tree) {
				t.Errorf("mounts: %v\n%s", err, mounts)
			}
			m.sound()
		})
	}
}

// A build for a suite that is not automatic gets the suite's own newer packages, though its
// Base has older ones: with either runner.
func TestNotAutomaticReal(t *testing.T) {
	c := chroots(t)
	arch := runner.Machine()
	if _, err := c.Fresh(t.Context(), runner.Recipe{Suite: "sid", Arch: arch, Base: []string{base(t)}}, 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"overlay", "sbuild"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := realMill(t, arch, "Runner: "+name)
			m.control("suites", strings.TrimSpace(m.suites())+"\nNot-Automatic: yes")
			for _, dir := range []string{filepath.Dir(m.tree), filepath.Dir(filepath.Dir(m.tree))} {
				m.must(os.Chmod(dir, 0o755)) // the build user reads the archive
			}
			dir := t.TempDir()
			changes, err := debtest.Upload{Source: debtest.Source{Name: "figlet", Version: "99"},
				Debs: []debtest.Deb{{Name: "figlet", Version: "99", Arch: arch}}}.Write(dir)
			m.must(err)
			m.packmill("archive", "include", "sid", changes)
			m.queued(uploadtest.Package{Source: "app", Version: "1.0", Distribution: "sid", BuildDepends: "figlet (>= 99)"})
			m.once("buildd-" + arch)
			m.has(m.where(), "uploaded "+arch+" app_1.0")
			if t.Failed() {
				t.Log(m.packmill("why", "app"), m.logs())
			}
		})
	}
}

// A builder whose machine cannot do it takes no job and counts no attempt; the
// person hears from why and status what to install.
func TestCannotBuild(t *testing.T) {
	t.Parallel()
	for _, runner := range []string{"sbuild", "overlay"} {
		m := realMill(t, "ia64", "Runner: "+runner) // which nothing emulates
		m.queued(uploadtest.Package{Source: "hello", Version: "1.0", Distribution: "sid"})
		m.start("buildd-ia64")
		const cure = "qemu-user-static"
		m.until("packmill why says what to install", func() bool {
			return strings.Contains(m.packmill("why", "hello"), cure)
		})
		if out := m.packmill("status"); !strings.Contains(out, "takes nothing for ia64: ") || !strings.Contains(out, cure) {
			t.Errorf("status: %s", out)
		}
		m.want(m.where(), "master source hello_1.0", "needs-build ia64 hello_1.0")
		if got := m.ticket("hello", "Tries"); got != "" && got != "0" {
			t.Errorf("attempts: %s", got)
		}
		out, err := m.try("chroot", "create", "sid", "ia64")
		if err == nil || !strings.Contains(out, cure) || err.(*exec.ExitError).ExitCode() != 100 {
			t.Errorf("chroot create: %v: %s", err, out)
		}
	}
	// schroot cannot switch the network off.
	m := realMill(t, runner.Machine(), "Runner: sbuild\nChroot-Mode: schroot")
	m.queued(uploadtest.Package{Source: "hello", Version: "1.0", Distribution: "sid"})
	m.buildd("--arch", runner.Machine())
	if out := m.packmill("why", "hello"); !strings.Contains(out,
		"leaves the network on in builds, and the suite has no Build-Network: yes") {
		t.Errorf("why: %s", out)
	}
	m.want(m.where(), "master source hello_1.0", "needs-build "+runner.Machine()+" hello_1.0")
}

// TestForeign takes a program in C from its upload to the archive for an
// architecture that is not the machine's.
func TestForeign(t *testing.T) {
	if !*long {
		t.Skip("takes half an hour: scripts/test long ./cmd/internal/test/stories")
	}
	if err := runner.Runs("arm64"); err != nil {
		t.Fatalf("%v; or run scripts/test long, which does", err)
	}
	for _, lines := range []string{"Runner: sbuild", "Runner: overlay",
		"Runner: sbuild\nCross-From: " + runner.Machine()} {
		t.Run(strings.ReplaceAll(lines, "\n", " "), func(t *testing.T) {
			m := realMill(t, "arm64", lines)
			on := "arm64"
			if strings.Contains(lines, "Cross-From") {
				on = runner.Machine()
			}
			if out := m.packmill("chroot", "ls"); !strings.Contains(out, "sid-"+on+" ") {
				t.Log(m.packmill("chroot", "create", "sid", on))
			}
			m.queued(uploadtest.Package{Source: "greets", Version: "1.0", Distribution: "sid",
				Debian: compiles("greets")})
			start := time.Now()
			m.buildd("--arch", "arm64")
			took := time.Since(start)
			for _, d := range []string{"archived", "master-buildd", "archived"} {
				m.once(d)
			}
			m.want(m.where(), "installed arm64 greets_1.0", "installed source greets_1.0")
			deb := filepath.Join(m.tree, "archive/pool/main/g/greets/greets_1.0_arm64.deb")
			if got := machineOf(t, deb, "greets"); got != elf.EM_AARCH64 {
				t.Errorf("a program for %v", got)
			}
			t.Logf("built in %v", took.Round(100*time.Millisecond))
		})
	}
}

// compiles makes a package's build that of a program in C, NAME-elf.
func compiles(name string) func(files map[string]string) {
	return func(files map[string]string) {
		files["rules"] = strings.Replace(files["rules"], "/usr/bin\n",
			"/usr/bin\n\techo 'int main() { return 0; }' > x.c\n"+
				"\t$$(dpkg-architecture -qDEB_HOST_GNU_TYPE)-gcc -o debian/tmp-"+name+"/usr/bin/"+name+"-elf x.c\n", 1)
	}
}

// machineOf is what the program in a package of compiles runs on.
func machineOf(t *testing.T, deb, name string) elf.Machine {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("dpkg-deb", "-x", deb, dir).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb -x %s: %v: %s", deb, err, out)
	}
	f, err := elf.Open(filepath.Join(dir, "usr/bin", name+"-elf"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return f.Machine
}

// TestChroots: what a person and cron do with chroots, while a build runs in
// one of them. The long form makes real ones.
func TestChroots(t *testing.T) {
	t.Parallel()
	c, arch := chroots(t), runner.Machine()
	if _, err := c.Fresh(t.Context(), runner.Recipe{Suite: "sid", Arch: arch, Base: []string{base(t)}}, 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	// The same chroot in a directory that is this test's own.
	dir, err := os.MkdirTemp(filepath.Dir(c.Dir), "verbs-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if out, err := exec.Command("sh", "-c", "chmod 755 $2 && cp -al $1/sid-$3 $2/ && rm -rf $2/*/*/layers",
		"sh", c.Dir, dir, arch).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m := realMill(t, arch, "Runner: overlay\nChroots: "+dir)
	name := "sid-" + arch
	chroot := func(args ...string) (string, int) {
		t.Helper()
		out, err := m.try(append([]string{"chroot"}, args...)...)
		if err == nil {
			return out, 0
		}
		return out, err.(*exec.ExitError).ExitCode()
	}
	says := func(want string, status int, args ...string) {
		t.Helper()
		if out, got := chroot(args...); got != status || !strings.Contains(out, want) || want == "" && out != "" {
			t.Errorf("packmill chroot %s: %d, want %d and %q:\n%s", strings.Join(args, " "), got, status, want, out)
		}
	}
	says("packmill chroot create stable", 0, "--help")
	says("(default: 20h)", 0, "update", "--help")
	says("", 0, "update", "--max-age", "9999h")
	says("would make the chroot "+name+" in "+dir+": it is ", 0, "update", "-n", "--max-age", "1ns")
	says("would make the chroot "+name+" in "+dir+"\n", 0, "create", "sid", arch, "-n")
	says("there is no suite nosuch", 100, "create", "nosuch", arch)
	says("no builder of control/builders builds for sid in a chroot of s390x", 100, "create", "sid", "s390x")
	says("there is no builder nosuch", 100, "update", "--builder", "nosuch")
	says("there is no chroot sid-s390x", 100, "rm", "sid", "s390x")
	says("would remove "+name, 0, "rm", "sid", arch, "-n")

	const nap = "97.33"
	m.queued(uploadtest.Package{Source: "stays", Version: "1.0", Distribution: "sid",
		Debian: func(files map[string]string) {
			files["rules"] = strings.Replace(files["rules"], "/usr/bin\n", "/usr/bin\n\tsleep "+nap+"; test -x /usr/bin/gcc\n",
				1)
		}})
	m.start("buildd-" + arch)
	m.until("the build runs", func() bool { return sleepers(nap) == 1 })
	says(`"Arch":"`+arch+`"`, 0, "ls", "--json")
	says(`"Builds":true`, 0, "ls", "--json")
	m.control("suites", strings.Replace(strings.TrimSpace(m.suites()), "Base: deb ", "Base: deb [arch="+arch+"] ", 1))
	says("would make the chroot "+name+" in "+dir+": the suite's Base has changed",
		0, "update", "-n", "--max-age", "9999h")
	if *long {
		if out, status := chroot("update", "--max-age", "9999h"); status != 0 ||
			!strings.Contains(out, "; this takes about half a minute\n") ||
			!strings.Contains(out, "I: installing") || !strings.Contains(out, "made "+name+" in ") {
			t.Errorf("update: %d\n%s", status, out)
		}
		says("", 0, "update", "--max-age", "9999h")
		if all, _ := filepath.Glob(filepath.Join(dir, name, "*", "root")); len(all) != 2 {
			t.Errorf("while a build runs in the old one: %v", all)
		}
		says(`"Arch":"`+arch+`"`, 0, "create", "sid", arch, "--json")
	}
	says("removed "+name, 0, "rm", "sid", arch)
	says("there is no chroot "+name, 100, "rm", "sid", arch)
	says("there is none yet", 0, "update", "-n")
	// The build goes on in what was removed.
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		if data, err := os.ReadFile(path); err == nil && string(data) == "sleep\x00"+nap+"\x00" {
			pid := filepath.Base(filepath.Dir(path))
			if out, err := exec.Command("kill", "-KILL", pid).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		}
	}
	m.until("the build ends", func() bool { return len(m.found("stays", spool.Building)) == 0 })
	m.want(m.where(), "uploaded amd64 stays_1.0", "master source stays_1.0")
}
