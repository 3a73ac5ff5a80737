package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestMoveAll(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for _, n := range []string{"a", "b", "c"} {
		if err := os.WriteFile(filepath.Join(from, n), []byte(n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(to, "c"), []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	moved, err := MoveAll(from, to, []string{"a", "gone", "b"})
	if err != nil || !slices.Equal(moved, []string{"a", "b"}) {
		t.Errorf("MoveAll: got %q, %v, want a and b", moved, err)
	}
	if _, err := MoveAll(from, to, []string{"c"}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("MoveAll over a file: got %v, want fs.ErrExist", err)
	}
	if data, _ := os.ReadFile(filepath.Join(to, "c")); string(data) != "old" {
		t.Errorf("MoveAll replaced a file: %q", data)
	}
	if data, _ := os.ReadFile(filepath.Join(from, "c")); string(data) != "c" {
		t.Errorf("what could not be moved is %q", data)
	}
}
