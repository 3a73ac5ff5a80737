package quinndiff

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"packmill/internal/deb822"
	"packmill/internal/policy"
	"packmill/queue/quinndiff/listtest"
)

func read(t testing.TB, sources string, packages ...string) (*Sources, *Packages) {
	t.Helper()
	s, p := new(Sources), new(Packages)
	if err := s.Add(strings.NewReader(sources)); err != nil {
		t.Fatal(err)
	}
	for _, text := range packages {
		if err := p.Add(strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.Refused)+len(p.Refused) > 0 {
		t.Fatalf("refused: %v %v", s.Refused, p.Refused)
	}
	return s, p
}

// src and bin make entries of indexes.
func src(version, arch string, list ...string) string {
	text := "Package: foo\nVersion: " + version + "\nArchitecture: " + arch + "\nSection: devel\nPriority: optional\n"
	if list != nil {
		text += "Package-List: \n " + strings.Join(list, "\n ") + "\n"
	}
	return text + "\n"
}

func bin(name, source, version, arch string) string {
	text := "Package: " + name + "\nVersion: " + version + "\nArchitecture: " + arch + "\n"
	if source != "" {
		text += "Source: " + source + "\n"
	}
	return text + "\n"
}

func describe(n Needed) string {
	text := n.State.String()
	if n.Installed != "" {
		text += " installed " + n.Installed
	}
	if n.BinNMU > 0 {
		text += fmt.Sprintf(" +b%d", n.BinNMU)
	}
	if len(n.Older) > 0 {
		text += " older " + strings.Join(n.Older, " ")
	}
	if len(n.Missing) > 0 {
		text += " missing " + strings.Join(n.Missing, " ")
	}
	if n.Reason != "" {
		text += ": " + n.Reason
	}
	return text
}

const (
	notListed = "not-for-arch: the Architecture field of the source does not list it"
	noPackage = "not-for-arch: the source has no package there, or none that is looked for: installer's packages, " +
		"other components and build profiles are not"
)

func TestDiff(t *testing.T) {
	two := []string{"foo deb devel optional arch=any", "libfoo deb libs optional arch=any"}
	anyAll := []string{"foo deb devel optional arch=any", "foo-doc deb doc optional arch=all"}
	for _, c := range []struct {
		name     string
		sources  string
		packages string
		arch     string
		want     string
		o        Options
	}{
		{name: "nothing there", sources: src("1.0-1", "any", two...), want: "uncompiled"},
		{name: "both there", sources: src("1.0-1", "any", two...),
			packages: bin("foo", "", "1.0-1", "amd64") + bin("libfoo", "foo", "1.0-1", "amd64"),
			want:     "up-to-date installed 1.0-1"},
		{name: "both older", sources: src("1.0-2", "any", two...),
			packages: bin("foo", "", "1.0-1", "amd64") + bin("libfoo", "foo", "1.0-1", "amd64"),
			want:     "out-of-date installed 1.0-1 older foo libfoo"},
		{name: "one of two", sources: src("1.0-1", "any", two...), packages: bin("foo", "", "1.0-1", "amd64"),
			want: "partial installed 1.0-1 missing libfoo"},
		{name: "one of two, the other older", sources: src("1.0-1", "any", two...),
			packages: bin("foo", "", "1.0-1", "amd64") + bin("libfoo", "foo", "0.9-1", "amd64"),
			want:     "partial installed 1.0-1 older libfoo"},
		{name: "one older, the other absent", sources: src("1.0-1", "any", two...),
			packages: bin("foo", "", "0.9-1", "amd64"),
			want:     "out-of-date installed 0.9-1 older foo missing libfoo"},
		{name: "only a dropped binary, older", sources: src("1.0-1", "any", two...),
			packages: bin("foo-old", "foo", "0.9-1", "amd64"),
			want:     "out-of-date installed 0.9-1 missing foo libfoo"},
		{name: "only an unlisted binary of this version",
			sources: src("1.0-1", "any", two...), packages: bin("foo-extra", "foo", "1.0-1", "amd64"),
			want: "partial installed 1.0-1 missing foo libfoo"},
		{name: "newer than the source", sources: src("1.0-1", "any", two...),
			packages: bin("foo", "", "1.0-2", "amd64") + bin("libfoo", "foo", "1.1-1", "amd64"),
			want:     "up-to-date installed 1.1-1"},
		{name: "both versions in the index", sources: src("1.0-2", "any", two...),
			packages: bin("foo", "", "1.0-1", "amd64") + bin("foo", "", "1.0-2", "amd64") +
				bin("libfoo", "foo", "1.0-2", "amd64") + bin("libfoo", "foo", "1.0-1", "amd64"),
			want: "up-to-date installed 1.0-2"},
		{name: "binNMU", sources: src("1.0-1", "any", two...),
			packages: bin("foo", "foo (1.0-1)", "1.0-1+b2", "amd64") + bin("libfoo", "foo (1.0-1)", "1.0-1+b10", "amd64"),
			want:     "up-to-date installed 1.0-1 +b10"},
		{name: "binNMU, the higher first", sources: src("1.0-1", "any", two...),
			packages: bin("foo", "foo (1.0-1)", "1.0-1+b3", "amd64") + bin("libfoo", "foo (1.0-1)", "1.0-1+b2", "amd64"),
			want:     "up-to-date installed 1.0-1 +b3"},
		{name: "binNMU of an older version", sources: src("1.0-2", "any", two...),
			packages: bin("foo", "foo (1.0-1)", "1.0-1+b2", "amd64"),
			want:     "out-of-date installed 1.0-1 +b2 older foo missing libfoo"},
		{name: "source version that ends in +b1",
			sources: src("1.0+b1", "any", "foo deb devel optional arch=any"), packages: bin("foo", "", "1.0+b1", "amd64"),
			want: "up-to-date installed 1.0+b1"},
		{name: "binary with its own version", sources: src("1.20", "any", "foo deb devel optional arch=any"),
			packages: bin("foo", "foo (1.20)", "4:12.2.0-3", "amd64"),
			want:     "up-to-date installed 1.20"},
		{name: "binary with its own high version, older source",
			sources:  src("1.21", "any", "foo deb devel optional arch=any"),
			packages: bin("foo", "foo (1.20)", "4:12.2.0-3", "amd64"),
			want:     "out-of-date installed 1.20 older foo"},
		{name: "epoch came", sources: src("1:0.5-1", "any", "foo deb devel optional arch=any"),
			packages: bin("foo", "", "1.0-1", "amd64"),
			want:     "out-of-date installed 1.0-1 older foo"},
		{name: "tilde is older", sources: src("1.0-1", "any", "foo deb devel optional arch=any"),
			packages: bin("foo", "", "1.0-1~bpo12+1", "amd64"),
			want:     "out-of-date installed 1.0-1~bpo12+1 older foo"},

		{name: "any all, arch part", sources: src("1.0-1", "any all", anyAll...), packages: bin("foo", "", "1.0-1", "amd64"),
			want: "up-to-date installed 1.0-1"},
		{name: "any all, all part absent", sources: src("1.0-1", "any all", anyAll...),
			packages: bin("foo", "", "1.0-1", "amd64"), arch: "all", want: "uncompiled"},
		{name: "any all, all part there", sources: src("1.0-1", "any all", anyAll...),
			packages: bin("foo-doc", "foo", "1.0-1", "all"), arch: "all", want: "up-to-date installed 1.0-1"},
		{name: "any all, only the all part there",
			sources: src("1.0-1", "any all", anyAll...), packages: bin("foo-doc", "foo", "1.0-1", "all"), want: "uncompiled"},
		{name: "all only", sources: src("1.0-1", "all", "foo-doc deb doc optional arch=all"), want: notListed},
		{name: "no all", sources: src("1.0-1", "any", two...), arch: "all", want: notListed},
		{name: "became all",
			sources:  src("2.0-1", "any all", "foo deb devel optional arch=any", "foo-data deb misc optional arch=all"),
			packages: bin("foo", "", "2.0-1", "amd64") + bin("foo-data", "foo", "1.0-1", "amd64"),
			want:     "up-to-date installed 2.0-1"},

		{name: "linux-any", sources: src("1.0-1", "linux-any", "foo deb devel optional arch=linux-any"), want: "uncompiled"},
		{name: "linux-any, armhf", sources: src("1.0-1", "linux-any", "foo deb devel optional arch=linux-any"), arch: "armhf",
			want: "uncompiled"},
		{name: "linux-any, hurd", sources: src("1.0-1", "linux-any", "foo deb devel optional arch=linux-any"),
			arch: "hurd-i386", want: notListed},
		{name: "any-amd64, list of words",
			sources: src("1.0-1", "any-amd64 arm64", "foo deb devel optional arch=any-amd64,arm64"), arch: "arm64",
			want: "uncompiled"},
		{name: "architecture added to the suite",
			sources: src("1.0-1", "any", two...), packages: bin("foo", "", "1.0-1", "amd64") +
				bin("libfoo", "foo", "1.0-1", "amd64"), arch: "riscv64", want: "uncompiled"},
		{name: "one binary is elsewhere",
			sources:  src("1.0-1", "any", "foo deb devel optional arch=any", "foo-x86 deb devel optional arch=any-i386"),
			packages: bin("foo", "", "1.0-1", "amd64"), want: "up-to-date installed 1.0-1"},

		{name: "taken over by another source", sources: src("1.0-1", "any", two...),
			packages: bin("foo", "", "1.0-1", "amd64") + bin("libfoo", "foo2", "2.0-1", "amd64"),
			want:     "up-to-date installed 1.0-1"},
		{name: "taken over, the old one is still there",
			sources: src("1.0-1", "any", two...), packages: bin("foo", "", "1.0-1", "amd64") +
				bin("libfoo", "foo", "0.9-1", "amd64") + bin("libfoo", "foo2", "2.0-1", "amd64"),
			want: "up-to-date installed 1.0-1"},
		{name: "all taken over by another source", sources: src("1.0-1", "any", two...),
			packages: bin("foo", "foo2", "2.0-1", "amd64") + bin("libfoo", "foo2", "2.0-1", "amd64"),
			want:     "uncompiled"},
		{name: "takes over from another source", sources: src("1.0-1", "any", two...),
			packages: bin("foo", "foo2", "0.1-1", "amd64") + bin("libfoo", "foo2", "0.1-1", "amd64"),
			want:     "uncompiled"},
		{name: "under a build profile",
			sources: src("1.0-1", "any", "foo deb devel optional arch=any profile=!stage1",
				"foo-x deb devel optional arch=any profile=pkg.foo.x",
				"foo-y deb devel optional arch=any profile=pkg.foo.x+!nodoc,!stage1"),
			packages: bin("foo", "", "1.0-1", "amd64"), want: "partial installed 1.0-1 missing foo-y"},
		{name: "udeb only", sources: src("1.0-1", "any", "foo udeb debian-installer optional arch=any"), want: noPackage},
		{name: "udeb only, read", sources: src("1.0-1", "any", "foo udeb debian-installer optional arch=any"),
			o: Options{Udebs: true}, want: "uncompiled"},
		{name: "another component",
			sources:  src("1.0-1", "any", "foo deb devel optional arch=any", "foo-nf deb non-free/devel optional arch=any"),
			packages: bin("foo", "", "1.0-1", "amd64"), o: Options{Components: []string{"main"}},
			want: "up-to-date installed 1.0-1"},
		{name: "another component, read",
			sources:  src("1.0-1", "any", "foo deb devel optional arch=any", "foo-nf deb non-free/devel optional arch=any"),
			packages: bin("foo", "", "1.0-1", "amd64"), want: "partial installed 1.0-1 missing foo-nf"},

		{name: "no list: there", sources: "Package: foo\nBinary: foo,\n libfoo\nVersion: 1\nArchitecture: any\n",
			packages: bin("libfoo", "foo", "1", "amd64"), want: "up-to-date installed 1"},
		{name: "no list: nothing", sources: "Source: foo\nBinary: foo, libfoo\nVersion: 1\nArchitecture: any\n",
			want: "uncompiled"},
		{name: "no list: older", sources: "Package: foo\nBinary: foo, libfoo\nVersion: 2\nArchitecture: any\n",
			packages: bin("libfoo", "foo", "1", "amd64"), want: "out-of-date installed 1 older libfoo"},
		{name: "no list: one older", sources: "Package: foo\nBinary: foo, libfoo\nVersion: 2\nArchitecture: any\n",
			packages: bin("libfoo", "foo", "1", "amd64") + bin("foo", "", "2", "amd64"),
			want:     "partial installed 2 older libfoo"},
		{name: "list without arch=", sources: src("2", "any", "foo deb devel optional", "libfoo deb libs optional"),
			packages: bin("foo", "", "2", "amd64"), want: "up-to-date installed 2"},

		{name: "newest source counts", sources: src("1.0-10", "any", two...) + src("1.0-9", "any", two...),
			packages: bin("foo", "", "1.0-9", "amd64") + bin("libfoo", "foo", "1.0-9", "amd64"),
			want:     "out-of-date installed 1.0-9 older foo libfoo"},
		{name: "extra source does not count", sources: src("1.0-1", "any", two...) + "Extra-Source-Only: yes\n" +
			src("2.0-1", "any", two...), packages: bin("foo", "", "1.0-1", "amd64") + bin("libfoo", "foo", "1.0-1", "amd64"),
			want: "up-to-date installed 1.0-1"},
	} {
		s, p := read(t, c.sources, c.packages)
		if c.arch == "" {
			c.arch = "amd64"
		}
		var got []string
		for n := range Diff(s, p, c.arch, c.o) {
			if n.Source != "foo" || n.Arch != c.arch {
				t.Errorf("%s: answer for %s on %s", c.name, n.Source, n.Arch)
			}
			got = append(got, describe(n))
		}
		if len(got) != 1 || got[0] != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestSpecific(t *testing.T) {
	specific, err := ParseSpecific("pas", []byte(`# what only runs somewhere
%foo: any-i386 !amd64 # as in a relation
%qux: !hppa !hurd-any

bar: i386
%bar2:	linux-any
`))
	if err != nil {
		t.Fatal(err)
	}
	entry := func(name, list string) string {
		return "Package: " + name + "\nVersion: 1\nArchitecture: any all\nPackage-List:\n " + list + "\n\n"
	}
	s, p := read(t, entry("foo", "foo deb x optional arch=any")+entry("qux", "qux deb x optional arch=any")+
		entry("bar", "bar deb x optional arch=any")+entry("bar2",
		"bar deb x optional arch=any\n bar2 deb x optional arch=any"), bin("bar2", "", "1", "amd64"))
	for arch, want := range map[string]string{
		"amd64": "foo: not-for-arch: Packages-arch-specific excludes the source; qux: uncompiled; bar: not-for-arch: " +
			"Packages-arch-specific excludes all its packages; bar2: up-to-date installed 1",
		"i386": "foo: uncompiled; qux: uncompiled; bar: uncompiled; bar2: uncompiled",
		"hurd-i386": "foo: uncompiled; qux: not-for-arch: Packages-arch-specific excludes the source; bar: not-for-arch: " +
			"Packages-arch-specific excludes all its packages; bar2: not-for-arch: Packages-arch-specific excludes the source",
	} {
		var got []string
		for n := range Diff(s, p, arch, Options{Specific: specific}) {
			got = append(got, n.Source+": "+describe(n))
		}
		if strings.Join(got, "; ") != want {
			t.Errorf("%s:\ngot  %s\nwant %s", arch, strings.Join(got, "; "), want)
		}
	}
}

func TestSpecificRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"foo i386":               `pas:1: no colon after the package name; write it like "%hello: amd64 i386"`,
		"\n\n%Foo: i386":         `pas:3: source package name "Foo" begins with 'F'; use at least two lower-case letters, digits, '+', '-' and '.', beginning with a letter or digit`,
		"foo: # i386":            "pas:1: no architecture after foo; name one, or remove the line",
		"foo: i386\nfoo: amd64":  "pas:2: foo is here a second time; join the two lines",
		"foo: i386,amd64":        `pas:1: architecture "i386,amd64" contains ','; use lower-case letters, digits and '-', beginning with a letter or digit`,
		"foo: i386\nbar: !!i386": `pas:2: architecture "!i386" begins with '!'; use lower-case letters, digits and '-', beginning with a letter or digit`,
	} {
		if _, err := ParseSpecific("pas", []byte(in)); err == nil || err.Error() != want {
			t.Errorf("%q:\ngot  %v\nwant %s", in, err, want)
		}
	}
}

func TestLines(t *testing.T) {
	s, p := read(t, src("1:2-3", "any", "foo deb devel required arch=any")+
		"Package: bar\nVersion: 1\nArchitecture: any\nPriority: source\nPackage-List:\n bar deb net extra arch=any\n"+
		" libbar deb libs important arch=any\n\n"+
		"Package: baz\nVersion: 1\nArchitecture: any\nBinary: baz\nSection: contrib/net\n")
	var got []string
	for n := range Diff(s, p, "amd64", Options{}) {
		got = append(got, n.Line())
	}
	want := "devel/foo_1:2-3.dsc [optional:uncompiled]\n/bar_1.dsc [important:uncompiled]\n" +
		"contrib/net/baz_1.dsc [-:uncompiled]"
	if strings.Join(got, "\n") != want {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), want)
	}
}

// One bad entry does not stop the rest; a bad index does.
func TestRefused(t *testing.T) {
	var s Sources
	err := s.Add(strings.NewReader(src("1-", "any") + strings.Replace(src("1", "any"), "foo", "../x", 1) +
		src("1", "any, all") + src("1", "any", "foo deb x") +
		src("1", "any", "foo deb x optional arch=!any") + src("1", "any", "../x deb x optional arch=any") +
		"Package: foo\nVersion: 1\nArchitecture: any\nSection: a b\n\nPackage: foo\nVersion: 1\nArchitecture: any\n" +
		"Priority:\n x\n\nPackage: foo\nVersion: 1\nArchitecture: any\nBinary: a;b\n\n" +
		src("3", "any", "foo deb x optional arch=any")))
	if err != nil || s.Len() != 1 || len(s.Refused) != 9 {
		t.Errorf("Sources: %d, refused %v, %v", s.Len(), s.Refused, err)
	}
	var p Packages
	err = p.Add(strings.NewReader(bin("f", "", "1", "amd64") + bin("foo", "", "", "amd64") +
		bin("foo", "../x", "1", "amd64") + bin("foo", "foo (1-)", "1", "amd64") + bin("foo", "", "1", "amd64")))
	if err != nil || p.Len() != 1 || len(p.Refused) != 4 {
		t.Errorf("Packages: %d, refused %v, %v", p.Len(), p.Refused, err)
	}
	if got, want := fmt.Sprint(s.Refused[0]), `line 1: source foo: version "1-" has an empty revision; remove the '-' at its end, or write a revision after it`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	var bad *deb822.Error
	if err := s.Add(strings.NewReader("Package: a\nPackage: b\n")); !errors.As(err, &bad) {
		t.Errorf("duplicate field: %v", err)
	}
}

// A Diff may be left early.
func TestDiffStops(t *testing.T) {
	s, p := read(t, src("1", "any")+strings.Replace(src("1", "any"), "foo", "bar", 1))
	for n := range Diff(s, p, "amd64", Options{}) {
		if n.Source != "foo" {
			t.Errorf("went on to %s", n.Source)
		}
		break
	}
}

// Who builds what is wanted has nothing left to build, on any architecture.
func TestBuiltMeansUpToDate(t *testing.T) {
	r := rand.New(rand.NewSource(3))
	archs := []string{"amd64", "armhf", "hurd-i386", "all"}
	lists := []string{"any", "all", "linux-any", "amd64", "any-i386", "armhf,hurd-any"}
	for round := range 100 {
		var sources strings.Builder
		type made struct{ name, source, arch string }
		var makes []made // what a build of each source makes, by its Package-List
		packages := make(map[string]string)
		versions := make(map[string]string)
		for i := range 12 {
			name := fmt.Sprintf("src%d", i)
			version := fmt.Sprintf("%d:1.%d-%d", r.Intn(2), r.Intn(3), r.Intn(3)+1)
			versions[name] = version
			var list []string
			fields := make(map[string]bool)
			for j := range 1 + r.Intn(4) {
				b := made{fmt.Sprintf("pkg%d-%d", i, j), name, lists[r.Intn(len(lists))]}
				makes = append(makes, b)
				list = append(list, b.name+" deb misc optional arch="+b.arch)
				for a := range strings.SplitSeq(b.arch, ",") {
					fields[a] = true
				}
				// Something may be there already: older, of this version, binNMU'd, newer.
				for _, a := range archs {
					if r.Intn(3) > 0 {
						continue
					}
					of := []string{"0.9-1", version, version, "2:1-1"}[r.Intn(4)]
					packages[a] += bin(b.name, name+" ("+of+")", of+[]string{"", "+b1"}[r.Intn(2)], a)
				}
			}
			var words []string
			for a := range fields {
				words = append(words, a)
			}
			sources.WriteString("Package: " + name + "\nVersion: " + version + "\nArchitecture: " + strings.Join(words, " ") +
				"\nPackage-List:\n " + strings.Join(list, "\n ") + "\n\n")
		}
		for _, arch := range archs {
			s, p := read(t, sources.String(), packages[arch])
			for n := range Diff(s, p, arch, Options{}) {
				if !n.State.Wanted() {
					continue
				}
				for _, m := range makes {
					if m.source == n.Source && policy.BuildsOn(strings.Split(m.arch, ","), arch) {
						packages[arch] += bin(m.name, n.Source+" ("+versions[n.Source]+")", "9:9", arch)
					}
				}
			}
			s, p = read(t, sources.String(), packages[arch])
			for n := range Diff(s, p, arch, Options{}) {
				if n.State.Wanted() {
					t.Fatalf("round %d, %s: %s is still %s", round, arch, n.Source, describe(n))
				}
			}
		}
	}
}

// The made lists are what they say they are.
func TestMadeLists(t *testing.T) {
	var sources, packages bytes.Buffer
	if err := listtest.Write(&sources, &packages, 3800, 6300); err != nil {
		t.Fatal(err)
	}
	s, p := read(t, sources.String(), packages.String())
	if s.Len() != 3800 || p.Len() < 5500 || p.Len() > 6300 {
		t.Errorf("%d sources, %d binaries", s.Len(), p.Len())
	}
	for _, arch := range []string{"amd64", "all"} {
		for n := range Diff(s, p, arch, Options{}) {
			if n.State == NotForArch {
				continue
			}
			var i int
			if _, err := fmt.Sscanf(n.Source, "sample%d", &i); err != nil {
				t.Fatal(err)
			}
			want := UpToDate
			switch {
			case i%5 == 2 && arch == "all" && n.Installed == "":
				continue // a single binary is for any here
			case i%7 == 6:
				want = OutOfDate
			case i%11 == 10 && i > 20:
				want = Uncompiled
			}
			if n.State != want {
				t.Errorf("%s on %s: %s, want %s", n.Source, arch, describe(n), want)
			}
		}
	}
}

func FuzzDiff(f *testing.F) {
	f.Add([]byte(src("1.0-1", "any all", "foo deb devel optional arch=any profile=!x+y",
		"foo-doc udeb contrib/doc optional arch=all")), []byte(bin("foo", "foo (1.0-1)", "1.0-1+b2", "amd64")))
	f.Add([]byte("Package: foo\nVersion: 1\nArchitecture: any\nBinary: foo,\n libfoo\nSection: x\n y\n"),
		[]byte("Package: libfoo\nSource: (1)\nVersion: 2\nArchitecture: amd64\n"))
	f.Add([]byte("Source: a+\nVersion: 1\nArchitecture: linux-any\nPackage-List: a\n b deb"),
		[]byte("Package: aa\nSource: b ()\nVersion: 1+b"))
	f.Fuzz(func(t *testing.T, sources, packages []byte) {
		var s Sources
		var p Packages
		_ = s.Add(bytes.NewReader(sources)) // what was read before an error counts too
		_ = p.Add(bytes.NewReader(packages))
		for _, arch := range []string{"amd64", "all"} {
			count := 0
			for n := range Diff(&s, &p, arch, Options{Udebs: true}) {
				count++
				line := n.Line()
				if strings.ContainsAny(line, "\n\t\x00\x1b") || strings.Count(line, " ") != 1 {
					t.Errorf("line %q", line)
				}
				if broken := len(n.Older)+len(n.Missing) > 0; broken && !n.State.Wanted() ||
					n.State == Partial && n.Installed == "" || (n.State == NotForArch) != (n.Reason != "") {
					t.Errorf("%s: %s", line, describe(n))
				}
			}
			if count != s.Len() {
				t.Errorf("%d answers for %d sources", count, s.Len())
			}
		}
	})
}

// lists gives the indexes to measure with: real ones from the directory
// PACKMILL_BENCH_LISTS (as apt keeps them: *_Sources, *binary-amd64_Packages)
// or else made ones of Debian's size.
func lists(b *testing.B) (sources, packages []byte) {
	dir := os.Getenv("PACKMILL_BENCH_LISTS")
	if dir == "" {
		var s, p bytes.Buffer
		if err := listtest.Write(&s, &p, listtest.Sources, listtest.Binaries); err != nil {
			b.Fatal(err)
		}
		return s.Bytes(), p.Bytes()
	}
	join := func(pattern string) (all []byte) {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(files) == 0 {
			b.Fatalf("PACKMILL_BENCH_LISTS=%s has no %s", dir, pattern)
		}
		sort.Strings(files)
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				b.Fatal(err)
			}
			all = append(append(all, data...), '\n')
		}
		return all
	}
	return join("*_Sources"), join("*binary-amd64_Packages")
}

// BenchmarkDiff reads Sources and Packages and holds them against each
// other. Beside the time of the wall stand the CPU's, with the collector's,
// and the memory that the process took from the system at its most, without
// the indexes' own bytes, which a caller would stream.
func BenchmarkDiff(b *testing.B) {
	sources, packages := lists(b)
	held := int64(cap(sources) + cap(packages))
	runtime.GC()
	b.SetBytes(int64(len(sources) + len(packages)))
	b.ResetTimer()
	before := cpu(b)
	var total, wanted int
	for b.Loop() {
		var s Sources
		if err := s.Add(bytes.NewReader(sources)); err != nil {
			b.Fatal(err)
		}
		var p Packages
		if err := p.Add(bytes.NewReader(packages)); err != nil {
			b.Fatal(err)
		}
		total, wanted = 0, 0
		for n := range Diff(&s, &p, "amd64", Options{Components: []string{"main"}}) {
			total++
			if n.State.Wanted() {
				wanted++
			}
		}
	}
	b.StopTimer()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(cpu(b)-before)/float64(time.Second)/float64(b.N), "cpu-s/op")
	b.ReportMetric(float64(int64(m.Sys)-held)/1e6, "MB")
	b.ReportMetric(float64(total), "sources")
	b.ReportMetric(float64(wanted), "wanted")
}

// cpu returns the time that all threads of the process have computed.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
