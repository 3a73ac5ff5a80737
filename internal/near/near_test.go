package near

import "testing"

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
