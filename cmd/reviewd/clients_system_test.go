//go:build system

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// person is somebody with gpg, debsign, dput and dcut, in a home of its own.
type person struct {
	s    *site
	home string
}

func (p *person) run(name string, args ...string) string {
	p.s.t.Helper()
	// dput-ng asks for ever where it has no terminal.
	cmd := exec.Command("timeout", append([]string{"60", name}, args...)...)
	cmd.Dir = p.home
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.home, "GNUPGHOME=" + p.home + "/gnupg",
		"DEBFULLNAME=Real Person", "DEBEMAIL=real@example.org", "LC_ALL=C.UTF-8"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.s.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// newPerson makes a key with gpg and registers it as real.
func newPerson(s *site) *person {
	s.t.Helper()
	for program, pkg := range map[string]string{"gpg": "gnupg", "debsign": "devscripts", "dput": "dput-ng",
		"dcut": "dput-ng", "rsync": "rsync", "msmtp": "msmtp"} {
		if _, err := exec.LookPath(program); err != nil {
			s.t.Fatalf("%s is missing; install %s, or run scripts/test, which does", program, pkg)
		}
	}
	p := &person{s, s.t.TempDir()}
	if err := os.Mkdir(filepath.Join(p.home, "gnupg"), 0o700); err != nil {
		s.t.Fatal(err)
	}
	p.run("gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "Real Person <real@example.org>",
		"rsa3072", "sign", "never")
	s.t.Cleanup(func() { p.run("gpgconf", "--kill", "all") })
	s.write("control/keys/real.asc", p.run("gpg", "--armor", "--export", "real@example.org"))
	fpr := ""
	for line := range strings.Lines(p.run("gpg", "--with-colons", "--list-keys")) {
		if f := strings.Split(line, ":"); f[0] == "fpr" && fpr == "" {
			fpr = f[9]
		}
	}
	s.write("control/uploaders", fmt.Sprintf("Name: real\nFingerprint: %s\nEmail: real@example.org\nAllow: source\n", fpr))
	profiles := filepath.Join(p.home, ".dput.d/profiles")
	if err := os.MkdirAll(profiles, 0o755); err != nil {
		s.t.Fatal(err)
	}
	profile := fmt.Sprintf(`{"method": "local", "fqdn": "localhost", "incoming": %q, "allow_dcut": true, "valid_commands": ["rm", "cancel", "reschedule", "dm"], "allow_unsigned_uploads": false, "allowed_distributions": ".*", "hooks": ["checksum", "gpg"]}`, s.drop())
	if err := os.WriteFile(filepath.Join(profiles, "here.json"), []byte(profile), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return p
}

// make writes an upload and signs it with debsign.
func (p *person) make(source string) (dir string, names []string) {
	p.s.t.Helper()
	dir = p.s.t.TempDir()
	changes, err := (uploadtest.Package{Source: source, Version: "1.0-1"}).Write(dir)
	if err != nil {
		p.s.t.Fatal(err)
	}
	p.run("debsign", "--no-conf", "-kreal@example.org", filepath.Join(dir, changes))
	entries, err := os.ReadDir(dir)
	if err != nil {
		p.s.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != changes {
			names = append(names, e.Name())
		}
	}
	return dir, append(names, changes)
}

// TestClients: uploads as people make and send them, all with the real
// programs; uploads over ssh are in cmd/internal/test/server.
func TestClients(t *testing.T) {
	s := newSite(t)
	p := newPerson(s)
	paths := func(dir string, names []string) (out []string) {
		for _, n := range names {
			out = append(out, filepath.Join(dir, n))
		}
		return out
	}
	s.start()
	for name, send := range map[string]func(dir string, names []string){
		"dput": func(dir string, names []string) { p.run("dput", "here", filepath.Join(dir, names[len(names)-1])) },
		"dput-delayed": func(dir string, names []string) {
			if err := os.MkdirAll(s.drop("DELAYED/0-day"), 0o775); err != nil {
				t.Fatal(err)
			}
			p.run("dput", "--delayed=0", "here", filepath.Join(dir, names[len(names)-1]))
		},
		"cp": func(dir string, names []string) { p.run("cp", append(paths(dir, names), s.drop())...) },
		"cp-a": func(dir string, names []string) {
			p.run("cp", append([]string{"-a"}, append(paths(dir, reversed(names)), s.drop())...)...)
		},
		"mv": func(dir string, names []string) { p.run("mv", append(paths(dir, names), s.drop())...) },
		"rsync": func(dir string, names []string) {
			p.run("rsync", append([]string{"-a"}, append(paths(dir, names), s.drop()+"/")...)...)
		},
		"rsync-in-place": func(dir string, names []string) {
			p.run("rsync", append([]string{"-a", "--inplace"}, append(paths(dir, names), s.drop()+"/")...)...)
		},
	} {
		dir, names := p.make(name)
		send(dir, names)
		s.await(name+"_1.0-1", spool.Review)
	}
	s.stop()
	s.sound()
}

// TestDcut: the commands that dput-ng's dcut writes and signs.
func TestDcut(t *testing.T) {
	s := newSite(t)
	p := newPerson(s)
	for _, d := range []string{"DELAYED/2-day", "DELAYED/0-day"} {
		if err := os.MkdirAll(s.drop(d), 0o775); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"off", "sooner"} {
		dir, names := p.make(name)
		s.put("DELAYED/2-day", dir, names...)
	}
	s.write("spool/incoming/wrong_1.dsc", "x")
	s.once()
	// dcut names its file by the second: two at once would be one.
	for _, args := range [][]string{
		{"dm", "--uid", strings.Repeat("A", 40), "--allow", "hello"},
		{"cancel", "-f", "off_1.0-1_source.changes"}, {"reschedule", "-f", "sooner_1.0-1_source.changes", "-d", "0"},
		{"rm", "-f", "wrong_1.dsc"},
	} {
		p.run("dcut", append([]string{"--force", "-k", "real@example.org", "here"}, args...)...)
		s.once()
	}
	s.once()
	s.await("sooner", spool.Review)
	var answers string
	for _, f := range s.where("dcut", spool.Attic) {
		answers += s.reason(f)
	}
	for _, want := range []string{"cancelled in spool/incoming/DELAYED/2-day", "waits in spool/incoming/DELAYED/0-day",
		"removed wrong_1.dsc"} {
		if !strings.Contains(answers, want) {
			t.Errorf("no %q in the answers:\n%s", want, answers)
		}
	}
	if refused := s.where("dcut", spool.Rejected); len(refused) != 1 ||
		!strings.Contains(s.reason(refused[0]), "commands for dak are not carried out here") {
		t.Errorf("refused: %v", refused)
	}
	s.sound()
}

// TestSendmail: msmtp hands the message to a real server of SMTP.
func TestSendmail(t *testing.T) {
	s := newSite(t)
	p := newPerson(s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	log := filepath.Join(p.home, "smtp.log")
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	server := exec.Command("/usr/bin/python3", "-u", "-m", "aiosmtpd", "-n", "-l", fmt.Sprintf("127.0.0.1:%d", port), "-c",
		"aiosmtpd.handlers.Debugging", "stdout")
	server.Stdout, server.Stderr = out, out
	if err := server.Start(); err != nil {
		t.Fatalf("python3 -m aiosmtpd (install python3-aiosmtpd): %v", err)
	}
	t.Cleanup(func() { server.Process.Kill(); server.Wait() })
	s.until("the server answers", func() bool {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	// msmtp is a sendmail; its settings come with a wrapper.
	wrapper := filepath.Join(p.home, "sendmail")
	if err := os.WriteFile(wrapper,
		[]byte(fmt.Sprintf("#!/bin/sh\nexec msmtp --host=127.0.0.1 --port=%d --auth=off --tls=off \"$@\"\n",
			port)), 0o755); err != nil {
		t.Fatal(err)
	}
	s.write("control/notify", "Event: *\nTo: signer\nFrom: Archive <archive@example.org>\nVia: "+wrapper+"\n")
	dir, names := p.make("mailed")
	s.put("", dir, names...)
	s.once()
	s.await("mailed", spool.Review)
	s.until("the mail has arrived", func() bool {
		data, _ := os.ReadFile(log)
		return strings.Contains(string(data), "Subject: mailed 1.0-1 for stable: received") &&
			strings.Contains(string(data), "real@example.org")
	})
}
