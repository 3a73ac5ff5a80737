//go:build system

package stories

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// host is a machine as far as its network goes: a network namespace, with a line to the master's. nil is this machine.
type host struct {
	*testing.T
	name          string // of the namespace
	master, other string // addresses of the two ends of the line
}

// newHosts makes a network namespace for the master, and one for each of n other machines with a line to it.
func newHosts(t *testing.T, n int) (master *host, others []*host) {
	t.Helper()
	add := func(i int) *host {
		h := &host{T: t, name: fmt.Sprintf("pm%d-%d", os.Getpid(), i), master: fmt.Sprintf("10.77.%d.1", i),
			other: fmt.Sprintf("10.77.%d.2", i)}
		h.ip("netns", "add", h.name)
		t.Cleanup(func() { h.ip("netns", "del", h.name) })
		h.ip("-n", h.name, "link", "set", "lo", "up")
		return h
	}
	master = add(0)
	for i := 1; i <= n; i++ {
		h := add(i)
		there := "to" + strconv.Itoa(i)
		h.ip("-n", master.name, "link", "add", there, "type", "veth", "peer", "name", "line", "netns", h.name)
		h.ip("-n", master.name, "addr", "add", h.master+"/24", "dev", there)
		h.ip("-n", master.name, "link", "set", there, "up")
		h.ip("-n", h.name, "addr", "add", h.other+"/24", "dev", "line")
		h.ip("-n", h.name, "link", "set", "dev", "line", "up")
		others = append(others, h)
	}
	return master, others
}

func (h *host) ip(words ...string) {
	h.Helper()
	if out, err := exec.Command("ip", words...).CombinedOutput(); err != nil {
		h.Fatalf("ip %s: %v\n%s", strings.Join(words, " "), err, out)
	}
}

// command is a program that runs there.
func (h *host) command(argv ...string) *exec.Cmd {
	if h != nil {
		argv = append([]string{"nsenter", "--net=/run/netns/" + h.name, "--"}, argv...)
	}
	return exec.Command(argv[0], argv[1:]...)
}

// as makes a command that of an account, in a process group of its own.
func (h *host) as(cmd *exec.Cmd, who *syscall.Credential) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if h == nil {
		cmd.SysProcAttr.Credential = who
		return
	}
	groups := "--clear-groups" // nsenter itself must be root
	for i, g := range who.Groups {
		if groups += ","; i == 0 {
			groups = "--groups="
		}
		groups += strconv.Itoa(int(g))
	}
	at := 3 // behind nsenter's own words
	cmd.Args = append(cmd.Args[:at:at], append([]string{"setpriv", "--reuid=" + strconv.Itoa(int(who.Uid)),
		"--regid=" + strconv.Itoa(int(who.Gid)), groups}, cmd.Args[at:]...)...)
}

// lose makes packets vanish: those to the master and, of both, those from there too. Nobody is told.
func (h *host) lose(master *host, both bool) {
	h.Helper()
	const nobody = "02:00:00:00:00:99"
	h.ip("-n", h.name, "neigh", "replace", h.master, "lladdr", nobody, "dev", "line")
	if both {
		h.ip("-n", master.name, "neigh", "replace", h.other, "lladdr", nobody, "dev", h.line())
	}
}

// mend ends that.
func (h *host) mend(master *host, both bool) {
	h.Helper()
	h.ip("-n", h.name, "neigh", "del", h.master, "dev", "line")
	if both {
		h.ip("-n", master.name, "neigh", "del", h.other, "dev", h.line())
	}
}

// line is the name of the master's end of the line.
func (h *host) line() string { return "to" + strings.Split(h.master, ".")[2] }

// reset ends all connections with a RST.
func (h *host) reset() {
	h.Helper()
	if out, err := h.command("ss", "-K", "dst", h.master).CombinedOutput(); err != nil ||
		strings.Count(string(out), "\n") < 2 {
		h.Fatalf("ss -K: %v\n%s", err, out)
	}
}

// slow lets so many bytes a second through, in both directions.
func (h *host) slow(master *host, bytes int) {
	h.Helper()
	for _, x := range [][2]string{{h.name, "line"}, {master.name, h.line()}} {
		words := strings.Fields(fmt.Sprintf("-n %s qdisc add dev %s root tbf rate %dbit burst 2kb latency 2s",
			x[0], x[1], 8*bytes))
		out, err := exec.Command("tc", words...).CombinedOutput()
		if err != nil {
			h.Fatalf("tc: %v\n%s", err, out)
		}
	}
}
