package incoming

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// proof is whose a directory of an account is, as the kernel says.
type proof struct {
	id    string // of the directory as it was looked at
	uid   uint32
	ok    bool
	until time.Time
}

// proofStays is how long what the system says of an account is believed.
const proofStays = time.Minute

// owner proves that a directory is the account's of its name: it belongs to that
// uid. Anybody may make a name beside it, where uploads are dropped by everyone;
// nobody can give what he makes to another. In a tree of one user the
// directories may be that user's, for nobody else can make one there.
func (b *Box) owner(account string) (uint32, bool) {
	var st, root unix.Stat_t
	if unix.Lstat(b.Path(Dir{Rel: account}), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR ||
		unix.Lstat(b.Tree.Path(Root), &root) != nil {
		return 0, false
	}
	id := fmt.Sprint(st.Dev, st.Ino, st.Ctim)
	b.mu.Lock()
	p, ok := b.proofs[account]
	b.mu.Unlock()
	if ok && p.id == id && time.Now().Before(p.until) {
		return p.uid, p.ok
	}
	p = proof{id: id, uid: st.Uid, until: time.Now().Add(proofStays)}
	u, err := user.Lookup(account)
	switch {
	case err == nil && u.Uid == strconv.FormatUint(uint64(st.Uid), 10):
		p.ok = true
	case !b.Tree.Separate():
		p.ok = st.Uid == root.Uid
	case err == nil:
		// Of an older uploader add: reviewd's, and of the account's group.
		p.ok = st.Uid == root.Uid && u.Gid == strconv.FormatUint(uint64(st.Gid), 10)
		if uid, perr := strconv.ParseUint(u.Uid, 10, 32); perr == nil {
			p.uid = uint32(uid)
		}
	}
	b.mu.Lock()
	if b.proofs == nil || len(b.proofs) > 10000 {
		b.proofs = map[string]proof{}
	}
	b.proofs[account] = p
	b.mu.Unlock()
	return p.uid, p.ok
}

// Foreign says why a file in an account's directory is not from that account,
// "" if it is, or may be. In the shared directory, and where the daemons are one
// user, the kernel proves nothing, and signatures do.
func (b *Box) Foreign(d Dir, st *unix.Stat_t) string {
	if d.Account == "" || !b.Tree.Separate() {
		return ""
	}
	uid, ok := b.owner(d.Account)
	if ok && (st.Uid == uid || st.Uid == 0 || int(st.Uid) == os.Geteuid()) {
		return ""
	}
	return fmt.Sprintf(" belongs to the user %d, and not to %s", st.Uid, d.Account)
}

// Disputed are directories that bear the name of an account and are not that
// account's: nothing is taken from them.
func (b *Box) Disputed() []string {
	entries, err := os.ReadDir(b.Tree.Path(Root))
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && e.Name() != DelayedDir && accountName().MatchString(e.Name()) {
			if _, ok := b.owner(e.Name()); !ok {
				out = append(out, e.Name())
			}
		}
	}
	return out
}
