//go:build system

package stories

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"packmill/internal/deb/debtest"
	"packmill/internal/openpgp"
	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// nobody's uids: people of this machine, who need no account to be somebody.
const (
	reviewerUID = 64001
	secondUID   = 64002
)

// somebody is a person with that uid and these groups.
func (a *accounts) somebody(uid uint32, groups ...string) *syscall.Credential {
	a.Helper()
	c := &syscall.Credential{Uid: uid, Gid: uid}
	for _, name := range groups {
		g, err := user.LookupGroup(name)
		a.must(err)
		n, err := strconv.ParseUint(g.Gid, 10, 32)
		a.must(err)
		c.Groups = append(c.Groups, uint32(n))
	}
	return c
}

// sh runs a shell as somebody, in the tree.
func (a *accounts) sh(who *syscall.Credential, script string) (string, error) {
	a.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = a.tree
	cmd.Env = []string{"PATH=" + bin + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent", "PACKMILL_TREE=" + a.tree}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// source makes an upload's files in a directory that everybody can read.
func (a *accounts) source(p uploadtest.Package) string {
	a.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(a.tree), "evil")
	a.must(err)
	a.must(os.Chmod(dir, 0o755))
	_, err = p.Write(dir)
	a.must(err)
	return dir
}

// TestReviewerChangesNothing: a reviewer who puts other files into an upload, or
// into a job of one, gets nothing built and nothing published.
func TestReviewerChangesNothing(t *testing.T) {
	a := newAccounts(t, "Review: always")
	reviewer := a.somebody(reviewerUID, spool.GroupAll, spool.GroupReview, spool.GroupDesk, spool.GroupQueue)
	evil := a.source(uploadtest.Package{Source: "hello", Version: "1.0", Script: "echo evil", Signer: a.signer})
	// What the directories let him do he does, by whichever way. A swap that puts no byte of his there tries nothing.
	swap := func(where string) {
		t.Helper()
		dir := a.one(where)
		files := func() (n int) {
			names, err := filepath.Glob(filepath.Join(evil, "*"))
			a.must(err)
			for _, name := range names {
				bad, err := os.ReadFile(name)
				a.must(err)
				if got, err := os.ReadFile(filepath.Join(dir, filepath.Base(name))); err == nil && string(got) == string(bad) {
					n++
				}
			}
			return n
		}
		before := files()
		out, err := a.sh(reviewer, "cd "+strings.TrimPrefix(dir, a.tree+"/")+"; for f in "+evil+
			"/*; do cp -f $f . || { rm -f ${f##*/}; cp $f .; } || true; done; ls -l")
		if n := files(); err != nil || before != 0 || n == 0 {
			t.Fatalf("%s: %v, %d files of his before and %d after it\n%s", where, err, before, n, out)
		}
	}
	a.drop(uploadtest.Package{Source: "hello", Version: "1.0"})
	a.daemon("reviewd")
	a.daemon("master-buildd") // which makes the directories
	swap("spool/review/stable/*_hello_1.0")
	if out, err := a.sh(reviewer, "mv spool/review/stable/*_hello_1.0 spool/accepted/stable/"); err != nil {
		t.Fatalf("mv from review to accepted: %v\n%s", err, out)
	}
	a.daemon("master-buildd")
	a.want(a.where(), "rejected source hello_1.0")
	a.says(a.reason(spool.Rejected, "hello"), "not what reviewd let in")

	a.drop(uploadtest.Package{Source: "hello", Version: "1.1"})
	a.daemon("reviewd")
	a.packmill("review", "accept", "hello")
	a.daemon("master-buildd")
	evil = a.source(uploadtest.Package{Source: "hello", Version: "1.1", Script: "echo evil", Signer: a.signer})
	swap("queue/stable/amd64/needs-build/*_hello_1.1")
	swap("queue/stable/master/*_hello_1.1")
	a.daemon("buildd", "--arch", "amd64")
	a.daemon("master-buildd")
	a.daemon("archived")
	a.want(a.where(), "build-attempted amd64 hello_1.1", "rejected source hello_1.0", "rejected source hello_1.1")
	for _, item := range []string{"queue/stable/amd64/build-attempted/*_hello_1.1", "spool/rejected/*_hello_1.1"} {
		out, err := a.sh(nil, "cat "+item+"/history "+item+"/"+spool.ReasonFile)
		if err != nil {
			t.Errorf("%s: %v\n%s", item, err, out)
		}
		a.says(out, "not what was let in")
	}
	if n := a.builds()["hello_1.1_amd64"]; n > 0 {
		t.Errorf("the swapped source was built %d times", n)
	}
	if got := a.packmill("archive", "ls", "stable"); strings.Contains(got, "hello") {
		t.Errorf("the archive took it:\n%s", got)
	}
	if got, err := filepath.Glob(filepath.Join(a.tree, "archive/pool/main/h/hello/*")); err != nil || len(got) > 0 {
		t.Errorf("in the pool: %q, %v", got, err)
	}
}

// TestReviewersTicket: a reviewer may write in the directory of an upload that waits, and
// the kernel keeps no ticket from whoever may. What he writes into it about a build, and
// about the upload against its statement, reaches no job; without the statement, or with
// another's, nothing goes on.
func TestReviewersTicket(t *testing.T) {
	a := newAccounts(t, "Review: always", "Components: main contrib")
	reviewer := a.somebody(reviewerUID, spool.GroupAll, spool.GroupReview, spool.GroupDesk)
	for _, name := range []string{"hello", "world", "third"} {
		a.drop(uploadtest.Package{Source: name, Version: "1.0"})
	}
	a.daemon("reviewd")
	a.daemon("master-buildd") // which makes the directories
	out, err := a.sh(reviewer, `cd spool/review/stable
(sed -e '/^Component:/d' -e '/^Uploader:/d' -e 's/^Architecture: .*/Architecture: s390x/' *_hello_1.0/ticket
printf 'Component: contrib\nHas-Binaries: amd64\nExtra-Depends: evil\nExtra-Conflicts: good\nBuild-Profiles: nocheck\nBuild-Options: noopt\nBinary-NMU: 5\nBinary-NMU-Changelog: x\nResult: x_1_amd64.changes\nTaken-By: rita\nUploader: nobody\n') >new
rm *_hello_1.0/ticket; mv new $(echo *_hello_1.0)/ticket
rm *_world_1.0/statement
rm *_third_1.0/statement; cp *_hello_1.0/statement *_third_1.0/
mv * ../../accepted/stable/`)
	if err != nil {
		t.Fatalf("what a reviewer may: %v\n%s", err, out)
	}
	a.daemon("master-buildd")
	a.want(a.where(), "master source hello_1.0", "needs-build amd64 hello_1.0", "rejected source third_1.0",
		"rejected source world_1.0")
	job, err := os.ReadFile(a.one("queue/stable/amd64/needs-build/*_hello_1.0/ticket"))
	a.must(err)
	for _, word := range []string{"contrib", "amd64 ", "Has-Binaries", "Extra", "Profiles", "Options", "NMU", "Result",
		"Taken", "nobody", "s390x"} {
		if strings.Contains(string(job), word) {
			t.Errorf("the job has the reviewer's %q:\n%s", word, job)
		}
	}
	// The job is master-buildd's: the kernel keeps him from it.
	if out, err := a.sh(reviewer, "I=$(echo queue/stable/amd64/needs-build/*_hello_1.0); "+
		"touch $I/x || echo >>$I/ticket || echo >>$I/history || echo >>$I/hello_1.0.dsc || mv $I queue/stable/amd64/failed/"); err == nil {
		t.Errorf("he writes in a job: %s", out)
	}
}

// TestBuilderPublishesNothing: what the account of the builds, taken over, can do
// to get a source or a package of its own into the archive. It has its key, and
// may write in the archive queue and the build queues.
func TestBuilderPublishesNothing(t *testing.T) {
	a := newAccounts(t)
	a.control("uploaders",
		"Name: Up Loader\nFingerprint: "+a.signer.Fingerprint()+"\nAllow: source, packages=hello real mpkg\n\n"+
			"Name: acc\nAccount: acc")
	build := credential(t, spool.UserBuild)
	stolen, err := openpgp.ReadSigner(filepath.Join(a.tree, "control/private/builder.key"))
	a.must(err)
	a.drop(uploadtest.Package{Source: "real", Version: "1.0"})
	a.daemon("reviewd")
	a.daemon("master-buildd")
	published := func(what string) {
		t.Helper()
		a.daemon("archived")
		if got := a.packmill("archive", "ls", "stable"); strings.Contains(got, "bash") || strings.Contains(got, "evil") {
			t.Errorf("%s: published\n%s", what, got)
		}
	}
	const item = "archive/incoming/stable/50-20261128T100000.000000Z_bash_99"
	ticket := func(fields string) string {
		return "printf 'Source: bash\\nVersion: 99\\nDistribution: stable\\nDsc: bash_99.dsc\\n" +
			"Changes: bash_99_source.changes\\nArchitecture: any\\n" + fields + "' > $I/ticket\n"
	}
	with := func(dir, fields string) string {
		return "I=" + item + "\nmkdir -m 775 $I\ncp " + dir + "/bash* $I/\n" + ticket(fields)
	}
	unsigned := a.source(uploadtest.Package{Source: "bash", Version: "99"})
	byBuilder := a.source(uploadtest.Package{Source: "bash", Version: "99", Signer: stolen})
	known := a.source(uploadtest.Package{Source: "bash", Version: "99", Signer: a.signer, Distribution: "nosuchsuite"})
	for _, tc := range []struct{ what, script string }{
		{"an unsigned source of a trusted account", with(unsigned, "Account: acc\\n")},
		{"a source that the builder's key signed", with(byBuilder, "Fingerprint: "+stolen.Fingerprint()+"\\n")},
		{"a source that a known key signed, for another suite and without the right",
			with(known, "Fingerprint: "+a.signer.Fingerprint()+"\\nUploader: Up Loader\\n")},
		{"with the statement of another source",
			with(known, "Fingerprint: "+a.signer.Fingerprint()+"\\n") + "cp queue/stable/master/*/statement $I/"},
		{"with a statement that the builder's key signed",
			with(unsigned, "Account: acc\\n") + "cp " + filepath.Join(a.home, "statement") + " $I/"},
	} {
		signed, err := stolen.Clearsign([]byte("Source: bash\nVersion: 99\nDistribution: stable\nSuites: stable\n"+
			"Received: 2026-11-28T10:00:00Z\nAccount: acc\nUploader: acc\nChanges: bash_99_source.changes\n"), time.Now())
		a.must(err)
		a.must(os.WriteFile(filepath.Join(a.home, "statement"), signed, 0o644))
		if out, err := a.sh(build, tc.script); err != nil {
			t.Fatalf("%s: what the account may do: %v\n%s", tc.what, err, out)
		}
		published(tc.what)
		a.says(a.reason(spool.Rejected, "bash"), "made it as a source")
		a.must(os.RemoveAll(a.one("spool/rejected/*_bash_99")))
	}
	// The source of an upload that was let in, rewritten in place, or taken from there: the kernel refuses.
	real := strings.TrimPrefix(a.one("queue/stable/master/*_real_1.0"), a.tree+"/")
	for _, script := range []string{"cp -f " + unsigned + "/bash* " + real + "/", "cp " + unsigned + "/bash_99.dsc " + real + "/real_1.0.dsc",
		"I=" + real + "\n" + ticket("Account: acc\\n"), "rm " + real + "/ticket", "mv " + real + " " + item} {
		if out, err := a.sh(build, script); err == nil || !strings.Contains(out, "ermission denied") {
			t.Errorf("a source of the master queue: %s: %v, %q, want it refused", script, err, out)
		}
	}
	published("a source of the master queue, rewritten")
	a.want(a.where(), "master source real_1.0", "needs-build amd64 real_1.0")

	// A job of a source that was let in, with a package of another name.
	a.drop(uploadtest.Package{Source: "hello", Version: "1.0"})
	a.daemon("reviewd")
	a.daemon("master-buildd")
	u := debtest.Upload{Source: debtest.Source{Name: "hello", Version: "1.0"}, NoSource: true, Distribution: "stable",
		Debs: []debtest.Deb{{Name: "hello", Version: "1.0", Arch: "amd64"},
			{Name: "bash", Version: "99", Arch: "amd64", Source: "hello (1.0)"}}}
	dir, err := os.MkdirTemp(filepath.Dir(a.tree), "result")
	a.must(err)
	a.must(os.Chmod(dir, 0o755))
	name, err := u.Write(dir)
	a.must(err)
	data, err := os.ReadFile(name)
	a.must(err)
	signed, err := stolen.Clearsign(data, time.Now())
	a.must(err)
	a.must(os.WriteFile(name, signed, 0o644))
	// What buildd itself may do: take the job, and lay it into the archive queue.
	if out, err := a.sh(build,
		"I=$(echo queue/stable/amd64/needs-build/*_hello_1.0)\nmkdir -p $I/result\ncp "+dir+"/* $I/result/\n"+
			"(cat $I/ticket; echo 'Result: "+filepath.Base(name)+"') > $I/new\nmv -f $I/new $I/ticket\n"+
			"mv $I archive/incoming/stable/$(basename $I)_amd64"); err != nil {
		t.Fatalf("the builder's own move: %v\n%s", err, out)
	}
	a.daemon("master-buildd")
	published("a package that the source does not name")
	a.says(a.reason(spool.BuildAttempted, "hello"), "does not name the package bash")
}

// TestJobIsNoSource: the account of the builds may write in a job's directory, which is
// master-buildd's. Filled with a source that was let in, statement and all, and laid into
// the archive queue it is none: not in a suite where a reviewer is asked, and not again
// where it was removed. root's init --users in between makes it none either.
func TestJobIsNoSource(t *testing.T) {
	a := newAccounts(t)
	a.control("suites", a.suites()+"\nSuite: careful\nArchitectures: amd64\nReview: always\nSign-With: private/archive.key\n")
	a.drop(uploadtest.Package{Source: "hello", Version: "1.0"})
	a.through()
	build, kept := credential(t, spool.UserBuild), filepath.Join(a.home, "kept")
	a.must(os.Mkdir(kept, 0o755))
	own(t, spool.UserBuild, kept)
	if out, err := a.sh(build, "umask 2; cp archive/installed/stable/source/h/*_hello_1.0/* archive/pool/main/h/hello/hello_1.0.tar.* "+
		kept); err != nil {
		t.Fatalf("what everybody in the house reads: %v\n%s", err, out)
	}
	a.packmill("archive", "rm", "stable", "hello", "--yes")
	for i, suite := range []string{"careful", "stable"} {
		a.drop(uploadtest.Package{Source: "world", Version: fmt.Sprint(i + 1)})
		a.daemon("reviewd")
		a.daemon("master-buildd")
		out, err := a.sh(build, "umask 2; I=archive/incoming/"+suite+"/50-20261128T100000.000000Z_hello_1.0\n"+
			"mv queue/stable/amd64/needs-build/*_world_* $I; rm -r $I/*; cp "+kept+"/* $I\n"+
			"sed -i 's/^Distribution: .*/Distribution: "+suite+"/' $I/ticket")
		if err != nil {
			t.Fatalf("what the account may do: %v\n%s", err, out)
		}
		a.packmill("init", "--users")
		a.daemon("archived")
		if got := a.packmill("archive", "ls", suite); strings.Contains(got, "hello") {
			t.Errorf("%s has a source that nobody let into it:\n%s", suite, got)
		}
		if suite == "stable" { // of which it was taken out
			a.says(a.packmill("ls", "hello"), "its source was removed from the suite")
			continue
		}
		a.says(a.reason(spool.Rejected, "hello"), "made it as a source")
		a.must(os.RemoveAll(a.one("spool/rejected/*_hello_1.0")))
	}
}

// TestReadAnother: an uploader whose upload is being read puts another in its place: a
// newer version, or the same one with other files once he has cancelled the first. What
// the reviewer says of the name that he read accepts neither.
func TestReadAnother(t *testing.T) {
	a := newAccounts(t, "Review: always")
	reviewer := a.somebody(reviewerUID, spool.GroupAll, spool.GroupReview, spool.GroupDesk)
	send := func(version, script string) {
		t.Helper()
		a.drop(uploadtest.Package{Source: "hello", Version: version, Script: script})
		a.daemon("reviewd")
	}
	accept := func(word string) (string, error) { return a.sh(reviewer, "packmill review accept "+word) }
	send("1.0", "echo good")
	send("1.1", "echo evil")
	if out, err := accept("hello"); err == nil || !strings.Contains(out, "came in the place of hello_1.0") {
		t.Errorf("accept hello after hello_1.0 became hello_1.1: %v\n%s", err, out)
	}
	text, err := a.signer.Clearsign([]byte("Archive: x\nUploader: up <up@example.org>\nCommands:\n "+
		"cancel hello_1.1_source.changes\n"), time.Now())
	a.must(err)
	a.must(os.WriteFile(filepath.Join(a.tree, "spool/incoming/up.commands"), text, 0o644))
	a.daemon("reviewd")
	send("1.1", "echo worse")
	if out, err := accept("hello_1.1"); err == nil || !strings.Contains(out, "came in the place of hello_1.1") {
		t.Errorf("accept hello_1.1 after it was sent again: %v\n%s", err, out)
	}
	a.want(a.where(), "attic source dcut_0", "attic source hello_1.0", "attic source hello_1.1", "review source hello_1.1")
	if out, err := accept(filepath.Base(a.item(spool.Review, "hello"))); err != nil {
		t.Errorf("by its whole name: %v\n%s", err, out)
	}
}

// TestReviewersPlan: a reviewer may write in the directory of an upload that waits, and in
// a source's that waits for its builds. No plan of his, and none of another source, has a
// source published before its builds have settled.
func TestReviewersPlan(t *testing.T) {
	a := newAccounts(t, "Review: always")
	reviewer := a.somebody(reviewerUID, spool.GroupAll, spool.GroupReview, spool.GroupDesk)
	a.daemon("master-buildd") // which makes the directories
	for _, name := range []string{"early", "late", "other"} {
		a.drop(uploadtest.Package{Source: name, Version: "1.0", Architecture: map[bool]string{true: "all", false: "any"}[name ==
			"other"]})
	}
	a.daemon("reviewd")
	as := func(script string) {
		t.Helper()
		if out, err := a.sh(reviewer, "umask 2\n"+script); err != nil {
			t.Fatalf("what a reviewer may: %v\n%s", err, out)
		}
	}
	as(`cd spool/review/stable
printf 'Jobs: \nNot-For-Us: \nHas-Binaries: amd64\nClass: 50\n' >$(echo *_early_1.0)/plan
mv * ../../accepted/stable/`)
	a.daemon("master-buildd")
	waits := []string{"master source early_1.0", "master source late_1.0", "master source other_1.0",
		"needs-build amd64 early_1.0", "needs-build amd64 late_1.0", "needs-build all other_1.0",
		"auto-not-for-us amd64 other_1.0"}
	a.want(a.where(), waits...)
	as(`cd queue/stable/master
rm *_late_1.0/plan; printf 'Jobs: \nClass: 50\n' >$(echo *_late_1.0)/plan
rm *_early_1.0/plan; mv *_other_1.0/plan *_early_1.0/`)
	a.daemon("master-buildd")
	a.want(a.where(), waits...)
	a.daemon("archived")
	if got := a.packmill("archive", "ls", "stable"); strings.Contains(got, "_1.0") || strings.Contains(got, "1.0") {
		t.Errorf("published before it was built:\n%s", got)
	}
	a.daemon("buildd", "--arch", "amd64")
	a.daemon("buildd", "--arch", "all")
	a.daemon("master-buildd")
	a.daemon("archived")
	for _, name := range []string{"early", "late", "other"} {
		if n := len(a.found(name, spool.Installed)); n < 2 {
			t.Errorf("%s did not go on:\n%s", name, a.packmill("ls"))
		}
	}
}
