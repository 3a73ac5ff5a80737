package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/rivo/uniseg"

	"packmill/spool/upload/uploadtest"
)

// sgr are the sequences that colour text.
var sgr = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// at80x24 runs packmill at a terminal of 80 columns and gives what it showed,
// with its exit status. No line may be wider.
func (x *desktop) at80x24(env []string, args ...string) (string, int) {
	x.t.Helper()
	person, program := newTerminal(x.t)
	cmd := exec.Command("packmill", args...)
	cmd.Env = append(append(os.Environ(), "PACKMILL_TREE="+x.tree.Root(), "TERM=xterm", "LC_ALL=C.UTF-8", "PAGER=cat",
		"NO_COLOR="), append(x.env, env...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		x.t.Fatal(err)
	}
	program.Close()
	var text strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := person.Read(buf)
		text.Write(buf[:n])
		if err != nil {
			break // EIO: the program has ended
		}
	}
	cmd.Wait()
	out := strings.ReplaceAll(text.String(), "\r\n", "\n")
	for line := range strings.Lines(sgr.ReplaceAllString(out, "")) {
		if n := uniseg.StringWidth(strings.TrimRight(line, " \n")); n > 80 && !strings.HasPrefix(line, "packmill: ") &&
			!slices.Contains(args, "show") {
			x.t.Errorf("packmill %q: a line of %d columns: %q", args, n, line)
		}
	}
	return out, cmd.ProcessState.ExitCode()
}

// TestReviewerAt80x24 is a reviewer's session at a small terminal, with names as
// long as Debian's: each row is one line, states have colours, what is typed
// wrong is asked back.
func TestReviewerAt80x24(t *testing.T) {
	x := newDesktop(t)
	ann := signer(t)
	for _, source := range []string{"node-babel-plugin-add-module-exports-with-a-long-name",
		"libreoffice-dictionaries-and-thesauri-of-the-world", "hello"} {
		x.waits(uploadtest.Package{Source: source, Version: "1:24.2.3~rc1+dfsg-2+deb13u1", Signer: ann,
			Distribution: "stable"}, "warning: an old standard [standards]")
	}
	for _, c := range []struct {
		args   string
		status int
		lines  int // 0: any number
		want   []string
	}{
		{"review", 0, 4, []string{"AGE", "node-babel-plugin-a", "…", "hello", "\x1b[1mnew\x1b[0m"}},
		{"review lib* --older 1h", 0, 1, []string{"nothing waits for review"}},
		{"review accept lib* --older 1h", 1, 1, []string{"old enough"}},
		{"review lib*", 0, 2, []string{"libreoffice-dict"}},
		{"ls", 0, 4, []string{"\x1b[33mreview\x1b[0m", "stable", "…"}},
		{"ls node* hello --suite sta* -s review", 0, 3, []string{"hello_1:24.2.3~rc1+dfsg-2"}},
		{"status hello node* -s review --suite sta*", 0, 2, []string{"ITEMS", "2"}},
		{"status --older 1h", 0, 1, []string{"nothing"}},
		{"status -s reveiw", 100, 0, []string{`there is no state "reveiw"; did you mean review?`}},
		{"ls -s reveiw", 100, 0, []string{`there is no state "reveiw"; did you mean review?`}},
		{"ls helo", 1, 0, []string{"nothing here is called helo; did you mean hello?"}},
		{"review show --no-lintian --no-diff hello", 0, 0, []string{"Version:", "(new)"}},
		{"review hold hello -m later", 0, 1, []string{"hello_1:24.2.3~rc1+dfsg-2+deb13u1: on hold: later"}},
		{"review", 0, 4, []string{"on hold by "}},
		{"review hold hello --off", 0, 1, []string{"no longer on hold"}},
		{"review hold hello --off", 1, 1, []string{"it is not on hold"}},
		{"review accpet hello", 100, 0, []string{"there is no packmill review accpet; did you mean accept?"}},
		{"review accept hello", 0, 1, []string{"spool/review/stable -> spool/accepted/stable"}},
		{"review reject --since", 100, 0, []string{"there is no option --since"}},
		{"log ls --since", 100, 0, []string{"--since wants a value"}},
		{"log ls -s stabel", 100, 0, []string{"there is no suite stabel in control/suites; did you mean stable?"}},
		{"log grep -s stabel it", 100, 0, []string{"did you mean stable?"}},
		{"log -s stabel hello", 100, 0, []string{"did you mean stable?"}},
		{"log ls -s stable", 0, 0, nil},
		{"log grep -s stable it", 1, 0, []string{"0 matches in 0 logs"}},
		{"cancel hello", 100, 0, []string{`it needs <arch>`}},
		{"why hello -s stabel", 100, 0, []string{"there is no suite stabel in control/suites; did you mean stable?"}},
		{"why hello", 0, 0, []string{"accepted since", "next:       master-buildd"}},
		{"status", 0, 3, []string{"ITEMS", "review", "accepted"}},
	} {
		out, status := x.at80x24(nil, strings.Fields(c.args)...)
		if status != c.status {
			t.Errorf("packmill %s: status %d, want %d\n%s", c.args, status, c.status, out)
		}
		if n := strings.Count(out, "\n"); c.lines > 0 && n != c.lines {
			t.Errorf("packmill %s: %d lines, want %d\n%s", c.args, n, c.lines, out)
		}
		for _, w := range c.want {
			if !strings.Contains(out, w) {
				t.Errorf("packmill %s: no %q in\n%s", c.args, w, out)
			}
		}
	}
	if out, _ := x.at80x24([]string{"NO_COLOR=1"}, "ls"); sgr.MatchString(out) {
		t.Errorf("colours though NO_COLOR is set:\n%q", out)
	}
	if out, _ := x.at80x24([]string{"PACKMILL_PAGER=sed s/^/through-the-pager:/", "NO_COLOR=1"},
		"status"); !strings.Contains(out, "through-the-pager:ITEMS") {
		t.Errorf("no pager:\n%s", out)
	}
	if out, _ := x.at80x24([]string{"PACKMILL_PAGER=sed s/^/through-the-pager:/"}, "--no-pager",
		"status"); strings.Contains(out, "through-the-pager") {
		t.Errorf("a pager though --no-pager says none:\n%s", out)
	}
	// In a pipe nothing is cut or coloured, and names are whole.
	if out := x.must(nil, "ls"); strings.Contains(out, "…") || sgr.MatchString(out) ||
		!strings.Contains(out, "_node-babel-plugin-add-module-exports-with-a-long-name_1%3a24.2.3~rc1+dfsg-2+deb13u1") {
		t.Errorf("in a pipe:\n%s", out)
	}
}

// TestJSONOfRefusals: with --json an error is an object, and so is what hold did.
func TestJSONOfRefusals(t *testing.T) {
	x := newDesktop(t)
	x.waits(uploadtest.Package{Source: "hello", Version: "1.0-1", Signer: signer(t)}, "")
	for _, c := range []struct {
		args  string
		field string
		want  any
	}{
		{"--json ls nosuch", "exit", 1.0},
		{"--json ls --nosuch", "exit", 100.0},
		{"--json why hello -s nosuch", "error", "there is no suite nosuch in control/suites, only stable"},
		{"--json review hold hello -m later", "did", "on hold: later"},
		{"--json -n review accept hello", "dry_run", true},
	} {
		out, _ := x.run(strings.Fields(c.args)...)
		var got map[string]any
		if err := json.Unmarshal([]byte(out), &got); err != nil || got[c.field] != c.want {
			t.Errorf("packmill %s: %v, %s is %v, want %v\n%s", c.args, err, c.field, got[c.field], c.want, out)
		}
	}
	var r struct{ Files []map[string]any }
	if err := json.Unmarshal([]byte(x.must(nil, "--json", "review", "show", "--no-lintian", "hello")), &r); err != nil ||
		len(r.Files) == 0 || r.Files[0]["size"] == nil {
		t.Errorf("files: %v, %+v", err, r)
	}
}

// TestClosedStates: who may not read a part of the tree sees the rest, with one
// note; who may not change it is told in one sentence what to do.
func TestClosedStates(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	x := newDesktop(t)
	x.waits(uploadtest.Package{Source: "hello", Version: "1.0-1", Signer: signer(t)}, "")
	x.must(nil, "review", "accept", "hello")
	x.waits(uploadtest.Package{Source: "world", Version: "1.0-1", Signer: signer(t)}, "")
	if err := os.Chmod(x.tree.Path("spool/review"), 0o700); err != nil {
		t.Fatal(err)
	}
	// The way to the tree, and a program that others may run.
	for dir := x.tree.Root(); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := exec.LookPath("packmill")
	if err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(filepath.Dir(x.tree.Root()), "packmill")
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mine, data, 0o755); err != nil {
		t.Fatal(err)
	}
	as := func(args ...string) (stdout, stderr string, status int) {
		cmd := exec.Command(mine, args...)
		cmd.Env = append(os.Environ(), "PACKMILL_TREE="+x.tree.Root())
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		var out, problems strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &problems
		cmd.Run()
		return out.String(), problems.String(), cmd.ProcessState.ExitCode()
	}
	for _, args := range [][]string{{"status"}, {"ls"}, {"ls", "hello"}, {"why", "hello"}, {"show", "hello"}} {
		out, problems, status := as(args...)
		if status != 0 || !strings.Contains(out, "accepted") || strings.Contains(out, "world") {
			t.Errorf("packmill %q: status %d\n%s%s", args, status, out, problems)
		}
		if strings.Count(problems, "\n") != 1 ||
			!strings.Contains(problems,
				"left out, since they are closed to you: archive/incoming (root), archive/installed (root), spool/review (root)") {
			t.Errorf("packmill %q: the note is %q", args, problems)
		}
	}
	for _, args := range [][]string{{"review", "accept", "hello"}, {"requeue", "hello"}} {
		if _, problems, status := as(args...); status == 0 ||
			strings.Contains(problems, "permission denied") && strings.Contains(problems, "goroutine") {
			t.Errorf("packmill %q: status %d, %s", args, status, problems)
		}
	}
	if err := os.Chmod(x.tree.Path("spool/review"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, problems, status := as("review", "accept", "world")
	if status != 100 || strings.Count(problems, "\n") != 1 || !strings.Contains(problems, "you may not do this: spool/") ||
		!strings.Contains(problems, " is for ") {
		t.Errorf("accept without rights: status %d, %q; want 100 and one sentence", status, problems)
	}
}
