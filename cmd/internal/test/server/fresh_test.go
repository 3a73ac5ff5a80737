//go:build system

package server

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// fresh is a Debian machine as its installer leaves it: minimal, with nothing of ours. People type commands there.
type fresh struct {
	t      *testing.T
	root   string
	leader string // pid of its first process
	ended  chan struct{}
	said   *[]typed
}

// typed is one command of a person's.
type typed struct {
	who, command, out string
	took              time.Duration
	errs              []string
}

// Fresh machines share one network, where the names below example.org are this address, and every other name is a
// server that passes requests for web pages on to the real one. Nothing else of the host's network is there.
const (
	freshHere    = "198.51.100.1"
	freshOutside = "198.51.100.2"
)

// freshTarball is a minimal Debian of the suite with systemd, a week old at most.
func freshTarball(t *testing.T, suite string) string {
	t.Helper()
	dir := filepath.Join(filepath.Dir(chroots().Dir), "fresh")
	tarball := filepath.Join(dir, suite+".tar")
	if fi, err := os.Stat(tarball); err == nil && time.Since(fi.ModTime()) < 7*24*time.Hour {
		return tarball
	}
	mirror := mirror(t)
	security := strings.TrimSuffix(mirror, "/") + "-security"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("mmdebstrap", "--format=tar", "--variant=minbase",
		"--include=systemd-sysv,dbus,ca-certificates,less", suite, tarball+".new",
		"deb "+mirror+" "+suite+" main", "deb "+mirror+" "+suite+"-updates main",
		"deb "+security+" "+suite+"-security main").CombinedOutput()
	if err != nil {
		t.Fatalf("mmdebstrap: %v\n%s", err, out)
	}
	if err := os.Rename(tarball+".new", tarball); err != nil {
		t.Fatal(err)
	}
	return tarball
}

// mirror is where this machine's apt has Debian from.
func mirror(t *testing.T) string {
	t.Helper()
	url := strings.Fields(base(t)[0])[1]
	if !strings.HasPrefix(url, "http://") {
		t.Fatalf("apt's mirror is %s: fresh machines reach those by http:// alone", url)
	}
	return url
}

// newFresh unpacks a machine and starts it: booted by systemd, on a network of its own; or, beside another one, with
// nothing but a process that waits, on the network of that one.
func newFresh(t *testing.T, name, suite string, beside *fresh) *fresh {
	t.Helper()
	m := &fresh{t: t, root: "/var/lib/packmill-fresh-" + suite + "-" + name, said: new([]typed)}
	m.host("rm", "-rf", m.root)
	t.Cleanup(func() { exec.Command("rm", "-rf", "--one-file-system", m.root).Run() })
	m.host("mkdir", "-p", m.root)
	m.host("tar", "-C", m.root, "--numeric-owner", "--exclude=./dev/*", "-xf", freshTarball(t, suite))
	for file, text := range map[string]string{
		"etc/resolv.conf": "nameserver " + freshOutside + "\n", "etc/hostname": name + "\n",
		"etc/hosts":      "127.0.0.1 localhost\n" + freshHere + " " + name + ".example.org " + name + "\n",
		"etc/machine-id": "uninitialized\n", "etc/dpkg/dpkg.cfg.d/unsafe": "force-unsafe-io\n",
		"etc/systemd/network/eth0.network": "[Match]\nName=eth0\n[Network]\nAddress=" + freshHere +
			"/24\nLinkLocalAddressing=no\n",
	} {
		m.host("rm", "-f", filepath.Join(m.root, file))
		if err := os.WriteFile(filepath.Join(m.root, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if beside == nil {
		m.boot()
	} else {
		m.said = beside.said
		m.start("sleep", "--network-namespace-path=/proc/"+beside.leader+"/ns/net", "--as-pid2", "sleep", "infinity")
	}
	return m
}

// boot lets systemd start the machine, as it does a second time after down.
func (m *fresh) boot() {
	m.t.Helper()
	m.start("systemd", "--private-network", "--boot")
	m.network()
	m.sees("systemctl enable --now systemd-networkd systemd-networkd-wait-online")
	m.until("it has booted", func() bool {
		out, _ := m.try("systemctl is-system-running")
		return out == "running\n" || out == "degraded\n"
	})
	// Who sees /proc masked, as in this container, may mount no other; no machine of its own has it so.
	m.sh("mkdir /dev/proc; mount -t proc proc /dev/proc")
}

// down shuts it down in order.
func (m *fresh) down() {
	m.t.Helper()
	m.sh("systemctl poweroff --no-block")
	select {
	case <-m.ended:
		m.leader = ""
	case <-time.After(longPatience):
		m.t.Fatal("it does not shut down")
	}
}

// start lets systemd-nspawn run, and finds the machine's first process of that name.
func (m *fresh) start(first string, more ...string) {
	m.t.Helper()
	args := append([]string{"-q", "--register=no", "--keep-unit", "--resolv-conf=off", "--timezone=off", "-D",
		m.root}, more...)
	boot := exec.Command("systemd-nspawn", args...)
	boot.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1") // Debian 13's takes no other
	var console bytes.Buffer
	boot.Stdout, boot.Stderr = &console, &console
	if err := boot.Start(); err != nil {
		m.t.Fatal(err)
	}
	ended := make(chan struct{})
	m.ended = ended
	go func() { boot.Wait(); close(ended) }()
	m.t.Cleanup(func() {
		if m.t.Failed() && first == "systemd" && m.leader != "" {
			out, _ := m.try("systemctl --failed; journalctl -n 60 --no-pager -o cat")
			m.t.Logf("the machine's journal:\n%s", out)
		}
		boot.Process.Signal(unix.SIGKILL)
		if m.leader != "" {
			exec.Command("kill", "-KILL", m.leader).Run()
		}
		<-ended
	})
	m.until(first+" runs in "+m.root, func() bool {
		select {
		case <-ended:
			m.t.Fatalf("systemd-nspawn %q has ended:\n%s", args, console.String())
		default:
		}
		out, _ := exec.Command("sh", "-c", "for p in $(pgrep -x "+first+"); do "+
			"[ ! /proc/$p/root/ -ef "+m.root+"/ ] || { echo $p; break; }; done").Output()
		m.leader = strings.TrimSpace(string(out))
		return m.leader != ""
	})
}

// network brings up the machine's network, and the servers in it that the host's side of this test is. They have a
// namespace of their own at the other end of a cable, so that each port of the machine is its own.
func (m *fresh) network() {
	m.t.Helper()
	var web net.Listener
	var names net.PacketConn
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and it ends with this goroutine, since its network is another
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = exec.Command("sh", "-euc", `ip link add outside type veth peer name eth0 netns "$1"
				ip addr add "$2/24" dev outside; ip link set outside up`, "sh", m.leader, freshOutside).Run()
		}
		if err == nil {
			web, err = net.Listen("tcp", freshOutside+":80")
		}
		if err == nil {
			names, err = net.ListenPacket("udp", freshOutside+":53")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		m.t.Fatal(err)
	}
	pass := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", r.In.Host, r.In.Host
	}}
	go http.Serve(web, pass)
	go answerNames(names)
	m.t.Cleanup(func() { web.Close(); names.Close() })
}

// answerNames is a name server that knows one address for all names below example.org, and another for the rest.
func answerNames(conn net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		end := 12 // of the question, which is the first thing behind the header
		for end < n && buf[end] != 0 {
			end += 1 + int(buf[end])
		}
		if end += 5; end > n {
			continue
		}
		address := freshOutside
		if bytes.Contains(buf[12:end], []byte("\x07example\x03org\x00")) {
			address = freshHere
		}
		a := append([]byte{}, buf[:end]...)
		copy(a[2:], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0})
		if binary.BigEndian.Uint16(a[end-4:]) == 1 { // A
			a[7] = 1
			a = append(a, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4)
			a = append(a, net.ParseIP(address).To4()...)
		}
		conn.WriteTo(a, from)
	}
}

func (m *fresh) host(name string, args ...string) {
	m.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		m.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// give copies a file of the host's there.
func (m *fresh) give(from, to string) {
	m.t.Helper()
	m.host("install", "-D", "-m", "644", from, filepath.Join(m.root, to))
}

// try runs a shell script as root of the machine.
func (m *fresh) try(script string) (string, error) {
	cmd := exec.Command("nsenter", "-t", m.leader, "-a", "env", "-i",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "TERM=xterm",
		"DEBIAN_FRONTEND=noninteractive", "sh", "-euc", "cd; "+script)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m *fresh) sh(script string) string {
	m.t.Helper()
	out, err := m.try(script)
	if err != nil {
		m.t.Fatalf("on %s: %s: %v\n%s", m.root, script, err, out)
	}
	return strings.TrimSpace(out)
}

// longPatience is how long anything may take on a machine that others load.
const longPatience = 15 * time.Minute

func (m *fresh) until(what string, is func() bool) {
	m.t.Helper()
	for end := time.Now().Add(longPatience); !is(); time.Sleep(300 * time.Millisecond) {
		if time.Now().After(end) {
			m.t.Fatalf("after %v still not: %s", longPatience, what)
		}
	}
}

// sees waits until a shell script succeeds there.
func (m *fresh) sees(script string) {
	m.t.Helper()
	m.until(script, func() bool { _, err := m.try(script); return err == nil })
}

// quote makes one word of the shell's of a text.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// types lets a person type a command at a terminal of 80x24, and gives what was to be read there. An end with another
// status than 0 ends the test; what reads like an error is kept.
func (m *fresh) types(person, command string) string {
	m.t.Helper()
	terminal := "stty cols 80 rows 24; " + command
	if strings.Contains(command, "apt ") {
		// Where there is no terminal it asks nothing; a person says yes.
		terminal = "set -o pipefail; { " + strings.ReplaceAll(command, "apt install", "apt install -y") +
			"; } </dev/null 2>&1 | cat"
	}
	script := "script -qefc " + quote("bash -c "+quote(terminal)) + " /dev/null"
	if person != "root" {
		script = "runuser -l " + person + " -c " + quote("export PACKMILL_PAGER=cat TERM=xterm LC_ALL=C.UTF-8; "+script)
	}
	start := time.Now()
	out, err := m.try(script)
	c := typed{who: person, command: command, out: plain(out), took: time.Since(start), errs: complaints(plain(out))}
	if err != nil {
		c.errs = append(c.errs, err.Error())
	}
	*m.said = append(*m.said, c)
	m.t.Logf("%s# %s   (%.1f s)\n%s", person, command, c.took.Seconds(), c.out)
	if err != nil && !strings.HasPrefix(command, "packmill doctor") { // what it finds ends nothing
		m.t.Fatalf("%s types %s: %v", person, command, err)
	}
	return c.out
}

var (
	escapes = regexp.MustCompile("\x1b(\\[[0-9;?]*[a-zA-Z]|[()][A-Z0-9]|[=>78]|\\][^\x07]*\x07)")
	// What one reads as an error, and lines of apt's and dpkg's about packages, which may be called so.
	bad = regexp.MustCompile(`(?i)^[EWN]: |\b(error|warning|failed|fails|cannot|can't|could not|unable|denied|refused|` +
		`no such|not found|missing)\b`)
	harmless = regexp.MustCompile(`^((Get|Hit|Ign):\d|Selecting|Preparing|Unpacking|Setting up|Processing|  )|` +
		`^debconf: |^update-rc.d: warning: start|` +
		`^update-alternatives: warning: skip creation of|invoke-rc.d|policy-rc.d|does not have a stable CLI|unsandboxed|` +
		`^dh\w*: warning: Compatibility levels before`)
)

// plain is what is left on a terminal of what was written to it.
func plain(out string) string {
	var lines []string
	for line := range strings.Lines(escapes.ReplaceAllString(out, "")) {
		line = strings.TrimRight(line, "\r\n")
		lines = append(lines, line[strings.LastIndex(line, "\r")+1:])
	}
	return strings.Join(lines, "\n")
}

// complaints are the lines that a person takes for errors.
func complaints(text string) (found []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, " \n"); bad.MatchString(line) && !harmless.MatchString(line) {
			found = append(found, line)
		}
	}
	return found
}

// wide are the lines that a terminal of 80 columns wraps, but for those with a path that no break would help.
func wide(text string) (found []string) {
	long := func(word string) bool { return len(word) > 60 && strings.Contains(word, "/") }
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if utf8.RuneCountInString(line) > 80 && !slices.ContainsFunc(strings.Fields(line), long) {
			found = append(found, line)
		}
	}
	return found
}

// table is what each person typed, how long it took, and what read like an error.
func table(all []typed) string {
	var b strings.Builder
	for _, who := range []string{"root", "alice", "rita", "client"} {
		n, sum := 0, time.Duration(0)
		var rows strings.Builder
		for _, c := range all {
			if c.who == who {
				n, sum = n+1, sum+c.took
				fmt.Fprintf(&rows, "%8.1f s  %s\n", c.took.Seconds(), c.command)
				for _, e := range c.errs {
					fmt.Fprintf(&rows, "            !! %s\n", e)
				}
			}
		}
		fmt.Fprintf(&b, "%s: %d commands, %.1f minutes\n%s", who, n, sum.Minutes(), rows.String())
	}
	return b.String()
}
