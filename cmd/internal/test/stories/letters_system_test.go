//go:build system

package stories

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// TestLetters: what the daemons mail waits as a letter, which nobody but its writer
// and maild reads or changes; maild hands it on, and what its sendmail does not take
// is brought again.
func TestLetters(t *testing.T) {
	a := newAccounts(t)
	out := filepath.Join(filepath.Dir(a.tree), "out")
	a.must(os.Mkdir(out, 0o755))
	own(t, spool.UserMail, out)
	via := filepath.Join(filepath.Dir(a.tree), "sendmail")
	a.must(os.WriteFile(via,
		[]byte("#!/bin/sh\n[ -e "+out+"/well ] || { echo out of order; exit 75; }\ncat >>"+out+"/mail\nid -un >>"+out+"/who\n"), 0o755))
	a.control("notify", "Event: accepted\nTo: signer\nFrom: Archive <archive@example.org>\nVia: "+via)
	letters := func() []string {
		names, err := filepath.Glob(filepath.Join(a.tree, spool.LettersDir, "*"))
		a.must(err)
		return names
	}
	a.drop(uploadtest.Package{Source: "hello", Version: "1.0"})
	a.daemon("reviewd")
	if len(letters()) != 1 {
		t.Fatalf("letters: %q, want one", letters())
	}
	letter := letters()[0]
	// It would leave a marker where maild may write.
	marker, program := filepath.Join(out, "marker"), filepath.Join(filepath.Dir(a.tree), "program")
	a.must(os.WriteFile(program, []byte("#!/bin/sh\n: >"+marker+"\n"), 0o755))
	if got, err := a.run(spool.UserMail, program); err != nil {
		t.Fatalf("%s as %s: %v\n%s", program, spool.UserMail, err, got)
	}
	a.must(os.Remove(marker))
	evil := `printf '{"via":"` + program + `","from":"a@example.org","to":["evil@example.org"]}\n\nx\n' >`
	for _, x := range []struct {
		who, do string
		ok      bool
	}{
		{spool.UserBuild, "cat " + letter, false},
		{spool.UserBuild, "rm -f " + letter, false},
		{spool.UserBuild, "mv " + letter + " " + letter + "x", false},
		{spool.UserBuild, "echo >>" + letter, false},
		{"nobody", "ls " + filepath.Dir(letter), false},
		{"nobody", evil + filepath.Dir(letter) + "/x", false},
		{spool.UserMail, "cat " + letter, true},
		// It is one of those that send letters, and says no programs.
		{spool.UserBuild, evil + filepath.Dir(letter) + "/evil; chmod 644 " + filepath.Dir(letter) + "/evil", true},
	} {
		if got, err := a.run(x.who, "sh", "-ec", x.do); (err == nil) != x.ok {
			t.Errorf("%s: %s: %v, want success %v\n%s", x.who, x.do, err, x.ok, got)
		} else if !x.ok && !strings.Contains(got, "ermission denied") && !strings.Contains(got, "not permitted") {
			t.Errorf("%s: %s: %v, want that the kernel denies it\n%s", x.who, x.do, err, got)
		}
	}
	a.daemon("maild")
	if got := letters(); len(got) != 2 || got[0] != letter {
		t.Fatalf("after a sendmail that fails: %q", got)
	}
	a.must(os.WriteFile(filepath.Join(out, "well"), nil, 0o644))
	log, err := a.command(t.Context(), "maild", "--once").CombinedOutput()
	if err != nil {
		t.Fatalf("maild: %v\n%s", err, log)
	}
	a.says(string(log), "no Via of control/notify names the program "+program)
	if _, err := os.Lstat(marker); !os.IsNotExist(err) {
		t.Errorf("maild ran the program of a letter: %v", err)
	}
	got, err := os.ReadFile(filepath.Join(out, "mail"))
	if err != nil || strings.Count(string(got), "Subject:") != 1 || !strings.Contains(string(got), "hello 1.0") {
		t.Errorf("the mail: %v\n%s", err, got)
	}
	if who, err := os.ReadFile(filepath.Join(out, "who")); err != nil || string(who) != spool.UserMail+"\n" {
		t.Errorf("sendmail ran as %q, %v", who, err)
	}
	if got := letters(); len(got) != 1 || filepath.Base(got[0]) != "evil" {
		t.Errorf("left: %q", got)
	}
	a.sound()
}
