package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	pgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"packmill/archive/index"
	"packmill/internal/deb/debtest"
	"packmill/internal/policy"
)

// text is the published plain text of an index.
func (f *fixture) text(path string) string {
	f.Helper()
	p, err := f.a.read(context.Background(), f.suite.Name)
	if err != nil {
		f.Fatal(err)
	}
	defer p.close()
	st := p.state(path)
	if st.Text.SHA256 == "" {
		return "(not published)"
	}
	r, err := p.place(path).Published(st)
	if err != nil {
		f.Fatal(err)
	}
	defer r.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		f.Fatal(err)
	}
	return b.String()
}

// have lists what an index of stanzas has: "name version", with a star for an
// extra source.
func (f *fixture) have(path string) string {
	f.Helper()
	var out []string
	index.Stanzas.Records([]byte(f.text(path)), func(key, record []byte) bool {
		v := regexp.MustCompile(`(?m)^Version: (.*)$`).FindSubmatch(record)
		s := string(key) + " " + string(v[1])
		if bytes.Contains(record, []byte("Extra-Source-Only: yes")) {
			s += "*"
		}
		out = append(out, s)
		return true
	})
	return strings.Join(out, ", ")
}

func (f *fixture) wantHave(path, want string) {
	f.Helper()
	if got := f.have(path); got != want {
		f.Errorf("%s: got %q, want %q", path, got, want)
	}
}

// edit changes a file of an upload and nothing else.
func edit(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func replace(old, new string) func([]byte) []byte {
	return func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(old), []byte(new)) }
}

// relist makes the .changes agree with the file as it is now.
func relist(t *testing.T, inc Inclusion, name string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(inc.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	md5 := strings.Fields(run(t, inc.Dir, "md5sum", name))[0]
	sha1 := strings.Fields(run(t, inc.Dir, "sha1sum", name))[0]
	sha := strings.Fields(run(t, inc.Dir, "sha256sum", name))[0]
	edit(t, filepath.Join(inc.Dir, inc.Changes), func(b []byte) []byte {
		for n, sum := range map[int]string{32: md5, 40: sha1, 64: sha} {
			re := regexp.MustCompile(fmt.Sprintf(`(?m)^ [0-9a-f]{%d} [0-9]+ (.*%s)$`, n, regexp.QuoteMeta(name)))
			b = re.ReplaceAll(b, fmt.Appendf(nil, " %s %d ${1}", sum, len(data)))
		}
		return b
	})
}

func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	other := hello("2.10-4")
	for _, tc := range []struct {
		name   string
		before []debtest.Upload
		upload debtest.Upload
		kind   Kind
		spoil  func(t *testing.T, inc *Inclusion)
		want   string // the beginning of the reason
	}{
		{name: "wrong size", upload: hello("2.10-3"), spoil: func(t *testing.T, inc *Inclusion) {
			edit(t, inc.Dir+"/hello_2.10-3_amd64.deb", func(b []byte) []byte { return b[:len(b)-7] })
		}, want: "hello_2.10-3_amd64.deb: has 829 bytes, but hello_2.10-3_amd64.changes says 836; send the whole upload again"},
		{name: "truncated deb", upload: hello("2.10-3"), spoil: func(t *testing.T, inc *Inclusion) {
			edit(t, inc.Dir+"/hello_2.10-3_amd64.deb", func(b []byte) []byte { return b[:len(b)-7] })
			relist(t, *inc, "hello_2.10-3_amd64.deb")
		}, want: "hello_2.10-3_amd64.deb: the file ends in the middle of a member; it is truncated: send the whole file"},
		{name: "other bytes of the same size", upload: hello("2.10-3"), spoil: func(t *testing.T, inc *Inclusion) {
			edit(t, inc.Dir+"/hello_2.10-3.tar.xz", func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		}, want: "hello_2.10-3.tar.xz: SHA-256 differs from hello_2.10-3_amd64.changes; send the whole upload again"},
		{name: "missing file", upload: hello("2.10-3"), spoil: func(t *testing.T, inc *Inclusion) {
			os.Remove(inc.Dir + "/hello_2.10-3.tar.xz")
		}, want: "hello_2.10-3.tar.xz: hello_2.10-3_amd64.changes lists it, but it is not there as a regular file; " +
			"send the whole upload again"},
		{name: "symbolic link", upload: hello("2.10-3"), spoil: func(t *testing.T, inc *Inclusion) {
			os.Remove(inc.Dir + "/hello_2.10-3.tar.xz")
			os.Symlink("/etc/passwd", inc.Dir+"/hello_2.10-3.tar.xz")
		}, want: "hello_2.10-3.tar.xz: hello_2.10-3_amd64.changes lists it, but it is not there as a regular file; " +
			"send the whole upload again"},
		{name: "name with a path", upload: hello("2.10-3"), spoil: func(t *testing.T, inc *Inclusion) {
			edit(t, filepath.Join(inc.Dir, inc.Changes), replace("hello_2.10-3.tar.xz", "../../../etc/passwd"))
		}, want: `hello_2.10-3_amd64.changes:23: file name "../../../etc/passwd" begins with '.'; name it like`},
		{name: "deb whose name lies", upload: hello("2.10-3"), spoil: func(t *testing.T, inc *Inclusion) {
			os.Link(inc.Dir+"/hello_2.10-3_amd64.deb", inc.Dir+"/hello_9_amd64.deb")
			edit(t, filepath.Join(inc.Dir, inc.Changes), replace("hello_2.10-3_amd64.deb", "hello_9_amd64.deb"))
		}, want: "hello_9_amd64.deb: its control file belongs to hello_2.10-3_amd64.deb; give the file that name, " +
			"or build the package again"},
		{name: "deb of another source", upload: func() debtest.Upload {
			u := hello("2.10-3")
			u.Debs[1].Source = "other"
			return u
		}(), want: "hello-doc_2.10-3_all.deb: is built from other 2.10-3, " +
			"but hello_2.10-3_amd64.changes is of hello 2.10-3; build the upload again"},
		{name: "deb of an architecture that the suite lacks", upload: func() debtest.Upload {
			u := hello("2.10-3")
			u.Debs[0].Arch = "arm64"
			return u
		}(), want: "hello_2.10-3_arm64.deb: the suite unstable has no architecture arm64, only amd64, i386; " +
			"leave the package out, or add the architecture to the suite"},
		{name: "binary that Binary does not name", upload: func() debtest.Upload {
			u := hello("2.10-3")
			u.Debs = append(u.Debs, debtest.Deb{Name: "stowaway", Source: "hello", Version: "2.10-3"})
			return u
		}(), spoil: func(t *testing.T, inc *Inclusion) {
			edit(t, filepath.Join(inc.Dir, inc.Changes), func(b []byte) []byte {
				return regexp.MustCompile(`(?m)^Binary: .*$`).ReplaceAll(b, []byte("Binary: hello hello-doc"))
			})
		}, want: "stowaway_2.10-3_amd64.deb: hello_2.10-3_amd64.changes does not name it in Binary; build the upload again"},
		{name: "binaries without their source", upload: hello("2.10-3"), kind: Binary,
			want: "hello-doc_2.10-3_all.deb: its source package hello 2.10-3 is not in unstable; publish the source first"},
		{name: "architecture that the sender may not", upload: hello("2.10-3"), spoil: func(t *testing.T, inc *Inclusion) {
			inc.Architectures = []string{"amd64"}
		},
			want: "hello-doc_2.10-3_all.deb: its sender may bring packages for amd64 only; " +
				"let a builder of its architecture send it"},
		{name: "older version", before: []debtest.Upload{hello("2.10-4")}, upload: hello("2.10-3"),
			want: "hello_2.10-3.dsc: hello has the newer version 2.10-4 in unstable; give the package a higher version, " +
				"or force it"},
		{name: "same version with other content", before: []debtest.Upload{hello("2.10-4")}, upload: func() debtest.Upload {
			other.Source.Fields = "Homepage: https://packmill.example/\n"
			return other
		}(), want: "hello_2.10-4.dsc: hello 2.10-4 is in unstable with other content; published files never change, " +
			"so give the package a new version"},
		{name: "component that the suite lacks", upload: func() debtest.Upload {
			u := hello("2.10-3")
			u.Debs[0].Fields = "Section: non-free/net\n"
			return u
		}(), want: `hello_2.10-3_amd64.changes: the suite unstable has no component "non-free", only main, contrib; change the Section of the package or the component of the upload`},
		{name: "two control members", upload: hello("2.10-3"), spoil: func(t *testing.T, inc *Inclusion) {
			control := debtest.Pack("xz",
				debtest.Tar(debtest.File{Path: "control",
					Body: "Package: hello\nVersion: 2.10-3\nArchitecture: amd64\nMaintainer: A <a@b.example>\nDescription: x\n"}))
			os.WriteFile(inc.Dir+"/hello_2.10-3_amd64.deb",
				debtest.Ar(debtest.Member{Name: "debian-binary", Body: []byte("2.0\n")},
					debtest.Member{Name: "control.tar.xz", Body: control}, debtest.Member{Name: "control.tar.gz",
						Body: debtest.Pack("gz", nil)},
					debtest.Member{Name: "data.tar.xz", Body: debtest.Pack("xz", debtest.Tar())}), 0o644)
			relist(t, *inc, "hello_2.10-3_amd64.deb")
		}, want: `hello_2.10-3_amd64.deb: member "control.tar.gz" at place 3 of the container, where data.tar belongs; build the package again with dpkg-deb`},
		{name: "bomb of 10 GB", upload: hello("2.10-3"), spoil: func(t *testing.T, inc *Inclusion) {
			// Streams of 32 MiB of zeros, one after the other.
			zeros := strings.Repeat(run(t, "/", "sh", "-c", "head -c 32M /dev/zero | xz -1 --threads=1"), 320)
			control := debtest.Pack("xz",
				debtest.Tar(debtest.File{Path: "control",
					Body: "Package: hello\nVersion: 2.10-3\nArchitecture: amd64\nMaintainer: A <a@b.example>\nDescription: x\n"}))
			os.WriteFile(inc.Dir+"/hello_2.10-3_amd64.deb",
				debtest.Ar(debtest.Member{Name: "debian-binary", Body: []byte("2.0\n")},
					debtest.Member{Name: "control.tar.xz", Body: control}, debtest.Member{Name: "data.tar.xz",
						Body: append(debtest.Pack("xz", debtest.Tar()), zeros...)}), 0o644)
			relist(t, *inc, "hello_2.10-3_amd64.deb")
		}, want: "hello_2.10-3_amd64.deb: data.tar.xz unpacks to more than 400 times its size, as bombs do; " +
			"split the package, or leave out what is empty in it"},
		{name: ".dsc of another version", upload: hello("2.10-3"), spoil: func(t *testing.T, inc *Inclusion) {
			edit(t, inc.Dir+"/hello_2.10-3.dsc", replace("Version: 2.10-3", "Version: 2.10-4"))
			relist(t, *inc, "hello_2.10-3.dsc")
		}, want: "hello_2.10-3.dsc: is hello 2.10-4, but hello_2.10-3_amd64.changes is of hello 2.10-3; " +
			"build the upload again"},
		{name: ".dsc and .changes disagree", upload: hello("2.10-3"), spoil: func(t *testing.T, inc *Inclusion) {
			edit(t, inc.Dir+"/hello_2.10-3.tar.xz", func(b []byte) []byte { return append(b, 0, 0, 0, 0) })
			relist(t, *inc, "hello_2.10-3.tar.xz")
		}, want: "hello_2.10-3.tar.xz: hello_2.10-3.dsc and hello_2.10-3_amd64.changes do not agree about it; " +
			"build the source package again"},
		{name: "two .dsc", upload: hello("2.10-3"), spoil: func(t *testing.T, inc *Inclusion) {
			edit(t, filepath.Join(inc.Dir, inc.Changes), replace("hello_2.10-3.tar.xz", "hello_2.10-4.dsc"))
		}, want: "hello_2.10-3_amd64.changes: lists hello_2.10-3.dsc and hello_2.10-4.dsc; an upload has one source package"},
		{name: "tarball that nobody has", upload: hello("2.10-3"), spoil: func(t *testing.T, inc *Inclusion) {
			edit(t, filepath.Join(inc.Dir, inc.Changes), func(b []byte) []byte {
				return regexp.MustCompile(`(?m)^ .* hello_2\.10-3\.tar\.xz\n`).ReplaceAll(b, nil)
			})
		}, want: "hello_2.10-3.tar.xz: hello_2.10-3.dsc wants it, but neither the upload nor the archive has it; " +
			"build the upload with -sa"},
		{name: ".dsc that names a path", upload: hello("2.10-3"), spoil: func(t *testing.T, inc *Inclusion) {
			edit(t, inc.Dir+"/hello_2.10-3.dsc", replace("hello_2.10-3.tar.xz", "../../../hello_2.10-3.tar.xz"))
			relist(t, *inc, "hello_2.10-3.dsc")
		}, want: `hello_2.10-3.dsc:13: file name "../../../hello_2.10-3.tar.xz" begins with '.'`},
		{name: "epoch over the same file names", before: []debtest.Upload{hello("2.10-3")}, upload: hello("1:2.10-3"),
			want: "hello_2.10-3.dsc: the archive has a file of this name with other content; published files never change, " +
				"so give the package a new version"},
		{name: "epoch that is gone", before: []debtest.Upload{hello("1:1.0-1")}, upload: hello("2.10-3"),
			want: "hello_2.10-3.dsc: hello has the newer version 1:1.0-1 in unstable; give the package a higher version, " +
				"or force it"},
		{name: "binary that is older than the suite's",
			before: []debtest.Upload{{Source: debtest.Source{Name: "hello", Version: "1"},
				Debs: []debtest.Deb{{Name: "hello", Source: "hello (1)", Version: "9"}}}},
			upload: debtest.Upload{Source: debtest.Source{Name: "hello", Version: "2"},
				Debs: []debtest.Deb{{Name: "hello", Version: "2"}}},
			want: "hello_2_amd64.deb: hello has the newer version 9 in unstable; give the package a higher version, " +
				"or force it"},
		{name: "two sizes of one file", upload: hello("2.10-3"), spoil: func(t *testing.T, inc *Inclusion) {
			edit(t, filepath.Join(inc.Dir, inc.Changes), func(b []byte) []byte {
				return regexp.MustCompile(`(?m)^( [0-9a-f]{32} )`).ReplaceAll(b, []byte("${1}1"))
			})
		}, want: "hello_2.10-3_amd64.changes:18: hello_2.10-3.dsc is of 512 bytes in Checksums-Sha1, " +
			"but of 1512 in another list; build the upload again"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			for _, u := range tc.before {
				f.accepted(f.upload(u))
			}
			f.accepted()
			before := append(tree(t, f.a.path("pool")), tree(t, f.a.path("dists"))...)
			inc := f.upload(tc.upload)
			inc.Kind = tc.kind
			if tc.spoil != nil {
				tc.spoil(t, &inc)
			}
			good := debtest.Upload{Source: debtest.Source{Name: "good", Version: "1"}}
			rep := f.publish(inc)
			r := rep.Results[0]
			if r.Outcome != Refused || !strings.HasPrefix(r.Reason, tc.want) {
				t.Errorf("got %v: %q, want refused: %q...", r.Outcome, r.Reason, tc.want)
			}
			t.Log(r.Reason)
			after := append(tree(t, f.a.path("pool")), tree(t, f.a.path("dists"))...)
			if !slices.Equal(after, before) || rep.Changed {
				t.Errorf("after a refusal: got %q, want as before %q", after, before)
			}
			// It stops nobody else.
			rep = f.publish(inc, f.upload(good))
			if rep.Results[0].Outcome != Refused || rep.Results[1].Outcome != Published {
				t.Errorf("in one batch: got %+v, want the bad one refused, the good one published", rep.Results)
			}
		})
	}
}

// A name keeps its bytes, also when no suite has it any more.
func TestNameKeepsItsBytes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.accepted(f.upload(hello("1")))
	f.planned(f.a.Remove(ctx, f.suite, []string{"hello"}, ChangeOptions{}, f.now))
	u := hello("1")
	u.Debs[0].Files[0].Body = "something else"
	r := f.publish(f.upload(u)).Results[0]
	if want := "hello_1_amd64.deb: the archive has a file of this name with other content; " +
		"published files never change, so give the package a new version"; r.Reason != want {
		t.Errorf("got %v: %q, want refused: %q", r.Outcome, r.Reason, want)
	}
	f.accepted(f.upload(hello("1")))
	f.sound()
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	inc := f.upload(hello("2.10-3"))
	rep := f.accepted(inc)
	if rep.Results[0].Outcome != Published || !rep.Changed {
		t.Errorf("first: got %+v, want published", rep)
	}
	before, _ := os.ReadFile(f.a.path("dists/unstable/InRelease"))
	rep = f.accepted(inc)
	if rep.Results[0].Outcome != AlreadyThere || rep.Changed {
		t.Errorf("again: got %+v, want already there", rep)
	}
	after, _ := os.ReadFile(f.a.path("dists/unstable/InRelease"))
	if !bytes.Equal(before, after) {
		t.Error("again: InRelease has changed")
	}
	// Names come and go with the settings alone.
	f.suite.Aliases = []string{"rolling", "devel"}
	if !f.accepted().Changed || f.accepted().Changed {
		t.Error("a further alias: want a change, once")
	}
	if to, err := os.Readlink(f.a.path("dists/devel")); err != nil || to != "unstable/.alias/devel" {
		t.Errorf("dists/devel: got link to %q, %v", to, err)
	}
	f.suite.Aliases = []string{"rolling"}
	f.accepted()
	for _, gone := range []string{"dists/devel", "dists/unstable/.alias/devel"} {
		if _, err := os.Lstat(f.a.path(gone)); !os.IsNotExist(err) {
			t.Errorf("%s, which is no alias any more: got %v", gone, err)
		}
	}
	inc = f.upload(hello("2.10-2"))
	inc.Force = true
	if rep = f.accepted(inc); rep.Results[0].Outcome != Published {
		t.Errorf("forced: got %+v, want published", rep)
	}
	f.wantHave("main/source/Sources", "hello 2.10-2")
	f.wantHave("main/binary-i386/Packages", "hello-doc 2.10-2")
	f.wantHave("main/binary-all/Packages", "hello-doc 2.10-2")
	f.wantHave("main/binary-amd64/Packages", "hello 2.10-2, hello-doc 2.10-2")
	for alias, want := range map[string]string{"sid": "unstable", "rolling": "unstable/.alias/rolling"} {
		if to, err := os.Readlink(f.a.path("dists", alias)); err != nil || to != want {
			t.Errorf("dists/%s: got link to %q, %v, want %s", alias, to, err, want)
		}
	}
}

// The old source stays while binaries of it do, and only then.
func TestSourceFirst(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.accepted(f.upload(hello("1-1")))
	inc := f.upload(hello("1-2"))
	inc.Kind = Source
	f.accepted(inc)
	f.wantHave("main/source/Sources", "hello 1-2, hello 1-1*")
	c := newClient(t, f.source(), f.key, "amd64")
	c.run("apt-get", "update")
	if got := c.run("apt-get", "source", "--print-uris", "hello"); !strings.Contains(got, "hello_1-2.dsc") {
		t.Errorf("apt-get source hello: got %s, want 1-2", got)
	}
	if has, err := f.a.Has(context.Background(), "unstable", "hello", "1-1"); !has || err != nil {
		t.Errorf("has hello 1-1: got %v, %v", has, err)
	}
	// The binaries of amd64, then those of all.
	u := hello("1-2")
	u.Debs = u.Debs[:1]
	inc = f.upload(u)
	inc.Kind = Binary
	f.accepted(inc)
	f.wantHave("main/source/Sources", "hello 1-2, hello 1-1*")
	u = hello("1-2")
	u.Debs = u.Debs[1:]
	inc = f.upload(u)
	inc.Kind = Binary
	f.accepted(inc)
	f.wantHave("main/source/Sources", "hello 1-2")
	f.wantHave("main/binary-amd64/Packages", "hello 1-2, hello-doc 1-2")
	v, err := f.a.Versions(context.Background(), "hello")
	if got, want := fmt.Sprint(v, err), "[{unstable main 1-2}] <nil>"; got != want {
		t.Errorf("versions: got %s, want %s", got, want)
	}
}

// A package of all that each architecture builds itself later leaves
// binary-all with the last of them.
func TestAllBecomesAny(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	up := func(version string, archs ...string) Inclusion {
		u := debtest.Upload{Source: debtest.Source{Name: "tool", Version: version, Arch: "any"}}
		for _, a := range archs {
			if a == "all" {
				u.Source.Arch = a
			}
			u.Debs = append(u.Debs, debtest.Deb{Name: "tool", Version: version, Arch: a})
		}
		return f.upload(u)
	}
	f.accepted(up("1", "all"))
	f.accepted(up("2", "amd64"))
	f.wantHave("main/binary-amd64/Packages", "tool 2")
	f.wantHave("main/binary-i386/Packages", "tool 1")
	f.wantHave("main/binary-all/Packages", "tool 1")
	inc := up("2", "i386")
	inc.Kind = Binary
	f.accepted(inc)
	f.wantHave("main/binary-i386/Packages", "tool 2")
	f.wantHave("main/binary-all/Packages", "")
	f.wantHave("main/source/Sources", "tool 2")
	// And back.
	f.accepted(up("3", "all"))
	f.wantHave("main/binary-i386/Packages", "tool 3")
	f.wantHave("main/binary-amd64/Packages", "tool 3")
	f.wantHave("main/binary-all/Packages", "tool 3")
}

func TestNewArchitectureHasAll(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.suite.Contents = true
	f.accepted(f.upload(hello("1")))
	f.suite.Architectures = append(f.suite.Architectures, "arm64")
	f.accepted()
	f.wantHave("main/binary-arm64/Packages", "hello-doc 1")
	newClient(t, f.source(), f.key, "arm64").run("apt-get", "update")
	f.suite.Architectures = []string{"arm64"}
	f.accepted()
	if got := f.text("main/binary-amd64/Packages"); got != "(not published)" {
		t.Errorf("an architecture that is gone: got %q", got)
	}
}

func TestContents(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.accepted(f.upload(hello("1")))
	f.suite.Contents = true // later
	f.accepted()
	want := func(path, text string) {
		t.Helper()
		if got := f.text(path); got != text {
			t.Errorf("%s: got %q, want %q", path, got, text)
		}
	}
	want("main/Contents-amd64", "usr/bin/hello\tmisc/hello\n")
	want("main/Contents-all", "usr/share/doc/hello/a b.txt\tmisc/hello-doc\n")
	want("main/Contents-i386", "")
	u := hello("2")
	u.Debs[0].Files = []debtest.File{{Path: "usr/bin/hi"}, {Path: "usr/lib/x", Link: "y"}}
	u.Debs[0].Fields = "Section: utils\n"
	f.accepted(f.upload(u))
	want("main/Contents-amd64", "usr/bin/hi\tutils/hello\nusr/lib/x\tutils/hello\n")
	// A file of two packages; and the cache of file lists is lost.
	if err := os.RemoveAll(f.a.path("cache")); err != nil {
		t.Fatal(err)
	}
	f.accepted(f.upload(debtest.Upload{Source: debtest.Source{Name: "bb", Version: "1"},
		Debs: []debtest.Deb{{Name: "bb", Version: "1", Files: []debtest.File{{Path: "usr/bin/hi"}}}}}))
	want("main/Contents-amd64", "usr/bin/hi\tmisc/bb,utils/hello\nusr/lib/x\tutils/hello\n")
	f.accepted(f.upload(debtest.Upload{Source: debtest.Source{Name: "bb", Version: "2"},
		Debs: []debtest.Deb{{Name: "bb", Version: "2", Files: []debtest.File{{Path: "usr/bin/b"}}}}}))
	want("main/Contents-amd64", "usr/bin/b\tmisc/bb\nusr/bin/hi\tutils/hello\nusr/lib/x\tutils/hello\n")
}

func TestTranslations(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.suite.Translations = true
	long := "tool with words\n First line of many.\n .\n  * an item\n And the last.\n"
	u := hello("1")
	u.Debs[0].Fields = "Description: " + long
	f.accepted(f.upload(u))
	if got := f.text("main/binary-amd64/Packages"); strings.Contains(got, "an item") ||
		!strings.Contains(got, "Description-md5: ") {
		t.Errorf("Packages: got %s, want the short description only", got)
	}
	c := newClient(t, f.source(), f.key, "amd64")
	c.run("apt-get", "update")
	// apt shows the long text only if its own checksum of it is ours.
	if got := c.run("apt-cache", "show", "hello"); !strings.Contains(got, " .\n  * an item\n And the last.\n") {
		t.Errorf("apt-cache show: got %s, want the long description", got)
	}
	u = hello("2")
	u.Debs[0].Fields = "Description: " + strings.Replace(long, "many", "few", 1)
	f.accepted(f.upload(u))
	if got := f.text("main/i18n/Translation-en"); strings.Contains(got, "many") ||
		!strings.Contains(got, "First line of few.") {
		t.Errorf("Translation-en: got %s, want the new text only", got)
	}
}

func TestDbgsymHasItsComponent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.suite.Dbgsym = "debug"
	u := hello("1")
	u.Debs = append(u.Debs,
		debtest.Deb{Name: "hello-dbgsym", Source: "hello", Version: "1",
			Fields: "Auto-Built-Package: debug-symbols\nSection: debug\n"})
	f.accepted(f.upload(u))
	f.wantHave("main/binary-amd64/Packages", "hello 1, hello-doc 1")
	f.wantHave("debug/binary-amd64/Packages", "hello-dbgsym 1")
	f.accepted(f.upload(debtest.Upload{Source: debtest.Source{Name: "hello", Version: "2",
		Binary: []string{"hello", "hello-doc"}}, Debs: []debtest.Deb{{Name: "hello", Version: "2"}}}))
	f.planned(f.a.Remove(ctx, f.suite, []string{"hello-doc"}, ChangeOptions{}, f.now))
	f.wantHave("debug/binary-amd64/Packages", "hello-dbgsym 1")
	f.wantHave("main/source/Sources", "hello 2, hello 1*") // whose source is there as long as it is
	f.planned(f.a.Remove(ctx, f.suite, []string{"hello-dbgsym"}, ChangeOptions{}, f.now))
	f.wantHave("main/source/Sources", "hello 2")
}

// A forced older version takes the newer one's place: no package stays whose
// source goes, and the next version need not be forced.
func TestForcedOlderVersion(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	stable := f.stable()
	s := *f
	s.suite = stable
	f.accepted(f.upload(hello("1")))
	u := hello("3")
	u.Source.Binary = append(u.Source.Binary, "hello-new")
	u.Debs = append(u.Debs, debtest.Deb{Name: "hello-new", Source: "hello", Version: "3"},
		debtest.Deb{Name: "hello", Version: "3", Arch: "i386"})
	f.accepted(f.upload(u))
	s.planned(f.a.Copy(ctx, "unstable", stable, []string{"hello"}, ChangeOptions{}, f.now))
	older := f.upload(hello("2"))
	older.Force = true
	rep := f.accepted(older)
	if got, want := fmt.Sprint(rep.Results[0].Notes), "[source package hello 3 goes, with all that was built from it.]"; got != want {
		t.Errorf("notes: got %s, want %s", got, want)
	}
	f.wantList("unstable", "hello_2_amd64 hello_2_source hello-doc_2_all")
	p := f.planned(f.a.Copy(ctx, "unstable", stable, []string{"hello"}, ChangeOptions{Force: true}, f.now))
	if got, want := fmt.Sprint(p.Removed), "[{main source hello 3 } {main amd64 hello 3 hello} {main all hello-doc 3 "+
		"hello} {main amd64 hello-new 3 hello}]"; got != want {
		t.Errorf("removed: got %s, want %s", got, want)
	}
	f.wantList("stable", "hello_2_amd64 hello_2_source hello-doc_2_all")
	// The source first.
	older = f.upload(hello("1"))
	older.Force, older.Kind = true, Source
	f.accepted(older)
	f.wantList("unstable", "hello_1_source")
	late := f.upload(hello("1"))
	late.Kind = Binary
	f.accepted(late)
	f.accepted(f.upload(hello("1.1")))
	f.wantList("unstable", "hello_1.1_amd64 hello_1.1_source hello-doc_1.1_all")
	f.sound()
}

func TestOverridesAndComponents(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.suite.Overrides = map[string]Override{"hello": {Section: "contrib/utils", Priority: "important"},
		"src:hello": {Section: "contrib/devel"}}
	f.accepted(f.upload(hello("1")))
	f.wantHave("contrib/binary-amd64/Packages", "hello 1")
	f.wantHave("main/binary-amd64/Packages", "hello-doc 1")
	f.wantHave("contrib/source/Sources", "hello 1")
	if got := f.text("contrib/binary-amd64/Packages"); !strings.Contains(got, "\nSection: contrib/utils\n") ||
		!strings.Contains(got, "\nPriority: important\n") {
		t.Errorf("got %s, want section and priority of the override", got)
	}
	f.suite.Overrides = nil
	rep := f.accepted(f.upload(hello("2")))
	f.wantHave("contrib/binary-amd64/Packages", "")
	f.wantHave("main/binary-amd64/Packages", "hello 2, hello-doc 2")
	f.wantHave("main/source/Sources", "hello 2")
	f.wantHave("contrib/source/Sources", "")
	if got := fmt.Sprint(rep.Results[0].Notes); !strings.Contains(got,
		"package hello moves from component contrib to main.") {
		t.Errorf("notes: got %s", got)
	}
}

// apt installs nothing from such a suite by itself, or upgrades only what came
// from there; and takes the suite under each of its names.
func TestNotAutomaticAndNames(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	f := newFixture(t)
	f.suite.Codename = "sid"
	for _, tc := range []struct {
		not, but bool
		want     string
	}{{false, false, " 500"}, {true, false, " 1"}, {true, true, " 100"}} {
		f.suite.NotAutomatic, f.suite.ButAutomaticUpgrades = tc.not, tc.but
		f.accepted(f.upload(hello("1")))
		for _, name := range []string{"unstable", "sid", "rolling"} {
			c := newClient(t, strings.ReplaceAll(f.source(), " unstable ", " "+name+" "), f.key, "amd64")
			c.run("apt-get", "update") // without a remark
			if got := c.run("apt-cache", "policy", "hello"); !strings.Contains(got, "     1"+tc.want+"\n") {
				t.Errorf("%s, %+v: got %s", name, tc, got)
			}
		}
	}
}

func TestTakeoverIsSaid(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.accepted(f.upload(hello("1")))
	rep := f.accepted(f.upload(debtest.Upload{Source: debtest.Source{Name: "newhello", Version: "2"},
		Debs: []debtest.Deb{{Name: "hello", Source: "newhello", Version: "2"}}}))
	if got, want := fmt.Sprint(rep.Results[0].Notes), "[package hello is taken over from source package hello by "+
		"newhello.]"; got != want {
		t.Errorf("notes: got %s, want %s", got, want)
	}
}

func TestSeveralKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	f := newFixture(t)
	secret, public := newKey(t, "second")
	first := f.suite.SignWith[0]
	f.accepted(f.upload(hello("1")))
	f.suite.SignWith = []string{first, secret}
	if !f.accepted().Changed {
		t.Error("a further key: got no new Release")
	}
	if f.accepted().Changed {
		t.Error("the same keys: got a new Release")
	}
	dir := f.a.path("dists/unstable/")
	gpgv(t, []string{f.key, public}, dir+"/InRelease")
	gpgv(t, []string{f.key, public}, dir+"/Release.gpg", dir+"/Release")
	for _, k := range []string{f.key, public} { // who has one of them is content
		newClient(t, f.source(), k, "amd64").run("apt-get", "update")
	}
	f.suite.SignWith = []string{secret}
	f.accepted()
	gpgv(t, []string{public}, dir+"/InRelease")
	if out, err := newClient(t, f.source(), f.key, "amd64").try("apt-get", "update"); err == nil {
		t.Errorf("with the old key alone: apt-get update is content: %s", out)
	}
}

func TestValidUntilIsRenewed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.suite.ValidFor = 10 * time.Hour
	f.accepted(f.upload(hello("1")))
	// apt goes by it.
	for _, old := range []bool{false, true} {
		g := f
		if old {
			g = newFixture(t)
			g.suite.ValidFor = time.Minute
			g.accepted()
		}
		out, err := newClient(t, g.source(), g.key, "amd64").try("apt-get", "update", "-o", "Acquire::Check-Date=true")
		if old != (err != nil) || old != strings.Contains(out, "is expired") {
			t.Errorf("apt-get update, past Valid-Until: %t: got %v: %s", old, err, out)
		}
	}
	until := func() string {
		data, _ := os.ReadFile(f.a.path("dists/unstable/Release"))
		return string(regexp.MustCompile(`(?m)^Valid-Until: .*$`).Find(data))
	}
	first := until()
	f.now = f.now.Add(4 * time.Hour)
	if f.accepted().Changed || until() != first {
		t.Errorf("after 4 of 10 hours: got %s, want still %s", until(), first)
	}
	f.now = f.now.Add(2 * time.Hour)
	if !f.accepted().Changed || until() == first {
		t.Errorf("after 6 of 10 hours: got still %s", first)
	}
}

// Indexes stay under their checksums for a time after they were superseded,
// however old they were then, and go in a later run.
func TestByHashStays(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.suite.Stay = 24 * time.Hour
	f.accepted(f.upload(hello("1")))
	dir := f.a.path("dists/unstable/main/binary-amd64/by-hash/SHA256")
	old := tree(t, dir)
	f.now = f.now.Add(100 * time.Hour) // long current
	f.accepted(f.upload(hello("2")))
	f.now = f.now.Add(23 * time.Hour)
	f.accepted(f.upload(hello("3")))
	still := tree(t, dir)
	for _, n := range old {
		if !slices.Contains(still, n) {
			t.Errorf("23 hours after it was superseded %s is gone", n)
		}
	}
	f.now = f.now.Add(2 * time.Hour)
	f.accepted(f.upload(hello("4")))
	still = tree(t, dir)
	for _, n := range old {
		if slices.Contains(still, n) {
			t.Errorf("25 hours after it was superseded %s is there", n)
		}
	}
	if n := len(still); n != 3*2 {
		t.Errorf("kept: got %d files, want 2 of each of the last 3 publications", n)
	}
}

// One process looks for old indexes once a minute, however often it publishes.
func TestByHashSweptOnceAMinute(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.suite.Stay = 24 * time.Hour
	version := 0
	publish := func(later time.Duration) {
		version++
		f.now = f.now.Add(later - time.Minute) // that publish adds
		f.accepted(f.upload(hello(fmt.Sprint(version))))
	}
	dir := f.a.path("dists/unstable/main/binary-amd64/by-hash/SHA256")
	publish(0)
	old := tree(t, dir)[0]
	gone := func() bool { return !slices.Contains(tree(t, dir), old) }
	publish(time.Hour)
	publish(24*time.Hour - time.Second)
	publish(2 * time.Second)
	if gone() {
		t.Error("it was looked for 2 seconds after the last look")
	}
	publish(time.Minute)
	if !gone() {
		t.Error("it is there a minute after its stay")
	}
}

// A suite that is published every minute keeps what a client may be reading, and not all of it for days.
func TestByHashOfManyPublications(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	dir := f.a.path("dists/unstable/main/binary-amd64/by-hash/SHA256")
	born := map[string]time.Time{}
	for i := range 90 {
		f.accepted(f.upload(hello(fmt.Sprint(i + 1))))
		for _, n := range tree(t, dir) {
			if born[n].IsZero() {
				born[n] = f.now
			}
		}
		f.now = f.now.Add(time.Minute)
	}
	still := tree(t, dir)
	if n := len(still); n < 100 || n > 104 {
		t.Errorf("kept: got %d files, want 100, and 2 that are current", n)
	}
	for n, at := range born {
		if young := f.now.Sub(at) < 30*time.Minute; young && !slices.Contains(still, n) {
			t.Errorf("%s is gone after %s", n, f.now.Sub(at))
		}
	}
	if len(born) < 160 {
		t.Errorf("there were %d files in all, want 180", len(born))
	}
}

// What a .deb's fields say of its place is not believed.
func TestFieldsOfTheArchiveAreOurs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	u := hello("1")
	u.Debs[0].Fields = "Filename: ../../../etc/passwd\nSize: 1\nSHA256: " + strings.Repeat("0", 64) + "\n"
	f.accepted(f.upload(u))
	text := f.text("main/binary-amd64/Packages")
	if strings.Contains(text, "passwd") || strings.Contains(text, strings.Repeat("0", 64)) {
		t.Errorf("got %s", text)
	}
	c := newClient(t, f.source(), f.key, "amd64")
	c.run("apt-get", "update")
	c.run("apt-get", "download", "hello")
}

func TestEpochAndSuffixes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	v := "2:1.0+b~rc1-1"
	if err := policy.CheckVersion(v); err != nil {
		t.Fatal(err)
	}
	f.accepted(f.upload(hello(v)))
	// A binNMU: the binary's version is higher than its source's.
	u := debtest.Upload{Source: debtest.Source{Name: "hello", Version: v},
		Debs: []debtest.Deb{{Name: "hello", Source: "hello (" + v + ")", Version: v + "+b1"}}}
	inc := f.upload(u)
	edit(t, filepath.Join(inc.Dir, inc.Changes), func(b []byte) []byte {
		b = regexp.MustCompile(`(?m)^Source: .*$`).ReplaceAll(b, []byte("Source: hello ("+v+")"))
		return regexp.MustCompile(`(?m)^Version: .*$`).ReplaceAll(b, []byte("Version: "+v+"+b1"))
	})
	inc.Kind = Binary
	f.accepted(inc)
	f.wantHave("main/binary-amd64/Packages", "hello "+v+"+b1, hello-doc "+v)
}

// A key may stay with gpg-agent, beside one in a file.
func TestKeyOfGpgAgent(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	home := t.TempDir()
	t.Setenv("GNUPGHOME", home)
	t.Cleanup(func() { exec.Command("gpgconf", "--homedir", home, "--kill", "gpg-agent").Run() })
	if out, err := exec.Command("gpg", "--batch", "--passphrase", "", "--quick-generate-key", "agent@packmill.example",
		"rsa3072", "sign", "10d").CombinedOutput(); err != nil {
		t.Fatalf("gpg --quick-generate-key: %v\n%s", err, out)
	}
	list, err := exec.Command("gpg", "--batch", "--with-colons", "--list-secret-keys").Output()
	if err != nil {
		t.Fatal(err)
	}
	fpr := regexp.MustCompile(`(?m)^fpr:+([0-9A-F]{40}):`).FindSubmatch(list)
	public := filepath.Join(home, "public.asc")
	if out, err := exec.Command("gpg", "--batch", "--armor", "--output", public, "--export",
		string(fpr[1])).CombinedOutput(); err != nil {
		t.Fatalf("gpg --export: %v\n%s", err, out)
	}
	f := newFixture(t)
	f.suite.Description = "a field with an end -\n- and a dash"
	f.suite.SignWith = append(f.suite.SignWith, "gpg:"+string(fpr[1]))
	f.now = time.Now().Add(-time.Minute) // the key is new: the first publication is now
	f.accepted(f.upload(hello("1")))
	rep := f.accepted()
	if rep.Changed {
		t.Error("the same keys: got a new Release")
	}
	if len(rep.Warnings) != 1 ||
		!strings.HasPrefix(rep.Warnings[0], "the signing key gpg:"+string(fpr[1])+" expires on ") {
		t.Errorf("of a key for 10 days: got warnings %q, want one", rep.Warnings)
	}
	dir := f.a.path("dists/unstable/")
	gpgv(t, []string{f.key, public}, dir+"/InRelease")
	gpgv(t, []string{f.key, public}, dir+"/Release.gpg", dir+"/Release")
	for _, k := range []string{f.key, public} {
		newClient(t, f.source(), k, "amd64").run("apt-get", "update")
	}
	f.suite.SignWith = []string{"gpg:0123456789012345678901234567890123456789"}
	if _, err := f.a.Publish(context.Background(), f.suite, nil, f.now); err == nil ||
		!strings.Contains(err.Error(), "gpg does not know it") {
		t.Errorf("an unknown key: got %v", err)
	}
}

// A key that expires between two publications of one process stops the second
// one before clients see anything of it.
func TestKeyExpires(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	made := f.now.Add(-time.Hour)
	e, err := pgp.NewEntity("short", "", "short@packmill.example",
		&packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Curve: packet.Curve25519,
			KeyLifetimeSecs: 24 * 3600, Time: func() time.Time { return made }})
	if err != nil {
		t.Fatal(err)
	}
	var secret bytes.Buffer
	w, err := armor.Encode(&secret, "PGP PRIVATE KEY BLOCK", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(e.SerializePrivateWithoutSigning(w, nil), w.Close()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "short.key")
	if err := os.WriteFile(file, secret.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	f.suite.SignWith = []string{file}
	f.accepted(f.upload(hello("1")))
	seen := func() string {
		packages, err := os.ReadFile(f.a.path("dists/unstable/main/binary-amd64/Packages.gz"))
		if err != nil {
			t.Fatal(err)
		}
		in, err := os.ReadFile(f.a.path("dists/unstable/InRelease"))
		if err != nil {
			t.Fatal(err)
		}
		return string(packages) + string(in)
	}
	before := seen()
	_, err = f.a.Publish(context.Background(), f.suite, []Inclusion{f.upload(hello("2"))}, made.Add(25*time.Hour))
	var fault *KeyError
	if !errors.As(err, &fault) ||
		!strings.Contains(err.Error(),
			"has expired; nothing was published: put a new one in its place (packmill archive key rotate unstable)") {
		t.Errorf("with an expired key: got %v, want a KeyError with the cure", err)
	}
	if seen() != before {
		t.Error("with an expired key clients see something new")
	}
	second, _ := newKey(t, "second")
	f.suite.SignWith = append(f.suite.SignWith, second)
	if _, err := f.a.Publish(context.Background(), f.suite, nil, made.Add(25*time.Hour)); err == nil ||
		!strings.Contains(err.Error(), "packmill archive key rotate unstable --retire") {
		t.Errorf("with an expired key beside another: got %v, want the cure", err)
	}
}
