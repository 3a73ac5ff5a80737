package pages

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/view"
	"packmill/cmd/internal/view/viewtest"
	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/spool"
)

// madeBy gives a job that was published a result with one package, and a directory of the pool that has nothing yet.
func madeBy(t *testing.T, tree *spool.Tree, f spool.Found) (tk *queue.Ticket, pool, deb, dsc string) {
	t.Helper()
	tk, err := queue.TicketAt(tree, f)
	if err != nil {
		t.Fatal(err)
	}
	deb, dsc = f.Name.Source+"_"+f.Name.Version+"_amd64.deb", f.Name.Source+"_"+f.Name.Version+".dsc"
	tk.Result, tk.Dsc, tk.ExtraDepends = "r_1_amd64.changes", dsc, "libx-dev (>= 1) | liby-dev, libz-dev"
	dir := tree.Path(f.Dir())
	pool = tree.Path("archive/pool/main", f.Name.Source[:1], f.Name.Source)
	if strings.HasPrefix(f.Name.Source, "lib") {
		pool = tree.Path("archive/pool/main", f.Name.Source[:4], f.Name.Source)
	}
	for _, d := range []string{filepath.Join(dir, "result"), pool} {
		if err := os.MkdirAll(d, 0o775); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, spool.TicketFile), string(tk.Stanza().Append(nil)))
	write(t, filepath.Join(dir, "result/r_1_amd64.changes"), fmt.Sprintf("Source: %s\nVersion: %s\n"+
		"Checksums-Sha256:\n %064d 4 %s\n"+
		"Files:\n %032d 4 devel optional %s\n", f.Name.Source, f.Name.Version, 7, deb, 7, deb))
	return tk, pool, deb, dsc
}

// What a build made is on its page; the way to it is shown once it is published, and so are the commands that build
// it again, each of which is one that a shell reads as it is meant.
func TestOutputs(t *testing.T) {
	tree := newTree(t, viewtest.Size{Packages: 30, Archs: viewtest.Archs[:1]})
	s, server := serve(t, tree)
	if err := s.Fetched("https://archive.example.org/debian/"); err != nil {
		t.Fatal(err)
	}
	f := s.view.Items(view.Where{States: survey.Only(spool.Installed), Arch: "amd64"})[0]
	tk, pool, deb, dsc := madeBy(t, tree, f)
	var b buildlog.Build
	for _, x := range s.view.BuildsOf(f.Name.Source) {
		if x.Outcome == buildlog.Good && x.Arch == "amd64" && x.Version == f.Name.Version {
			b = x
		}
	}
	from := 0
	page := func() (x Build) {
		t.Helper()
		from++ // another page is made anew
		_, body := get(t, fmt.Sprintf("%s%s.json?from=%d", server.URL, buildAt(b), from))
		if json.Unmarshal(body, &x) != nil {
			t.Fatalf("got %s", body)
		}
		return x
	}
	if b.Source == "" {
		t.Fatal("no build is known of", f.Name)
	}
	if x := page(); len(x.Outputs) != 1 || x.Outputs[0].Name != deb || x.Outputs[0].Pool != "" || len(x.Again) != 1 {
		t.Errorf("not in the pool: got %+v, %q of %s", x.Outputs, x.Again, x.ID())
	}
	write(t, filepath.Join(pool, deb), "four")
	write(t, filepath.Join(pool, dsc), "Format: 3.0 (quilt)\n")
	if x := page(); len(x.Again) != 1 {
		t.Errorf("of an archive that is not signed: got %q", x.Again)
	}
	keys := tree.Path("archive/keys")
	if err := os.MkdirAll(keys, 0o775); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(keys, f.Place.Suite+".asc"), "a key")
	x := page()
	if len(x.Outputs) != 1 || !strings.HasPrefix(x.Outputs[0].URL, "https://archive.example.org/debian/pool/main/") ||
		!strings.HasSuffix(x.Outputs[0].Pool, "/"+f.Name.Source+"/"+deb) {
		t.Errorf("in the pool: got %+v", x.Outputs)
	}
	if all := strings.Join(x.Again, "\n"); !strings.Contains(all, "dget ") || !strings.Contains(all, "sbuild ") ||
		!strings.Contains(all, "--extra-repository-key="+f.Place.Suite+".asc") || strings.Contains(all, "trusted") || strings.Contains(all, "example.org>") {
		t.Errorf("got %s", all)
	}
	if t.Failed() {
		return
	}
	last := x.Again[len(x.Again)-1]
	out, err := exec.Command("sh", "-c", `sbuild() { printf '[%s]\n' "$@"; }; `+last).Output()
	if err != nil || !strings.Contains(string(out), "[--add-depends="+tk.ExtraDepends+"]") {
		t.Errorf("%s: got %s, %v", last, out, err)
	}
	_, body := get(t, server.URL+buildAt(b))
	if !strings.Contains(string(body), `href="`+x.Outputs[0].URL+`"`) {
		t.Error("the page does not lead to the file")
	}
	// Another file of that name, or a link, is not what was built.
	write(t, filepath.Join(pool, deb), "five!")
	if x := page(); x.Outputs[0].URL != "" {
		t.Errorf("got %+v", x.Outputs)
	}
}

// What a suite is built on is told where all of it is the world's.
func TestOpenBase(t *testing.T) {
	s, _ := serve(t, newTree(t, viewtest.Size{Packages: 1, Archs: viewtest.Archs[:1]}))
	suite, _ := s.view.Settings().Suite(viewtest.Suite)
	for line, want := range map[string]bool{
		"deb http://mirror.example.org/debian trixie main":   true,
		"deb https://me:word@inside.example/debian sid main": false,
		"deb file:/srv/mirror sid main":                      false,
		"deb https://archive.example.org secret main":        false,
		"deb [trusted=yes] https://a.example sid main":       false,
	} {
		x := *suite
		x.Base = []string{line}
		if got := s.openBase(&x); (got != nil) != want {
			t.Errorf("%s: got %q", line, got)
		}
	}
	for _, bad := range []string{"archive.example.org",
		"file:///srv", "https://me:word@x.example", "https://x.example/?a"} {
		if s.Fetched(bad) == nil {
			t.Errorf("%s is taken for an address", bad)
		}
	}
}
