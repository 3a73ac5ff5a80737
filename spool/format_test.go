package spool

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// TestFormat: a tree of another format is refused, an older one is brought along and
// knows since when, and nothing is done to a newer one.
func TestFormat(t *testing.T) {
	tree, err := Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if !tree.Since().IsZero() {
		t.Errorf("a new tree was brought along at %v", tree.Since())
	}
	file := tree.Path(formatFile)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(tree.Root()); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "packmill init") {
		t.Errorf("an older one: %v", err)
	}
	if tree, err = Init(tree.Root()); err != nil || time.Since(tree.Since()) > time.Hour {
		t.Fatalf("brought along: %v", err)
	}
	at := tree.Since()
	if tree, err = Init(tree.Root()); err != nil || !tree.Since().Equal(at) {
		t.Errorf("once more: %v", err)
	}
	if err := os.WriteFile(file, []byte("1 2026-11-29T12:00:00Z\n99 2030-01-01T00:00:00Z\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	lost := Accepted.root()
	if err := os.Remove(tree.Path(lost)); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(tree.Root()); !errors.Is(err, ErrFormat) {
		t.Errorf("init of a newer one: %v", err)
	}
	if _, err := os.Lstat(tree.Path(lost)); err == nil {
		t.Error("something was made in a newer tree")
	}
	if err := os.Mkdir(tree.Path(lost), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(tree.Root()); !errors.Is(err, ErrFormat) {
		t.Errorf("a newer one: %v", err)
	}
	if err := os.WriteFile(file, []byte("one\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(tree.Root()); err == nil || !strings.Contains(err.Error(), `"one" is no number`) {
		t.Errorf("no number: %v", err)
	}
}
