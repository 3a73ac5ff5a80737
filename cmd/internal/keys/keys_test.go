package keys

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
)

// tree is one with settings that name a suite without keys.
func tree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "control"), 0o755); err != nil {
		t.Fatal(err)
	}
	suites := "Suite: sid\nArchitectures: amd64\nSign-With: private/archive.key\n"
	if err := os.WriteFile(filepath.Join(root, "control/suites"), []byte(suites), 0o644); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestMake(t *testing.T) {
	root := tree(t)
	for _, n := range []New{{Name: "archive"}, {Name: "feed", Opkg: true}} {
		made, err := n.Make(root)
		if err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(made.Secret); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: the secret half: %v, %v", n.Name, st.Mode(), err)
		}
		if _, err := n.Make(root); !errors.Is(err, daemon.ErrRefused) {
			t.Errorf("%s again: got %v, want a refusal", n.Name, err)
		}
		// As a run that was cut off leaves it.
		if err := os.Remove(made.Public); err != nil {
			t.Fatal(err)
		}
		again, err := n.Make(root)
		if err != nil || again.Fingerprint != made.Fingerprint {
			t.Errorf("%s without its public half: got %+v, %v, want the same key", n.Name, again, err)
		}
	}
	for _, n := range []New{{Name: "../x"}, {Name: "x", Email: "a <b>"}, {Name: "x", Owner: "no such user"}} {
		if _, err := n.Make(root); !errors.As(err, &daemon.Wrong{}) {
			t.Errorf("%+v: got %v, want wrong use", n, err)
		}
	}
}

func TestRotate(t *testing.T) {
	root := tree(t)
	if _, err := (&New{Name: "archive"}).Make(root); err != nil {
		t.Fatal(err)
	}
	rotate := func(retire bool) (*Rotation, error) {
		s, err := control.Load(filepath.Join(root, "control"))
		if err != nil {
			t.Fatal(err)
		}
		suite, _ := s.Suite("sid")
		if retire {
			return Retire(s, suite)
		}
		return Rotate(s, suite), nil
	}
	if _, err := rotate(true); !errors.Is(err, daemon.ErrRefused) {
		t.Errorf("retire the only key: got %v, want a refusal", err)
	}
	for _, retire := range []bool{false, true} {
		r, err := rotate(retire)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Do(""); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(root, "control/suites"))
		if want := "Sign-With: " + strings.Join(r.Keys, " ") + "\n"; err != nil || !strings.Contains(string(data), want) {
			t.Errorf("retire %t: %q, %v, want %q in it", retire, data, err, want)
		}
	}
	if r, err := rotate(false); err != nil || len(r.Keys) != 2 || r.Keys[0] == "private/archive.key" {
		t.Errorf("after the rotation: %+v, %v, want the new key and one more", r, err)
	}
}
