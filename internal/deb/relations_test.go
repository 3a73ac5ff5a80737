package deb_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"packmill/internal/deb"
	"packmill/internal/deb/debtest"
)

// relations are values of fields, and whether a suite may have them.
var relations = []struct {
	field, value string
	ok           bool
}{
	{"Depends", "bash", true},
	{"Depends", "bash:any (>= 1:2), dash | zsh (<< 3), mksh (> 1)", true},
	{"Depends", "bash(>=1)", true},
	{"Depends", "bash,\n dash (= 1)", true},
	{"Recommends", "bash | dash", true},
	{"Enhances", "bash | dash", true},
	{"Provides", "sh (= 1), shell", true},
	{"Breaks", "bash:any (<< 2)", true},
	{"Conflicts", "bash:amd64", true},
	{"Depends", "zip, bash-\n completion", false},
	{"Depends", "bash dash", false},
	{"Depends", "bash (>= )", false},
	{"Depends", "bash (>= 1", false},
	{"Depends", "bash (>1)", false},
	{"Depends", "bash (1)", false},
	{"Depends", "bash (>= 1) (<< 2)", false},
	{"Depends", "bash [amd64]", false},
	{"Pre-Depends", "bash <!nocheck>", false},
	{"Depends", "bash,,dash", false},
	{"Depends", "bash,", false},
	{"Depends", ",bash", false},
	{"Depends", "bash |", false},
	{"Depends", "\n bash,\n dash", false},
	{"Depends", "bash:", false},
	{"Depends", "${shlibs:Depends}", false},
	{"Suggests", "bash (>= ${Version})", false},
	{"Recommends", "bash (>= v1.2)", false},
	{"Enhances", "a b", false},
	{"Replaces", "a | b", false},
	{"Conflicts", "a | b", false},
	{"Breaks", "a | b", false},
	{"Provides", "a | b", false},
}

// TestRelations holds the gate to dpkg-deb and apt: what it takes they both
// read, and what it refuses one of them does not.
func TestRelations(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"lists/partial", "cache/archives/partial", "repo"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("status", "")
	write("sources.list", "deb [trusted=yes] file:"+dir+"/repo ./\n")
	write("apt.conf", fmt.Sprintf(`Dir::State %[1]q; Dir::State::status "%[1]s/status"; Dir::Cache "%[1]s/cache";
Dir::Etc::sourcelist "%[1]s/sources.list"; Dir::Etc::sourceparts "-"; APT::Sandbox::User ""; Debug::NoLocking "true";
`, dir))
	apt := func(packages string) error {
		write("repo/Packages", packages)
		for _, args := range [][]string{{"apt-get", "update"}, {"apt-cache", "stats"}} {
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Env = append(os.Environ(), "APT_CONFIG="+dir+"/apt.conf", "LC_ALL=C")
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", args, err, out)
			}
		}
		return nil
	}
	var all strings.Builder
	for i, tc := range relations {
		err := deb.CheckRelations(func(name string) string {
			if name != tc.field {
				return ""
			}
			return tc.value
		})
		if (err == nil) != tc.ok {
			t.Errorf("%s: %q: got %v, want it to pass: %t", tc.field, tc.value, err, tc.ok)
		}
		control := fmt.Sprintf("Package: p%d\nVersion: 1\nArchitecture: all\nMaintainer: A <a@packmill.example>\n"+
			"%s: %s\nDescription: x\n", i, tc.field, tc.value)
		stanza := strings.Replace(control, "Description",
			fmt.Sprintf("Filename: ./p.deb\nSize: 1\nSHA256: %064d\nDescription", 0), 1) + "\n"
		write("p/DEBIAN/control", control)
		out, dpkg := exec.Command("dpkg-deb", "-Znone", "--build", filepath.Join(dir, "p"),
			filepath.Join(dir, "p.deb")).CombinedOutput()
		if tc.ok {
			all.WriteString(stanza)
			if dpkg != nil {
				t.Errorf("%s: %q: dpkg-deb: %v: %s", tc.field, tc.value, dpkg, out)
			}
		} else if dpkg == nil && apt(stanza) == nil {
			t.Errorf("%s: %q: dpkg-deb and apt read it, and it is refused: %v", tc.field, tc.value, err)
		}
	}
	if err := apt(all.String()); err != nil {
		t.Error(err)
	}
}

// TestFieldsThatDpkgRefuses has control files that dpkg-deb builds nothing from.
func TestFieldsThatDpkgRefuses(t *testing.T) {
	const good = "Package: pp\nVersion: 1\nArchitecture: all\nMaintainer: A <a@packmill.example>\nDescription: x\n" +
		" about ${shlibs:Depends}\n"
	for text, want := range map[string]string{
		good:                           "",
		good + "Multi-Arch: foreign\n": "",
		good + "Multi-Arch: yes\n":     `pp_1_all.deb: control file: Multi-Arch: "yes"; write one of: no, same, foreign, allowed`,
		good + "Essential: maybe\n":    `pp_1_all.deb: control file: Essential: "maybe"; write one of: yes, no`,
		good + "Depends: a b\n":        `pp_1_all.deb: control file: Depends: relation "a b": 'b' after its end; separate relations with a comma; correct debian/control`,
		good + "Built-For: ${a:Suite}\n": "pp_1_all.deb: control file: Built-For: ${a:Suite} was not replaced; " +
			"build the package with dpkg-gencontrol",
		strings.TrimSuffix(good, "\n"): "pp_1_all.deb: the control file ends in the middle of a line, " +
			"which dpkg does not install; build the package again with dpkg-deb",
	} {
		p, err := deb.Read(bytes.NewReader(debtest.Deb{Name: "pp", Version: "1", Arch: "all", Control: text}.Bytes()),
			"pp_1_all.deb", deb.Options{})
		if err == nil {
			err = p.CheckFields("pp_1_all.deb")
		}
		if got := fmt.Sprint(err); got != want && !(err == nil && want == "") {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
