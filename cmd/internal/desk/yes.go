package desk

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"packmill/cmd/internal/account"
	"packmill/internal/durable"
	"packmill/internal/regular"
	"packmill/spool"
	"packmill/spool/statement"
)

// seconded reports whether somebody else has accepted the upload. Where the daemons
// have accounts of their own, the proof is not a line that any reviewer could have
// written: a person's yes is a file in spool.YesDir that this person's uid owns, with
// the checksum of the statement of what was said yes to. Nobody makes another's file,
// and in that sticky directory nobody takes one away but its owner and reviewd.
func (d *Desk) seconded(it *spool.Item, who string) (bool, error) {
	if !d.tree.Separate() {
		return said(ReadOpinions(it.Path()), who), nil
	}
	what, err := yesTo(it)
	if err != nil {
		return false, err
	}
	entries, err := os.ReadDir(d.tree.Path(spool.YesDir))
	if err != nil {
		return false, err
	}
	mine := false
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), it.Name.String()+".") {
			continue
		}
		switch uid, text := yesOf(d.tree.Path(spool.YesDir, e.Name())); {
		case text != what:
		case uid == person():
			mine = true
		default:
			return true, nil
		}
	}
	if mine {
		return false, nil
	}
	return false, account.Back(func() error { return d.sayYes(it, what) })
}

// yesTo is what stands in a yes to the upload.
func yesTo(it *spool.Item) (string, error) {
	text, err := regular.Read(it.Path(statement.File), 4<<20)
	return fmt.Sprintf("%x\n", sha256.Sum256(text)), err
}

// yesOf reads a yes: whose it is, by the kernel, and to what. One with two names
// was not made where it lies.
func yesOf(path string) (uid int, text string) {
	f, err := regular.Open(path)
	if err != nil {
		return -1, ""
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return -1, ""
	}
	sys := st.Sys().(*syscall.Stat_t)
	data, err := regular.ReadAll(f, 100)
	if err != nil || sys.Nlink != 1 {
		return -1, ""
	}
	return int(sys.Uid), string(data)
}

// sayYes makes the person's file. Root by sudo gives it to who called.
func (d *Desk) sayYes(it *spool.Item, what string) error {
	path := d.tree.Path(spool.YesDir, it.Name.String()+"."+rand.Text()[:12])
	if err := durable.CreateFile(path, []byte(what), 0o644); err != nil {
		return err
	}
	if uid := person(); uid != os.Geteuid() {
		return os.Lchown(path, uid, -1)
	}
	return nil
}

// person is the uid of who says it: for root, of who called sudo.
func person() int {
	uid := os.Getuid()
	if sudo, err := strconv.Atoi(os.Getenv("SUDO_UID")); uid == 0 && err == nil {
		return sudo
	}
	return uid
}
