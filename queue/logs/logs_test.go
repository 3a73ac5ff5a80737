package logs

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"packmill/queue/buildlog"
	"packmill/spool"
)

func TestFilter(t *testing.T) {
	for pattern, want := range map[string]buildlog.Filter{
		"":               {},
		"hello":          {Source: "hello"},
		"hello_1%3a2-3":  {Source: "hello", Version: "1:2-3"},
		"hello_1:2-3+b1": {Source: "hello", Version: "1:2-3+b1"},
		"50-20261121T113500.123456Z_hello_2.10-3": {Source: "hello", Version: "2.10-3"},
	} {
		got, err := Filter(pattern, nil)
		if err != nil || got.Source != want.Source || got.Version != want.Version {
			t.Errorf("%q: got %+v, %v, want %+v", pattern, got, err, want)
		}
	}
	if _, err := Filter("../x", nil); err == nil {
		t.Error("../x is no package")
	}
	f, err := Filter("", []string{"built,failed", "running"})
	if err != nil || !slices.Equal(f.Outcomes, []string{"good", "attempted", "quarantined", "running"}) {
		t.Errorf("outcomes: got %q, %v", f.Outcomes, err)
	}
	if _, err := Filter("", []string{"bad"}); err == nil || !strings.Contains(err.Error(), "given-back") {
		t.Errorf("no such word: %v", err)
	}
}

func TestNumbers(t *testing.T) {
	b := buildlog.Build{Outcome: "good", Wall: 61.26, Memory: 3 << 20, Size: 700, CacheMisses: 3}
	if got, want := Numbers(&b), "good, wall 1m1.3s, memory 3.0 MiB, ccache 0 of 3, 0 %, log 1 KiB"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The ending of a build is that of the builders' contract.
func TestEndingOf(t *testing.T) {
	for outcome, want := range map[string]Ending{"good": Built, "attempted": Failed, "quarantined": Failed,
		"dep-wait": Depends, "lost": NoVerdict, "cancelled": NoVerdict, "": NoVerdict} {
		if got := EndingOf(outcome); got != want {
			t.Errorf("%q: got %d, want %d", outcome, got, want)
		}
	}
}

// kept puts the log of a build that ended into the tree's store.
func kept(t *testing.T, tree *spool.Tree, source, outcome, text string, start time.Time) {
	t.Helper()
	src := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(src, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	b := &buildlog.Build{Source: source, Version: "1", Suite: "sid", Arch: "amd64", Start: start, Outcome: outcome}
	if err := StoreOf(tree).Keep(src, b); err != nil {
		t.Fatal(err)
	}
}

// Newest is the log that began last, and names how many others there are.
func TestNewest(t *testing.T) {
	tree, err := spool.Init(filepath.Join(t.TempDir(), "tree"))
	if err != nil {
		t.Fatal(err)
	}
	if l, _, _, err := Newest(tree, buildlog.Filter{}); l != nil || err != nil {
		t.Errorf("of none: got %v, %v", l, err)
	}
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	kept(t, tree, "hello", buildlog.Good, "second\n", at.Add(time.Hour))
	kept(t, tree, "hello", buildlog.Attempted, "first\n", at)
	l, others, r, err := Newest(tree, buildlog.Filter{Source: "hello"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if text, err := io.ReadAll(r); err != nil || string(text) != "second\n" || others != 1 || l.Outcome != buildlog.Good {
		t.Errorf("got %q, %d others, %+v, %v", text, others, l, err)
	}
	h := l.Hit(buildlog.Match{Line: 3, Text: "x"})
	if got, want := h.Build(), "hello_1 amd64 sid 2026-11-21T13:00:00Z good"; got != want || h.Line != 3 || h.Text != "x" {
		t.Errorf("got %q (%+v), want %q", got, h, want)
	}
}

// Search finds what the filter means, the newest first; List and Builds agree.
func TestSearch(t *testing.T) {
	tree, err := spool.Init(filepath.Join(t.TempDir(), "tree"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	kept(t, tree, "old", buildlog.Attempted, "one\nundefined reference to x\n", now.Add(-time.Hour))
	kept(t, tree, "new", buildlog.Attempted, "undefined reference to y\n", now)
	kept(t, tree, "good", buildlog.Good, "no undefined reference\n", now)
	f, err := Filter("", []string{"failed"})
	if err != nil {
		t.Fatal(err)
	}
	list, err := List(tree, f)
	if err != nil || len(list) != 2 || list[0].Source != "new" {
		t.Fatalf("List: %+v, %v", list, err)
	}
	builds, err := Builds(tree, f)
	if err != nil || len(builds) != 2 || builds[1].Source != "old" {
		t.Errorf("Builds: %+v, %v", builds, err)
	}
	var got []string
	total, err := Search(context.Background(), tree, f, buildlog.Query{Pattern: "undefined ref"},
		func(l *Log, m buildlog.Match) error {
			got = append(got, l.Source+": "+m.Text)
			return nil
		}, func(file string, err error) { t.Errorf("%s: %v", file, err) })
	if want := []string{"new: undefined reference to y", "old: undefined reference to x"}; err != nil ||
		!slices.Equal(got, want) || total.Files != 2 || total.Matches != 2 {
		t.Errorf("got %q, %+v, %v, want %q", got, total, err, want)
	}
	stop := errors.New("enough")
	_, err = Search(context.Background(), tree, f, buildlog.Query{Pattern: "undefined"},
		func(*Log, buildlog.Match) error { return stop }, func(string, error) {})
	if !errors.Is(err, stop) {
		t.Errorf("an error of emit: got %v", err)
	}
}

// Without a build that runs or waits there is nothing to follow.
func TestFollowNothing(t *testing.T) {
	tree, err := spool.Init(filepath.Join(t.TempDir(), "tree"))
	if err != nil {
		t.Fatal(err)
	}
	x := &Follower{Tree: tree, Filter: buildlog.Filter{Source: "hello"},
		Writer: func() io.WriteCloser { t.Error("a log is printed"); return nil }, Say: func(s string) { t.Error(s) }}
	if _, err := x.Follow(context.Background()); !errors.Is(err, ErrNone) {
		t.Errorf("got %v, want ErrNone", err)
	}
}
