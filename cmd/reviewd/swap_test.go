package main

import (
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"packmill/spool"
)

// TestSwapper: somebody exchanges his drop directory with a link to another account's
// as fast as he can, while his uploads are taken in, and lists files of that
// account's. None of them is touched, whatever lies between a check and a use.
func TestSwapper(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	mine, link := s.drop("robot", "DELAYED", "0-day"), s.drop("robot", "DELAYED", "link")
	for _, dir := range []string{mine, s.drop("victim")} {
		if err := os.MkdirAll(dir, 0o775); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../../victim", link); err != nil {
		t.Fatal(err)
	}
	real, err := os.Open(mine)
	if err != nil {
		t.Fatal(err)
	}
	defer real.Close()
	const secret = "the victim's own\n"
	text := strings.Repeat("x", len(secret))
	in := fmt.Sprintf("/proc/self/fd/%d/", real.Fd())
	var stop atomic.Bool
	done := make(chan int)
	go func() {
		n := 0
		for ; !stop.Load(); n++ {
			unix.Renameat2(unix.AT_FDCWD, mine, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
		}
		done <- n
	}()
	for i := range 25 {
		name := fmt.Sprintf("swap_%d.dsc", i)
		s.write("spool/incoming/victim/"+name, secret)
		if err := os.WriteFile(in+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		changes := fmt.Sprintf("Format: 1.8\nDate: Sat, 28 Nov 2026 00:00:00 +0000\nSource: swap\nArchitecture: source\n"+
			"Version: %d\nDistribution: stable\n"+
			"Maintainer: R <robot@example.org>\nChanges:\n x\nChecksums-Sha256:\n %x %d %s\nFiles:\n %x %d misc optional %s\n",
			i, sha256.Sum256([]byte(secret)), len(secret), name, md5.Sum([]byte(secret)), len(secret), name)
		if err := os.WriteFile(in+fmt.Sprintf("swap_%d_source.changes", i), []byte(changes), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.start()
	s.until("some are judged", func() bool { return len(s.where("swap", spool.Rejected)) >= 8 })
	stop.Store(true)
	s.until("all are judged", func() bool { return len(s.where("swap", spool.Rejected)) == 25 })
	if n := <-done; n < 1000 {
		t.Errorf("only %d exchanges", n)
	}
	for i := range 25 {
		data, err := os.ReadFile(s.drop("victim", fmt.Sprintf("swap_%d.dsc", i)))
		if err != nil || string(data) != secret {
			t.Errorf("the victim's swap_%d.dsc: %q, %v", i, data, err)
		}
	}
	for _, f := range s.where("swap", spool.Rejected) {
		for _, name := range s.files(f) {
			if data, _ := os.ReadFile(s.tree.Path(f.Dir(), name)); string(data) == secret {
				t.Errorf("%s has the victim's %s", f.Name, name)
			}
		}
	}
}
