package stories

import (
	"os"
	"slices"
	"strings"
	"testing"

	"packmill/spool/upload/uploadtest"
)

// TestCron: what cron would mail of its jobs is nothing while all goes well, and a line when it does not.
func TestCron(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	table, err := os.ReadFile("../../../../scripts/cron/packmill")
	m.must(err)
	var jobs [][]string
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == "*" {
			f = f[6:] // times, account
			at := slices.IndexFunc(f, func(w string) bool { return strings.HasSuffix(w, "d") && !strings.Contains(w, "/") })
			jobs = append(jobs, f[at:])
		}
	}
	if len(jobs) != 6 {
		t.Fatalf("scripts/cron/packmill: got %q, want 6 daemons", jobs)
	}
	mails := func() (out string) {
		for _, j := range jobs {
			said, _ := m.command(t.Context(), j[0], j[1:]...).CombinedOutput()
			out += string(said)
		}
		return out
	}
	m.upload(uploadtest.Package{Source: "hello", Version: "1.0"})
	m.until("hello is published", func() bool {
		if out := mails(); out != "" {
			t.Errorf("while all goes well cron mails %s", out)
		}
		return strings.Contains(m.packmill("ls", "hello"), "installed  stable  amd64")
	})
	m.control("suites", "Siute: stable")
	if out := mails(); strings.Count(out, "\n") < len(jobs) || !strings.Contains(out, "Siute") {
		t.Errorf("of settings that are refused cron mails %q", out)
	}
}
