//go:build system

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"packmill/spool/upload/uploadtest"
)

// TestRealTools: what show says is what the real debdiff and lintian say: the
// same differences, and the tags that are new, which it keeps.
func TestRealTools(t *testing.T) {
	for program, pkg := range map[string]string{"debdiff": "devscripts", "lintian": "lintian"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%s is missing; install %s, or run scripts/test, which does", program, pkg)
		}
	}
	x := newDesktop(t)
	ann := signer(t)
	was := uploadtest.Package{Source: "hello", Version: "1.0-1", Signer: ann, BuildDepends: "bash",
		Date: time.Now().Add(-time.Hour)}
	x.publish(was)
	now := was
	now.Version, now.BuildDepends = "1.0-2", "bash, build-essential"
	now.Debian = func(f map[string]string) {
		f["copyright"] = "All rights reserved.\n"
		f["hello.postinst"] = "#!/bin/sh\nset -e\n"
	}
	dir := x.waits(now, "")
	out := x.must([]string{"New tags of lintian:", "build-depends-on-build-essential"}, "review", "show", "hello")
	// It is silent about what the suite's version has too.
	old := t.TempDir()
	if _, err := was.Write(old); err != nil {
		t.Fatal(err)
	}
	lint := exec.Command("lintian", "--allow-root", "--no-cfg", "--fail-on", "none", filepath.Join(old, "hello_1.0-1.dsc"))
	tags, err := lint.Output()
	if err != nil || len(tags) == 0 {
		t.Fatalf("lintian: %v, %q", err, tags)
	}
	for tag := range strings.Lines(string(tags)) {
		if tag = strings.TrimSpace(tag); strings.Contains(tag, ": ") && strings.Contains(out, tag) {
			t.Errorf("show tells %q, which is not new", tag)
		}
	}
	// Once more comes from what was kept: with no lintian to run.
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "lintian"), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	x.env = append(x.env, "PATH="+bin+":"+os.Getenv("PATH"))
	x.must([]string{"build-depends-on-build-essential"}, "review", "show", "hello")
	x.must([]string{"build-depends-on-build-essential"}, "review", "show", "--no-lintian", "hello")
	cmd := exec.Command("debdiff", filepath.Join(old, "hello_1.0-1.dsc"), filepath.Join(dir, "hello_1.0-2.dsc"))
	theirs, err := cmd.Output()
	if exit, ok := err.(*exec.ExitError); err != nil && (!ok || exit.ExitCode() != 1) { // 1: they differ
		t.Fatalf("debdiff: %v", err)
	}
	lines := func(text string) (out []string) {
		for l := range strings.Lines(text) {
			if (l[0] == '+' || l[0] == '-') && !strings.HasPrefix(l, "+++ ") && !strings.HasPrefix(l, "--- ") {
				out = append(out, strings.TrimSpace(l))
			}
		}
		slices.Sort(out)
		return out
	}
	_, ours, _ := strings.Cut(out, "\nDifferences to 1.0-1:\n")
	if a, b := lines(ours), lines(string(theirs)); len(a) == 0 || !slices.Equal(a, b) {
		t.Errorf("show has the differences\n%s\ndebdiff\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
	}
}
