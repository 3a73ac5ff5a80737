//go:build system

package pages

import (
	"context"
	"fmt"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"packmill/cmd/internal/view/viewtest"
	"packmill/queue/buildlog"
	"packmill/spool"
)

// browser is Debian's Chromium, without a window.
func browser(t *testing.T) context.Context {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("chromium is missing; apt-get install chromium, or run scripts/test, which does")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.UserDataDir(t.TempDir()))
	all, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(stop)
	root, end := chromedp.NewContext(all)
	t.Cleanup(end)
	if err := chromedp.Do(root); err != nil {
		t.Fatal(err)
	}
	ctx, enough := context.WithTimeout(root, 30*time.Minute)
	t.Cleanup(enough)
	return ctx
}

func do(t *testing.T, ctx context.Context, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// says asks the page.
func says[T any](t *testing.T, ctx context.Context, script string) T {
	t.Helper()
	out, err := chromedp.Run(ctx, chromedp.Evaluate[T](script))
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return out
}

// until waits for what a script says to become true. A page that is being left for another answers nothing.
func until(t *testing.T, ctx context.Context, what, script string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		is, err := chromedp.Run(ctx, chromedp.Evaluate[bool](script))
		if err == nil && is {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within 30 s (%v); the page says:\n%s", what, err, says[string](t, ctx, "document.body.innerText"))
		}
	}
}

// one is a path of a page that a tree has: the first that fits.
func one(t *testing.T, tree *spool.Tree, state spool.State) spool.Found {
	t.Helper()
	found, err := tree.Find("", state)
	if err != nil || len(found) == 0 {
		t.Fatalf("nothing is in %s: %v", state, err)
	}
	return found[0]
}

// everyPage is an address of each kind of page.
func everyPage(t *testing.T, tree *spool.Tree, server *httptest.Server) map[string]string {
	t.Helper()
	out := map[string]string{"start": "/", "list": "/list?state=installed", "review": "/review", "builders": "/builders",
		"archive": "/archive", "search": "/search?q=li", "statistics": "/statistics",
		"maintainers": "/maintainers", "maintainer": maintainerAt("Ada Example"), "schema": "/schema", "states": "/states",
		"problem": "/nothing",
		"suite":   "/suite/sid", "arch": "/suite/sid/amd64", "packages": "/archive/sid", "cruft": "/archive/sid?cruft=1",
		"diff": "/diff?from=" + url.QueryEscape(snapshotOf(t, tree)) + "&to=sid", "logs": "/search/logs?q=error"}
	for name, state := range map[string]spool.State{"building": spool.Building, "failed": spool.BuildAttempted} {
		f := one(t, tree, state)
		out["package-"+name] = "/package/" + f.Name.Source
		text := crawlOne(t, server, out["package-"+name])
		_, rest, ok := strings.Cut(text, `href="/build/sid/`+f.Arch()+"/")
		if !ok {
			t.Errorf("%s has no link to its build on %s", out["package-"+name], f.Arch())
			continue
		}
		rest, _, _ = strings.Cut(rest, `"`)
		out["build-"+name] = "/build/sid/" + f.Arch() + "/" + strings.ReplaceAll(rest, "&amp;", "&")
	}
	f := one(t, tree, spool.Review)
	out["reviewed"] = reviewAt(f.Place.Suite, f.Name.String())
	out["upload"] = "/upload/" + f.Name.Source + "_" + f.Name.Version + "_source.changes"
	return out
}

// snapshotOf is the name of the tree's snapshot.
func snapshotOf(t *testing.T, tree *spool.Tree) string {
	t.Helper()
	found, err := filepath.Glob(tree.Path("archive/snapshots/*/dists/*"))
	if err != nil || len(found) == 0 {
		t.Fatal("there is no snapshot", err)
	}
	rel, err := filepath.Rel(tree.Path("archive/snapshots"), found[0])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Replace(rel, "/dists/", "/", 1)
}

func crawlOne(t *testing.T, server *httptest.Server, path string) string {
	t.Helper()
	w, body := get(t, server.URL+path)
	if w.StatusCode != 200 {
		t.Errorf("%s: %s", path, w.Status)
	}
	return string(body)
}

// fromNpm is a file of a package of the npm registry, "" where there is no npm. It is fetched for the test,
// and kept where the tests keep things.
func fromNpm(t *testing.T, name, version, path string) string {
	t.Helper()
	dir := os.Getenv("PACKMILL_TEST_CACHE")
	if dir == "" {
		dir = t.TempDir()
	}
	dir = filepath.Join(dir, name)
	file := filepath.Join(dir, "node_modules", name, path)
	if _, err := os.Stat(file); err == nil {
		return file
	}
	if _, err := exec.LookPath("npm"); err != nil {
		t.Logf("there is no npm, so %s is not asked", name)
		return ""
	}
	out, err := exec.Command("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", dir,
		name+"@"+version).CombinedOutput()
	if err != nil {
		t.Logf("%s is not to be had, so it is not asked: %v\n%s", name, err, out)
		return ""
	}
	return file
}

// axe is the checker of accessibility, "" where there is none.
func axe(t *testing.T) string {
	t.Helper()
	file := fromNpm(t, "axe-core", "4.14.1", "axe.min.js")
	if file == "" {
		return ""
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestValid: the checker of the W3C finds no fault in any page of an ordinary tree and of a hostile one.
func TestValid(t *testing.T) {
	checker := fromNpm(t, "vnu-jar", "26.9.27", "build/dist/vnu.jar")
	if checker == "" {
		t.Skip("there is no checker")
	}
	dir := t.TempDir()
	var files []string
	for kind, tree := range map[string]*spool.Tree{"hostile": hostileTree(t),
		"ordinary": newTree(t, viewtest.Size{Packages: 120, Archs: viewtest.Archs[:2], Building: 2})} {
		_, server := serve(t, tree)
		for at, text := range crawl(t, server, 3) {
			if !strings.HasPrefix(text, "<!DOCTYPE html>") {
				continue // a log, a feed or JSON
			}
			file := filepath.Join(dir, kind+"-"+url.QueryEscape(at)+".html")
			if len(file) > 200 {
				file = file[:200] + ".html"
			}
			write(t, file, text)
			files = append(files, file)
		}
	}
	if len(files) < 40 {
		t.Errorf("only %d pages were there", len(files))
	}
	out, err := exec.Command("java", append([]string{"-jar", checker, "--format", "gnu"}, files...)...).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%v\n%.8000s", err, out)
	}
}

// TestLooks: every page, light and dark, on a phone and a desk, fits the screen, and axe-core finds
// nothing. PACKMILL_PICTURES names a directory for pictures of them.
func TestLooks(t *testing.T) {
	size := viewtest.Size{Packages: 120, Archs: viewtest.Archs[:2], Building: 2}
	pictures := os.Getenv("PACKMILL_PICTURES")
	if pictures != "" {
		size = viewtest.Size{Packages: 2000, Archs: viewtest.Archs[:5], Building: 40}
	}
	tree := newTree(t, size)
	_, server := serve(t, tree)
	checker := ""
	if pictures == "" {
		checker = axe(t)
	}
	ctx := browser(t)
	for name, path := range everyPage(t, tree, server) {
		for _, scheme := range []string{"light", "dark"} {
			if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
				Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}); err != nil {
				t.Fatal(err)
			}
			for _, width := range []int64{390, 1280} {
				about := fmt.Sprintf("%s-%s-%d", name, scheme, width)
				do(t, ctx, chromedp.EmulateViewport(width, 900), chromedp.Navigate(server.URL+path))
				if over := says[int](t, ctx, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
					t.Errorf("%s: %d pixels wider than the screen", about, over)
				}
				if pictures != "" {
					png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
					if err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(filepath.Join(pictures, about+".png"), png, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				// Colours depend on the scheme and order on the width: two of the four see both.
				if checker == "" || (scheme == "light") != (width < 1000) {
					continue
				}
				do(t, ctx, chromedp.Evaluate[chromedp.Void](checker))
				bad, err := chromedp.Run(ctx, chromedp.Evaluate[[]struct{ ID, Impact, HTML string }](
					`axe.run().then(r => r.violations.map(v => ({ID: v.id, Impact: v.impact, HTML: v.nodes[0].html})))`,
					chromedp.EvalAwaitPromise))
				if err != nil {
					t.Fatal(err)
				}
				for _, v := range bad {
					t.Errorf("%s: axe: %s (%s): %.300s", about, v.ID, v.Impact, v.HTML)
				}
			}
		}
	}
}

// TestLive: a log grows on the page while it is written, and an upload that is accepted appears so,
// without a reload.
func TestLive(t *testing.T) {
	tree := newTree(t, viewtest.Size{Packages: 120, Archs: viewtest.Archs[:2], Building: 2})
	_, server := serve(t, tree)
	ctx := browser(t)
	do(t, ctx, chromedp.EmulateViewport(1280, 900))

	running := one(t, tree, spool.Building)
	page := everyPage(t, tree, server)["build-building"]
	do(t, ctx, chromedp.Navigate(server.URL+page))
	says[bool](t, ctx, "window.mine = true")
	f, err := os.OpenFile(tree.Path(running.Dir(), buildlog.LogFile), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, line := range []string{"the first new line", "<b>and</b> another"} {
		if _, err := fmt.Fprintln(f, line); err != nil {
			t.Fatal(err)
		}
		until(t, ctx, line, fmt.Sprintf("document.body.innerText.includes(%q)", line))
	}
	if !says[bool](t, ctx, "window.mine === true && document.querySelectorAll('.log b').length === 0") {
		t.Error("the page was loaded again, or a log's text became a part of it")
	}

	waits := one(t, tree, spool.Review)
	do(t, ctx, chromedp.Navigate(server.URL+"/package/"+waits.Name.Source))
	says[bool](t, ctx, "window.mine = true")
	until(t, ctx, "it is live", "document.getElementById('live').textContent !== ''")
	item, err := tree.Claim(waits.Place, waits.Name.String())
	if err != nil {
		t.Fatal(err)
	}
	defer item.Release()
	if err := item.Move(spool.Person, "bob", spool.Verdict{To: spool.In(spool.Accepted, viewtest.Suite),
		Reason: "well made"}); err != nil {
		t.Fatal(err)
	}
	until(t, ctx, "it is accepted", "document.querySelector('main').innerText.includes('accepted')")
	if !says[bool](t, ctx, "window.mine === true") {
		t.Error("the page was loaded again")
	}
}

// TestKeyboard: / leads to the search, Tab to the content, and what is looked for is found.
func TestKeyboard(t *testing.T) {
	tree := newTree(t, viewtest.Size{Packages: 120, Archs: viewtest.Archs[:2], Building: 2})
	_, server := serve(t, tree)
	ctx := browser(t)
	do(t, ctx, chromedp.Navigate(server.URL+"/"), chromedp.KeyEvent(kb.Tab))
	if got := says[string](t, ctx, "document.activeElement.getAttribute('href')"); got != "#main" {
		t.Errorf("the first that Tab reaches leads to %q, want #main", got)
	}
	source := one(t, tree, spool.Installed).Name.Source
	do(t, ctx, chromedp.KeyEvent("/"), chromedp.KeyEvent(source), chromedp.KeyEvent(kb.Enter))
	until(t, ctx, "the search finds "+source,
		fmt.Sprintf("location.pathname !== '/' && !!document.querySelector('main')?.innerText.includes(%q)", source))
}

// TestWithoutScripts: the pages are whole where scripts do not run.
func TestWithoutScripts(t *testing.T) {
	tree := newTree(t, viewtest.Size{Packages: 120, Archs: viewtest.Archs[:2], Building: 2})
	_, server := serve(t, tree)
	ctx := browser(t)
	if _, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled,
		emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	for name, path := range everyPage(t, tree, server) {
		do(t, ctx, chromedp.Navigate(server.URL+path))
		text, err := chromedp.Run(ctx, chromedp.Text("main"))
		if err != nil {
			t.Fatal(err)
		}
		if len(strings.Fields(text)) < 10 {
			t.Errorf("%s has no content: %q", name, text)
		}
	}
}
