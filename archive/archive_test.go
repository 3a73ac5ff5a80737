package archive

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"packmill/internal/deb/debtest"
	"packmill/internal/openpgp"
)

// fixture is an archive with one suite and a key.
type fixture struct {
	*testing.T
	a     *Archive
	suite Suite
	key   string // public key, armored
	now   time.Time
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: t, now: time.Now().Add(-time.Hour)}
	var err error
	if f.a, err = Open(filepath.Join(t.TempDir(), "archive")); err != nil {
		t.Fatal(err)
	}
	secret, public := newKey(t, "first")
	f.key = public
	f.suite = Suite{Name: "unstable", Codename: "sid", Aliases: []string{"rolling"}, Origin: "Packmill Tests",
		Label:      "Tests",
		Components: []string{"main", "contrib"}, Architectures: []string{"amd64", "i386"}, SignWith: []string{secret}}
	return f
}

// newKey makes a signing key and returns the files of its two halves.
func newKey(t *testing.T, name string) (secret, public string) {
	t.Helper()
	s, err := openpgp.Generate(name, name+"@packmill.example", time.Now().Add(-48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	secret, public = filepath.Join(dir, name+".sec"), filepath.Join(dir, name+".asc")
	if err := os.WriteFile(secret, s.Secret(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(public, s.Public(), 0o644); err != nil {
		t.Fatal(err)
	}
	return secret, public
}

// upload writes u into a directory of its own.
func (f *fixture) upload(u debtest.Upload) Inclusion {
	f.Helper()
	dir := f.TempDir()
	path, err := u.Write(dir)
	if err != nil {
		f.Fatal(err)
	}
	return Inclusion{Dir: dir, Changes: filepath.Base(path)}
}

// publish publishes a minute after the last publication.
func (f *fixture) publish(batch ...Inclusion) *Report {
	f.Helper()
	f.now = f.now.Add(time.Minute)
	rep, err := f.a.Publish(context.Background(), f.suite, batch, f.now)
	if err != nil {
		f.Fatalf("publish: %v", err)
	}
	return rep
}

// accepted publishes and wants no refusal.
func (f *fixture) accepted(batch ...Inclusion) *Report {
	f.Helper()
	rep := f.publish(batch...)
	for _, r := range rep.Results {
		if r.Outcome == Refused {
			f.Fatalf("publish %s: refused: %s", r.Changes, r.Reason)
		}
	}
	return rep
}

// hello is a small upload: a source with a package for amd64 and one for all.
func hello(version string) debtest.Upload {
	return debtest.Upload{
		Source: debtest.Source{Name: "hello", Version: version, Binary: []string{"hello", "hello-doc"}},
		Debs: []debtest.Deb{
			{Name: "hello", Version: version,
				Files: []debtest.File{{Path: "usr/bin/hello", Mode: 0o755, Body: "#!/bin/sh\necho " + version + "\n"}}},
			{Name: "hello-doc", Source: "hello", Version: version, Arch: "all",
				Files: []debtest.File{{Path: "usr/share/doc/hello/a b.txt", Body: version}}},
		},
	}
}

// client is an apt of its own, with no root and nothing of the host's.
type client struct {
	t   *testing.T
	dir string
	env []string
}

func newClient(t *testing.T, source, key string, arch string) *client {
	t.Helper()
	c := &client{t: t, dir: t.TempDir()}
	for _, d := range []string{"state/lists/partial", "cache/archives/partial", "etc/trusted", "etc/apt.conf.d",
		"etc/preferences.d", "etc/sources.list.d", "dpkg", "log"} {
		if err := os.MkdirAll(filepath.Join(c.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("dpkg/status", "")
	put("etc/sources.list", strings.ReplaceAll(source, "[]", "[signed-by="+key+" arch="+arch+"]"))
	put("apt.conf", fmt.Sprintf(`
Dir "%[1]s";
Dir::State "%[1]s/state"; Dir::State::status "%[1]s/dpkg/status"; Dir::Cache "%[1]s/cache"; Dir::Log "%[1]s/log";
Dir::Etc "%[1]s/etc"; Dir::Etc::sourcelist "%[1]s/etc/sources.list"; Dir::Etc::trustedparts "%[1]s/etc/trusted";
Dir::Bin::methods "/usr/lib/apt/methods";
APT::Architecture "%[2]s"; APT::Architectures { "%[2]s"; };
APT::Sandbox::User ""; Acquire::Languages "en"; Acquire::Check-Date "false";
Debug::NoLocking "true"; quiet "1";
`, c.dir, arch))
	c.env = append(os.Environ(), "APT_CONFIG="+filepath.Join(c.dir, "apt.conf"), "LC_ALL=C")
	return c
}

// run runs a program of apt's and returns its output.
func (c *client) run(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (c *client) try(args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env, cmd.Dir = c.env, c.dir
	out, err := cmd.CombinedOutput()
	if err == nil && args[0] == "apt-get" && (bytes.Contains(out, []byte("\nW:")) || bytes.Contains(out, []byte("\nE:"))) {
		err = fmt.Errorf("apt-get warns")
	}
	return string(out), err
}

// contents makes the client fetch Contents, as apt-file's own settings do.
func (c *client) contents() {
	c.t.Helper()
	text := `Acquire::IndexTargets::deb::Contents-deb { MetaKey "$(COMPONENT)/Contents-$(ARCHITECTURE)"; ShortDescription "Contents-$(ARCHITECTURE)"; Description "$(RELEASE)/$(COMPONENT) $(ARCHITECTURE) Contents (deb)"; };`
	if err := os.WriteFile(filepath.Join(c.dir, "etc/apt.conf.d/contents"), []byte(text), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

// targets are the files that apt has fetched of a kind.
func (c *client) targets(kind string) []string {
	c.t.Helper()
	list := strings.Fields(c.run("apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: "+kind))
	if len(list) == 0 {
		c.t.Errorf("apt fetched no %s", kind)
	}
	return list
}

func (f *fixture) source() string {
	return "deb [] file:" + f.a.Root() + " unstable main contrib\ndeb-src [] file:" + f.a.Root() +
		" unstable main contrib\n"
}

// tree lists the files below dir with their content's first bytes left out.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, p)
			out = append(out, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func gpgv(t *testing.T, keys []string, files ...string) {
	t.Helper()
	ring := filepath.Join(t.TempDir(), "ring.gpg")
	var all []byte
	for _, k := range keys {
		out, err := exec.Command("gpg", "--batch", "--dearmor", "--output", "-", k).Output()
		if err != nil {
			t.Fatalf("gpg --dearmor %s: %v", k, err)
		}
		all = append(all, out...)
	}
	if err := os.WriteFile(ring, all, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gpgv", append([]string{"--keyring", ring}, files...)...).CombinedOutput(); err != nil {
		t.Errorf("gpgv %s: %v\n%s", files, err, out)
	}
	if len(files) == 2 { // sqv knows detached signatures only; it wants all of them good
		args := []string{"--signatures", fmt.Sprint(len(keys))}
		for _, k := range keys {
			args = append(args, "--keyring", k)
		}
		if out, err := exec.Command("sqv", append(args, files...)...).CombinedOutput(); err != nil {
			t.Errorf("sqv %s: %v\n%s", files, err, out)
		}
	}
}

func TestAptReadsWhatIsPublished(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	for _, forms := range [][]string{nil, {"gz"}, {"xz"}, {"zst"}, {"plain"}, {"plain", "gz", "xz", "zst"}} {
		t.Run("forms:"+strings.Join(forms, "+"), func(t *testing.T) {
			f := newFixture(t)
			f.suite.Compress, f.suite.Contents = forms, true
			f.accepted() // empty indexes are there
			for _, arch := range []string{"amd64", "i386"} {
				newClient(t, f.source(), f.key, arch).run("apt-get", "update")
			}
			rep := f.accepted(f.upload(hello("1:2.10-3")))
			if got, want := fmt.Sprint(rep.Results[0].Files), "[pool/main/h/hello/hello-doc_2.10-3_all.deb "+
				"pool/main/h/hello/hello_2.10-3.dsc pool/main/h/hello/hello_2.10-3.tar.xz pool/main/h/hello/hello_2.10-3_amd64.deb]"; got != want {
				t.Errorf("files: got %s, want %s", got, want)
			}
			for _, name := range []string{"sid", "rolling"} {
				dir := f.a.path("dists", name)
				gpgv(t, []string{f.key}, dir+"/InRelease")
				gpgv(t, []string{f.key}, dir+"/Release.gpg", dir+"/Release")
			}
			// These forms, and no others.
			for _, c := range []string{"", ".gz", ".xz", ".zst"} {
				want := slices.Contains(forms, cmp.Or(strings.TrimPrefix(c, "."), "plain")) ||
					forms == nil && (c == ".gz" || c == ".xz")
				if _, err := os.Stat(f.a.path("dists/unstable/main/binary-amd64/Packages" + c)); (err == nil) != want {
					t.Errorf("Packages%s: got %v, want it there: %t", c, err, want)
				}
			}
			c := newClient(t, f.source(), f.key, "amd64")
			c.contents()
			c.run("apt-get", "update")
			for _, at := range c.targets("Contents-deb") {
				if got := c.run("/usr/lib/apt/apt-helper", "cat-file", at); strings.HasSuffix(at, "unstable_main_Contents-amd64") &&
					got != "usr/bin/hello\tmisc/hello\n" {
					t.Errorf("%s: got %q", at, got)
				}
			}
			c.run("apt-get", "download", "hello", "hello-doc")
			c.run("apt-get", "source", "--download-only", "hello")
			for _, n := range []string{"hello_1%3a2.10-3_amd64.deb", "hello-doc_1%3a2.10-3_all.deb", "hello_2.10-3.dsc"} {
				if _, err := os.Stat(filepath.Join(c.dir, n)); err != nil {
					t.Errorf("after apt-get download: %v", err)
				}
			}
			c = newClient(t, f.source(), f.key, "i386")
			c.run("apt-get", "update")
			if got := c.run("apt-cache", "policy", "hello-doc"); !strings.Contains(got, "Candidate: 1:2.10-3") {
				t.Errorf("apt-cache policy hello-doc on i386: got %s", got)
			}
		})
	}
}

// A lost cache comes back with the next publication, also for the indexes that
// it reads and does not change.
func TestCacheComesBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.suite.Contents = true
	f.accepted(f.upload(hello("1.0")))
	contents := f.text("main/Contents-amd64")
	if err := os.RemoveAll(f.a.path("cache")); err != nil {
		t.Fatal(err)
	}
	f.accepted(f.upload(hello("1.1")))
	if got := f.text("main/Contents-amd64"); got != contents {
		t.Errorf("Contents: got %q, the test needs it as it was: %q", got, contents)
	}
	for _, index := range []string{"Contents-amd64", "binary-amd64/Packages", "source/Sources"} {
		if _, err := os.Stat(f.a.path("cache", f.suite.Name, "main", index+".blocks")); err != nil {
			t.Error(err)
		}
	}
}
