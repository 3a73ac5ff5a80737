package spool

import (
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What is locked lies where it was claimed, and stays there for as long as the
// lock is held: whoever moves it holds the lock. Without the comparison after
// flock(2) a claim that opened the directory just before a move succeeds just
// after it, in a place that the item has left.
func TestClaimedLiesWhereItWasClaimed(t *testing.T) {
	tree := newTree(t)
	name := NewName(50, t0, "hello", "1")
	p := In(NeedsBuild, "sid", "amd64")
	born(t, tree, p, MasterD, name)
	here, there := tree.Path(p.Dir(), name.String()), tree.Path("tmp", "there")
	var g sync.WaitGroup
	stop := make(chan struct{})
	g.Go(func() {
		from, to := here, there
		for {
			select {
			case <-stop:
				return
			default:
			}
			if f, err := lockDir(from); err == nil {
				if err := os.Rename(from, to); err != nil {
					t.Error(err)
				}
				f.Close()
				from, to = to, from
			}
		}
	})
	claimed, tries := 0, 0
	for end := time.Now().Add(time.Second); time.Now().Before(end) && claimed < 20000; tries++ {
		f, err := lockDir(here)
		if err != nil {
			continue
		}
		claimed++
		held, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		now, err := os.Lstat(here)
		if err != nil || now.Sys().(*syscall.Stat_t).Ino != held.Sys().(*syscall.Stat_t).Ino {
			t.Errorf("claim %d: the item is not where it was claimed (%v)", claimed, err)
			f.Close()
			break
		}
		f.Close()
	}
	close(stop)
	g.Wait()
	if claimed == 0 {
		t.Errorf("nothing was claimed in %d tries", tries)
	}
}
