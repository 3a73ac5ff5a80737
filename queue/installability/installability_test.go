package installability

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"packmill/internal/deb/debtest"
	"packmill/internal/policy"
)

// suite is a small archive; p makes its entries.
var suite = p("build-essential 1", "Depends: gcc, libc-dev") +
	p("gcc 4:12.2-3", "") +
	p("libc-dev 2.36-9", "Multi-Arch: same") +
	p("base-files 12", "Essential: yes", "Conflicts: evil") +
	p("evil 1") +
	p("tool 1.0-1", "Architecture: all", "Multi-Arch: foreign") +
	p("liba-dev 1.0-1+b1", "Source: liba (1.0-1)", "Depends: libb-dev (>= 2)") +
	p("libb-dev 1.0-1") +
	p("deep-dev 1", "Depends: mid-dev (= 1)") +
	p("mid-dev 1", "Depends: liba-dev | nothing-like-it") +
	p("old-dev 1", "Conflicts: new-dev") +
	p("new-dev 2", "Provides: virtual-dev (= 3), plain-virtual") +
	p("via-old 1", "Pre-Depends: old-dev") +
	p("broken-fields 1", "Depends: a b c (") +
	p("folded-dev 1", "Depends: gcc,\n libc-dev\n (>= 2)") +
	p("versions 1.0") + p("versions 3.0") + p("versions 2.0") +
	p("foreign 1", "Architecture: arm64")

func p(name string, fields ...string) string {
	n, v, _ := strings.Cut(name, " ")
	text := "Package: " + n + "\nVersion: " + v + "\n"
	arch := "Architecture: amd64\n"
	for _, f := range fields {
		if strings.HasPrefix(f, "Architecture:") {
			arch = ""
		}
		if f != "" {
			text += f + "\n"
		}
	}
	return text + arch + "\n"
}

func index(t testing.TB, texts ...string) *Index {
	t.Helper()
	dir := t.TempDir()
	var paths []string
	for i, text := range texts {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	x, err := ReadIndex("amd64", paths...)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// cases are judged by both judges. direct is "same" where the short way sees
// as much.
var cases = []struct {
	name         string
	job          Job
	dose, direct string // Why, or Wait where the job waits
}{
	{"nothing", Job{}, "", "same"},
	{"good", Job{BuildDepends: "gcc (>= 4:10), tool:any, libc-dev:native, virtual-dev (>= 2), plain-virtual"}, "", "same"},
	{"missing", Job{BuildDepends: "gcc, nonesuch (>= 3)"}, "build-depends on missing nonesuch (>= 3)", "same"},
	{"too old", Job{BuildDepends: "libb-dev (>> 1.0-1)"}, "build-depends on missing libb-dev (>> 1.0-1)", "same"},
	{"too new", Job{BuildDepends: "libb-dev (<< 1.0-1)"}, "build-depends on missing libb-dev (<< 1.0-1)", "same"},
	{"binNMU satisfies", Job{BuildDepends: "liba-dev (>= 1.0-1)"},
		"build-depends on liba-dev, which depends on missing libb-dev (>= 2)", ""},
	{"first alternative only", Job{BuildDepends: "nonesuch | gcc"}, "build-depends on missing nonesuch", "same"},
	{"first alternative is broken", Job{BuildDepends: "liba-dev | gcc"},
		"build-depends on liba-dev, which depends on missing libb-dev (>= 2)", ""},
	{"same package twice", Job{BuildDepends: "gcc (<< 2) | gcc (>= 3) | nonesuch"}, "", "same"},
	{"same package twice, neither", Job{BuildDepends: "libb-dev (<< 1.0) | libb-dev (>= 2)"},
		"build-depends on missing libb-dev (<< 1.0) | libb-dev (>= 2)", "same"},
	{"deep", Job{BuildDepends: "deep-dev"}, "build-depends on deep-dev, which depends on mid-dev, " +
		"which depends on liba-dev, which depends on missing libb-dev (>= 2)", ""},
	{"virtual too old", Job{BuildDepends: "virtual-dev (>= 4)"}, "build-depends on missing virtual-dev (>= 4)", "same"},
	{"virtual without version", Job{BuildDepends: "plain-virtual (>= 1)"}, "build-depends on missing plain-virtual (>= 1)",
		"same"},
	{"conflict", Job{BuildDepends: "old-dev, new-dev"},
		"build-depends on old-dev, which conflicts with new-dev, but build-depends on new-dev", ""},
	{"conflict, deep", Job{BuildDepends: "new-dev, via-old"},
		"build-depends on via-old, which depends on old-dev, which conflicts with new-dev, but build-depends on new-dev", ""},
	{"build-conflicts", Job{BuildDepends: "tool", BuildConflicts: "tool"},
		"build-conflicts with tool, but build-depends on tool", ""},
	{"build-conflicts, harmless", Job{BuildDepends: "gcc", BuildConflicts: "tool"}, "", "same"},
	{"other architecture", Job{BuildDepends: "nonesuch [arm64], nonesuch2 [!linux-any]"}, "", "same"},
	{"profile", Job{BuildDepends: "nonesuch <!nocheck>, nonesuch2 <stage1>", Profiles: []string{"nocheck"}}, "", "same"},
	{"profile off", Job{BuildDepends: "nonesuch<!nocheck>"}, "build-depends on missing nonesuch", "same"},
	{"arch fields", Job{BuildDepends: "gcc", BuildDependsArch: "nonesuch", BuildDependsIndep: "nonesuch2"},
		"build-depends on missing nonesuch", "same"},
	{"indep fields", Job{Arch: "all", BuildDepends: "gcc", BuildDependsArch: "nonesuch", BuildDependsIndep: "nonesuch2"},
		"build-depends on missing nonesuch2", "same"},
	{"indep conflicts", Job{Arch: "all", BuildDepends: "tool", BuildConflictsArch: "gcc", BuildConflictsIndep: "tool"},
		"build-conflicts with tool, but build-depends on tool", ""},
	{"extra depends", Job{BuildDepends: "gcc", ExtraDepends: "libb-dev (>= 2)"},
		"build-depends on missing libb-dev (>= 2)", "same"},
	{"extra conflicts", Job{BuildDepends: "tool", ExtraConflicts: "tool"},
		"build-conflicts with tool, but build-depends on tool", ""},
	{"essential", Job{BuildDepends: "evil"},
		"build-depends on base-files, which conflicts with evil, but build-depends on evil", ""},
	{"newest version only", Job{BuildDepends: "versions (<< 3)"}, "build-depends on missing versions (<< 3)", "same"},
	{"foreign package", Job{BuildDepends: "foreign"}, "build-depends on missing foreign", "same"},
	{"foreign qualifier", Job{BuildDepends: "gcc:arm64"}, "build-depends on missing gcc:arm64", "same"},
	{"package with bad fields", Job{BuildDepends: "broken-fields"}, "build-depends on missing broken-fields", ""},
	{"bad relation", Job{BuildDepends: "gcc, a b"}, `Build-Depends: relation "a b": 'b' after its end; separate relations with a comma`, "same"},
	{"wait, over", Job{BuildDepends: "nonesuch", Waits: "libb-dev (>= 1)"}, "", "same"},
	{"wait, missing", Job{Waits: "libb-dev (>= 2)"}, "waits for missing libb-dev (>= 2)", "same"},
	{"wait, there but broken", Job{Waits: "liba-dev"}, "waits for liba-dev, which depends on missing libb-dev (>= 2)", ""},
	{"over several lines", Job{BuildDepends: "gcc,\n folded-dev,\n nonesuch"}, "build-depends on missing nonesuch", "same"},
	{"what needs something over several lines", Job{BuildDepends: "folded-dev"}, "", "same"},
	{"wait, bad relation", Job{Waits: "a ("}, `dep-wait: relation "a (": no such comparison: ""; write <<, <=, =, >= or >>`, "same"},
}

func jobs() []Job {
	var all []Job
	for _, c := range cases {
		j := c.job
		j.Source, j.Version = "hello", "1:2.10-3"
		if j.Arch == "" {
			j.Arch = "amd64"
		}
		all = append(all, j)
	}
	return all
}

func relevant(j *Job, a Answer) string {
	if j.Waits != "" {
		return a.Wait
	}
	return a.Why
}

func TestDose(t *testing.T) {
	x := index(t, suite)
	tmp := t.TempDir()
	all := jobs()
	got, err := Dose(context.Background(), x, all, tmp)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range cases {
		if text := relevant(&all[i], got[i]); text != c.dose {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, text, c.dose)
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
	// Each alone has the same answer as all together.
	for i := range cases {
		one, err := Dose(context.Background(), x, all[i:i+1], tmp)
		if err != nil || !reflect.DeepEqual(one[0], got[i]) {
			t.Errorf("%s alone: %v, %v, not %v", cases[i].name, one, err, got[i])
		}
	}
}

func TestDirect(t *testing.T) {
	all := jobs()
	got, err := Direct(index(t, suite), all)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range cases {
		want := c.direct
		if want == "same" {
			want = c.dose
		}
		if text := relevant(&all[i], got[i]); text != want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, text, want)
		}
	}
}

func TestMissing(t *testing.T) {
	x := index(t, suite)
	j := []Job{{Source: "hello", Version: "1", Arch: "amd64", BuildDepends: "deep-dev", Waits: "nonesuch"},
		{Source: "hello", Version: "1", Arch: "amd64", BuildDepends: "old-dev, new-dev"}}
	got, err := Dose(context.Background(), x, j, t.TempDir())
	if err != nil || !reflect.DeepEqual(got[0].Missing, []string{"libb-dev", "nonesuch"}) || got[1].Missing != nil ||
		got[1].Why == "" {
		t.Errorf("Dose: %+v, %v", got, err)
	}
	got, err = Direct(x, j)
	if err != nil || !reflect.DeepEqual(got[0].Missing, []string{"nonesuch"}) || got[1].Missing != nil {
		t.Errorf("Direct: %+v, %v", got, err)
	}
}

// The state after Dep-Wait depends on both answers.
func TestWaitOverButBroken(t *testing.T) {
	j := Job{Source: "hello", Version: "1", Arch: "amd64", BuildDepends: "liba-dev", Waits: "libb-dev"}
	got, err := Dose(context.Background(), index(t, suite), []Job{j}, t.TempDir())
	if err != nil || !got[0].WaitOver() || got[0].Installable() {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A suite without build-essential has its own way to build.
func TestNoBuildEssential(t *testing.T) {
	j := []Job{{Source: "hello", Version: "1", Arch: "amd64", BuildDepends: "x1"},
		{Source: "hello", Version: "1", Arch: "amd64", BuildDepends: "x2"}}
	got, err := Dose(context.Background(), index(t, p("x1 1")), j, t.TempDir())
	if err != nil || got[0].Why != "" || got[1].Why != "build-depends on missing x2" {
		t.Errorf("got %+v, %v", got, err)
	}
	got, err = Dose(context.Background(), index(t, p("x1 1"), p("build-essential 1", "Depends: gcc")), j, t.TempDir())
	if err != nil || got[0].Why != "build-depends on build-essential, which depends on missing gcc" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// An architecture that dpkg does not know is one all the same.
func TestOwnArchitecture(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Packages")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(suite, "amd64", "amd64-plain")), 0o666); err != nil {
		t.Fatal(err)
	}
	x, err := ReadIndex("amd64-plain", path)
	if err != nil {
		t.Fatal(err)
	}
	j := []Job{{Source: "hello", Version: "1", Arch: "amd64-plain", BuildDepends: "gcc, tool, nonesuch [linux-any]"},
		{Source: "hello", Version: "1", Arch: "all", BuildDepends: "deep-dev [any]"}}
	got, err := Dose(context.Background(), x, j, t.TempDir())
	if err != nil || got[0].Why != "" || got[1].Why != cases[10].dose {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestDoseErrors(t *testing.T) {
	x := index(t, suite)
	j := []Job{{Source: "hello", Version: "1", Arch: "amd64", BuildDepends: "gcc"}}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if got, err := Dose(ctx, x, j, t.TempDir()); !errors.Is(err, context.Canceled) || got != nil {
		t.Errorf("cancelled: %v, %v", got, err)
	}
	if got, err := Dose(context.Background(), x, j, filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) ||
		got != nil {
		t.Errorf("no directory: %v, %v", got, err)
	}
	// The real program, with a file that is not there: it exits with 64.
	_, err := runDose(context.Background(), "amd64", filepath.Join(t.TempDir(), "none"), os.DevNull)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() < 64 || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("exit 64: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if HaveDose() {
		t.Error("HaveDose without dose")
	}
	if got, err := Dose(context.Background(), x, j, t.TempDir()); err == nil || got != nil ||
		!strings.Contains(err.Error(), "install the Debian package") {
		t.Errorf("no dose: %v, %v", got, err)
	}
	j[0].Arch = "arm64"
	for name, judge := range map[string]func() error{
		"Dose":   func() error { _, err := Dose(context.Background(), x, j, t.TempDir()); return err },
		"Direct": func() error { _, err := Direct(x, j); return err },
	} {
		if err := judge(); err == nil || err.Error() != "judge hello 1 on arm64: the index is of amd64" {
			t.Errorf("%s of another architecture: %v", name, err)
		}
	}
}

func TestUnsatisfied(t *testing.T) {
	x := index(t, suite)
	r, err := policy.ParseRelations("gcc, libb-dev (>= 2), nonesuch, virtual-dev (= 3), gcc (<< 3), gcc (= 1), " +
		"libb-dev (= 2), nonesuch (<< 2), nonesuch (= 7), a | b, libb-dev:any (>> 5)")
	if err != nil {
		t.Fatal(err)
	}
	missing := x.Unsatisfied(FirstAlternatives(r))
	if got, want := missing.String(), "libb-dev (>= 2), nonesuch, gcc (<< 3), gcc (= 1), libb-dev (= 2), "+
		"nonesuch (<< 2), nonesuch (= 7), a, libb-dev:any (>> 5)"; got != want {
		t.Errorf("Unsatisfied:\ngot  %s\nwant %s", got, want)
	}
}

func TestDigest(t *testing.T) {
	one := index(t, p("a1 1", "Depends: b1"), p("b1 1")).Digest()
	if got := index(t, p("b1 1")+p("b1 0.5"), p("a1 1", "Section: x", "Depends: b1")).Digest(); got != one {
		t.Error("another order, an older version or a field that does not matter changes the digest")
	}
	for _, other := range []string{p("a1 2", "Depends: b1") + p("b1 1"), p("a1 1") + p("b1 1"), p("a1 1", "Depends: b1"),
		p("a1 1", "Conflicts: b1") + p("b1 1"), p("a1 1", "Depends: b1", "Essential: yes") + p("b1 1")} {
		if index(t, other).Digest() == one {
			t.Errorf("the digest is the same for %s", other)
		}
	}
}

func TestGrew(t *testing.T) {
	old := index(t, p("a1 1", "Depends: b1"), p("b1 1"))
	if more := index(t, p("a1 1", "Depends: b1"), p("b1 1"), p("c1 1")); !more.Grew(old) || old.Grew(more) {
		t.Error("a package came: that is growth, and the way back is none")
	}
	for _, other := range []string{p("a1 1", "Depends: b1"), p("a1 1", "Depends: b1") + p("b1 2"),
		p("a1 1", "Depends: b1 (>= 1)") + p("b1 1")} {
		if index(t, other).Grew(old) {
			t.Errorf("something is gone or has changed in %s", other)
		}
	}
}

// Direct says what has to come before its answer can be another.
func TestLacks(t *testing.T) {
	jobs := []Job{{Arch: "amd64", BuildDepends: "gcc, nonesuch (>= 2), other | gcc"},
		{Arch: "amd64", BuildDepends: "gcc", Waits: "nonesuch"}, {Arch: "amd64", BuildDepends: "gcc"}}
	answers, err := Direct(index(t, p("gcc 1")), jobs)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"nonesuch (>= 2), other", "nonesuch", ""} {
		if got := answers[i].Lacks.String(); got != want {
			t.Errorf("job %d lacks %q, want %q", i, got, want)
		}
	}
}

func TestReadIndex(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, debtest.Pack(strings.TrimPrefix(filepath.Ext(name), "."), []byte(text)),
			0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	paths := []string{
		write("a.gz", p("one 1")+p("two 2")),
		write("b.xz", p("two 3")+p("three 1", "Provides: a b")),
		write("c.zst", p("two 1")+p("Four 1")+p("five 1-")),
		// What Base has of it stops nobody.
		write("d.gz", p("six 1", "Priority: extra",
			"Priority: optional")+"Package: seven\r\n\n# a comment\nPackage: eight\n\n"+p("nine 1")),
	}
	x, err := ReadIndex("amd64", paths...)
	if err != nil || x.Len() != 4 || x.Version("two") != "3" || x.Version("nine") != "1" || len(x.Refused) != 6 {
		t.Fatalf("%d packages, two is %s, refused %v, %v", x.Len(), x.Version("two"), x.Refused, err)
	}
	if got, want := x.Refused[0].Error(), filepath.Join(dir, "c.zst")+`:5: package name "Four" begins with 'F'`; !strings.HasPrefix(got, want) {
		t.Errorf("refused: got %s, want %s", got, want)
	}
	for name, want := range map[string]string{"none": "no such file", "b.gz": "gzip"} {
		if name == "b.gz" {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("\x1f\x8b no gzip"), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := ReadIndex("amd64", filepath.Join(dir, name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "none"), []byte("<html>\n<p>\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadIndex("amd64", filepath.Join(dir, "none")); err == nil {
		t.Error("a page that is no index was taken for one")
	}
	cut, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(paths[0], cut[:len(cut)-9], 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadIndex("amd64", paths[0]); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("truncated: %v", err)
	}
}

// What dose says of fewer or more than what was asked is not believed.
func TestReportRefused(t *testing.T) {
	const good = "report:\n -\n  package: build-0\n  status: broken\n  reasons:\n   -\n    missing:\n     pkg:\n" +
		"      package: build-0\n      unsat-dependency: y:amd64 (< 1)\n \nsource-packages: 2\nbroken-packages: 1\n"
	got, err := readReport([]byte(good), "amd64", 2)
	if err != nil || len(got) != 1 || got["build-0"].why != "build-depends on missing y (<< 1)" {
		t.Fatalf("good: %v, %v", got, err)
	}
	for in, want := range map[string]string{
		"": "judged -1 of 2 sources and told of 0 of -1 broken ones",
		strings.Replace(good, "source-packages: 2", "source-packages: 1", 1): "judged 1 of 2 sources",
		strings.Replace(good, "broken-packages: 1", "broken-packages: 2", 1): "told of 1 of 2 broken ones",
		strings.Replace(good, "broken-packages: 1", "broken-packages: x", 1): `broken-packages is "x"`,
		good[:len(good)-20]: "broken ones",
		strings.Replace(good, "unsat-dependency", "z", 1):      "no relation",
		strings.Replace(good, "missing:", "bored:", 1):         "neither missing nor in conflict",
		strings.Replace(good, "package: build-0", "x: y", 1):   "broken package without a name",
		strings.Replace(good, "reasons:", "no-reasons:", 1):    "no reason why build-0 is broken",
		strings.Replace(good, "  reasons:", "  what is it", 1): `line 5 of its report is "what is it"`,
	} {
		if got, err := readReport([]byte(in), "amd64", 2); err == nil || got != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q:\ngot  %v\nwant %s", in, err, want)
		}
	}
}

func FuzzReport(f *testing.F) {
	f.Add([]byte("report:\n -\n  package: build-0\n  status: broken\n  reasons:\n   -\n    missing:\n     pkg:\n" +
		"      package: x\n      unsat-dependency: y:amd64 (< 1)\n\nsource-packages: 1\nbroken-packages: 1\n"))
	f.Add([]byte("report:\n -\n  package: wait-7\n  status: broken\n  reasons:\n   -\n    conflict:\n     pkg1:\n" +
		"      package: x\n     pkg2:\n      package: z\n     depchain1:\n      -\n       depchain:\n        -\n" +
		"         package: q\n"))
	f.Add([]byte(":\n -\n-\n x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := readReport(data, "amd64", 1)
		if err != nil {
			return
		}
		for name, b := range all {
			if name == "" || b.why == "" {
				t.Errorf("%q is broken: %q", name, b.why)
			}
		}
	})
}
