package trouble

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func TestSaid(t *testing.T) {
	var s Said
	for i, c := range []struct {
		of, text string
		want     bool
	}{
		{"a", "open /tmp/x-0123456789abcdef: no space", true},
		{"a", "open /tmp/x-fedcba9876543210: no space", false},
		{"b", "open /tmp/x-fedcba9876543210: no space", true},
		{"a", "permission denied", true},
		{"a", "permission denied", false},
	} {
		if got := s.Fresh(c.of, errors.New(c.text)); got != c.want {
			t.Errorf("%d: Fresh(%q, %q): got %v, want %v", i, c.of, c.text, got, c.want)
		}
	}
	if got := s.Over("a"); got != "permission denied" {
		t.Errorf("Over: got %q", got)
	}
	if got := s.Over("a"); got != "" {
		t.Errorf("Over, again: got %q", got)
	}
	if !s.New("a", "permission denied") {
		t.Error("after it was over, the same is not said")
	}
	if !s.New("a", "12345 bytes") || !s.New("a", "12346 bytes") || s.New("a", "12346 bytes") {
		t.Error("New does not tell texts apart, or says one twice")
	}
}

func TestBackoff(t *testing.T) {
	b := Backoff{time.Second, 5 * time.Second}
	var got []time.Duration
	for w := time.Duration(0); len(got) < 5; got = append(got, w) {
		w = b.After(w)
	}
	if want := []time.Duration{1e9, 2e9, 4e9, 5e9, 5e9}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
