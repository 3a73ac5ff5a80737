//go:build system

package stories

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"packmill/spool/upload/uploadtest"
)

// eximConf is a mail system for one host: builds is an account with a .forward,
// ann one with a Maildir, and nobody else is known.
const eximConf = `exim_user = USER
exim_group = GROUP
primary_hostname = mill.example.org
domainlist local_domains = mill.example.org
spool_directory = DIR/spool
log_file_path = DIR/log/%slog
deliver_drop_privilege
disable_ipv6
begin routers
forward:
  driver = redirect
  local_parts = builds
  file = DIR/.forward
  pipe_transport = program
  user = USER
  group = GROUP
person:
  driver = accept
  local_parts = ann
  transport = maildir
begin transports
program:
  driver = pipe
maildir:
  driver = appendfile
  maildir_format
  directory = DIR/ann
  user = USER
  group = GROUP
begin retry
* * F,1h,1m
`

// mta is that mail system.
type mta struct {
	m   *mill
	dir string
}

// send gives a mail to the mail system, which delivers it before send returns.
func (x *mta) send(text string) {
	x.m.Helper()
	x.run(text, "-t", "-i", "-f", "ann@mill.example.org")
}

func (x *mta) run(stdin string, args ...string) string {
	x.m.Helper()
	cmd := exec.Command(filepath.Join(x.dir, "sendmail"), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: x.m.as}
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		x.m.Fatalf("exim %q: %v\n%s\n(Debian's package exim4-daemon-light has it)", args, err, out)
	}
	return string(out)
}

// received takes what lies in Ann's mailbox.
func (x *mta) received() []letter {
	x.m.Helper()
	names, err := filepath.Glob(filepath.Join(x.dir, "ann/new/*"))
	x.m.must(err)
	var out []letter
	for _, n := range names {
		data, err := os.ReadFile(n)
		x.m.must(err)
		x.m.must(os.Remove(n))
		out = append(out, readLetter(x.m.T, data))
	}
	return out
}

func (x *mta) log() string {
	data, _ := os.ReadFile(filepath.Join(x.dir, "log/mainlog"))
	return string(data)
}

// Logs and answers through a real mail system, a .forward and real gpg.
func TestMailSystem(t *testing.T) {
	m := newMill(t, "Log-Review: manual")
	me, err := user.Current()
	m.must(err)
	if os.Getuid() == 0 {
		// No mail system delivers as root.
		if me, err = user.Lookup(os.Getenv("PACKMILL_BUILD_USER")); err != nil {
			t.Fatalf("PACKMILL_BUILD_USER names the account to run the mail system as; scripts/test makes one and sets it: %v",
				err)
		}
	}
	dir := filepath.Join(filepath.Dir(m.tree), "mail")
	x := &mta{m, dir}
	for _, d := range []string{"spool", "log", "ann", "gpg"} {
		m.must(os.MkdirAll(filepath.Join(dir, d), 0o700))
	}
	conf := strings.NewReplacer("DIR", dir, "USER", me.Username, "GROUP", me.Gid).Replace(eximConf)
	m.must(os.WriteFile(filepath.Join(dir, "exim.conf"), []byte(conf), 0o644))
	m.must(os.WriteFile(filepath.Join(dir, "sendmail"),
		[]byte(fmt.Sprintf("#!/bin/sh\nexec /usr/sbin/exim4 -C %s/exim.conf -odf \"$@\"\n", dir)), 0o755))
	m.must(os.WriteFile(filepath.Join(dir, ".forward"),
		[]byte(fmt.Sprintf("\"|%s/packmill --tree %s mail\"\n", bin, m.tree)), 0o644))

	// The socket of gpg's agent wants a short path.
	home, err := os.MkdirTemp("/tmp", "gpg")
	m.must(err)
	gpg := func(stdin string, args ...string) string {
		t.Helper()
		cmd := exec.Command("gpg",
			append([]string{"--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			t.Fatalf("gpg %q: %v\n%s", args, err, &errs)
		}
		return out.String()
	}
	t.Cleanup(func() {
		exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		os.RemoveAll(home)
	})
	gpg("", "--quick-gen-key", "Ann <ann@mill.example.org>", "ed25519", "sign", "never")
	m.must(os.WriteFile(filepath.Join(m.tree, "control/keys/ann.asc"), []byte(gpg("", "--armor", "--export")), 0o644))
	_, fpr, _ := strings.Cut(gpg("", "--with-colons", "--list-keys"), "\nfpr:::::::::")
	m.control("uploaders",
		"Name: Up Loader\nFingerprint: "+m.signer.Fingerprint()+"\nEmail: up@mill.example.org\n\nName: ann\nFingerprint: "+fpr[:40]+"\nEmail: ann@mill.example.org\nAllow: sign=amd64")
	m.control("notify", fmt.Sprintf("Event: log\nTo: build-signers\nFrom: Builds <builds@mill.example.org>\n"+
		"Via: %[1]s/sendmail\n\nEvent: failed\nTo: build-signers, gone@mill.example.org\n"+
		"From: Builds <builds@mill.example.org>\nVia: %[1]s/sendmail", dir))
	for _, n := range []string{"textual", "mime", "breaks", "later"} {
		m.upload(uploadtest.Package{Source: n, Version: "1.0"})
	}
	m.script("breaks_1.0_amd64", "fail no rule to make target")
	if os.Getuid() == 0 {
		m.as = credential(t, me.Username)
		top := filepath.Dir(m.tree)
		for d := top; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
			m.must(os.Chmod(d, 0o755))
		}
		m.must(os.Chmod(bin, 0o755))
		m.must(filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				err = os.Lchown(path, int(m.as.Uid), int(m.as.Gid))
			}
			return err
		}))
	}
	m.once("reviewd")
	m.once("master-buildd")
	m.once("buildd-amd64")
	logs := map[string]letter{}
	for _, l := range x.received() {
		name, _, _ := strings.Cut(strings.Fields(l.subject)[5], "_")
		logs[name] = l
	}
	if len(logs) != 4 {
		t.Fatalf("%d logs came, want 4:\n%s", len(logs), x.log())
	}
	// gone@ is not known here: the bounce comes to .forward, and nobody answers.
	if !strings.Contains(x.log(), "<= <> R=") || len(x.received()) > 0 {
		t.Errorf("no bounce, or somebody answered it:\n%s", x.log())
	}

	head := func(l letter) string {
		return "From: Ann <ann@mill.example.org>\nTo: builds@mill.example.org\nSubject: Re: " + l.subject +
			"\nIn-Reply-To: " + l.id + "\n"
	}
	answered := func(what, want string) {
		t.Helper()
		got := x.received()
		if len(got) != 1 || !strings.Contains(got[0].subject, want) {
			t.Fatalf("%s: %d answers, want one that says %q\n%s\n%s", what, len(got), want, m.packmill("ls"), x.log())
		}
	}
	state := func(name, want string) {
		t.Helper()
		if got := m.stateOf(name); got != want {
			t.Errorf("%s is in %s, want %s", name, got, want)
		}
	}
	l := logs["textual"]
	x.send(head(l) + "\n" + gpg(string(l.files["textual_1.0_amd64.changes"]), "--clearsign"))
	answered("a .changes by gpg --clearsign", "Done: sign textual_1.0")
	state("textual", "uploaded")

	// As mutt signs: the text mode of a detached signature.
	l = logs["mime"]
	part := "Content-Type: text/plain; charset=utf-8\n\nretry\n\n> " + l.job() + "\n"
	sig := gpg(strings.ReplaceAll(part, "\n", "\r\n"), "--armor", "--textmode", "--detach-sign")
	x.send(head(l) + "MIME-Version: 1.0\nContent-Type: multipart/signed; boundary=b; " +
		"protocol=\"application/pgp-signature\"\n\n--b\n" +
		part + "\n--b\nContent-Type: application/pgp-signature\n\n" + sig + "\n--b--\n")
	answered("PGP/MIME", "Done: retry mime_1.0")
	state("mime", "needs-build")

	l = logs["breaks"]
	x.send(head(l) + "\n" + gpg("fail the makefile is wrong\n\n> "+l.job()+"\n", "--clearsign"))
	answered("fail", "Done: fail breaks_1.0")
	state("breaks", "failed")
	x.send(head(l) + "\nretry\n")
	state("breaks", "failed")

	// While the settings are wrong the mail system keeps the mail.
	l = logs["later"]
	suites := m.suites()
	m.control("suites", "Suite: wrong")
	x.send(head(l) + "\n" + gpg(string(l.files["later_1.0_amd64.changes"]), "--clearsign"))
	state("later", "built")
	if queue := x.run("", "-bp"); !strings.Contains(queue, "builds@mill.example.org") {
		t.Errorf("the mail is not in the queue:\n%s\n%s", queue, x.log())
	}
	m.control("suites", suites)
	x.run("", "-qff")
	answered("delivered again", "Done: sign later_1.0")
	state("later", "uploaded")
}
