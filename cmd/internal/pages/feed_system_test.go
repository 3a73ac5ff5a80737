//go:build system

package pages

import (
	"os/exec"
	"strings"
	"testing"
)

// TestFeedReader: a reader of feeds and a reader of XML that we did not write take feeds and badges.
func TestFeedReader(t *testing.T) {
	tree, source := feedTree(t)
	_, server := serve(t, tree)
	for _, path := range []string{"/feed/package/" + source, "/feed/suite/sid", "/feed/uploads/ada"} {
		_, body := get(t, server.URL+path)
		cmd := exec.Command("/usr/bin/python3", "-c", "import feedparser, sys\n"+
			"d = feedparser.parse(sys.stdin.buffer.read(), response_headers={'content-type': 'application/atom+xml', "+
			"'content-location': 'http://example.org/feed'})\n"+
			"e = d.entries[0]\n"+
			"assert not d.bozo and d.version == 'atom10' and e.updated_parsed and e.id and e.title, d\n"+
			"print(e.link)")
		cmd.Stdin = strings.NewReader(string(body))
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), "http://example.org/package/") {
			t.Errorf("%s: feedparser: %v: %s", path, err, out)
		}
	}
	for _, path := range []string{"/feed/suite/sid", "/badge/" + source + ".svg"} {
		_, body := get(t, server.URL+path)
		cmd := exec.Command("xmllint", "--noout", "--nonet", "-")
		cmd.Stdin = strings.NewReader(string(body))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: xmllint: %v: %s", path, err, out)
		}
	}
}
