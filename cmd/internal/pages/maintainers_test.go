package pages

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/view"
	"packmill/cmd/internal/view/viewtest"
	"packmill/queue"
	"packmill/spool"
)

// people is the page of all, by name.
func people(t *testing.T, at string) map[string]Person {
	t.Helper()
	var x Maintainers
	if w, body := get(t, at+"/maintainers.json"); json.Unmarshal(body, &x) != nil || w.StatusCode != http.StatusOK {
		t.Fatalf("got %s: %s", w.Status, body)
	}
	out := map[string]Person{}
	for _, p := range x.People {
		out[p.Name] = p
	}
	return out
}

// Who maintains a package and who uploaded it has a page of all of them, what failed first; no address is on it.
func TestMaintainers(t *testing.T) {
	tree := newTree(t, viewtest.Size{Packages: 120, Archs: viewtest.Archs[:2]})
	s, server := serve(t, tree)
	failed := map[string]bool{}
	for _, f := range s.view.Items(view.Where{States: survey.Only(spool.BuildAttempted, spool.Failed)}) {
		failed[f.Name.Source] = true
	}
	all := people(t, server.URL)
	ada := all["Ada Example"]
	if want := (Person{Name: "Ada Example", Maintains: 120, Broken: len(failed), Moving: ada.Moving}); ada != want ||
		ada.Moving == 0 || len(failed) == 0 {
		t.Errorf("got %+v, want %+v", ada, want)
	}
	if got := all["ada"]; got.Uploaded != 120 || got.Maintains != 0 {
		t.Errorf("got %+v, want 120 uploads", got)
	}
	var x Maintainer
	if _, body := get(t, server.URL+maintainerAt("Ada Example")+".json"); json.Unmarshal(body, &x) != nil || x.All < 120 {
		t.Fatalf("got %s", body)
	}
	seen := map[string]bool{}
	for i, row := range x.Rows {
		if !row.Maintains || row.Uploaded {
			t.Errorf("%+v: she maintains it and did not upload it under that name", row)
		}
		if i < x.Broken {
			seen[row.Source] = true
		}
	}
	if len(seen) != len(failed) {
		t.Errorf("%d packages are said to have failed first, want %d", len(seen), len(failed))
	}
	for _, at := range []string{"/maintainers", "/maintainer/Ada%20Example", "/maintainer/ada"} {
		if w, body := get(t, server.URL+at); w.StatusCode != http.StatusOK || strings.Contains(string(body), "example.org") {
			t.Errorf("%s: %s, or an address is shown", at, w.Status)
		}
	}
	if w, body := get(t, server.URL+"/maintainer/ada%20Exampel"); w.StatusCode != http.StatusNotFound {
		t.Errorf("got %s: %s", w.Status, body)
	}
}

// Who stands behind a newer version is seen on the page, and who stands behind what is hidden is not.
func TestMaintainerOfNewest(t *testing.T) {
	tree := newTree(t, viewtest.Size{Packages: 8, Archs: viewtest.Archs[:1]})
	put := func(suite, source, maintainer string) {
		t.Helper()
		tk := queue.Ticket{Source: source, Version: "9-1", Suite: suite, Uploader: "eve@example.org", Maintainer: maintainer}
		dir := tree.Path(spool.In(spool.Review, suite).Dir(),
			spool.NewName(spool.NormalClass, time.Now(), source, "9-1").String())
		tmp := dir + ".new"
		if err := os.MkdirAll(tmp, 0o775); err != nil {
			t.Fatal(err)
		}
		write(t, tmp+"/"+spool.TicketFile, string(tk.Stanza().Append(nil)))
		if err := os.Rename(tmp, dir); err != nil {
			t.Fatal(err)
		}
	}
	put("secret", viewtest.Name(1), "Mallory Secret <m@example.org>")
	_, server := serve(t, tree)
	if all := people(t, server.URL); all["Ada Example"].Maintains != 8 || all["Mallory Secret"].Name != "" {
		t.Errorf("got %v", all)
	}
	if w, body := get(t, server.URL+"/maintainer/Mallory%20Secret"); w.StatusCode != http.StatusNotFound {
		t.Errorf("got %s: %s", w.Status, body)
	}
	put(viewtest.Suite, viewtest.Name(0), "bob@example.org <bob@example.org>")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		all := people(t, server.URL)
		if all["Ada Example"].Maintains == 7 {
			if len(all) != 2 { // ada uploaded the others; who has an address for a name is not told
				t.Errorf("got %v", all)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %v", all)
		}
	}
}
