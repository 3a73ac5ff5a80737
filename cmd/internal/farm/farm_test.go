package farm

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"packmill/cmd/internal/daemon"
)

// TestReadKey: what is no public key is refused, also where nothing stands.
func TestReadKey(t *testing.T) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
	path := filepath.Join(t.TempDir(), "id.pub")
	for text, want := range map[string]string{
		key + " me@there\n": key, "": "", " \n\n": "", "ssh-ed25519\n": "", "ssh-rsa" + key[11:]: "",
		"ssh-ed25519 !": "", key + "\n" + key: "",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := readKey(path)
		if got != want || (want == "") != errors.As(err, new(daemon.Wrong)) {
			t.Errorf("%q: got %q, %v; want %q", text, got, err, want)
		}
	}
}

// TestWithout: a stanza that lies elsewhere by now is not taken for another.
func TestWithout(t *testing.T) {
	const text = "Name: a\nRunner: x\n\nname:  b\nRunner: remote\n\nName: c\n"
	for _, c := range []struct {
		from int
		want string
	}{
		{3, "Name: a\nRunner: x\n\n\nName: c\n"}, {0, ""}, {2, ""}, {4, ""}, {6, ""}, {99, ""}, {-1, ""},
	} {
		if got, err := without(text, c.from, "b"); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("from line %d: got %q, %v; want %q", c.from, got, err, c.want)
		}
	}
}

func TestRow(t *testing.T) {
	r := Row{Name: "pi4", Architectures: []string{"arm64", "armhf"}, State: "away"}
	if got, want := r.String(), "pi4  arm64 armhf  away"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	r.State, r.Since, r.Jobs, r.Trouble = "here", time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC), []string{"a_1 arm64", "b_1 armhf"}, "no space"
	if got, want := r.String(), "pi4  arm64 armhf  here since 2026-11-29T12:00:00Z; has a_1 arm64, b_1 armhf; no space"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
