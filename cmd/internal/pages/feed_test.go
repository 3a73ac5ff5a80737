package pages

import (
	"encoding/xml"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"packmill/cmd/internal/view/viewtest"
	"packmill/spool"
)

// feedTree is a small tree with an uploader who has an account; one of its histories has what
// must not act.
func feedTree(t *testing.T) (*spool.Tree, string) {
	t.Helper()
	tree := newTree(t, viewtest.Size{Packages: 120, Archs: viewtest.Archs[:2], Building: 2})
	err := os.WriteFile(tree.Path("control/uploaders"), []byte("Name: ada\nAccount: ada-account\nFingerprint: "+
		strings.Repeat("AB", 20)+"\n"), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	found, err := tree.Find("", spool.Installed)
	if err != nil || len(found) == 0 {
		t.Fatal(found, err)
	}
	f, err := os.OpenFile(tree.Path(found[0].Dir(), spool.HistoryFile), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	line := "2026-11-21T12:00:00Z\tqueue/sid/amd64/built\t" + found[0].Place.Dir() +
		"\tme\t<script>x</script> ]]> \x1b[31m \u202e&\n"
	if _, err := f.WriteString(line); err != nil {
		t.Fatal(err)
	}
	return tree, found[0].Name.Source
}

// TestFeeds: each feed has entries, of which none repeats; nothing acts; of what is not here there
// is none, and who has a feed already gets it not again.
func TestFeeds(t *testing.T) {
	tree, source := feedTree(t)
	_, server := serve(t, tree)
	for _, path := range []string{"/feed/package/" + source, "/feed/suite/sid", "/feed/uploads/ada",
		"/feed/uploads/ada-account", "/feed/uploads/" + strings.Repeat("ab", 20)} {
		w, body := get(t, server.URL+path)
		var feed atomFeed
		if err := xml.Unmarshal(body, &feed); err != nil || w.StatusCode != 200 || len(feed.Entries) == 0 {
			t.Errorf("%s: %s, %d entries, %v\n%.500s", path, w.Status, len(feed.Entries), err, body)
			continue
		}
		seen := map[string]bool{}
		for i, e := range feed.Entries {
			if seen[e.ID] || i > 0 && e.Updated > feed.Entries[i-1].Updated || strings.ContainsAny(e.Summary, "\x1b\u202e") {
				t.Errorf("%s: entry %d: twice, out of order, or with what acts: %+v", path, i, e)
			}
			seen[e.ID] = true
		}
		if again, _ := get(t, server.URL+path, "If-None-Match", w.Header.Get("ETag")); again.StatusCode != 304 {
			t.Errorf("%s: again: %s, want 304", path, again.Status)
		}
	}
	if _, body := get(t, server.URL+"/feed/package/"+source); !strings.Contains(string(body), "&lt;script&gt;x") {
		t.Errorf("the hostile line is not there as text:\n%s", body)
	}
	for _, path := range []string{"/feed/package/nothing", "/feed/suite/secret", "/feed/uploads/eve", "/feed/suite/"} {
		if w, _ := get(t, server.URL+path); w.StatusCode != 404 {
			t.Errorf("%s: %s, want 404", path, w.Status)
		}
	}
}

// TestBadges: a badge says the newest version and the worst of its states, in a word too; whatever
// the name, it is a picture.
func TestBadges(t *testing.T) {
	tree, source := feedTree(t)
	_, server := serve(t, tree)
	failed, err := tree.Find("", spool.BuildAttempted)
	if err != nil || len(failed) == 0 {
		t.Fatal(failed, err)
	}
	bad := failed[0].Name
	for path, want := range map[string]string{
		"/badge/" + source + ".svg":                   "✔",
		"/badge/" + bad.Source + ".svg":               "✘ " + bad.Version + " build-attempted on ",
		"/badge/" + bad.Source + ".svg?suite=nowhere": "not here",
		"/badge/%3Cscript%3E%22%1b.svg":               "&lt;script&gt;",
	} {
		w, body := get(t, server.URL+path)
		var picture struct {
			Title string `xml:"title"`
		}
		err := xml.Unmarshal(body, &picture)
		if err != nil || w.Header.Get("Content-Type") != "image/svg+xml" || !strings.Contains(string(body), want) ||
			strings.Contains(string(body), "<script") || strings.Contains(string(body), "\x1b") {
			t.Errorf("%s: %v, want %q in\n%s", path, err, want, body)
		}
	}
}

// TestFigures: the metrics are those of the view, without what is hidden.
func TestFigures(t *testing.T) {
	tree, _ := feedTree(t)
	_, server := serve(t, tree)
	_, body := get(t, server.URL+"/metrics")
	if text := string(body); !strings.Contains(text, `packmill_items{arch="amd64",state="building",suite="sid"} `) ||
		strings.Contains(text, "secret") {
		t.Errorf("got:\n%s", text)
	}
	waits := regexp.MustCompile(`\npackmill_queue_work_seconds\{arch="amd64",suite="sid"\} [1-9]`)
	for end := time.Now().Add(20 * time.Second); !waits.Match(body); _, body = get(t, server.URL+"/metrics") {
		if time.Now().After(end) {
			t.Fatalf("what waits needs no time:\n%s", body)
		}
	}
}
