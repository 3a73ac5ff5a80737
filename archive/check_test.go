package archive

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"packmill/internal/deb/debtest"
)

// glob finds one file below the archive.
func glob(t *testing.T, a *Archive, pattern string) string {
	t.Helper()
	m, err := filepath.Glob(a.path(pattern))
	if err != nil || len(m) == 0 {
		t.Fatalf("%s: nothing is there (%v)", pattern, err)
	}
	return m[0]
}

func TestCheck(t *testing.T) {
	flip := func(path string) error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[len(b)-1] ^= 1
		if err := os.Chmod(path, 0o644); err != nil {
			return err
		}
		return os.WriteFile(path, b, 0o644)
	}
	for _, tt := range []struct {
		what  string
		spoil func(a *Archive) error
		want  string // part of the only fault's text; "" none
		deep  string // the same of a deep check
	}{
		{"as published", func(*Archive) error { return nil }, "", ""},
		{"a package is gone", func(a *Archive) error {
			return os.Remove(glob(t, a, "pool/main/h/hello/hello_1_amd64.deb"))
		}, "not there", "not there"},
		{"a source file is gone", func(a *Archive) error {
			return os.Remove(glob(t, a, "pool/main/h/hello/hello_1.tar.xz"))
		}, "not there", "not there"},
		{"a package is cut off", func(a *Archive) error {
			return os.Truncate(glob(t, a, "pool/main/h/hello/hello_1_amd64.deb"), 10)
		}, "10 bytes, and", "10 bytes, and"},
		{"a package has other bytes", func(a *Archive) error {
			return flip(glob(t, a, "pool/main/h/hello/hello_1_amd64.deb"))
		}, "", "the SHA-256 is"},
		{"a source file has other bytes", func(a *Archive) error {
			return flip(glob(t, a, "pool/main/h/hello/hello_1.tar.xz"))
		}, "", "the SHA-256 is"},
		{"a package is a link", func(a *Archive) error {
			p := glob(t, a, "pool/main/h/hello/hello_1_amd64.deb")
			return firstError(os.Rename(p, p+"x"), os.Symlink(p+"x", p))
		}, "not a regular file", "not a regular file"},
		{"an index has other bytes", func(a *Archive) error {
			return flip(indexOf(t, a, "main/binary-amd64/Packages.gz"))
		}, "and the Release says", "and the Release says"},
		{"an index is gone", func(a *Archive) error {
			return os.Remove(indexOf(t, a, "main/binary-amd64/Packages.xz"))
		}, "the Release names it", "the Release names it"},
		{"InRelease is torn", func(a *Archive) error {
			return os.Truncate(a.path("dists/unstable/InRelease"), 100)
		}, "dists/unstable/InRelease", "dists/unstable/InRelease"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			f := newFixture(t)
			f.accepted(f.upload(hello("1")))
			if err := tt.spoil(f.a); err != nil {
				t.Fatal(err)
			}
			for _, deep := range []bool{false, true} {
				faults, err := f.a.Check(context.Background(), CheckOptions{Deep: deep})
				if err != nil {
					t.Fatal(err)
				}
				want := tt.want
				if deep {
					want = tt.deep
				}
				if (want == "") != (len(faults) == 0) || len(faults) > 0 && !strings.Contains(faults[0].String(), want) {
					t.Errorf("deep %t: got %v, want %q", deep, faults, want)
				}
			}
		})
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// indexOf is the file under its checksum that the Release names.
func indexOf(t *testing.T, a *Archive, name string) string {
	t.Helper()
	data, err := os.ReadFile(a.path("dists/unstable/Release"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(data), "\nSHA256:")
	for line := range strings.Lines(text) {
		if w := strings.Fields(line); len(w) == 3 && w[2] == name {
			p := a.path("dists/unstable", filepath.Dir(name), "by-hash/SHA256", w[0])
			if _, err := os.Stat(p); err != nil {
				t.Fatal(err)
			}
			return p
		}
	}
	t.Fatal(fs.ErrNotExist)
	return ""
}

// older rewrites a package's stanza as a version of the program might have
// published it that did not look at it yet.
func (f *fixture) older(path, name string, change func([]byte) []byte) {
	f.Helper()
	f.now = f.now.Add(time.Minute)
	f.planned(f.a.change(ctx, f.suite, ChangeOptions{}, f.now, func(t *transaction, _ *Plan) error {
		text, err := t.p.get(path, name)
		t.p.set(path, name, change(slices.Clone(text)))
		return err
	}))
}

// TestOneBadRelation publishes what apt stops at: no way in takes it, check finds
// it in an older tree, and removing it helps.
func TestOneBadRelation(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	bad := hello("2")
	bad.Debs[0].Fields = "Depends: bash,,dash\n"
	f.accepted(f.upload(hello("1")))
	rep := f.publish(f.upload(bad),
		f.upload(debtest.Upload{Source: debtest.Source{Name: "odd", Version: "1", Fields: "Build-Depends: a b\n"}}))
	for i, want := range []string{
		"hello_2_amd64.deb: control file: Depends: an empty relation beside a comma; correct debian/control",
		`odd_1.dsc: Build-Depends: relation "a b": 'b' after its end; separate relations with a comma; correct debian/control`,
	} {
		if r := rep.Results[i]; r.Reason != want {
			t.Errorf("got %v %q, want %q", r.Outcome, r.Reason, want)
		}
	}
	f.older("main/binary-amd64/Packages", "hello", replace("Description:", "Depends: bash,,dash\nDescription:"))
	if out, err := newClient(t, f.source(), f.key, "amd64").try("apt-get", "update"); err == nil {
		t.Errorf("the test needs what apt cannot read: %s", out)
	}
	faults, err := f.a.Check(ctx, CheckOptions{})
	if err != nil || len(faults) != 1 ||
		!strings.Contains(faults[0].Text, "hello 1: Depends: an empty relation beside a comma") {
		t.Errorf("check: got %v, %v, want the relation", faults, err)
	}
	f.planned(f.a.Remove(ctx, f.suite, []string{"hello"}, ChangeOptions{}, f.now.Add(time.Minute)))
	f.sound()
	newClient(t, f.source(), f.key, "amd64").run("apt-get", "update")
}
