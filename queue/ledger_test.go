package queue

import (
	"os"
	"testing"
	"time"

	"packmill/spool"
)

// The entry of a job goes when the job has gone, once a day; that of a job that
// is anywhere stays, and so nobody makes it again.
func TestSweepLedgers(t *testing.T) {
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	job := &Job{
		Ticket: &Ticket{Source: "hello", Version: "1:2.10-3", Suite: "sid"}, Arch: "amd64", Class: 50, Time: testTime,
		State: spool.NeedsBuild, By: spool.MasterD, Who: "test", Reason: "test",
	}
	f, err := Make(tree, job)
	if err != nil {
		t.Fatal(err)
	}
	entry := tree.Path("queue/sid/amd64/ledger/hello_1%3a2.10-3")
	sweep := func(every time.Duration, want int, left bool) {
		t.Helper()
		if n, err := SweepLedgers(tree, every); n != want || err != nil {
			t.Errorf("SweepLedgers(%v): got %d, %v, want %d", every, n, err, want)
		}
		if _, err := os.Lstat(entry); (err == nil) != left {
			t.Errorf("after SweepLedgers(%v): the entry is there: %v, want %v", every, err == nil, left)
		}
	}
	sweep(0, 0, true)
	if err := os.RemoveAll(tree.Path(f.Dir())); err != nil {
		t.Fatal(err)
	}
	sweep(time.Hour, 0, true)
	sweep(0, 1, false)
}
