//go:build system

package stories

import (
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
	swap := func(where string) {
		t.Helper()
		item := strings.TrimPrefix(a.one(where), a.tree+"/")
		// What the directories let him do he does, by whichever way.
		out, err := a.sh(reviewer,
			"cd "+item+"; for f in "+evil+"/*; do cp -f $f . || { rm -f ${f##*/}; cp $f .; } || true; done; ls -l")
		t.Logf("in %s: %v\n%s", where, err, out)
	}
	took := func(source string) {
		t.Helper()
		if got := a.packmill("archive", "ls", "stable"); strings.Contains(got, source) {
			t.Errorf("the archive took %s:\n%s", source, got)
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
	where := a.where()
	if where != "rejected source hello_1.0" && where != "master source hello_1.0\nneeds-build amd64 hello_1.0" {
		t.Fatalf("after a swap in review: %s", where)
	}
	if where == "rejected source hello_1.0" {
		a.says(a.reason(spool.Rejected, "hello"), "not what reviewd let in")
		a.drop(uploadtest.Package{Source: "hello", Version: "1.1"})
		a.daemon("reviewd")
		a.packmill("review", "accept", "hello")
		a.daemon("master-buildd")
		evil = a.source(uploadtest.Package{Source: "hello", Version: "1.1", Script: "echo evil", Signer: a.signer})
	}
	swap("queue/stable/amd64/needs-build/*_hello_1.*")
	swap("queue/stable/master/*_hello_1.*")
	a.daemon("buildd", "--arch", "amd64")
	a.daemon("master-buildd")
	a.daemon("archived")
	for _, f := range a.found("hello", spool.Installed) {
		t.Logf("the reviewer could change nothing: %s", f.Dir())
	}
	debs, err := filepath.Glob(filepath.Join(a.tree, "archive/pool/main/h/hello/*.tar.*"))
	a.must(err)
	for _, deb := range debs {
		bad, err := os.ReadFile(filepath.Join(evil, filepath.Base(deb)))
		a.must(err)
		good, err := os.ReadFile(deb)
		a.must(err)
		if string(bad) == string(good) {
			t.Errorf("the archive has the reviewer's %s", deb)
		}
	}
	if len(debs) == 0 {
		took("hello")
	}
	if n := a.builds()["hello_1.1_amd64"]; n > 0 && len(debs) == 0 {
		t.Errorf("the swapped source was built %d times", n)
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
			t.Logf("%s: the kernel refuses: %v %s", tc.what, err, out)
			a.must(os.RemoveAll(filepath.Join(a.tree, item)))
			continue
		}
		published(tc.what)
		if where := a.where(); strings.Contains(where, "installed source bash") ||
			strings.Contains(where, "uploaded source bash") {
			t.Errorf("%s: %s", tc.what, where)
		}
	}
	// The source of an upload that was let in, rewritten in place.
	out, err := a.sh(build,
		"I=$(echo queue/stable/master/*_real_1.0)\ncp -f "+unsigned+"/bash* $I/\n"+ticket("Account: acc\\n")+"mv $I archive/incoming/stable/50-20261128T100000.000000Z_bash_99")
	t.Logf("rewriting a source in the master queue: %v %s", err, out)
	published("a source of the master queue, rewritten")

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
