package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"packmill/queue"
	"packmill/spool"
)

// busy makes a tree whose jobs can be built and cannot, until told to stop.
func busy(t *testing.T) (tree *spool.Tree, stop func()) {
	t.Helper()
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var jobs []spool.Found
	for i := range 40 {
		tk := &queue.Ticket{Source: fmt.Sprintf("pkg%d", i), Version: "1.0", Suite: "sid", Architecture: []string{"any"},
			BuildArch: "amd64", Dsc: fmt.Sprintf("pkg%d_1.0.dsc", i)}
		f, err := queue.Make(tree, &queue.Job{Ticket: tk, Arch: "amd64", Class: 50, Time: time.Now(), State: spool.NeedsBuild,
			By: spool.MasterD, Who: "test", Reason: "test"})
		if err != nil {
			t.Fatal(err)
		}
		jobs = append(jobs, f)
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for n := 0; ; n++ {
			select {
			case <-end:
				return
			default:
			}
			f := &jobs[n*7%len(jobs)]
			it, err := tree.Claim(f.Place, f.Name.String())
			if errors.Is(err, spool.ErrBusy) {
				continue // rsync, forked and not begun yet, has the lock that was closed here
			}
			if err != nil {
				t.Error(err)
				return
			}
			to := spool.In(spool.BDUninstallable, "sid", "amd64")
			if f.Place.State == spool.BDUninstallable {
				to = spool.In(spool.NeedsBuild, "sid", "amd64")
			}
			if err := it.Move(spool.MasterD, "test", spool.Verdict{To: to, Reason: "test"}); err != nil {
				t.Error(err)
			}
			it.Release()
			f.Place, f.Name = it.Place, it.Name
		}
	}()
	stopped := false
	return tree, func() {
		if !stopped {
			stopped = true
			close(end)
			<-ended
		}
	}
}

// TestBackup: what is copied while jobs move is no backup, and says so; once there is a
// moment of rest it is a whole tree, with each job in one place.
func TestBackup(t *testing.T) {
	if _, err := exec.LookPath("rsync"); err != nil {
		t.Fatal(err)
	}
	tree, stop := busy(t)
	defer stop()
	b := &Backup{Tree: tree, To: filepath.Join(t.TempDir(), "a", "copy"), Tries: 3}
	if err := b.Check(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(b.To); err == nil {
		t.Error("to look whether there can be a backup made its directory")
	}
	if n, err := b.Run(context.Background()); !errors.Is(err, ErrMoves) || n != 3 {
		t.Errorf("while everything moves: %d copies, %v", n, err)
	}
	stop()
	if n, err := b.Run(context.Background()); err != nil || n != 1 {
		t.Fatalf("at rest: %d copies, %v", n, err)
	}
	copied, err := spool.Open(b.To)
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range []*spool.Tree{tree, copied} {
		if findings, err := tr.Fsck(); err != nil || len(findings) > 0 {
			t.Errorf("%s: %v, %v", tr.Root(), findings, err)
		}
	}
	list := func(tr *spool.Tree) string {
		found, err := tr.Find("", tr.Are(spool.Jobs)...)
		if err != nil || len(found) != 40 {
			t.Errorf("%s: %d jobs, %v", tr.Root(), len(found), err)
		}
		return fmt.Sprint(found)
	}
	if got, want := list(copied), list(tree); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestNowhere: a backup is not in the tree, and no option.
func TestNowhere(t *testing.T) {
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(tree.Root(), link); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{tree.Root(), tree.Path("attic/backup"), link, link + "/new/backup"} {
		if err := (&Backup{Tree: tree, To: to}).Check(); err == nil {
			t.Errorf("%s is taken", to)
		}
	}
	for _, to := range []string{"", "-e sh"} {
		if _, err := (&Backup{Tree: tree, To: to, Tries: 1}).Run(context.Background()); err == nil {
			t.Errorf("%q is taken", to)
		}
	}
	if Local("host:dir") || Local("me@host:/dir") || !Local("/a:b") || !Local("./a:b") {
		t.Error("which of them are this machine's?")
	}
}
