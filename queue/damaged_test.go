package queue

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"packmill/spool"
)

// What may pass is no verdict on an item: too many open files is not a ticket
// that cannot be read.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	_, missing := spool.ReadTicket(dir)
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, spool.TicketFile)); err != nil {
		t.Fatal(err)
	}
	_, link := spool.ReadTicket(dir)
	for _, r := range []struct {
		err  error
		want bool
	}{
		{missing, true},
		{link, true},
		{errors.New("ticket:3: Version: bad"), true},
		{&fs.PathError{Op: "open", Path: "ticket", Err: unix.EMFILE}, false},
		{&fs.PathError{Op: "read", Path: "ticket", Err: unix.EIO}, false},
	} {
		if got := Damaged(r.err); got != r.want {
			t.Errorf("%v: got %v, want %v", r.err, got, r.want)
		}
	}
}
