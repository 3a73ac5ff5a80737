package archive

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"packmill/archive/push"
)

// publicTree lists what clients see of an archive, with the bytes' checksums.
func publicTree(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	for _, top := range []string{"pool", "dists", "opkg", "keys"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel, err := filepath.Rel(root, name)
			if err != nil {
				return err
			}
			if d.Type()&fs.ModeSymlink != 0 {
				link, err := os.Readlink(name)
				out = append(out, rel+" -> "+link)
				return err
			}
			s, err := sumFile(name)
			out = append(out, rel+" "+s.SHA256)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(out)
	return out
}

func sameTree(t *testing.T, got, want []string) {
	t.Helper()
	for _, g := range got {
		if !slices.Contains(want, g) {
			t.Errorf("too much: %s", g)
		}
	}
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("missing: %s", w)
		}
	}
}

func TestPushByRsync(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	f := newFixture(t)
	f.suite.Opkg, f.suite.Pdiffs = &Opkg{}, true
	f.suite.Stay = time.Hour
	f.accepted(f.upload(hello("1:1.0")), f.upload(many()))
	dest := filepath.Join(t.TempDir(), "srv/mirror")
	to := &push.Rsync{Dest: dest}
	now := time.Now()
	do := func(opt push.Options) *push.Report {
		t.Helper()
		rep, err := f.a.Push(context.Background(), "", to, opt, now)
		if err != nil {
			t.Fatal(err)
		}
		return rep
	}
	dry := do(push.Options{DryRun: true})
	if _, err := os.Stat(dest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a dry run made something: %v", err)
	}
	var last push.Progress
	rep := do(push.Options{Progress: func(p push.Progress) { last = p }})
	if !slices.Equal(rep.Sent, dry.Sent) || last.Files != len(rep.Sent) || last.Bytes != rep.Bytes ||
		last.AllBytes != rep.Bytes {
		t.Errorf("sent %d files, dry run %d, progress %+v", len(rep.Sent), len(dry.Sent), last)
	}
	sameTree(t, publicTree(t, dest), publicTree(t, f.a.Root()))
	checkOrder(t, rep.Sent)
	if rep := do(push.Options{}); len(rep.Sent)+len(rep.Removed) != 0 {
		t.Errorf("nothing is new, but %+v", rep)
	}
	// The copy is one that apt installs from.
	c := newClient(t, "deb [] file://"+dest+" rolling main contrib\n", f.key, "amd64")
	c.run("apt-get", "update")
	if out := c.run("apt-cache", "policy", "hello"); !strings.Contains(out, "Candidate: 1:1.0") {
		t.Errorf("apt policy: %s", out)
	}

	// A new version; the old one goes away later, in the copy as here.
	f.accepted(f.upload(hello("1:2.0")))
	rep = do(push.Options{})
	if slices.Contains(rep.Sent, "pool/main/h/hello/hello_1.0_amd64.deb") ||
		!slices.Contains(rep.Sent, "pool/main/h/hello/hello_2.0_amd64.deb") {
		t.Errorf("sent: %v", rep.Sent)
	}
	if !slices.Contains(rep.Sent, "dists/unstable/main/binary-amd64/Packages.diff/Index") {
		t.Errorf("no patches: %v", rep.Sent)
	}
	sameTree(t, publicTree(t, dest), publicTree(t, f.a.Root()))
	gone := "pool/main/h/hello/hello-doc_1.0_all.deb"
	if err := os.Remove(f.a.path(gone)); err != nil {
		t.Fatal(err)
	}
	do(push.Options{Stay: time.Hour})
	now = now.Add(30 * time.Minute)
	do(push.Options{Stay: time.Hour})
	if _, err := os.Stat(filepath.Join(dest, gone)); err != nil {
		t.Errorf("after half of its stay: %v", err)
	}
	now = now.Add(31 * time.Minute)
	if rep := do(push.Options{Stay: time.Hour}); !slices.Contains(rep.Removed, gone) {
		t.Errorf("removed: %v", rep.Removed)
	}
	sameTree(t, publicTree(t, dest), publicTree(t, f.a.Root()))

	// Without its manifest, and with a broken one, it comes to the same.
	for _, text := range []string{"", "garbage"} {
		list, err := filepath.Glob(f.a.path("cache", "push-*.manifest"))
		if err != nil || len(list) != 1 {
			t.Fatalf("manifests: %v, %v", list, err)
		}
		manifest := list[0]
		if err := os.Remove(manifest); err != nil {
			t.Fatal(err)
		}
		if text != "" {
			if err := os.WriteFile(manifest, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		f.accepted(f.upload(hello("1:3.0" + text)))
		do(push.Options{})
		sameTree(t, publicTree(t, dest), publicTree(t, f.a.Root()))
	}
	if left, _ := filepath.Glob(f.a.path("cache", "push-*/*")); left != nil {
		t.Errorf("left: %v", left)
	}
}

// checkOrder holds that nothing is sent before what it needs.
func checkOrder(t *testing.T, sent []string) {
	t.Helper()
	rank := func(p string) int {
		switch base := filepath.Base(p); {
		case strings.HasPrefix(p, "pool/"), strings.HasPrefix(p, "opkg/") && strings.Contains(p, "/pool/"):
			return 0
		case strings.Contains(p, "/by-hash/"):
			return 1
		case base == "InRelease":
			return 4
		case strings.HasPrefix(p, "dists/") && (base == "Release" || base == "Release.gpg"),
			p == "dists/sid", p == "dists/rolling", filepath.Base(filepath.Dir(p)) == "rolling", p == "opkg/unstable/amd64", p == "opkg/unstable/i386",
			strings.HasPrefix(p, "opkg/unstable/amd64/") && base == "Packages.asc",
			strings.HasPrefix(p, "opkg/unstable/i386/") && base == "Packages.asc":
			return 3
		}
		return 2
	}
	for i := 1; i < len(sent); i++ {
		if rank(sent[i-1]) > rank(sent[i]) {
			t.Errorf("%s is sent before %s", sent[i-1], sent[i])
		}
	}
	if !strings.HasSuffix(sent[len(sent)-1], "/InRelease") {
		t.Errorf("the last is %s", sent[len(sent)-1])
	}
}

// TestPushFails has rsync fail: nothing is believed to be sent.
func TestPushFails(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.accepted(f.upload(hello("1:1.0")))
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	bad := &push.Rsync{Dest: file + "/below"}
	if _, err := f.a.Push(context.Background(), "", bad, push.Options{}, time.Now()); err == nil ||
		!strings.Contains(err.Error(), "rsync: ") {
		t.Errorf("got %v", err)
	}
	dest := t.TempDir()
	if _, err := f.a.Push(context.Background(), "", &push.Rsync{Dest: dest}, push.Options{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	sameTree(t, publicTreeOf(t, dest, "pool", "dists"), publicTreeOf(t, f.a.Root(), "pool", "dists"))
	if _, err := exec.LookPath("rsync"); err != nil {
		t.Error("this test needs the package rsync")
	}
}

func publicTreeOf(t *testing.T, root string, tops ...string) []string {
	t.Helper()
	for _, top := range []string{"pool", "dists", "opkg", "keys"} {
		if !slices.Contains(tops, top) {
			if err := os.MkdirAll(filepath.Join(root, top), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	return publicTree(t, root)
}

func TestPushesDoNotMeet(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.accepted(f.upload(hello("1:1.0")))
	stop := errors.New("stop")
	var outer destinationFunc
	outer = func() error {
		_, err := f.a.Push(context.Background(), "", outer, push.Options{}, time.Now())
		if !errors.Is(err, ErrPushing) {
			t.Errorf("inner push: got %v, want %v", err, ErrPushing)
		}
		// A publication is not held up.
		f.accepted(f.upload(hello("1:2.0")))
		return stop
	}
	if _, err := f.a.Push(context.Background(), "", outer, push.Options{}, time.Now()); !errors.Is(err, stop) {
		t.Errorf("outer push: got %v", err)
	}
}

type destinationFunc func() error

func (d destinationFunc) Push(context.Context, push.Source, push.Options, time.Time) (*push.Report, error) {
	return nil, d()
}

// TestPushView sends one of two suites, and then the other one to the same place.
func TestPushView(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.suite.Opkg = &Opkg{}
	f.accepted(f.upload(hello("1:1.0")))
	first := f.suite
	f.suite.Name, f.suite.Codename, f.suite.Aliases = "stable", "", nil
	f.accepted(f.upload(hello("1:0.9")))
	dest := t.TempDir()
	to := &push.Rsync{Dest: dest}
	do := func(view string) *push.Report {
		t.Helper()
		rep, err := f.a.Push(context.Background(), view, to, push.Options{Stay: time.Nanosecond}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return rep
	}
	do(first.Name)
	got := strings.Join(publicTreeOf(t, dest, "pool", "dists", "opkg"), "\n")
	for _, want := range []string{"hello_1.0_amd64.deb", "hello_1.0_amd64.opk", "dists/sid -> unstable",
		"dists/unstable/InRelease"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	for _, bad := range []string{"hello_0.9", "dists/stable/InRelease", "opkg/stable"} {
		if strings.Contains(got, bad) {
			t.Errorf("%s in\n%s", bad, got)
		}
	}
	if rep := do("stable"); len(rep.Removed) != 0 {
		t.Errorf("removed %v", rep.Removed)
	}
	sameTree(t, publicTree(t, dest), publicTree(t, f.a.Root()))
	if rep := do(""); len(rep.Sent) != 0 || len(rep.Removed) != 0 {
		t.Errorf("all is there, but %+v", rep)
	}
	if _, err := f.a.Push(context.Background(), "nowhere", to, push.Options{}, time.Now()); !errors.Is(err, ErrNoSuite) {
		t.Errorf("got %v, want %v", err, ErrNoSuite)
	}
}
