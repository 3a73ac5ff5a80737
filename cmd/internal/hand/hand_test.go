package hand

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/archive"
	"packmill/archive/mirror"
	"packmill/archive/push"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/setup"
	"packmill/internal/deb/debtest"
)

// shelf is an archive with hello, and with world, which needs it.
func shelf(t *testing.T) *Hand {
	t.Helper()
	dir := t.TempDir()
	if _, err := Open(t.Context(), dir, nil); !errors.As(err, new(daemon.Wrong)) ||
		!strings.Contains(err.Error(), "packmill init --archive") {
		t.Errorf("where no archive is: %v", err)
	}
	if _, err := setup.Archive(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "control/override"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	suites := "Suite: sid\nArchitectures: amd64\n\nSuite: told\nArchitectures: amd64\nOverride: override\n"
	if err := os.WriteFile(filepath.Join(dir, "control/suites"), []byte(suites), 0o644); err != nil {
		t.Fatal(err)
	}
	h, err := Open(t.Context(), dir, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	var changes []string
	for _, d := range []debtest.Deb{{Name: "hello", Version: "1"},
		{Name: "world", Version: "1", Fields: "Depends: hello\n"}} {
		u := debtest.Upload{Source: debtest.Source{Name: d.Name, Version: d.Version}, Debs: []debtest.Deb{d}}
		name, err := u.Write(dir)
		if err != nil {
			t.Fatal(err)
		}
		changes = append(changes, filepath.Join(dir, filepath.Base(name)))
	}
	for _, suite := range []string{"sid", "told"} {
		batch, err := Inclusions(suite, changes, false)
		if err != nil {
			t.Fatal(err)
		}
		s, err := h.Suite(suite)
		if err != nil {
			t.Fatal(err)
		}
		if rep, err := h.Publish(t.Context(), s, batch, time.Now()); err != nil ||
			rep.Results[1].Outcome != archive.Published {
			t.Fatalf("%+v, %v", rep, err)
		}
	}
	return h
}

// TestRemoval: what breaks others is asked for, or refused; what has come since it was shown stays.
func TestRemoval(t *testing.T) {
	h := shelf(t)
	for _, c := range []struct {
		packages          []string
		question, refusal string
	}{
		{[]string{"world"}, "", ""},
		{[]string{"hello"}, "Remove 1 package from sid, and break 1 other that stays?", "1 package would not be installable"},
		{[]string{"hello", "world"}, "Remove 2 packages from sid?", ""},
	} {
		r, err := h.Removal("sid", c.packages, true)
		if err != nil {
			t.Fatal(err)
		}
		refusal := r.Refusal()
		if got := r.Question(); got != c.question || (refusal == nil) != (c.refusal == "") ||
			refusal != nil && !(errors.Is(refusal, daemon.ErrRefused) && strings.Contains(refusal.Error(), c.refusal)) {
			t.Errorf("%q: got %q and %v, want %q and %q", c.packages, got, refusal, c.question, c.refusal)
		}
	}
	if r, err := h.Removal("sid", []string{"hello"}, false); err != nil || r.Question() != "" {
		t.Errorf("unchecked: %v, %v", r, err)
	} else if plan, err := r.Do(); err != nil || len(plan.Removed) != 2 {
		t.Errorf("got %+v, %v, want source and package", plan, err)
	}
	if _, err := h.Removal("nowhere", []string{"hello"}, true); !errors.As(err, new(daemon.Wrong)) {
		t.Errorf("a suite that is not there: %v", err)
	}
	if got, want := Leaving("sid", []string{"a", "b"},
		make([]archive.Broken, 2)), "Move a, b out of sid, and break 2 others that stay?"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := Leaving("sid", []string{"a"}, nil); got != "" {
		t.Errorf("nothing breaks: %q", got)
	}
}

func TestOverride(t *testing.T) {
	h := shelf(t)
	o := archive.Override{Section: "net"}
	for _, bad := range []archive.Override{{}, {Section: "a b"}, {Priority: "x,y"}} {
		if _, err := h.Override("sid", "hello", bad, false); !errors.As(err, new(daemon.Wrong)) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	file := filepath.Join(h.Tree, "control/override")
	if _, err := h.Override("told", "hello", o, true); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(file); err != nil || len(data) > 0 {
		t.Errorf("a dry run writes: %q, %v", data, err)
	}
	if plan, err := h.Override("sid", "hello", o, false); err != nil || len(plan.Notes) != 1 {
		t.Errorf("without a file the next version has its own again: %+v, %v", plan, err)
	}
	if _, err := h.Override("told", "hello", o, false); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(file); err != nil || !strings.Contains(string(data), "hello") ||
		!strings.Contains(string(data), "net") {
		t.Errorf("the file: %q, %v", data, err)
	}
}

func TestInclusions(t *testing.T) {
	got, err := Inclusions("sid", []string{"dir/a_1_amd64.changes"}, true)
	if err != nil || len(got) != 1 || got[0].Dir != "dir" || got[0].Changes != "a_1_amd64.changes" || !got[0].Force {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, name := range []string{"a_1_amd64.deb", "a_1.dsc"} {
		if _, err := Inclusions("sid", []string{name}, false); !errors.As(err, new(daemon.Wrong)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDestination(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "me")
	to, err := Destination("host:dir", []string{"-v"}, push.S3{})
	if r, ok := to.(*push.Rsync); err != nil || !ok || r.Dest != "host:dir" || len(r.Args) != 1 {
		t.Errorf("got %+v, %v", to, err)
	}
	to, err = Destination("s3://bucket/a/b/", nil, push.S3{Endpoint: "http://store"})
	if s, ok := to.(*push.S3); err != nil || !ok || s.Bucket != "bucket" || s.Prefix != "a/b" || s.Access != "me" {
		t.Errorf("got %+v, %v", to, err)
	}
	if _, err := Destination("s3://bucket", nil, push.S3{}); !errors.As(err, new(daemon.Wrong)) {
		t.Errorf("a store of which nobody knows where it is: %v", err)
	}
}

// TestRepository: a repository that nobody signs is taken only if the person says so.
func TestRepository(t *testing.T) {
	h := shelf(t)
	src := mirror.Source{URL: filepath.Join(h.Tree, "archive"), Suite: "sid"}
	if _, err := h.Repository(src, nil); !errors.As(err, new(daemon.Wrong)) {
		t.Errorf("without keys: %v", err)
	}
	src.Unsigned = true
	if _, err := h.Repository(src, nil); err != nil {
		t.Error(err)
	}
	src.URL = t.TempDir()
	if _, err := h.Repository(src, nil); err == nil {
		t.Error("an empty directory is a repository")
	}
	if _, err := h.Repository(src, []string{filepath.Join(h.Tree, "control/suites")}); !errors.As(err, new(daemon.Wrong)) {
		t.Errorf("a keyring that is none: %v", err)
	}
}
