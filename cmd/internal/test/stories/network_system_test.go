//go:build system

package stories

import (
	"debug/elf"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/queue/runner"
	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// line is a builder with a network of its own.
type line struct {
	*far
	cut  func()
	mend func() // nil: it needs none
}

// lines makes builders whose network can be cut, or is slow or far away. Each builds the source of its own name.
func (f *farm) lines() (all []*line) {
	f.Helper()
	master, hosts := newHosts(f.T, 4)
	f.sshd(master, hostPort)
	hosts[3].slow(master, 5000)
	delayed := fmt.Sprint("-p ", delayed(f.T, f.port, 300*time.Millisecond))
	for i, x := range []*line{
		{cut: func() { hosts[0].lose(master, true) }, mend: func() { hosts[0].mend(master, true) }},
		{cut: func() { hosts[1].lose(master, false) }, mend: func() { hosts[1].mend(master, false) }},
		{cut: hosts[2].reset},
		{},
		{},
	} {
		name := []string{"lost", "halfopen", "reset", "slow", "away"}[i]
		if i < len(hosts) {
			x.far = f.builder(name, "amd64", hosts[i], "Packages: "+name)
		} else {
			x.far = f.builder(name, "amd64", nil, "Packages: "+name)
			x.ssh = strings.Replace(x.ssh, fmt.Sprint("-p ", f.port), delayed, 1)
		}
		all = append(all, x)
	}
	return all
}

// TestFarNetwork: a network that loses all packets, or those of one direction, that resets connections, that is slow or
// far away, costs time and nothing else.
func TestFarNetwork(t *testing.T) {
	f := newFarm(t)
	const logged, logLine = 1000, "a line of the log"
	text, release := filepath.Join(f.home, "text"), filepath.Join(f.home, "release")
	f.must(os.WriteFile(text, []byte(strings.Repeat(logLine+"\n", logged)), 0o644))
	all := f.lines()
	for _, x := range all {
		x.call()
		f.script(x.name+"_1_amd64", "print "+text+"\nwait "+release)
		f.drop(uploadtest.Package{Source: x.name, Version: "1", Distribution: "stable"})
	}
	f.daemon("reviewd")
	f.daemon("master-buildd")
	f.until("all are being built", func() bool { return len(f.builds()) == len(all) })
	for _, x := range all {
		if x.cut != nil {
			x.cut()
		}
	}
	for _, x := range all {
		f.until("the builder notices: "+x.name, func() bool {
			return x.cut == nil || strings.Contains(x.log.String(), "not connected")
		})
		f.until("the master notices: "+x.name, func() bool {
			return x.mend == nil ||
				strings.Contains(f.packmill("builder", "ls"), x.name+"  amd64  away; has "+x.name+"_1 amd64")
		})
	}
	f.must(os.WriteFile(release, nil, 0o644))
	f.until("the builds have ended", func() bool { return f.ended() == len(all) })
	var want []string
	for _, x := range all {
		if x.mend != nil {
			x.mend()
		}
		want = append(want, "installed amd64 "+x.name+"_1", "installed source "+x.name+"_1")
	}
	for _, x := range all {
		f.until(x.name+" is built", func() bool { return len(f.found(x.name, spool.NeedsBuild, spool.Building)) == 0 })
		if n := f.builds()[x.name+"_1_amd64"]; n != 1 {
			t.Errorf("%s was built %d times", x.name, n)
		}
		if n := strings.Count(f.packmill("log", x.name, "amd64"), logLine+"\n"); n != logged {
			t.Errorf("%s: %d lines of its log came, want %d", x.name, n, logged)
		}
	}
	f.daemon("master-buildd")
	f.daemon("archived")
	f.want(f.where(), want...)
	f.sound()
}

// ended is how many builds of the instant builder have ended.
func (m *mill) ended() int {
	m.Helper()
	data, err := os.ReadFile(filepath.Join(m.home, "builds"))
	m.must(err)
	return strings.Count(string(data), " end ")
}

// delayed listens at the loopback, and passes on to another port there what comes, so much later.
func delayed(t *testing.T, to int, delay time.Duration) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", to))
			if err != nil {
				near.Close()
				continue
			}
			go later(far, near, delay)
			go later(near, far, delay)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// later copies with a delay, whatever the number of bytes that are on their way.
func later(to, from net.Conn, delay time.Duration) {
	type piece struct {
		data []byte
		at   time.Time
	}
	way := make(chan piece, 1<<16)
	go func() {
		defer to.Close()
		for p := range way {
			time.Sleep(time.Until(p.at))
			if _, err := to.Write(p.data); err != nil {
				return
			}
		}
	}()
	defer close(way)
	for {
		buf := make([]byte, 32<<10)
		n, err := from.Read(buf)
		if n > 0 {
			way <- piece{buf[:n], time.Now().Add(delay)}
		}
		if err != nil {
			if err != io.EOF {
				from.Close()
			}
			return
		}
	}
}

// TestFarChain: fifty packages, each of which needs the one before, come through four builders, each with a network
// and an ssh session of its own, while all daemons run.
func TestFarChain(t *testing.T) {
	const length = 50
	f := newFarm(t)
	master, hosts := newHosts(t, 4)
	f.sshd(master, hostPort)
	for i, h := range hosts {
		f.builder(fmt.Sprint("far", i), "amd64", h).call()
	}
	for _, d := range []string{"reviewd", "master-buildd", "archived"} {
		f.start(d)
	}
	for i := range length {
		p := uploadtest.Package{Source: fmt.Sprintf("link%02d", i), Version: "1", Distribution: "stable"}
		if i > 0 {
			p.BuildDepends = fmt.Sprintf("link%02d", i-1)
		}
		f.drop(p)
	}
	begun := time.Now()
	for i := range length {
		link := fmt.Sprintf("link%02d", i)
		f.until(link+" is installed", func() bool { return len(f.found(link, spool.Installed)) == 2 })
	}
	t.Logf("%d packages in %s", length, time.Since(begun).Round(time.Second))
	who := map[string]int{}
	for i := range length {
		who[f.by(fmt.Sprintf("link%02d", i), "amd64")]++
	}
	t.Logf("built by %v", who)
	if len(who) < 2 {
		t.Errorf("one builder of four built all: %v", who)
	}
	f.sound()
}

// TestFarHosts: a master and three builders, each a host with a network of its own and no other line than to the
// master's sshd, build for two architectures: one with the overlay runner and one with sbuild, in real chroots, where
// they install what the suite's own archive has through the session.
func TestFarHosts(t *testing.T) {
	if runner.Machine() != "amd64" {
		t.Skip("arm64 is the foreign architecture here")
	}
	f := farIn(t, "amd64 arm64", "amd64")
	master, hosts := newHosts(t, 3)
	f.sshd(master, hostPort)
	f.real("fast", "amd64", "overlay", hosts[0], "Packages: lib apart")
	f.real("plain", "amd64", "sbuild", hosts[1], "Packages: app")
	f.builder("board", "arm64", hosts[2]).call()
	all := []uploadtest.Package{{Source: "lib"}, {Source: "app", BuildDepends: "lib"},
		{Source: "apart", BuildDepends: "app"}}
	var want []string
	for _, p := range all {
		p.Version, p.Distribution = "1", "sid"
		f.published(p)
		for _, arch := range []string{"amd64", "arm64", "source"} {
			want = append(want, fmt.Sprintf("installed %s %s_1", arch, p.Source))
		}
	}
	f.want(f.where(), want...)
	for source, says := range map[string][]string{
		"app":   {"sbuild (Debian sbuild) ", "Unpacking lib (1)"},
		"apart": {"Unpacking app (1)"},
	} {
		out := f.packmill("log", source, "amd64")
		for _, x := range append(says, "Status: successful") {
			if !strings.Contains(out, x) {
				t.Errorf("%s: no %q in the log of its build in a chroot:\n%s", source, x, tail(out))
			}
		}
		if by := f.by(source, "amd64"); by != map[string]string{"app": "plain", "apart": "fast"}[source] {
			t.Errorf("%s was built by %s", source, by)
		}
	}
	f.sound()
}

// TestFarForeign: a master that is amd64 gets what it publishes for arm64 from a builder on another machine, which
// runs programs of arm64 or cross-builds, since its stanza at the master says so.
func TestFarForeign(t *testing.T) {
	if !*long {
		t.Skip("takes many minutes: scripts/test long ./cmd/internal/test/stories")
	}
	if runner.Machine() != "amd64" {
		t.Skip("arm64 is the foreign architecture here")
	}
	app := uploadtest.Package{Source: "app", BuildDepends: "lib"}
	t.Run("emulated", func(t *testing.T) {
		if err := runner.Runs("arm64"); err != nil {
			t.Fatalf("%v; or run scripts/test long, which does", err)
		}
		f := farIn(t, "amd64 arm64", "amd64", "arm64")
		master, hosts := newHosts(t, 2)
		f.sshd(master, hostPort)
		f.real("fast", "amd64", "overlay", hosts[0])
		f.real("board", "arm64", "overlay", hosts[1])
		f.foreign("board", uploadtest.Package{Source: "lib"}, app)
		if out := f.packmill("log", "app", "arm64"); !strings.Contains(out, "Unpacking lib (1)") {
			t.Errorf("app was built without the suite's own lib:\n%s", tail(out))
		}
	})
	t.Run("crossed", func(t *testing.T) {
		f := farIn(t, "amd64 arm64", "amd64")
		master, hosts := newHosts(t, 1)
		f.sshd(master, hostPort)
		f.real("fast", "amd64", "overlay", hosts[0])
		// Its chroot gets the cross compiler from Debian's mirror: it has this machine's network.
		f.real("cross", "arm64", "sbuild", nil, "Cross-From: amd64")
		f.foreign("cross", uploadtest.Package{Source: "lib"})
	})
}

// foreign takes programs in C to the archive, and apt of amd64 fetches those for arm64, which one builder has built.
func (f *farm) foreign(by string, all ...uploadtest.Package) {
	f.Helper()
	var want []string
	for _, p := range all {
		p.Version, p.Distribution, p.Debian = "1", "sid", compiles(p.Source)
		begun := time.Now()
		f.published(p)
		f.Logf("%s: %s", p.Source, time.Since(begun).Round(time.Second))
		for _, arch := range []string{"amd64", "arm64", "source"} {
			want = append(want, fmt.Sprintf("installed %s %s_1", arch, p.Source))
		}
	}
	f.want(f.where(), want...)
	archive := filepath.Join(f.tree, "archive")
	apt := aptOf(f.T, "deb [signed-by="+archive+"/keys/sid.asc] file:"+archive+" sid main", "", "amd64", "arm64")
	f.Chdir(f.TempDir())
	for _, p := range all {
		if got := f.by(p.Source, "arm64"); got != by {
			f.Errorf("%s was built by %s, want %s", p.Source, got, by)
		}
		aptRun(f.T, apt, "apt-get", "download", p.Source+":arm64")
		if got := machineOf(f.T, p.Source+"_1_arm64.deb", p.Source); got != elf.EM_AARCH64 {
			f.Errorf("%s: apt got a program for %v", p.Source, got)
		}
	}
	f.sound()
}

// farIn makes a farm with the suite sid, for real builds in chroots of some architectures.
func farIn(t *testing.T, archs string, in ...string) *farm {
	t.Helper()
	for _, arch := range in {
		recipe := runner.Recipe{Suite: "sid", Arch: arch, Base: []string{base(t)}}
		if _, err := chroots(t).Fresh(t.Context(), recipe, 24*time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	f := newFarm(t, "Architectures: "+archs)
	f.control("suites", strings.Replace(f.suites(), "Suite: stable", "Suite: sid", 1))
	f.daemon("archived")
	return f
}

// real starts a builder that builds in chroots; lines are of its stanza at the master.
func (f *farm) real(name, arch, how string, at *host, lines ...string) {
	f.Helper()
	c := chroots(f.T)
	b := f.builder(name, arch, at, lines...)
	b.settings("builders", "Name: me\nArchitectures: "+arch+"\nRunner: "+how+"\nChroots: "+c.Dir)
	b.runAs(c.User)
	b.call()
}

// published takes an upload to the archive.
func (f *farm) published(p uploadtest.Package) {
	f.Helper()
	f.drop(p)
	f.daemon("reviewd")
	f.daemon("master-buildd")
	f.within(30*time.Minute, p.Source+" is built", func() bool {
		return len(f.found(p.Source, spool.NeedsBuild, spool.Building)) == 0
	})
	f.daemon("master-buildd")
	f.daemon("archived")
}

// by is the builder that built a package which is installed.
func (f *farm) by(source, arch string) string {
	f.Helper()
	for _, x := range f.found(source, spool.Installed) {
		if x.Arch() == arch {
			ticket, err := os.ReadFile(filepath.Join(f.tree, x.Dir(), spool.TicketFile))
			f.must(err)
			_, rest, _ := strings.Cut(string(ticket), "Builder: buildd/")
			name, _, _ := strings.Cut(rest, "\n")
			return name
		}
	}
	return ""
}
