package pages

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/view"
	"packmill/cmd/internal/view/viewtest"
	"packmill/queue/builders"
	"packmill/queue/buildlog"
	"packmill/spool"
)

// What names a hidden suite beside what is shown: the history of an item that came from there, what
// its uploader may do, what a daemon says of its last build, what was counted of builds.
func TestHiddenBeside(t *testing.T) {
	tree := newTree(t, viewtest.Size{Packages: 120, Archs: viewtest.Archs[:1]})
	post, err := builders.Enter(tree.Path(spool.BuildersDir), builders.Entry{Daemon: "buildd-amd64", Builder: "one",
		Archs: []string{"amd64"}, Since: time.Now(), Trouble: "embargoed of secret was lost"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(post.Leave)
	write(t, tree.Path("control/uploaders"), "Name: ada\nAccount: ada\nAllow: source, suites=secret sid\n")
	found, err := tree.Find("", spool.Review, spool.NeedsBuild)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		line := "2026-11-21T12:00:00Z\t" + spool.In(spool.Review, "secret").Dir() + "\t" + f.Place.Dir() +
			"\tme\tout of secret\n"
		write(t, filepath.Join(tree.Path(f.Dir()), spool.HistoryFile), line)
	}
	b := buildlog.Build{Source: "embargoed", Version: "1-1", Suite: "secret", Arch: "amd64", Start: time.Now(),
		Outcome: buildlog.Good}
	log := filepath.Join(t.TempDir(), "log")
	write(t, log, "hole\n")
	if err := (buildlog.Store{Dir: tree.Path(spool.LogsDir)}).Keep(log, &b); err != nil {
		t.Fatal(err)
	}
	s, server := serve(t, tree)
	ats := []string{"/metrics", "/builders", "/builders.json", "/review", "/list", "/list.json"}
	for _, f := range s.view.Items(view.Where{States: survey.Only(spool.Review, spool.NeedsBuild)}) {
		at := packageAt(f.Name.Source)
		ats = append(ats, at, at+".json", "/feed"+at)
		if f.Place.State == spool.Review {
			at = reviewAt(f.Place.Suite, f.Name.String())
			ats = append(ats, at, at+".json")
		}
	}
	if len(ats) < 12 {
		t.Fatal("there is nothing to look at", ats)
	}
	for _, at := range ats {
		if w, body := get(t, server.URL+at); w.StatusCode != 200 || strings.Contains(string(body), "secret") {
			t.Errorf("%s: %s\n%s", at, w.Status, body)
		}
	}
	if w, body := get(t, server.URL+"/metrics.json"); w.StatusCode != 404 || strings.Contains(string(body), "packmill_") {
		t.Errorf("/metrics.json: %s\n%s", w.Status, body)
	}
}

// Whatever letters an address has, none of it is left.
func TestDiscreet(t *testing.T) {
	s, _ := serve(t, newTree(t, viewtest.Size{Packages: 1, Archs: viewtest.Archs[:1]}))
	for text, want := range map[string]string{
		"by joe&#43;deb@x.org.":            "by (address).",
		"by o&#39;brien@x.org":             "by (address)",
		`"joe+deb@x.org"`:                  `"(address)"`,
		"J &lt;joe&#43;deb@x.org&gt; and":  "J and",
		`"J \u003cjörg@müller.de\u003e"`:   `"J"`,
		"Jörg &lt;jörg@bücher.example&gt;": "Jörg",
		"mail jo@xn--bcher-kva.xn--p1ai":   "mail (address)",
		"a@b and lib@1.2":                  "a@b and lib@1.2",
	} {
		if got := string(s.discreet([]byte(text))); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}
