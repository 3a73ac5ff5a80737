package policy

import (
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"packmill/internal/deb822"
)

func TestNames(t *testing.T) {
	x100 := strings.Repeat("x", 100)
	for _, c := range []struct {
		what  string
		check func(string) error
		good  []string
		bad   map[string]string // and a part of the message
	}{
		{"source", CheckSource, []string{"hello", "0ad", "g++-12", "a.b", "ab", x100}, map[string]string{
			"": "empty", "a": "only one character", "Hello": `begins with 'H'`, "-hello": `begins with '-'`, ".hidden": `begins with '.'`,
			"..": `begins with '.'`, "a/b": "contains a slash", "a b": "contains a blank", "a_b": `contains '_'`, "a\x00": `contains '\x00'`,
			"hé": `contains '\u00e9'`, "a\u202eb": `contains '\u202e'`, "$(id)": `begins with '$'`, x100 + "x": "101 bytes long", "a\n": `contains '\n'`, "a\xff": `contains '\ufffd'`,
		}},
		{"suite", CheckSuite, []string{"sid", "bookworm-backports", "12.1", "a"}, map[string]string{
			"": "empty", "UNRELEASED": "begins with", "..": "begins with", "a/b": "a slash", "a%s": "contains '%'"}},
		{"component", CheckComponent, []string{"main", "non-free-firmware"},
			map[string]string{"": "empty", "a.b": "contains", "-a": "begins"}},
		{"arch", CheckArch, []string{"amd64", "all", "kfreebsd-amd64", "amd64-glibc"}, map[string]string{
			"": "empty", "any": "wildcard", "linux-any": "wildcard", "any-amd64": "wildcard", "source": "not one to build for",
			"master": "not one to build for", "!amd64": "begins", "x86_64": "contains '_'",
			strings.Repeat("a", 41): "41 bytes long"}},
		{"file", CheckFile, []string{"hello_2.10-3.dsc", "hello_2.10.orig.tar.gz", "libc6_2.36-9+deb12u1~bpo_amd64.deb",
			"X_1.changes", "a_..b"}, map[string]string{
			"": "empty", "../a_b": "begins with '.'", "a_b/../../etc": "a slash", "/etc/a_b": "begins with a slash",
			".a_b": "begins with '.'", "-x_a": "begins with '-'",
			"a_b\n": `'\n'`, "a_b\x1b[2J": `'\x1b'`, "a_$(id)": "'$'", "a b_c": "a blank", "a_b;c": "';'", "a_%s": "'%'", "ticket": "no underscore", "REASON": "no underscore",
			"a_1%3a2.dsc": "'%'", "a_1:2.dsc": "':'", `a_\..`: `'\\'`, "a_*": "'*'", "a_b\u00a0": `'\u00a0'`, "_a": "begins with '_'", "~a_b": "begins with '~'",
			strings.Repeat("a", 240) + "_": "241 bytes"}},
	} {
		for _, name := range c.good {
			if err := c.check(name); err != nil {
				t.Errorf("%s %q: %v", c.what, name, err)
			}
		}
		for name, want := range c.bad {
			if err := c.check(name); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %q: got %v, want ... %s ...", c.what, name, err, want)
			}
		}
	}
}

var someVersions = []string{
	"1", "0", "1.0", "1.0-1", "1.0-1+b2", "1.0~rc1-1", "1.0~~", "1.0~", "1:0.1", "0:1.0-1", "00:1", "2147483647:1",
	"1:1:1-2",
	"1.0-1-1", "1.00", "1.010", "1a", "1+", "1.a", "1-0", "1-a", "1-~", "1~-1", "1.2.3+dfsg1-4~bpo12+1", "20240101T0000",
	"9999999999999999999999999", "1-0ubuntu1",
}

var badVersions = []string{
	"", "a", "a1", "1-", "-1", ":1", "1:", "a:1", "-1:1", "2147483648:1", "99999999999999999999:1", "1 2", "1_2", "1-1_2",
	"1:1-1:2", "1/2", "1\n", "1é",
	"1-1-", "1~-", "~1", "+1", "1:~1", "1:a", " 1", "1 ", "\u0661", "1-1-é", "1$", "+1:1",
}

// Each file testdata/KIND-NAME.bad has the message it must give in .want.
func TestRefusals(t *testing.T) {
	kinds := map[string]func(string) error{
		"source": CheckSource, "version": CheckVersion, "arch": CheckArch, "file": CheckFile,
		"relation": func(s string) error { _, err := ParseRelations(s); return err },
	}
	files, err := filepath.Glob("testdata/*.bad")
	if err != nil || len(files) < 50 {
		t.Fatalf("bad files: %v, %v", files, err)
	}
	for _, file := range files {
		in, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(strings.TrimSuffix(file, ".bad") + ".want")
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := strings.Cut(filepath.Base(file), "-")
		if got := fmt.Sprintln(kinds[kind](string(in))); got != string(want) {
			t.Errorf("%s:\ngot  %swant %s", file, got, want)
		}
	}
}

func TestCheckVersion(t *testing.T) {
	for _, v := range someVersions {
		if err := CheckVersion(v); err != nil {
			t.Errorf("CheckVersion(%q) = %v", v, err)
		}
	}
	for _, v := range badVersions {
		if err := CheckVersion(v); err == nil {
			t.Errorf("CheckVersion(%q) is content", v)
		}
	}
}

// randomVersion makes versions that are near each other.
func randomVersion(r *rand.Rand) string {
	const chars = "0011229aaZz~~..++-"
	for {
		b := []byte{"0123"[r.Intn(4)]}
		for range r.Intn(7) {
			b = append(b, chars[r.Intn(len(chars))])
		}
		v := string(b)
		if r.Intn(4) == 0 {
			v = "0:1:02:"[2*r.Intn(3):][:2] + v
		}
		if CheckVersion(v) == nil {
			return v
		}
	}
}

// TestCompareVersionsAgainstPerl compares pairs as dpkg's Perl library does, which is
// written anew beside dpkg.
func TestCompareVersionsAgainstPerl(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	var in strings.Builder
	var pairs [][2]string
	for range 20_000 {
		a, b := randomVersion(r), randomVersion(r)
		if r.Intn(10) == 0 { // numbers that no machine word holds
			a, b = a+".99999999999999999999"+b[:1], b+".099999999999999999999"
		}
		pairs = append(pairs, [2]string{a, b})
		in.WriteString(a + " " + b + "\n")
	}
	cmd := exec.Command("perl", "-MDpkg::Version", "-ane", `print version_compare($F[0], $F[1]), "\n"`)
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("perl: %v", err)
	}
	answers := strings.Fields(string(out))
	if len(answers) != len(pairs) {
		t.Fatalf("%d answers to %d pairs", len(answers), len(pairs))
	}
	for i, p := range pairs {
		if got := CompareVersions(p[0], p[1]); strconv.Itoa(got) != answers[i] {
			t.Errorf("CompareVersions(%q, %q) = %d, Dpkg::Version says %s", p[0], p[1], got, answers[i])
		}
	}
}

// dpkg itself says whether a version is valid and how two compare.
func TestVersionsAgainstDpkg(t *testing.T) {
	r := rand.New(rand.NewSource(2))
	for _, v := range append(append([]string{}, someVersions...), badVersions...) {
		if strings.ContainsAny(v, " \n") || strings.HasPrefix(v, "+") {
			continue // dpkg trims blanks, and reads +1 as an epoch; we do not
		}
		dpkgOK := exec.Command("dpkg", "--validate-version", v).Run() == nil
		if ok := CheckVersion(v) == nil; ok != dpkgOK {
			t.Errorf("version %q: valid is %v, dpkg says %v", v, ok, dpkgOK)
		}
	}
	// One sh for all pairs: a process for each comparison, none for sh.
	var in strings.Builder
	var pairs [][2]string
	for range 150 {
		a, b := randomVersion(r), randomVersion(r)
		pairs = append(pairs, [2]string{a, b})
		in.WriteString(a + " " + b + "\n")
	}
	for i, a := range someVersions {
		b := someVersions[(i*7+3)%len(someVersions)]
		pairs = append(pairs, [2]string{a, b})
		in.WriteString(a + " " + b + "\n")
	}
	cmd := exec.Command("sh", "-c", `while read a b; do if dpkg --compare-versions "$a" lt "$b"; then echo -1; elif dpkg --compare-versions "$a" gt "$b"; then echo 1; else echo 0; fi; done`)
	cmd.Stdin = strings.NewReader(in.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(out))
	if len(lines) != len(pairs) {
		t.Fatalf("dpkg answered %d of %d", len(lines), len(pairs))
	}
	for i, p := range pairs {
		want := map[string]int{"-1": -1, "0": 0, "1": 1}[lines[i]]
		if got := CompareVersions(p[0], p[1]); got != want {
			t.Errorf("CompareVersions(%q, %q) = %d, dpkg says %d", p[0], p[1], got, want)
		}
	}
}

func TestWithoutEpoch(t *testing.T) {
	for v, want := range map[string]string{"1": "1", "1:2-3": "2-3", "1:2:3": "2:3"} {
		if got := WithoutEpoch(v); got != want {
			t.Errorf("WithoutEpoch(%q) = %q, want %q", v, got, want)
		}
	}
}

func TestArchMatches(t *testing.T) {
	for _, c := range []struct {
		arch, wildcard string
		want           bool
	}{
		{"amd64", "any", true}, {"all", "any", false}, {"all", "all", true}, {"amd64", "all", false},
		{"armhf", "linux-any", true}, {"x32", "linux-any", true}, {"x32", "any-amd64", true},
		{"hurd-i386", "linux-any", false},
		{"hurd-i386", "any-i386", true}, {"hurd-i386", "gnu-any-any", true}, {"musl-linux-amd64", "gnu-any-any", false},
		{"amd64-glibc", "any", true}, {"amd64-glibc", "linux-any", false}, {"amd64-glibc", "amd64-glibc", true},
		{"amd64", "linux-amd64", true}, {"amd64", "i386", false}, {"amd64", "any-any", true},
		{"armel", "eabi-any-any-any", true}, {"armhf", "eabi-any-any-any", false},
	} {
		if got := archMatches(c.arch, c.wildcard); got != c.want {
			t.Errorf("archMatches(%s, %s) = %v, want %v", c.arch, c.wildcard, got, c.want)
		}
	}
}

// dpkg's own module answers for all architectures it knows and the wildcards
// of one part; a test of the whole system takes all wildcards.
func TestArchMatchesAgainstDpkg(t *testing.T) {
	archMatchesAgainstDpkg(t, `"any-$cpu", "$os-any", "$libc-any-any", "$abi-any-any-any"`)
}

func archMatchesAgainstDpkg(t *testing.T, wildcards string) {
	script := `
use strict; use Dpkg::Arch qw(:getters :operators debarch_to_debtuple);
my @all = (get_valid_arches(), 'amd64-glibc', 'linux-armhf', 'nonsense');
my %wild = map { $_ => 1 } qw(any any-any any-any-any any-any-any-any all amd64 armhf linux-amd64 linux-armhf nonsense nonsense-any any-nonsense linux- -any);
for my $a (@all) {
	my ($abi, $libc, $os, $cpu) = debarch_to_debtuple($a) or next;
	$wild{$_} = 1 for ` + wildcards + `;
}
for my $a (@all) { print join(' ', $a, grep { debarch_is($a, $_) } sort keys %wild), "\n" }
print join(' ', '=', sort keys %wild), "\n";
`
	cmd := exec.Command("perl", "-e", script)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("perl with Dpkg::Arch (package libdpkg-perl): %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	last := len(lines) - 1
	wild := strings.Fields(lines[last])[1:]
	if last < 500 || len(wild) < 70 {
		t.Fatalf("dpkg knows %d architectures, %d wildcards", last, len(wild))
	}
	for _, line := range lines[:last] {
		words := strings.Fields(line)
		want := make(map[string]bool)
		for _, w := range words[1:] {
			want[w] = true
		}
		for _, w := range wild {
			if got := archMatches(words[0], w); got != want[w] {
				t.Errorf("archMatches(%s, %s) = %v, dpkg says %v", words[0], w, got, want[w])
			}
		}
	}
	t.Logf("%d architectures x %d wildcards", last, len(wild))
}

func TestArchList(t *testing.T) {
	got, err := ArchList(" any-i386 all\n linux-any any-i386")
	if want := []string{"any-i386", "all", "linux-any"}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("ArchList = %v, %v, want %v", got, err, want)
	}
	for arch, want := range map[string]bool{"all": true, "amd64": true, "hurd-i386": true, "hurd-amd64": false} {
		if BuildsOn(got, arch) != want {
			t.Errorf("BuildsOn(%v, %s) = %v", got, arch, !want)
		}
	}
	for _, bad := range []string{"", " ", strings.Repeat("a ", 1001), "!amd64", "source", "amd64,i386", "-any"} {
		if got, err := ArchList(bad); err == nil {
			t.Errorf("ArchList(%q) = %v", bad, got)
		}
	}
}

func TestParseRelations(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{" , ,", ""},
		{"a", "a"},
		{"foo<!nocheck>", "foo <!nocheck>"},
		{"foo[amd64]", "foo [amd64]"},
		{"foo(>=1)", "foo (>= 1)"},
		{"a <pkg.a-package-with-quite-a-long-name.transpilebuble>",
			"a <pkg.a-package-with-quite-a-long-name.transpilebuble>"},
		{"foo (> 1), bar (< 2)", "foo (>= 1), bar (<= 2)"},
		{"gcc:native (>= 12)[linux-any !amd64]<!nocheck cross><stage1>,\n b:any|c:amd64 (<<1:2-3~)\n ,",
			"gcc:native (>= 12) [linux-any !amd64] <!nocheck cross> <stage1>, b:any | c:amd64 (<< 1:2-3~)"},
	} {
		got, err := ParseRelations(c.in)
		if err != nil || got.String() != c.want {
			t.Errorf("ParseRelations(%q) = %q, %v, want %q", c.in, got, err, c.want)
		}
	}
}

func TestRelationsFor(t *testing.T) {
	const field = "a, b [linux-any !amd64], c [!amd64 linux-any], d [!hurd-any], e <!nocheck>, " +
		"f <nocheck> | g <!nocheck> <x y>, h [all], i:any (>= 1) [amd64 i386] | j"
	for _, c := range []struct{ arch, profiles, want string }{
		{"amd64", "", "a, b, d, e, g, i:any (>= 1) | j"},
		{"arm64", "nocheck", "a, b, c, d, f, j"},
		{"hurd-i386", "nocheck x y", "a, b, c, f | g, j"},
		{"all", "", "a, b, c, d, e, g, h, j"},
	} {
		r, err := ParseRelations(field)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.For(c.arch, deb822.Words(c.profiles)).String(); got != c.want {
			t.Errorf("For(%s, %s) = %s, want %s", c.arch, c.profiles, got, c.want)
		}
		if r.String() != field {
			t.Errorf("For changed the relations to %s", r)
		}
	}
}

// dpkg's own module reduces the same fields to the same relations.
func TestRelationsAgainstDpkg(t *testing.T) {
	fields := []string{
		"a, b [linux-any !amd64], c [!amd64 linux-any], d [!hurd-any], e <!nocheck>, f <nocheck> | g <!nocheck> <x y>, " +
			"i:any (>= 1) [amd64 i386] | j",
		"foo<!nocheck>, foo[amd64], foo(>=1), bar:native(<<2)[!amd64 !i386]<x>",
		"a [any-amd64] | b [any-i386] | c [gnu-any-any], d [musl-any-any] | e [any-arm64], f [!linux-any]",
		"a <!x !y> <z>, b <x> <y>, c <!nocheck> <!cross>, d <x nocheck>",
		"a,, b ,", "A-Upper (<= 1:2.0~rc1-1+b1), x (< 1), y (> 1)",
		"a [!amd64] | a [amd64] <x>, b [AMD64], c [linux-i386]",
	}
	var in strings.Builder
	for _, f := range fields {
		in.WriteString(f + "\n")
	}
	const script = `
use strict; use Dpkg::Deps;
while (my $field = <STDIN>) {
	chomp $field;
	for my $arch (qw(amd64 i386 armhf hurd-i386 musl-linux-arm64)) {
		for my $profiles ([], ['nocheck'], ['x', 'y'], ['x', 'nocheck', 'z']) {
			my $d = deps_parse($field, build_dep => 1, reduce_arch => 1, reduce_profiles => 1, host_arch => $arch, build_arch => $arch, build_profiles => $profiles);
			die "dpkg cannot parse $field" if not defined $d;
			print join(',', @$profiles), ";$arch;$field;", $d->output(), "\n";
		}
	}
}`
	cmd := exec.Command("perl", "-e", script)
	cmd.Stdin = strings.NewReader(in.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("perl with Dpkg::Deps (package libdpkg-perl): %v", err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(fields)*20 {
		t.Fatalf("dpkg answered %d lines", len(lines))
	}
	for _, line := range lines {
		part := strings.SplitN(line, ";", 4)
		r, err := ParseRelations(part[2])
		if err != nil {
			t.Fatal(err)
		}
		if got := r.For(part[1],
			strings.FieldsFunc(part[0], func(r rune) bool { return r == ',' })).String(); got != part[3] {
			t.Errorf("%s\non %s, profiles %q:\ngot  %s\ndpkg %s", part[2], part[1], part[0], got, part[3])
		}
	}
}

func TestSatisfiedBy(t *testing.T) {
	for _, c := range []struct {
		op, want string // the versions of 0.9 1.0 1.1 that satisfy
	}{{"", "0.9 1.0 1.1"}, {"<<", "0.9"}, {"<=", "0.9 1.0"}, {"=", "1.0"}, {">=", "1.0 1.1"}, {">>", "1.1"}} {
		var got []string
		for _, v := range []string{"0.9", "1.0", "1.1"} {
			if (Relation{Name: "a", Op: c.op, Version: "1.0"}).SatisfiedBy(v) {
				got = append(got, v)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s 1.0 is satisfied by %v, want %s", c.op, got, c.want)
		}
	}
}

func BenchmarkCompareVersions(b *testing.B) {
	for b.Loop() {
		CompareVersions("1:2.36-9+deb12u10", "1:2.36-9+deb12u9")
	}
}

func BenchmarkParseRelations(b *testing.B) {
	const field = "debhelper-compat (= 13), libssl-dev (>= 3.0.0), python3:any <!nocheck>, " +
		"libseccomp-dev [linux-any !amd64], default-mta | mail-transport-agent"
	b.SetBytes(int64(len(field)))
	for b.Loop() {
		if _, err := ParseRelations(field); err != nil {
			b.Fatal(err)
		}
	}
}
