package main

import (
	"strings"
	"testing"
)

// What is wrong with a command line is said in a person's words, and where the
// help is.
func TestUsage(t *testing.T) {
	x := newDesktop(t)
	for args, want := range map[string]string{
		"":                    "packmill: say what to do: one of ",
		"frob":                "packmill: there is no command frob\npackmill: Try: packmill --help\n",
		"archive frob":        "packmill: there is no command frob\npackmill: Try: packmill archive --help\n",
		"review accept":       "packmill: it needs <item> ...\npackmill: Try: packmill review accept --help\n",
		"log ls --since":      "packmill: --since wants a value\npackmill: Try: packmill log ls --help\n",
		"ls --sutie x":        "packmill: there is no option --sutie; did you mean \"--suite\"?\n",
		"build fail hello":    "packmill: it needs --message=TEXT\n",
		"why hello there now": "packmill: there is no place for the word there here\n",
		"completion tcsh":     "packmill: shell is one of \"bash\",\"zsh\",\"fish\", not \"tcsh\"\n",
	} {
		out, status := x.run(strings.Fields(args)...)
		if status != 100 || !strings.HasPrefix(out, want) {
			t.Errorf("packmill %s: status %d, %q, want 100 and %q", args, status, out, want)
		}
		for _, raw := range []string{"EOL", "expected", "unexpected", "unknown flag", "missing flags"} {
			if strings.Contains(out, raw) {
				t.Errorf("packmill %s: the parser's own word %q: %q", args, raw, out)
			}
		}
	}
}
