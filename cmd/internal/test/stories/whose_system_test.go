//go:build system

package stories

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// account makes a user of this machine for as long as the test runs.
func (a *accounts) account(name string) {
	a.Helper()
	if out, err := exec.Command("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/", "--shell",
		"/usr/sbin/nologin", name).CombinedOutput(); err != nil {
		a.Fatalf("useradd %s: %v\n%s", name, err, out)
	}
	a.Cleanup(func() { exec.Command("userdel", name).Run() })
}

// TestWhoseUploads: an upload without a signature is from the account in whose
// directory it lies only if the directory, and each file, belongs to that uid.
func TestWhoseUploads(t *testing.T) {
	a := newAccounts(t, "Review: always")
	alice, carol := fmt.Sprintf("pm-alice%d", os.Getpid()), fmt.Sprintf("pm-carol%d", os.Getpid())
	a.account(alice)
	a.account(carol)
	a.control("uploaders", "Name: alice\nAccount: "+alice+"\n\nName: carol\nAccount: "+carol)
	own := credential(t, alice)
	dir := filepath.Join(a.tree, "spool/incoming", alice)
	// As scripts/sshd/uploader makes it.
	if out, err := exec.Command("install", "-d", "-o", alice, "-g", spool.GroupReview, "-m", "2770",
		dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	put := func(source string) string {
		return "cp " + a.source(uploadtest.Package{Source: source, Version: "1.0"}) + "/* "
	}
	if out, err := a.sh(own, put("mine")+"spool/incoming/"+alice+"/"); err != nil {
		t.Fatalf("alice in her own directory: %v\n%s", err, out)
	}
	stranger, reviewer := a.somebody(reviewerUID), a.somebody(secondUID, spool.GroupAll, spool.GroupReview,
		spool.GroupDesk)
	build, review := credential(t, spool.UserBuild), credential(t, spool.UserReview)
	made := "mkdir -m 777 spool/incoming/" + carol + "\n"
	for _, tc := range []struct {
		what   string
		who    *syscall.Credential
		script string
	}{
		{"a local user makes carol's directory", stranger, made + put("stranger") + "spool/incoming/" + carol},
		{"the build account makes carol's directory", build, made + put("build") + "spool/incoming/" + carol},
		{"reviewd's own directory is renamed to carol's", review, "mkdir spool/intake/own\n" + put("renamed") + "spool/intake/own/\n" +
			"mv spool/intake/own spool/incoming/" + carol},
		{"a reviewer puts files into alice's directory", reviewer, put("planted") + dir},
	} {
		if out, err := a.sh(tc.who, tc.script); err != nil {
			t.Fatalf("%s: %v\n%s", tc.what, err, out)
		}
		cmd := a.command(t.Context(), "reviewd", "--once")
		log, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("reviewd: %v\n%s", err, log)
		}
		if tc.who == reviewer {
			a.says(string(log), fmt.Sprintf("planted_1.0_source.changes belongs to the user %d, and not to %s", secondUID, alice))
		} else {
			said, _ := a.try("doctor")
			a.says(said, "spool/incoming/"+carol+": it has the name of an account and does not belong to it")
			a.one("spool/incoming/" + carol + "/*_source.changes")
		}
		a.want(a.where(), "review source mine_1.0")
		a.must(os.RemoveAll(filepath.Join(a.tree, "spool/incoming", carol)))
	}
	if data, err := os.ReadFile(filepath.Join(a.item(spool.Review, "mine"), "statement")); err != nil ||
		!strings.Contains(string(data), "Account: "+alice) {
		t.Errorf("the statement does not name the account: %v\n%s", err, data)
	}
}

// TestWhoseFiles: what waits in the shared directory is taken away by nobody who
// has no right to its source: not by dcut, and not by listing it.
func TestWhoseFiles(t *testing.T) {
	a := newAccounts(t, "Review: always")
	mallory := a.person("mallory", "source, packages=mpkg")
	waiting := a.source(uploadtest.Package{Source: "hello", Version: "1.0", Signer: a.signer})
	tarball, err := os.ReadFile(filepath.Join(waiting, "hello_1.0.tar.gz"))
	a.must(err)
	in := func(name string) string { return filepath.Join(a.tree, "spool/incoming", name) }
	there := func(what string) {
		t.Helper()
		for _, n := range []string{"hello_1.0.tar.gz", "hello_1.0.dsc"} {
			if _, err := os.Lstat(in(n)); err != nil {
				t.Errorf("%s: %s was taken: %v\n%s", what, n, err, a.packmill("ls"))
			}
		}
	}
	somebody := a.somebody(reviewerUID)
	drop := func(script string) {
		t.Helper()
		if out, err := a.sh(somebody, script); err != nil {
			t.Fatalf("drop: %v\n%s", err, out)
		}
	}
	// The .changes is still on its way. Everybody's files may have one uid.
	drop("cp " + waiting + "/hello_1.0.tar.gz " + waiting + "/hello_1.0.dsc spool/incoming/")

	text := "Archive: x\nUploader: mallory <mallory@example.org>\nCommands:\n rm hello_1.0*\n"
	signed, err := mallory.Clearsign([]byte(text), time.Now())
	a.must(err)
	a.must(os.WriteFile(filepath.Join(waiting, "mallory.commands"), signed, 0o644))
	drop("cp " + waiting + "/mallory.commands spool/incoming/")
	a.daemon("reviewd")
	there("dcut rm")
	// It was her commands that did nothing: they were not refused as a whole.
	answers, err := os.ReadFile(filepath.Join(a.item(spool.Attic, "dcut"), "answers"))
	a.must(err)
	a.says(string(answers), "not touched: hello_1.0.dsc hello_1.0.tar.gz")

	evil := a.source(uploadtest.Package{Source: "mpkg", Version: "1.0", Signer: mallory,
		Files: []uploadtest.File{{Name: "hello_1.0.tar.gz", Data: tarball}}})
	a.must(os.Remove(filepath.Join(evil, "hello_1.0.tar.gz")))
	drop("cp " + evil + "/* spool/incoming/")
	a.daemon("reviewd")
	there("a .changes that lists it")
	if n := len(a.found("mpkg", spool.Rejected)); n != 1 {
		t.Errorf("mallory's upload is not refused:\n%s", a.packmill("ls"))
	}

	drop("cp " + waiting + "/hello_1.0_source.changes spool/incoming/")
	a.daemon("reviewd")
	if n := len(a.found("hello", spool.Review)); n != 1 {
		t.Errorf("the upload that was reached for did not come in:\n%s", a.packmill("ls"))
	}
}
