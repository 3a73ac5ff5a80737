package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"packmill/spool"
)

// keeping is how many bytes reviewd keeps for each account, "" being the shared
// drop directory: what is in work, waits for review, was refused or put away.
type keeping struct {
	mu    sync.Mutex
	at    time.Time        // when it was counted
	by    map[string]int64 // bytes, by account
	items map[string]kept  // what was counted, by path below the tree
}

type kept struct {
	account string
	bytes   int64
}

// countAgain is how old a count may be: what was swept makes room.
const countAgain = 10 * time.Second

// roomOf says why an account may bring no more bytes: it has its quota here.
// A quota bounds what is kept for an account, and not what it may have in its own
// directory, which the file system's quotas do. If the answer is nil the bytes count.
func (in *intake) roomOf(account string, bytes int64) error {
	quota := in.Settings.Get().QuotaOf(account)
	if quota == 0 {
		return nil
	}
	k := &in.kept
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Since(k.at) > countAgain {
		if err := in.count(); err != nil {
			return err
		}
	}
	if have := k.by[account]; have+bytes > quota {
		return fmt.Errorf("%d MiB are kept for %s already, of %d that may be (Quota in control/uploaders, "+
			"or control/general): it goes on when what was refused has been swept, "+
			"or when whoever runs the archive gives it more",
			have>>20, whose(account), quota>>20)
	}
	k.by[account] += bytes
	return nil
}

func whose(account string) string {
	if account == "" {
		return "the shared drop directory"
	}
	return account
}

// keptForUploader reports whether what lies in a state counts against its account:
// the uploads that are not in the queues or the archive.
func keptForUploader(s spool.State) bool {
	return s.Is(spool.Sources) && !s.Is(spool.Queued) && !s.Is(spool.Jobs)
}

// count counts anew; an item that has been in a place since the last time is
// not looked at again. Those in intake change, and always are.
func (in *intake) count() error {
	k := &in.kept
	by, items := map[string]int64{}, map[string]kept{}
	places, err := in.Tree.Places(in.Tree.Where(keptForUploader)...)
	if err != nil {
		return err
	}
	for _, p := range places {
		names, err := in.Tree.List(p)
		if err != nil {
			return err
		}
		for _, name := range names {
			rel := filepath.Join(p.Dir(), name)
			x, known := k.items[rel]
			if !known || p.State == spool.Intake {
				if x, err = weigh(in.Tree.Path(rel)); err != nil {
					continue // it moved on, or is fsck's business
				}
			}
			items[rel] = x
			by[x.account] += x.bytes
		}
	}
	k.at, k.by, k.items = time.Now(), by, items
	return nil
}

// weigh reads whose an item is, and what would be free if it went: files that
// have no other name.
func weigh(dir string) (kept, error) {
	st, err := spool.ReadTicket(dir)
	if err != nil {
		return kept{}, err
	}
	x := kept{account: st.Get("Account")}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := os.Lstat(path)
		if sys, ok := sysOf(info); err == nil && ok && sys.Nlink == 1 {
			x.bytes += info.Size()
		}
		return nil
	})
	return x, err
}

func sysOf(info fs.FileInfo) (*syscall.Stat_t, bool) {
	if info == nil {
		return nil, false
	}
	sys, ok := info.Sys().(*syscall.Stat_t)
	return sys, ok
}
