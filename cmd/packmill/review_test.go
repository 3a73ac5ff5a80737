package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"packmill/archive"
	"packmill/cmd/internal/desk"
	"packmill/cmd/internal/terminal"
	"packmill/internal/openpgp"
	"packmill/queue"
	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// desktop is a tree with uploads that wait for review.
type desktop struct {
	t    *testing.T
	tree *spool.Tree
	env  []string
}

func newDesktop(t *testing.T) *desktop {
	t.Helper()
	tree, err := spool.Init(filepath.Join(t.TempDir(), "tree"))
	if err != nil {
		t.Fatal(err)
	}
	x := &desktop{t: t, tree: tree, env: []string{"XDG_CACHE_HOME=" + t.TempDir()}}
	x.write("control/suites", "Suite: stable\nArchitectures: amd64\n")
	x.write("control/uploaders", "Name: ann\nAccount: ann\nEmail: ann@example.org\nAllow: source, suites=stable\n")
	return x
}

func (x *desktop) write(rel, text string) {
	x.t.Helper()
	if err := os.WriteFile(x.tree.Path(rel), []byte(text), 0o664); err != nil {
		x.t.Fatal(err)
	}
}

// waits puts an upload into review, as reviewd does.
func (x *desktop) waits(p uploadtest.Package, remarks string) string {
	x.t.Helper()
	now := time.Now()
	name := spool.NewName(spool.NormalClass, now, p.Source, p.Version)
	it, err := x.tree.Create(spool.In(spool.Intake), name, spool.Reviewd, "reviewd", "arrived", func(dir string) error {
		changes, err := p.Write(dir)
		if err != nil {
			return err
		}
		dscs, _ := filepath.Glob(filepath.Join(dir, "*.dsc"))
		if len(p.Binary) == 0 {
			p.Binary = []string{p.Source}
		}
		tk := queue.Ticket{Source: p.Source, Version: p.Version, Suite: "stable", Component: "main", Changes: changes,
			Dsc:      filepath.Base(dscs[0]),
			Uploader: "ann", Email: "ann@example.org", Binary: p.Binary, Received: now, Remarks: remarks}
		return os.WriteFile(filepath.Join(dir, spool.TicketFile), tk.Stanza().Append(nil), 0o664)
	})
	if err != nil {
		x.t.Fatal(err)
	}
	defer it.Release()
	if err := it.Move(spool.Reviewd, "reviewd",
		spool.Verdict{To: spool.In(spool.Review, "stable"), Reason: "complete and verified"}); err != nil {
		x.t.Fatal(err)
	}
	return it.Path()
}

// publish puts a source into the suite.
func (x *desktop) publish(p uploadtest.Package) {
	x.t.Helper()
	dir := x.t.TempDir()
	changes, err := p.Write(dir)
	if err != nil {
		x.t.Fatal(err)
	}
	a, err := archive.Open(x.tree.Path("archive"))
	if err != nil {
		x.t.Fatal(err)
	}
	rep, err := a.Publish(context.Background(), archive.Suite{Name: "stable", Architectures: []string{"amd64"}},
		[]archive.Inclusion{{Dir: dir, Changes: changes}}, time.Now())
	if err != nil {
		x.t.Fatalf("%v: %+v", err, rep)
	}
}

// run runs packmill; the status is not judged.
func (x *desktop) run(args ...string) (string, int) {
	x.t.Helper()
	cmd := exec.Command("packmill", args...) // TestMain's
	cmd.Env = append(append(os.Environ(), "PACKMILL_TREE="+x.tree.Root()), x.env...)
	out, err := cmd.CombinedOutput()
	if _, exit := err.(*exec.ExitError); err != nil && !exit {
		x.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// must runs packmill and wants these words in what it says.
func (x *desktop) must(words []string, args ...string) string {
	x.t.Helper()
	out, status := x.run(args...)
	if status != 0 {
		x.t.Fatalf("packmill %q: status %d\n%s", args, status, out)
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			x.t.Errorf("packmill %q: no %q in:\n%s", args, w, out)
		}
	}
	return out
}

func (x *desktop) in(source string, state spool.State) []spool.Found {
	x.t.Helper()
	found, err := x.tree.Find(source, state)
	if err != nil {
		x.t.Fatal(err)
	}
	return found
}

func signer(t *testing.T) *openpgp.Signer {
	t.Helper()
	s, err := openpgp.Generate("Ann", "ann@example.org", time.Now().AddDate(-1, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSession is a reviewer's morning: what waits, what is new in it, and a
// decision on each.
func TestSession(t *testing.T) {
	x := newDesktop(t)
	x.must([]string{"nothing waits for review"}, "review")
	ann := signer(t)
	pkg := func(source, version string) uploadtest.Package {
		return uploadtest.Package{Source: source, Version: version, Signer: ann, Distribution: "stable"}
	}
	x.publish(pkg("hello", "1.0-1"))
	next := pkg("hello", "1.0-2")
	next.BuildDepends = "debhelper-compat (= 13), libssl-dev"
	next.Binary = []string{"hello", "hello-data"}
	next.Debian = func(f map[string]string) {
		f["hello.postinst"] = "#!/bin/sh\nrm -rf /\x1b[2J\n"
		f["copyright"] = "All rights reserved.\n"
	}
	x.waits(next, "warning: an old standard [standards]")
	x.waits(pkg("fresh", "1.0-1"), "")
	for _, s := range []string{"third", "fourth"} {
		x.waits(pkg(s, "1.0-1"), "")
	}

	// A build that waits for what hello makes.
	job := &queue.Ticket{Source: "user", Version: "1", Suite: "stable", BuildArch: "amd64",
		DepWait: "hello-data (>= 1) | x, hello (>= 1.0-2)"}
	it, err := x.tree.Create(spool.In(spool.DepWait, "stable", "amd64"), spool.NewName(50, time.Now(), "user", "1"),
		spool.MasterD, "master-buildd", "waits", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, spool.TicketFile), job.Stanza().Append(nil), 0o664)
		})
	if err != nil {
		t.Fatal(err)
	}
	it.Release()

	out := x.must([]string{"hello", "1.0-2", "update", "user", "fresh", "new"}, "review")
	if n := strings.Count(out, "\n"); n != 5 {
		t.Errorf("the list has %d lines, want 5:\n%s", n, out)
	}
	out = x.must([]string{
		"1.0-2 (update of 1.0-1)", "Rights:        source, suites=stable", "New binary packages:\n  hello-data",
		"New build dependencies:\n  debhelper-compat (= 13)\n  libssl-dev",
		"Maintainer scripts that differ:\n  debian/hello.postinst",
		"Copyright files that differ:\n  debian/copyright", "Files added:\n  debian/hello.postinst",
		"warning: an old standard",
		"-Public domain.\n+All rights reserved.", `+rm -rf /\x1b[2J`, "Waits for it:  user",
	}, "review", "show", "--no-lintian", "hello")
	if strings.ContainsRune(out, 0x1b) {
		t.Error("an escape sequence of the upload reaches the terminal")
	}
	var r desk.Report
	if err := json.Unmarshal([]byte(x.must(nil, "review", "show", "--no-lintian", "--json", "hello")), &r); err != nil ||
		r.Against != "1.0-1" || len(r.Copyright) != 1 {
		t.Errorf("--json: %v, %+v", err, r)
	}
	x.must([]string{"1.0-1 (new)"}, "review", "show", "--no-lintian", "fresh")

	// Without a remark and a terminal nothing is refused.
	if out, status := x.run("review", "reject", "hello"); status != 100 || !strings.Contains(out, "-m TEXT") {
		t.Errorf("reject without a remark: status %d, %s", status, out)
	}
	x.must(nil, "review", "hold", "fresh", "-m", "the licence is asked for")
	x.must([]string{"on hold by"}, "review")
	x.must([]string{"the licence is asked for"}, "review", "show", "--no-lintian", "fresh")
	x.must(nil, "review", "hold", "--off", "fresh")
	if out := x.must(nil, "review"); strings.Contains(out, "on hold") {
		t.Errorf("still on hold: %s", out)
	}
	x.must([]string{"spool/review/stable -> spool/rejected"}, "review", "reject", "hello", "-m",
		"postinst removes everything")
	if got := spool.ReadReason(x.tree.Path(x.in("hello", spool.Rejected)[0].Dir())); !strings.Contains(got,
		"postinst removes everything") || !strings.Contains(got, "an old standard") {
		t.Errorf("REASON: %s", got)
	}
	// Each for itself: what is not there, or refused by now, stops none of the others.
	out, status := x.run("review", "accept", "third", "nosuch", "hello", "fourth", "th*")
	if status != 1 || strings.Count(out, "spool/review/stable -> spool/accepted/stable") != 2 ||
		!strings.Contains(out, "nothing here is called nosuch") {
		t.Errorf("accept of four: status %d, %s", status, out)
	}
	if len(x.in("", spool.Accepted)) != 2 {
		t.Error("not both are accepted")
	}
	again := pkg("hello", "1.0-3")
	x.waits(again, "")
	x.must([]string{"Refused before:", "postinst removes everything"}, "review", "show", "--no-lintian", "hello_1.0-3")
	if out, status = x.run("review", "accept", "nosuch"); status != 1 ||
		!strings.Contains(out, "nothing here is called nosuch") {
		t.Errorf("accept of nothing: status %d, %s", status, out)
	}
	findings, err := x.tree.Fsck()
	if err != nil || len(findings) > 0 {
		t.Errorf("fsck: %v %v", findings, err)
	}
}

// TestTwoPersons: with the rule one reviewer alone accepts nothing; the name is
// the system's, not an option.
func TestTwoPersons(t *testing.T) {
	x := newDesktop(t)
	x.write("control/general", "Two-Persons: yes\n")
	dir := x.waits(uploadtest.Package{Source: "hello", Version: "1.0-1", Signer: signer(t)}, "")
	for range 2 {
		x.must([]string{"a second person"}, "review", "accept", "hello")
	}
	if len(x.in("hello", spool.Review)) != 1 {
		t.Fatal("one person was enough")
	}
	x.must([]string{"accepted by"}, "review")
	// Somebody else's word, as packmill writes it.
	f, err := os.OpenFile(filepath.Join(dir, desk.OpinionsFile), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "%s\tsomebody-else\taccept\tfine\n", time.Now().UTC().Format(time.RFC3339))
	f.Close()
	x.must([]string{"-> spool/accepted/stable"}, "review", "accept", "hello")
}

// TestEditor: the remark is what the editor leaves, without the lines with #.
func TestEditor(t *testing.T) {
	x := newDesktop(t)
	x.waits(uploadtest.Package{Source: "hello", Version: "1.0-1", Signer: signer(t)}, "warning: look here [x]")
	dir := t.TempDir()
	editor := filepath.Join(dir, "ed")
	if err := os.WriteFile(editor,
		[]byte("#!/bin/sh\ncp \"$1\" "+dir+"/template\n{ echo 'not like this'; cat \"$1\"; } >$1.new && mv $1.new \"$1\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	// script gives the command a terminal, as a person's shell does.
	cmd := exec.Command("script", "-qec", "packmill review reject hello", "/dev/null")
	cmd.Env = append(os.Environ(), "PACKMILL_TREE="+x.tree.Root(), "VISUAL="+editor)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("script (package bsdutils): %v\n%s", err, out.String())
	}
	template, _ := os.ReadFile(filepath.Join(dir, "template"))
	if !strings.Contains(string(template), "# reject hello 1.0-1 (stable), uploaded by ann") ||
		!strings.Contains(string(template), "look here") {
		t.Errorf("the template: %s", template)
	}
	found := x.in("hello", spool.Rejected)
	if len(found) != 1 {
		t.Fatalf("not refused: %s", out.String())
	}
	if got := spool.ReadReason(x.tree.Path(found[0].Dir())); !strings.Contains(got, "not like this") ||
		strings.Contains(got, "#") {
		t.Errorf("REASON: %s", got)
	}
}

// TestAsk: a question goes to the uploader's registered address by sendmail.
func TestAsk(t *testing.T) {
	x := newDesktop(t)
	dir := x.waits(uploadtest.Package{Source: "hello", Version: "1.0-1", Signer: signer(t)}, "")
	via := x.tree.Path("../sendmail")
	x.write("../sendmail", "#!/bin/sh\n{ echo \"$*\"; cat; } >"+x.tree.Path("../mail")+"\n")
	if err := os.Chmod(via, 0o755); err != nil {
		t.Fatal(err)
	}
	x.write("control/notify", "Event: rejected\nTo: signer\nFrom: desk@example.org\nVia: "+via+"\n")
	x.must(nil, "review", "ask", "hello", "-m", "Where does src/md5.c come from?")
	data, _ := os.ReadFile(x.tree.Path("../mail"))
	for _, want := range []string{"-- ann@example.org\n", "Where does src/md5.c come from?",
		"Subject: hello 1.0-1 for stable: a question"} {
		if !strings.Contains(string(data), want) {
			t.Errorf("no %q in the mail:\n%s", want, data)
		}
	}
	if o := desk.ReadOpinions(dir); len(o) != 1 || o[0].Verb != "ask" {
		t.Errorf("opinions: %+v", o)
	}
	x.write("../sendmail", "#!/bin/sh\nexit 75\n")
	if _, status := x.run("review", "ask", "hello", "-m", "x"); status == 0 {
		t.Error("a question that could not be sent counts as asked")
	}
}

// TestCompletion: bash completes commands, flags and the items of the moment.
func TestCompletion(t *testing.T) {
	x := newDesktop(t)
	x.waits(uploadtest.Package{Source: "hello", Version: "2:1.0-1", Signer: signer(t)}, "")
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"rev"}, "review\n"},
		{[]string{"review", "acc"}, "accept\n"},
		{[]string{"review", "accept", ""}, "hello\n"},
		{[]string{"review", "accept", "hello_"}, "hello_2%3a1.0-1\n"},
		{[]string{"wb", "g"}, "gb\n"},
		{[]string{"wb", "gb", "hello", ""}, ".\n"},
		{[]string{"wb", "gb", "hello", ".", "a"}, "all\namd64\n"},
		{[]string{"wb", "gb", "hello", ".", "amd64", ".", ""}, "stable\n"},
		{[]string{"cancel", "hello", "am"}, "amd64\n"},
		{[]string{"chroot", "create", ""}, "stable\n"},
		{[]string{"chroot", "create", "stable", ""}, "amd64\n"},
		{[]string{"review", "hold", "--of"}, "--off\n"},
		{[]string{"requeue", ""}, ""},
		{[]string{"review", "reject", "-m", ""}, ""},
		{[]string{"archive", "copy", ""}, "stable\n"},
		{[]string{"archive", "rollback", "stable", ""}, ""},
	} {
		if got, _ := x.run(append([]string{"complete", "--"}, c.words...)...); got != c.want {
			t.Errorf("complete %q: got %q, want %q", c.words, got, c.want)
		}
	}
	for shell, ask := range map[string]string{
		"bash": `COMP_WORDS=(packmill review acc) COMP_CWORD=2; _packmill; echo "$COMPREPLY"`,
		"zsh":  `words=(packmill review acc) CURRENT=3; _packmill`,
		"fish": `complete -C "packmill review acc"`,
	} {
		script := x.must(nil, "completion", shell)
		if shell == "zsh" {
			script = "compdef() { [[ $* = '_packmill packmill' ]] }; compadd() { shift; print -l -- $@ }\n" + script
		}
		if out, err := exec.Command(shell, "-c", script+ask).CombinedOutput(); err != nil ||
			strings.TrimSpace(string(out)) != "accept" {
			t.Errorf("%s (Debian's package %s) completes review acc to %q, %v, want accept", shell, shell, out, err)
		}
	}
}

// TestStatusOfDrops: what no item is yet is told too.
func TestStatusOfDrops(t *testing.T) {
	x := newDesktop(t)
	if err := os.MkdirAll(x.tree.Path("spool/incoming/ann"), 0o775); err != nil {
		t.Fatal(err)
	}
	x.write("spool/incoming/ann/a_1.dsc", "x")
	x.write("spool/incoming/b_1.changes", "Files:\n")
	x.must([]string{"1      incoming (unfinished or deferred)", "1      stray files, in no .changes",
		"spool/incoming/ann"}, "status")
	x.must([]string{`"state":"stray"`, `"dir":"spool/incoming/ann"`}, "status", "--json")
}

var update = flag.Bool("update", false, "write testdata/review/session.txt anew, for a person to read")

// TestTranscript is a reviewer's session at a terminal, as testdata/review/session.txt has
// it: that file is for reading.
func TestTranscript(t *testing.T) {
	x := newDesktop(t)
	x.write("control/general", "Two-Persons: yes\n")
	ann, date := signer(t), time.Now().Add(-time.Hour)
	x.publish(uploadtest.Package{Source: "hello", Version: "1.0-1", Signer: ann, Date: date})
	refused := x.waits(uploadtest.Package{Source: "hello", Version: "1.0-2", Signer: ann, Date: date}, "")
	x.must(nil, "review", "reject", "hello", "-m", "1.0-2 does not build")
	if _, err := os.Lstat(refused); err == nil {
		t.Fatal("1.0-2 still waits")
	}
	x.waits(uploadtest.Package{Source: "hello", Version: "1.0-3", Signer: ann, Date: date,
		Binary: []string{"hello", "hello-data"}, BuildDepends: "debhelper-compat (= 13)",
		Debian: func(f map[string]string) {
			f["copyright"] = "All rights reserved.\n"
		}}, "warning: the urgency is odd [urgency]")
	fresh := x.waits(uploadtest.Package{Source: "fresh", Version: "1.0-1", Signer: ann, Date: date}, "")
	job := &queue.Ticket{Source: "user", Version: "1", Suite: "stable", BuildArch: "amd64", DepWait: "hello-data"}
	it, err := x.tree.Create(spool.In(spool.DepWait, "stable", "amd64"), spool.NewName(50, time.Now(), "user", "1"),
		spool.MasterD, "master-buildd", "waits", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, spool.TicketFile), job.Stanza().Append(nil), 0o664)
		})
	if err != nil {
		t.Fatal(err)
	}
	it.Release()

	dir := t.TempDir()
	editor := filepath.Join(dir, "editor") // shows the template and writes a line, as a person would
	if err := os.WriteFile(editor, []byte("#!/bin/sh\ncat \"$1\"\necho 'debian/copyright names no licence' >\"$1\"\n"),
		0o755); err != nil {
		t.Fatal(err)
	}
	session := strings.NewReplacer("FRESH", fresh, "EDITOR", editor).Replace(`
run() { printf '$ %s\n' "$*"; eval "$*"; }
run packmill review
run packmill review show --no-lintian hello
eval "$(packmill completion bash)"
COMP_WORDS=(packmill review accept he) COMP_CWORD=3
printf '$ packmill review accept he<Tab>\n'; _packmill; printf '%s\n' "${COMPREPLY[@]}"
export VISUAL=EDITOR
run packmill review reject hello
run packmill review hold fresh -m "'who made it?'"
run packmill review
run packmill review hold --off fresh
run packmill review accept fresh
printf '%s\tsomebody-else\taccept\tfine\n' "$(date -u +%FT%TZ)" >>FRESH/opinions
printf '(somebody else says the same)\n'
run packmill review accept fresh -m "'it is fine'"
run packmill review accept fresh
run packmill review
`)
	script := filepath.Join(dir, "session")
	if err := os.WriteFile(script, []byte(session), 0o644); err != nil {
		t.Fatal(err)
	}
	// script gives it a terminal.
	cmd := exec.Command("script", "-qec", "bash "+script, "/dev/null")
	cmd.Env = append(append(os.Environ(), "PACKMILL_TREE="+x.tree.Root(), "TERM=dumb", "LC_ALL=C.UTF-8"), x.env...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("script (package bsdutils): %v\n%s", err, out)
	}
	got := strings.ReplaceAll(string(out), "\r\n", "\n")
	for _, r := range []struct{ expr, to string }{
		{regexp.QuoteMeta(x.tree.Root()), "TREE"}, {`[0-9]{8}T[0-9]{6}\.[0-9]{6}Z`, "TIME"}, {`[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z`, "TIME"},
		{`[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} \+0000`, "DATE"}, {`(?m)^[0-9]+[sm] `, "AGE "}, {`(?m)^ +[0-9]+  `, "  SIZE  "},
		{`[0-9A-F]{40}`, "FINGERPRINT"}, {`\bby ` + regexp.QuoteMeta(terminal.Who()), "by rita"}, {`(?m) +$`, ""}, {`(\S) {2,}`, "$1  "},
	} {
		got = regexp.MustCompile(r.expr).ReplaceAllString(got, r.to)
	}
	const file = "testdata/review/session.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}
