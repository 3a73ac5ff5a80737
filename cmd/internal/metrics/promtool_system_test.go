//go:build system

package metrics

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// web is where the rules and the dashboard are.
const web = "../../../scripts/web"

// promtool runs Prometheus's own checker, of Debian's package prometheus.
func promtool(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("promtool", args...)
	cmd.Dir = web
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestPromtool: what we say is what Prometheus wants said, also of a key that ends.
func TestPromtool(t *testing.T) {
	s := site(t)
	keep(t, s, "sid", "amd64", "good", 45)
	home := t.TempDir()
	gpg := func(args ...string) string {
		cmd := exec.Command("gpg", append([]string{"--batch", "--homedir", home, "--passphrase", ""}, args...)...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("gpg %q: %v", args, err)
		}
		return string(out)
	}
	gpg("--quick-gen-key", "sid <sid@example.org>", "ed25519", "sign", "30d")
	if err := os.MkdirAll(s.Tree.Path("archive/keys"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Tree.Path("archive/keys/sid.asc"), []byte(gpg("--armor", "--export")), 0o644); err != nil {
		t.Fatal(err)
	}
	h := Handler(s)
	text := scrape(t, func() string {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		return w.Body.String()
	})
	line := `\npackmill_key_expires_timestamp_seconds\{fingerprint="[0-9A-F]{40}",name="sid",use="suite"\} `
	if !regexp.MustCompile(line).MatchString(text) {
		t.Errorf("nothing is said of the key:\n%s", text)
	}
	promtool(t, text, "check", "metrics")
}

// TestRules: Prometheus takes the rules, and they raise and do not raise what their tests say.
func TestRules(t *testing.T) {
	promtool(t, "", "check", "rules", "statusd.rules.yml")
	promtool(t, "", "test", "rules", "statusd.rules_test.yml")
}

// TestNames: the rules and the dashboard speak of metrics that there are, in expressions that
// Prometheus understands; every panel has a place of its own.
func TestNames(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(web, "statusd.dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		UID, Title string
		Panels     []struct {
			ID         int
			Title      string
			GridPos    struct{ X, Y, W, H int }
			Datasource struct{ UID string }
			Targets    []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &board); err != nil {
		t.Fatal(err)
	}
	rules := "groups:\n- name: dashboard\n  rules:\n"
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range board.Panels {
		if ids[p.ID] || p.Title == "" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("panel %d %q: no title, no number of its own, or another source of data", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" || x > 23 {
					t.Fatalf("%q lies over %q, or over the edge", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		for _, x := range p.Targets {
			expr, err := json.Marshal(strings.NewReplacer("$__rate_interval", "5m").Replace(x.Expr))
			if err != nil {
				t.Fatal(err)
			}
			rules += fmt.Sprintf("  - record: dashboard:x%d\n    expr: %s\n", len(rules), expr)
		}
	}
	if board.UID == "" || len(board.Panels) < 10 {
		t.Errorf("only %d panels in %q", len(board.Panels), board.UID)
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	promtool(t, "", "check", "rules", file)

	alerts, err := os.ReadFile(filepath.Join(web, "statusd.rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	code := ""
	for _, f := range []string{"metrics.go"} {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		code += string(text)
	}
	for _, m := range regexp.MustCompile(`packmill_[a-z_]+`).FindAllString(string(data)+string(alerts), -1) {
		name := strings.TrimSuffix(strings.TrimPrefix(m, "packmill_"), "_bucket")
		if !strings.Contains(code, `desc("`+name+`",`) {
			t.Errorf("there is no metric %s", m)
		}
	}
}
