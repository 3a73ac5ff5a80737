package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// farmAccount is the account of the sessions by ssh, made for the measure.
const farmAccount = "packmill-bench"

// farmBySSH measures n idle builders by real sessions: sshd's processes and the master's ends together, as an account
// of its own, at the loopback. The builders' ends are in this process, the ssh clients beside it.
func farmBySSH(b *bench, bin string, n int) (err error) {
	if out, err := command("useradd", "--system", "--no-create-home", "--shell", "/bin/sh", "--password", "*",
		farmAccount); err != nil {
		return fmt.Errorf("useradd: %w: %s", err, out)
	}
	defer func() {
		out, derr := command("userdel", farmAccount)
		if derr != nil {
			err = errors.Join(err, fmt.Errorf("userdel: %w: %s", derr, out))
		}
	}()
	tree, err := farmTree(filepath.Join(b.dir, "by-ssh"), bin, n)
	if err != nil {
		return err
	}
	for _, c := range [][]string{{"chown", "-R", farmAccount, tree.Root()}, {"chmod", "755", b.dir, bin}} {
		if out, err := command(c...); err != nil {
			return fmt.Errorf("%s: %w: %s", c[0], err, out)
		}
	}
	d := &sshd{dir: filepath.Join(b.dir, "sshd")}
	if err := d.start(fmt.Sprintf("exec %s/buildd --tree %s --serve --builder $SSH_ORIGINAL_COMMAND", bin,
		tree.Root())); err != nil {
		return err
	}
	defer d.stop()
	f, err := newFleet(b, tree, bin, n, d.session)
	if f != nil {
		defer f.close()
	}
	if err != nil {
		return err
	}
	return farmAtRest(b, "farm.ssh", n, func() (time.Duration, int64, error) {
		pids, err := below(d.cmd.Process.Pid)
		if err != nil {
			return 0, 0, err
		}
		return costOf(pids)
	})
}

func command(argv ...string) (string, error) {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	return string(out), err
}

// sshd is one at the loopback, with one key, whose sessions have one command.
type sshd struct {
	dir  string
	port int
	cmd  *exec.Cmd
}

func (d *sshd) start(forced string) error {
	if err := errors.Join(os.Mkdir(d.dir, 0o755), os.MkdirAll("/run/sshd", 0o755)); err != nil {
		return err
	}
	for _, key := range []string{"host", "id"} {
		if out, err := command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(d.dir, key)); err != nil {
			return fmt.Errorf("ssh-keygen: %w: %s", err, out)
		}
	}
	pub, err := os.ReadFile(filepath.Join(d.dir, "id.pub"))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	d.port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	config := fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nHostKey %[2]s/host\nPidFile none\nUsePAM no\n"+
		"StrictModes no\nAuthorizedKeysFile %[2]s/keys\nMaxStartups 1000\nLogLevel ERROR\n", d.port, d.dir)
	err = errors.Join(
		os.WriteFile(filepath.Join(d.dir, "keys"), fmt.Appendf(nil, "restrict,command=%q %s", forced, pub), 0o644),
		os.WriteFile(filepath.Join(d.dir, "config"), []byte(config), 0o600))
	if err != nil {
		return err
	}
	d.cmd = exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(d.dir, "config"))
	if err := d.cmd.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(d.port)))
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) {
			d.stop()
			return fmt.Errorf("sshd does not listen: %w", err)
		}
	}
}

func (d *sshd) stop() {
	d.cmd.Process.Kill()
	d.cmd.Wait()
}

// session is the ssh client of a builder.
func (d *sshd) session(name string) *exec.Cmd {
	return exec.Command("ssh", "-F", "none", "-T", "-p", strconv.Itoa(d.port), "-i", filepath.Join(d.dir, "id"),
		"-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "LogLevel=ERROR", "-o", "ServerAliveInterval=15", farmAccount+"@127.0.0.1", name)
}

// below are the processes that a process started, and those started.
func below(root int) (pids []int, err error) {
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, path := range all {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		var state string
		var parent int
		if _, err := fmt.Sscan(rest, &state, &parent); err != nil {
			return nil, err
		}
		pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
		children[parent] = append(children[parent], pid)
	}
	for next := children[root]; len(next) > 0; {
		pid := next[0]
		pids, next = append(pids, pid), append(next[1:], children[pid]...)
	}
	return pids, nil
}
