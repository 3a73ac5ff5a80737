package runner

import (
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// What a build left behind is ended, and the child that another build starts at
// that moment is not, although it has our descriptors until its exec.
func TestKillHolders(t *testing.T) {
	lock, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	left := exec.Command("sleep", "1000")
	left.ExtraFiles = []*os.File{lock}
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var killers sync.WaitGroup
	for range 2 {
		killers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					killHolders(lock)
				}
			}
		})
	}
	for range 200 {
		other := exec.Command("true")
		if os.Getuid() == 0 {
			// A process of its own memory, as every runner's helper is: the
			// way to its exec is longer.
			other.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
		}
		if err := other.Run(); err != nil {
			t.Errorf("a child that holds nothing: %v", err)
			break
		}
	}
	close(stop)
	killers.Wait()
	if err := left.Wait(); err == nil {
		t.Error("what held the lock ended by itself")
	}
}
