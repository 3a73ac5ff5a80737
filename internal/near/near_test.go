package near

import (
	"strings"
	"testing"
	"time"
)

func TestTo(t *testing.T) {
	known := []string{"stable", "unstable", "testing", "sid", "a"}
	for name, want := range map[string]string{
		"stabel": "stable", "stable": "stable", "unstabl": "unstable", "tseting": "testing", "sdi": "sid", "experimental": "",
		"x": "", "": "", "xyz": "",
	} {
		if got := To(name, known); got != want {
			t.Errorf("To(%q): got %q, want %q", name, got, want)
		}
	}
	if got := Hint("Stabel", known); got != "did you mean stable?" {
		t.Errorf("got %q", got)
	}
	if got := Hint("nothing", nil); got != "" {
		t.Errorf("got %q", got)
	}
}

// What is far too long costs nothing, however many names there are.
func TestLongName(t *testing.T) {
	known := make([]string, 40_000)
	for i := range known {
		known[i] = "a-name-like-others"
	}
	long := strings.Repeat("a", 15_000)
	begun := time.Now()
	if got := To(long, known); got != "" {
		t.Errorf("got %q, want nothing", got)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("it took %v", took)
	}
}
