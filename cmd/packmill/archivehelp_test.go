package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// examples are the lines of a help text that are commands, without what is said
// of them.
func examplesOf(help string) []string {
	var out []string
	for line := range strings.Lines(help) {
		if cmd, ok := strings.CutPrefix(line, "  packmill "); ok {
			cmd, _, _ = strings.Cut(strings.TrimSpace(cmd), "   ")
			out = append(out, "packmill "+cmd)
		}
	}
	return out
}

// serves runs the command until it is interrupted: what it says of its address is true.
func serves(t *testing.T, dir, line string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", "exec "+line+" --json")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	cmd.Env = append(os.Environ(), "PACKMILL_TREE="+filepath.Join(dir, "tree"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var at struct{ URL string }
	if err := json.NewDecoder(out).Decode(&at); err != nil {
		t.Errorf("%s: %v", line, err)
	}
	for path, want := range map[string]int{"dists/unstable/InRelease": http.StatusOK, "cache/": http.StatusNotFound} {
		if r, err := http.Get(at.URL + path); err != nil {
			t.Errorf("%s: %v", line, err)
		} else if r.Body.Close(); r.StatusCode != want {
			t.Errorf("%s: %s: got %s, want %d", line, path, r.Status, want)
		}
	}
	if err := errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait()); err != nil {
		t.Errorf("%s, interrupted: %v", line, err)
	}
}

// Every command of the archive has an example, and each example does what it
// says when it is pasted; with --json it prints JSON and nothing else.
func TestArchiveExamples(t *testing.T) {
	t.Parallel()
	var c cli
	parser, err := grammar(&c, "")
	if err != nil {
		t.Fatal(err)
	}
	examples := map[string][]string{}
	for _, n := range parser.Model.Leaves(true) {
		if name, ok := strings.CutPrefix(n.FullPath(), "packmill archive "); ok {
			if p, ok := n.Target.Addr().Interface().(kong.HelpProvider); !ok || len(examplesOf(p.Help())) == 0 {
				t.Errorf("%s --help has no example", n.FullPath())
			} else {
				examples[name] = examplesOf(p.Help())
			}
		}
	}
	examples["snapshot"] = examplesOf(archiveSnapshot{}.Help())
	dir := t.TempDir()
	do := func(line string) string {
		t.Helper()
		cmd := exec.Command("sh", "-c", line)
		var stderr bytes.Buffer
		cmd.Dir, cmd.Stderr = dir, &stderr
		cmd.Env = append(os.Environ(), "PACKMILL_TREE="+filepath.Join(dir, "tree"))
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("%s: %v\n%s%s", line, err, out, stderr.String())
		}
		return string(out)
	}
	suites := ""
	for _, s := range []string{"unstable", "testing", "stable"} {
		suites += "Suite: " + s + "\nArchitectures: amd64\nSign-With: private/archive.key\nOpkg: " +
			map[bool]string{true: "yes", false: "no"}[s == "unstable"] + "\n\n"
	}
	do("packmill init --archive && packmill key new archive && mkupload hello 2.10-3 && mkupload world 1.0-1 'hello " +
		"(>= 1)'")
	if err := os.WriteFile(filepath.Join(dir, "tree/control/suites"), []byte(suites), 0o644); err != nil {
		t.Fatal(err)
	}
	do("mkdir debs && cd debs && mkupload other 1-1 && rm *.dsc && dpkg-scanpackages . >Packages 2>/dev/null")
	// Another archive, of the suite sid.
	do("cp -r tree old-tree && sed -i 's/^Suite: unstable/Suite: " +
		"sid/' old-tree/control/suites && mkupload far 1-1 && packmill --tree old-tree archive include sid " +
		"far_1-1_amd64.changes && mv old-tree/archive old && cp tree/control/keys/archive.asc old.asc")
	order := []string{"include", "ls", "show", "sources", "opkg-conf", "copy", "snapshot", "snapshot create",
		"snapshot ls", "snapshot rm", "diff", "cruft", "override", "rollback", "move", "rm",
		"import", "check", "gc", "export", "push", "key export", "key rotate", "serve"}
	tried := 0
	for _, name := range order {
		for _, line := range examples[name] {
			if strings.Contains(line, ".example.org:") || strings.Contains(line, "s3:") ||
				strings.Contains(line, "old.example.org") {
				continue // not without the network
			}
			if strings.Contains(line, "rm monday") {
				continue // it is still needed
			}
			tried++
			if name == "serve" {
				serves(t, dir, strings.Replace(line, "8080", "0", 1))
				continue
			}
			out := do(line + " --dry-run --json")
			for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
				var v map[string]any
				if err := dec.Decode(&v); err != nil {
					t.Errorf("%s --json: %v in %q", line, err, out)
					break
				}
			}
			do(line)
		}
		delete(examples, name)
	}
	if tried < 25 {
		t.Errorf("tried %d examples, want 25 at least", tried)
	}
	for name := range examples {
		t.Errorf("the examples of %s were not tried", name)
	}
}
