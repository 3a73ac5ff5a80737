//go:build system

package stories

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// ofRoot lists what in the spool, the queues and the attic belongs to root, beside the
// directories that init makes.
func (a *accounts) ofRoot() (paths []string) {
	a.Helper()
	for _, top := range []string{"spool/review", "spool/accepted", "spool/rejected", "queue", "archive/incoming", "attic",
		"journal"} {
		filepath.WalkDir(filepath.Join(a.tree, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil // it has moved on
			}
			rel := strings.TrimPrefix(path, a.tree+"/")
			if st, err := d.Info(); err == nil && st.Sys().(*syscall.Stat_t).Uid == 0 && rel != top && rel != spool.NamesDir {
				paths = append(paths, rel)
			}
			return nil
		})
	}
	return paths
}

// TestRootIsNobodyElse: what root's commands write is the account's whose turn it is:
// review, requeue, wb, build, cancel and fsck --repair leave no file of root's.
func TestRootIsNobodyElse(t *testing.T) {
	a := newAccounts(t, "Review: always", "Log-Review: manual", "Architectures: amd64 i386")
	a.control("general", "Two-Persons: no")
	a.script("bad_1.0_amd64", "fail")
	for _, name := range []string{"good", "bad", "ugly"} {
		a.drop(uploadtest.Package{Source: name, Version: "1.0"})
	}
	a.daemon("reviewd")
	a.packmill("review", "hold", "good", "-m", "wait")
	a.packmill("review", "accept", "good", "bad", "-m", "fine")
	a.packmill("review", "reject", "ugly", "-m", "no")
	a.packmill("requeue", "ugly")
	a.daemon("reviewd")
	a.packmill("review", "accept", "ugly")
	a.daemon("master-buildd")
	a.daemon("buildd", "--arch", "amd64")
	a.packmill("wb", "fail", "bad", ".", "amd64", ".", "-m", "it is bad")
	a.packmill("requeue", "bad", "-m", "again")
	a.packmill("cancel", "bad", "amd64", "-m", "no more")
	a.packmill("cancel", "good", "i386", "-m", "not there")
	a.packmill("build", "fail", "ugly", "-a", "amd64", "-m", "wrong log")
	a.packmill("wb", "bp", "5", "ugly", ".", "i386")
	// A result that only root can read.
	elsewhere := t.TempDir()
	a.must(os.Chmod(elsewhere, 0o700))
	built := filepath.Dir(a.one("queue/stable/amd64/built/*_good_1.0/result/*.changes"))
	a.must(os.CopyFS(filepath.Join(elsewhere, "good"), os.DirFS(built)))
	a.packmill("wb", "take", "good", ".", "amd64", ".", "--override")
	a.packmill("wb", "built", "good", ".", "amd64", ".", "--changes",
		filepath.Join(elsewhere, "good/good_1.0_amd64.changes"))
	a.has(a.where(), "attic amd64 bad_1.0", "attic i386 good_1.0", "built amd64 good_1.0", "failed amd64 ugly_1.0")
	if got := a.ofRoot(); len(got) > 0 {
		t.Errorf("root's: %q", got)
	}
	// What a crash left, and an item that is none.
	job := a.one("queue/stable/amd64/failed/*_ugly_1.0")
	a.must(os.Remove(filepath.Join(job, "ticket")))
	half := filepath.Join(job, ".new-1")
	a.must(os.WriteFile(half, nil, 0o644))
	own(t, spool.UserMaster, half)
	a.packmill("fsck", "--repair")
	a.has(a.where(), "rejected amd64 ugly_1.0")
	if got := a.ofRoot(); len(got) > 0 {
		t.Errorf("root's after fsck --repair: %q", got)
	}
	a.says(a.packmill("show", "good"), "by root")
}

// TestSwapUnderRoot: packmill-build exchanges a job with a link to a directory of root's, and
// with one of its own, as fast as it can, while root requeues and judges it. Nothing in
// root's directory changes, and nothing is made in its place.
func TestSwapUnderRoot(t *testing.T) {
	a := newAccounts(t)
	a.script("hello_1.0_amd64", "fail")
	a.drop(uploadtest.Package{Source: "hello", Version: "1.0"})
	a.daemon("reviewd")
	a.daemon("master-buildd")
	a.daemon("buildd", "--arch", "amd64")
	victim := filepath.Join(t.TempDir(), "victim")
	a.must(os.Mkdir(victim, 0o755))
	for _, name := range []string{"ticket", "history", "REASON", "failed", "plan", "result"} {
		a.must(os.WriteFile(filepath.Join(victim, name), []byte("root's\n"), 0o644))
	}
	before := a.tar(victim)
	stop := filepath.Join(a.home, "stop")
	done := make(chan string)
	go func() {
		// What the account may do in the queues; a job that is away at the moment comes again.
		out, err := a.sh(credential(t, spool.UserBuild), `cd queue/stable/amd64
n=0
while [ ! -e `+stop+` ]; do
  for i in */*_hello_1.0; do
    [ -d "$i" ] && [ ! -L "$i" ] || continue
    mv "$i" away 2>/dev/null || continue
    ln -s `+victim+` "$i" 2>/dev/null && rm -f "$i"
    mv -T away "$i" 2>/dev/null || mv away build-attempted/$(basename "$i")
    n=$((n+1))
    sleep 0.05
  done
done
echo $n`)
		if err != nil {
			out = "0 " + err.Error() + out
		}
		done <- out
	}()
	moved := 0
	for end := time.Now().Add(time.Minute); moved < 3 && time.Now().Before(end); {
		for _, args := range [][]string{{"requeue", "hello", "-m", "again"},
			{"wb", "fail", "hello", ".", "amd64", ".", "-m", "bad"}} {
			if _, err := a.try(args...); err == nil {
				moved++
			}
		}
	}
	a.must(os.WriteFile(stop, nil, 0o644))
	if out := <-done; strings.HasPrefix(out, "0") || moved == 0 {
		t.Errorf("%d moves, and of the swapper: %s", moved, out)
	}
	if after := a.tar(victim); after != before {
		t.Errorf("root's directory was\n%s\nand is\n%s", before, after)
	}
	if got := a.ofRoot(); len(got) > 0 {
		t.Errorf("root's: %q", got)
	}
}

// tar is what lies in a directory, with owners, times and contents.
func (a *accounts) tar(dir string) string {
	a.Helper()
	out, err := a.run("root", "sh", "-c", "cd "+dir+" && stat -c '%n %u %s %Y' . * && cat *")
	a.must(err)
	return out
}
