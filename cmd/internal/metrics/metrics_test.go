package metrics

import (
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/survey"
	"packmill/queue/buildlog"
	"packmill/spool"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// site is a tree with a suite that is shown and one that is not, with builds of both.
func site(t *testing.T) *Site {
	t.Helper()
	root := filepath.Join(t.TempDir(), "tree")
	tree, err := spool.Init(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"control/suites":  "Suite: sid\nArchitectures: amd64\n\nSuite: secret\nArchitectures: amd64\n",
		"control/general": "Reserve: 3M\n",
		"archive/dists/sid/Release": "Suite: sid\nDate: Sat, 21 Nov 2026 12:00:00 UTC\n" +
			"Valid-Until: Sat, 28 Nov 2026 12:00:00 UTC\n",
		"builders/buildd-amd64.none": "Daemon: buildd-dead\nBuilder: here\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	set, err := control.Load(filepath.Join(root, "control"))
	if err != nil {
		t.Fatal(err)
	}
	return &Site{Tree: tree, Settings: func() *control.Settings { return set }, Log: slog.New(slog.DiscardHandler),
		Look: func() ([]survey.Count, time.Time) {
			return []survey.Count{{State: "needs-build", Suite: "sid", Arch: "amd64", Items: 7, Oldest: &noon, Work: 90},
				{State: "needs-build", Suite: "secret", Arch: "amd64", Items: 1}, {State: survey.Full, Reason: "x"}}, noon
		},
		Shown: func(suite string) bool { return suite != "secret" }, Listeners: func() int { return 3 }}
}

// keep puts a build into the store of logs.
func keep(t *testing.T, s *Site, suite, arch, outcome string, wall float64) {
	t.Helper()
	b := buildlog.Build{Source: "hello", Version: "1", Suite: suite, Arch: arch, Outcome: outcome, Start: noon, Wall: wall}
	if err := (buildlog.Store{Dir: s.Tree.Path(spool.LogsDir)}).Keep("/nonexistent/log", &b); err != nil {
		t.Fatal(err)
	}
}

// scrape asks as Prometheus does, until the records of builds are read.
func scrape(t *testing.T, ask func() string) string {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		text := ask()
		if strings.Contains(text, "packmill_builds_total") {
			return text
		}
		if time.Now().After(end) {
			t.Fatalf("no builds:\n%s", text)
		}
	}
}

// TestMetrics: what there is to tell is told, in words that do not grow; of a suite that is
// not shown nothing is, and a build that ends is counted once.
func TestMetrics(t *testing.T) {
	s := site(t)
	keep(t, s, "sid", "amd64", "good", 45)
	keep(t, s, "sid", "amd64", "attempted", 700)
	keep(t, s, "sid", "amd64", "lost", 1e6)
	keep(t, s, "sid", "all", "good", 20)
	keep(t, s, "secret", "amd64", "good", 45)
	keep(t, s, "sid", "made-up", "good", 45)
	keep(t, s, "sid", "amd64", "who\"knows\n", 45)
	h := Handler(s)
	ask := func() string {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		if w.Code != 200 {
			t.Fatalf("got %d: %s", w.Code, w.Body)
		}
		return w.Body.String()
	}
	text := scrape(t, ask)
	for _, want := range []string{
		`packmill_items{arch="amd64",state="needs-build",suite="sid"} 7`,
		`packmill_oldest_item_timestamp_seconds{arch="amd64",state="needs-build",suite="sid"} 1.7952624e+09`,
		`packmill_queue_work_seconds{arch="amd64",suite="sid"} 90`,
		`packmill_view_timestamp_seconds 1.7952624e+09`,
		`packmill_builds_total{arch="amd64",outcome="good",suite="sid"} 1`,
		`packmill_builds_total{arch="amd64",outcome="lost",suite="sid"} 1`,
		`packmill_builds_total{arch="amd64",outcome="dep-wait",suite="sid"} 0`,
		`packmill_builds_total{arch="all",outcome="good",suite="sid"} 1`,
		`packmill_build_duration_seconds_bucket{arch="amd64",suite="sid",le="60"} 1`,
		`packmill_build_duration_seconds_bucket{arch="amd64",suite="sid",le="1200"} 2`,
		`packmill_build_duration_seconds_sum{arch="amd64",suite="sid"} 745`,
		`packmill_build_duration_seconds_count{arch="amd64",suite="sid"} 2`,
		`packmill_build_wait_seconds_count{arch="amd64",suite="sid"} 3`,
		`packmill_suite_published_timestamp_seconds{suite="sid"} 1.7952624e+09`,
		`packmill_suite_valid_until_timestamp_seconds{suite="sid"} 1.7958672e+09`,
		"packmill_disk_reserve_bytes 3.145728e+06", "packmill_disk_free_inodes ", "packmill_event_listeners 3",
		"process_cpu_seconds_total ",
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("it does not say %q", want)
		}
	}
	for _, not := range []string{"secret", "made-up", "knows", "hello", "buildd-dead", "full"} {
		if strings.Contains(text, not) {
			t.Errorf("it says %q", not)
		}
	}
	keep(t, s, "sid", "amd64", "good", 46)
	if again := ask(); !strings.Contains(again, "\n"+`packmill_builds_total{arch="amd64",outcome="good",suite="sid"} 2`) {
		t.Errorf("after another build:\n%s", again)
	}
	s.Shown = nil
	again := ask()
	if !strings.Contains(again, "\n"+`packmill_builds_total{arch="amd64",outcome="good",suite="secret"} 1`) {
		t.Errorf("of a suite that is shown now nothing is said:\n%s", again)
	}
	if t.Failed() {
		t.Log(text)
	}
}
