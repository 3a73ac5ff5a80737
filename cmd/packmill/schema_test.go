package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"packmill/cmd/internal/usage"
	"packmill/spool/upload/uploadtest"
)

// Commands print the fields that the manual page says, and no others.
func TestSchemas(t *testing.T) {
	x := newDesktop(t)
	x.waits(uploadtest.Package{Source: "hello", Version: "1.0-1", Signer: signer(t)}, "")
	tried := 0
	for _, c := range []struct{ of, args string }{
		{"status", "status"}, {"ls, build ls", "ls"}, {"show", "show hello"}, {"why", "why hello"}, {"review", "review"},
		{"review show", "review show --no-lintian hello"},
		{"review accept, reject, hold, ask; requeue", "review hold hello -m x"},
		{"errors, on standard error", "ls nosuch"},
		{"wb, cancel, build sign, fail, retry, dep-wait, giveback, not-for-us", "wb gb hello . amd64"},
	} {
		for _, s := range schemas {
			if s.commands != c.of {
				continue
			}
			known := map[string]bool{}
			for _, f := range usage.Fields(reflect.TypeOf(s.object)) {
				name, _, _ := strings.Cut(f, " ")
				known[strings.TrimSuffix(name, "?")] = true
			}
			out, _ := x.run(append([]string{"--json"}, strings.Fields(c.args)...)...)
			line, _, _ := strings.Cut(out, "\n")
			var got map[string]any
			if err := json.Unmarshal([]byte(line), &got); err != nil || len(got) == 0 {
				t.Errorf("packmill --json %s: %v: %s", c.args, err, out)
			}
			for name := range got {
				if !known[name] {
					t.Errorf("packmill --json %s has %s, which the manual page does not name", c.args, name)
				}
			}
			tried++
		}
	}
	if tried != 9 {
		t.Errorf("%d objects were tried, want 9", tried)
	}
}
