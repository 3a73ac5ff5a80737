package push

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestManifest(t *testing.T) {
	m := &manifest{open: true, owner: "host \"x\":/srv/a b", entries: map[string]entry{
		"pool/main/h/hello/hello_1.0_amd64.deb": {size: 5},
		"dists/s/InRelease":                     {size: 7, sha: strings.Repeat("a", 64), tag: `"etag"`},
		"dists/s":                               {sha: "-> unstable"},
		"pool/a name with blanks":               {size: 1, gone: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
	}}
	got, err := parseManifest(m.text())
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("got %+v, %v, want %+v", got, err, m)
	}
	for name, text := range map[string]string{
		"empty": "", "other format": "packmill push manifest 9\nopen \"\"\n", "no state": manifestFormat + "\n",
		"short line":   manifestFormat + "\nopen \"\"\n5 \"\"\n",
		"path upwards": manifestFormat + "\nopen \"\"\n5 \"\" \"\" - ../x\n",
		"bad time":     manifestFormat + "\nopen \"\"\n5 \"\" \"\" yesterday x\n",
		"bad size":     manifestFormat + "\nopen \"\"\n-x \"\" \"\" - x\n",
	} {
		if _, err := parseManifest([]byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(manifestFormat + "\nopen \"me\"\n5 \"\" \"\" - pool/x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseManifest(data)
		if err != nil {
			return
		}
		again, err := parseManifest(m.text())
		if err != nil || !reflect.DeepEqual(again.entries, m.entries) {
			t.Errorf("%q: got %+v, %v, want %+v", data, again, err, m)
		}
	})
}

// TestLinksOutOfTheArchive holds that a flat copy has nothing of what lies
// beside the archive.
func TestLinksOutOfTheArchive(t *testing.T) {
	for _, to := range []string{"/etc", "../../etc", "loop"} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "dists"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(dir, "dists/loop")); err != nil {
			t.Fatal(err)
		}
		if _, err := files(Source{Root: t.TempDir(), Frozen: dir}, true); err == nil {
			t.Errorf("%s: accepted", to)
		}
	}
}
