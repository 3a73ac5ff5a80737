package base

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"packmill/cmd/internal/control"
	"packmill/spool"
)

// TestFetchingOpensNothing: while apt fetches the indexes of a Base, and when it
// has, nobody but master-buildd may write to any file of it, whatever the
// daemons' umask: fsck looks at any time.
func TestFetchingOpensNothing(t *testing.T) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip("apt-get is not installed")
	}
	old := unix.Umask(0o002) // as daemon.Start has it
	defer unix.Umask(old)
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := tree.Path(spool.BaseDir, "sid/amd64")
	open := func(when string) (files int) {
		filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return nil
			}
			if st, err := d.Info(); err == nil && st.Mode()&0o022 != 0 && d.Type()&os.ModeSymlink == 0 {
				t.Errorf("%s: %s has mode %s", when, path, st.Mode())
			}
			files++
			return nil
		})
		return files
	}
	packages := strings.Repeat("Package: hello\nVersion: 1\nArchitecture: amd64\nFilename: ./hello.deb\nSize: 1\nSHA256: "+strings.Repeat("0", 64)+"\n\n", 5000)
	release := fmt.Sprintf("Suite: sid\nDate: Sat, 28 Nov 2026 00:00:00 UTC\nSHA256:\n %x %d main/binary-amd64/Packages\n",
		sha256.Sum256([]byte(packages)), len(packages))
	held := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/Release"):
			fmt.Fprint(w, release)
		case strings.HasSuffix(r.URL.Path, "/Packages"):
			w.Header().Set("Content-Length", fmt.Sprint(len(packages)))
			fmt.Fprint(w, packages[:len(packages)/2])
			w.(http.Flusher).Flush()
			// Until half an index lies there.
			for r.Context().Err() == nil {
				if m, _ := filepath.Glob(filepath.Join(dir, "lists/partial/*Packages*")); len(m) > 0 {
					held = true
					break
				}
			}
			open("while the index is fetched")
			fmt.Fprint(w, packages[len(packages)/2:])
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	s := &control.Suite{Name: "sid", Base: []string{"deb [trusted=yes] " + server.URL + " sid main"}}
	if err := Of(tree.Root(), s, "amd64").Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !held {
		t.Error("apt fetched no index")
	}
	if open("at the end") < 5 {
		t.Error("apt left nothing")
	}
}
