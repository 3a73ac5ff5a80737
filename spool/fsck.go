package spool

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"packmill/internal/durable"
	"packmill/internal/policy"
)

// Kind names what is wrong with a Finding.
type Kind string

// The kinds, and what they say of the promises that the tree makes.
const (
	Stray     Kind = "stray"     // something that is nobody's: not an item, not a part of the tree
	BadItem   Kind = "bad item"  // an item without a ticket that fits its name
	Twice     Kind = "twice"     // one package in two states
	Untold    Kind = "untold"    // the history does not end where the item lies
	Leftover  Kind = "leftover"  // a half-written file of a dead process
	Abandoned Kind = "abandoned" // an item that a dead process claimed: its daemon will take it up
	Unready   Kind = "unready"   // a part of the tree is missing, or lies on another file system
	Lost      Kind = "lost"      // the journal tells of it, and it is nowhere
	Unknown   Kind = "unknown"   // its name is not among those of its source
)

// Finding is one thing that breaks a promise.
type Finding struct {
	Kind Kind   `json:"kind"`
	Path string `json:"path"` // below the tree
	Text string `json:"text"` // a sentence
	Cure string `json:"cure"` // what Repair does, or what a person or which daemon does
	// Repair, if there is one answer, gives it; Mend calls it.
	Repair func() error `json:"-"`
}

func (f Finding) String() string {
	return fmt.Sprintf("%s: %s: %s; %s", f.Path, f.Kind, f.Text, f.Cure)
}

// Mendable reports whether Mend can do something about it.
func (f Finding) Mendable() bool { return f.Repair != nil }

// Mend does what Cure says. It takes the lock of what it changes and looks
// again first, so it may run beside working daemons: ErrBusy and ErrGone say
// that somebody else came first.
func (f Finding) Mend() error {
	if f.Repair == nil {
		return fmt.Errorf("mend %s: only a person can: %s", f.Path, f.Cure)
	}
	if err := f.Repair(); err != nil {
		return fmt.Errorf("mend %s: %w", f.Path, err)
	}
	return nil
}

// strayDir is where Mend puts what is not an item: each thing in a directory
// of its own, beside a REASON.
const strayDir = "attic/strays"

// birthLimit is the age at which something in tmp whose lock is free belongs
// to nobody: a process locks the directory of a birth at once after it made it.
const birthLimit = 10 * time.Minute

// HalfWritten reports whether the file or directory of that name and time is one
// that a crash cut off: a writer renames what it began within minutes.
func HalfWritten(name string, changed, now time.Time) bool {
	return strings.HasPrefix(name, durable.NewPrefix) && now.Sub(changed) > birthLimit
}

// Fsck looks at everything in the tree and reports what breaks its promises:
// every item in exactly one state, with a ticket that fits its name and a
// history that ends where it lies, and nothing else anywhere. What lies in
// spool/incoming is the uploaders', and below pool, dists, opkg and snapshots
// the archive's; those are not looked at.
//
// It changes nothing. Beside working daemons it reports nothing that is only
// on its way: an item that is locked is left out. Each of look is called for
// each item while Fsck has its lock, and adds what it finds.
func (t *Tree) Fsck(look ...func(Found) []Finding) ([]Finding, error) {
	c := &checker{tree: t, look: look, seen: map[uint64]bool{}, once: map[uint64]bool{}, again: map[string]bool{}}
	c.unread, c.named = t.namesComplete()
	if c.separate = t.Separate(); c.separate {
		var err error
		if c.groups, err = itemGroups(); err != nil {
			return nil, err
		}
	}
	if err := c.parts(); err != nil {
		return nil, err
	}
	if err := c.walk("."); err != nil {
		return nil, err
	}
	c.births()
	if err := cmp.Or(c.twice(), c.rights(), c.trouble); err != nil {
		return nil, fmt.Errorf("fsck: %w", err)
	}
	// What is put away first may be in the way of another repair.
	slices.SortStableFunc(c.findings, func(a, b Finding) int {
		if (a.Kind == Stray) != (b.Kind == Stray) {
			return map[bool]int{true: -1, false: 1}[a.Kind == Stray]
		}
		return strings.Compare(a.Path, b.Path)
	})
	return c.findings, nil
}

type checker struct {
	tree     *Tree
	look     []func(Found) []Finding
	separate bool         // the daemons run as different users
	groups   map[bool]int // of sources and of jobs, then
	trouble  error
	findings []Finding
	named    bool            // the names of items are all written down
	unread   []string        // but for those in these states
	seen     map[uint64]bool // inodes of items: one that moves while we look is met twice
	once     map[uint64]bool // hashes of what may exist only once, and was met
	again    map[string]bool // what was met again
}

func (c *checker) report(f Finding) { c.findings = append(c.findings, f) }

// Misowned says what is wrong with whose an item is, so that the account that is to move it perhaps
// cannot: a sentence, or "".
func (t *Tree) Misowned(f Found) string {
	info, err := os.Lstat(t.Path(f.Dir()))
	if err != nil || !f.Place.State.shared() {
		return ""
	}
	c := &checker{tree: t, separate: t.Separate()}
	if c.separate {
		if c.groups, err = itemGroups(); err != nil {
			return ""
		}
	}
	c.mine(f, info.Sys().(*syscall.Stat_t).Uid)
	if len(c.findings) == 0 {
		return ""
	}
	return c.findings[0].Text
}

// parts checks what Open checks, and says all of it.
func (c *checker) parts() error {
	for _, p := range c.tree.parts() {
		var st unix.Stat_t
		err := unix.Lstat(c.tree.Path(p), &st)
		switch {
		case errors.Is(err, unix.ENOENT):
			c.report(Finding{Unready, p, "a directory of the tree is missing", "packmill init makes it",
				func() error { return durable.MkdirAll(c.tree.Path(p), 0o775) }})
		case err != nil:
			return fmt.Errorf("fsck %s: %w", p, err)
		case st.Mode&unix.S_IFMT != unix.S_IFDIR:
			c.report(Finding{Unready, p, "it must be a directory", "move it away, and run: packmill init", nil})
		case st.Dev != c.tree.id.Dev:
			c.report(Finding{Unready, p, "it is on another file system, so a move to it is not one rename",
				"mount the file system at the tree's root", nil})
		}
	}
	return nil
}

// foreign are the directories whose contents are not the engine's to judge:
// settings, the uploaders', and the archive's own.
var foreign = []string{"control", "journal", LogsDir, BuildersDir, "tmp", "spool/incoming", filepath.Dir(LettersDir),
	YesDir, strayDir, "attic/pool", "attic/opkg"}

// walk follows the directories that the shapes name.
func (c *checker) walk(dir string) error {
	if p, ok := c.tree.PlaceOf(dir); ok {
		return c.place(p)
	}
	entries, err := os.ReadDir(c.tree.Path(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("fsck %s: %w", dir, err)
	}
	for _, e := range entries {
		rel := filepath.Join(dir, e.Name())
		switch {
		case slices.Contains(foreign, rel), dir == "archive" && rel != "archive/incoming" && rel != "archive/installed",
			rel == "lost+found" && e.IsDir(), isLedger(rel):
		case e.IsDir() && c.leads(rel):
			if err := c.walk(rel); err != nil {
				return err
			}
		default:
			c.stray(rel, "")
		}
	}
	return nil
}

// isLedger reports whether rel is queue/SUITE/ARCH/ledger.
func isLedger(rel string) bool {
	w := strings.Split(rel, "/")
	return len(w) == 4 && w[0] == "queue" && w[3] == LedgerDir
}

// leads reports whether rel is the beginning of some shape.
func (c *checker) leads(rel string) bool {
	got := strings.Split(rel, "/")
	for _, s := range c.tree.States {
		want := strings.Split(s.Dir, "/")
		if len(got) > len(want) {
			continue
		}
		p := Place{State: s}
		if p.match(want[:len(got)], got) {
			return true
		}
	}
	return false
}

// place looks at everything in one state's directory.
func (c *checker) place(p Place) error {
	dir, err := os.Open(c.tree.Path(p.Dir()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("fsck %s: %w", p, err)
	}
	defer dir.Close()
	for {
		entries, err := dir.ReadDir(1024)
		for _, e := range entries {
			c.entry(p, e)
		}
		if err == io.EOF || errors.Is(err, fs.ErrNotExist) { // it ended, or is removed meanwhile
			return nil
		}
		if err != nil {
			return fmt.Errorf("fsck %s: %w", p, err)
		}
	}
}

// entry looks at one thing in a state's directory.
func (c *checker) entry(p Place, e fs.DirEntry) {
	rel := filepath.Join(p.Dir(), e.Name())
	if slices.Contains(foreign, rel) {
		return
	}
	n, err := ParseName(e.Name())
	switch {
	case err != nil:
		c.stray(rel, err.Error())
	case !e.IsDir():
		c.stray(rel, "it has an item's name and is not a directory")
	case p.State.Has("HASH") && p.Hash != policy.PoolPrefix(n.Source):
		c.stray(rel, fmt.Sprintf("an %s %s lies below %s", p.State, n.Source, policy.PoolPrefix(n.Source)))
	default:
		c.item(p, n)
	}
}

// item looks into one item, under its lock.
func (c *checker) item(p Place, n Name) {
	rel := filepath.Join(p.Dir(), n.String())
	dir := c.tree.Path(rel)
	info, err := os.Lstat(dir)
	if err != nil {
		return // it has moved on
	}
	ino := info.Sys().(*syscall.Stat_t).Ino
	if c.seen[ino] {
		return
	}
	c.seen[ino] = true
	if !p.State.Is(Raw) {
		c.count(p, n)
	}
	lock, err := lockDir(dir)
	switch {
	case errors.Is(err, ErrBusy), errors.Is(err, ErrGone):
		return
	case Scarce(err):
		c.trouble = err // ours, not the item's
		return
	case err != nil:
		c.report(Finding{BadItem, rel, "it cannot be opened: " + err.Error(),
			"give it the owner and mode that its neighbours have", nil})
		return
	}
	defer lock.Close()
	// A person's mv asks for no lock: of what left meanwhile nothing is said.
	before := len(c.findings)
	c.locked(Found{p, n}, rel, info)
	if st, err := os.Lstat(dir); err != nil || st.Sys().(*syscall.Stat_t).Ino != ino {
		c.findings = c.findings[:before]
	}
}

// locked looks into an item whose lock it has.
func (c *checker) locked(f Found, rel string, info fs.FileInfo) {
	p, n, dir := f.Place, f.Name, c.tree.Path(rel)
	// What reviewd has only just claimed has no ticket yet, and what was
	// refused may never get one.
	raw := p.State.Is(Raw)
	strays := c.inside(p, n, raw || p.State == Building)
	why, err := misfit(dir, n)
	if err != nil {
		c.trouble = err // ours, not the item's
		return
	}
	if why != "" && !raw {
		c.report(Finding{BadItem, rel, why,
			"it goes to " + In(Rejected).Dir() + " with a REASON; look into it, and requeue or remove it",
			func() error { return c.tree.Quarantine(f, why) }})
	}
	if p.State.shared() {
		c.mine(Found{p, n}, info.Sys().(*syscall.Stat_t).Uid)
	}
	if e, differs := handMove(dir, p); differs {
		c.report(Finding{Untold, rel, fmt.Sprintf("its history ends in %s (%s)", e.From, e.Reason),
			"the move is written into it",
			func() error {
				it, err := c.tree.Claim(p, n.String())
				if err == nil {
					it.Release()
				}
				return err
			}})
	}
	if names, known := c.tree.names(n.Source); c.named && !slices.Contains(c.unread, p.State.Name) && known &&
		!slices.Contains(names, n.born()) {
		c.report(Finding{Unknown, rel, "its name is not written down, so who asks for " + n.Source + " does not see it",
			"the name is written down", func() error { return c.tree.Note(n) }})
	}
	if p.State == Building && !takenByHand(dir) && Leased(dir, time.Now()) == nil {
		c.report(Finding{Abandoned, rel, "no process has its lock, so its builder is gone",
			"buildd gives it back when it looks next", nil})
	}
	if strays {
		return
	}
	for _, look := range c.look {
		c.findings = append(c.findings, look(f)...)
	}
}

// takenByHand reports whether a person builds the job, without a lock.
func takenByHand(dir string) bool {
	t, err := ReadTicket(dir)
	return err == nil && t.Get("Taken-By") != ""
}

// misfit says why the item at dir is not one of that name, "" if it is.
func misfit(dir string, n Name) (why string, err error) {
	ticket, err := ReadTicket(dir)
	switch {
	case Scarce(err):
		return "", err
	case errors.Is(err, fs.ErrNotExist):
		return "it has no ticket", nil
	case err != nil:
		return err.Error(), nil
	case ticket.Get("Source") != n.Source:
		return fmt.Sprintf("its ticket is of the source %q", ticket.Get("Source")), nil
	case ticket.Get("Version") != n.Version:
		return fmt.Sprintf("its ticket is of the version %q", ticket.Get("Version")), nil
	}
	return "", nil
}

// inside looks for what has no business in an item: what a process left
// half-written, and anything that is neither a file nor a directory. What a dead
// builder left lies as it is until the job is given back, and what a stranger
// sent, where it is refused and kept (any).
func (c *checker) inside(p Place, n Name, any bool) (strays bool) {
	dir := c.tree.Path(p.Dir(), n.String())
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return nil
		}
		rel, err := filepath.Rel(c.tree.root, path)
		if err != nil {
			return nil
		}
		own := filepath.Dir(path) == dir && (e.Name() == TicketFile || e.Name() == HistoryFile || e.Name() == ReasonFile)
		switch {
		case e.Type().IsRegular() && strings.HasPrefix(e.Name(), durable.NewPrefix):
			c.report(Finding{Leftover, rel, "a write that a crash cut off", "it is removed", func() error {
				it, err := c.tree.Claim(p, n.String())
				if err != nil {
					return err
				}
				defer it.Release()
				return durable.Remove(path)
			}})
		case e.Type().IsRegular(), (e.IsDir() || any) && !own:
		default:
			strays = true
			text := fmt.Sprintf("an item has files and directories, and this is one of mode %s", e.Type())
			c.report(Finding{Stray, rel, text, "it goes to " + strayDir + " with a REASON", func() error {
				lock, err := lockDir(dir)
				if err != nil {
					return err
				}
				defer lock.Close()
				return c.tree.PutAway(rel, text)
			}})
			if e.IsDir() {
				return filepath.SkipDir
			}
		}
		return nil
	})
	return strays
}

// single names what the item is and may exist only once; "": there may be more of it.
func single(p Place, n Name) string {
	id := n.ID() + " in " + p.Suite
	switch arch := (Found{p, n}).Arch(); {
	case arch != "" && arch != SourceArch:
		// What is in the archive may be built anew there (a binNMU).
		if p.State == Installed {
			return ""
		}
		return "job " + id + " for " + arch
	case p.State == Uploaded:
		// In source-first the source goes ahead, and comes again when all
		// architectures have settled.
		return ""
	case p.State == Installed:
		return "installed source " + id
	}
	return "source " + id
}

// count notes what the item is. Of the many that are met once only a hash is held.
func (c *checker) count(p Place, n Name) {
	id := single(p, n)
	if id == "" {
		return
	}
	h := fnv.New64a()
	h.Write([]byte(id))
	if c.once[h.Sum64()] {
		c.again[id] = true
	}
	c.once[h.Sum64()] = true
}

// twice reports what lies in two states. It is looked for again: one that moved while
// the tree was read is not two.
func (c *checker) twice() error {
	there := map[string][]Found{}
	places, err := c.tree.Places(c.tree.Where(func(s State) bool { return !s.Is(Raw) })...)
	if err != nil || len(c.again) == 0 {
		return err
	}
	for _, p := range places {
		if err := c.tree.Each(p, func(name string) {
			if n, err := ParseName(name); err == nil && c.again[single(p, n)] {
				there[single(p, n)] = append(there[single(p, n)], Found{p, n})
			}
		}); err != nil {
			return err
		}
	}
	for what, list := range there {
		list = slices.DeleteFunc(list, func(f Found) bool {
			_, err := os.Lstat(c.tree.Path(f.Dir()))
			return err != nil
		})
		if len(list) < 2 {
			continue
		}
		// The one that came further stays.
		last := slices.MaxFunc(list, func(a, b Found) int { return c.rank(a) - c.rank(b) })
		for _, f := range list {
			if f == last {
				continue
			}
			why := fmt.Sprintf("the %s lies in %s too", what, last.Dir())
			c.report(Finding{Twice, f.Dir(), why, "it goes to the attic, and the one that came further stays",
				func() error { return c.tree.makeWay(f, last, why) }})
		}
	}
	return nil
}

// rank is how far an item is in a package's life.
func (c *checker) rank(f Found) int { return slices.Index(c.tree.States, f.Place.State) }

// births looks at tmp. What is locked is being made.
func (c *checker) births() {
	entries, err := os.ReadDir(c.tree.Path("tmp"))
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || c.tree.now().Sub(info.ModTime()) < birthLimit {
			continue
		}
		rel := filepath.Join("tmp", e.Name())
		path := c.tree.Path(rel)
		if !e.IsDir() {
			c.report(Finding{Leftover, rel, "nobody makes plain files here", "it is removed", func() error {
				return durable.Remove(path)
			}})
			continue
		}
		lock, err := lockDir(path)
		if err != nil {
			continue
		}
		lock.Close()
		c.report(Finding{Leftover, rel, "a birth that a crash cut off", "it is removed", func() error {
			lock, err := lockDir(path)
			if err != nil {
				return err
			}
			defer lock.Close()
			return durable.RemoveAll(path)
		}})
	}
}

// stray reports a thing that is nobody's.
func (c *checker) stray(rel, why string) {
	info, err := os.Lstat(c.tree.Path(rel))
	if err != nil {
		return
	}
	base := filepath.Base(rel)
	if strings.HasPrefix(base, durable.NewPrefix) && info.Mode().IsRegular() {
		// A file is half-written for as long as its writer takes.
		if c.tree.now().Sub(info.ModTime()) > birthLimit {
			c.report(Finding{Leftover, rel, "a write that a crash cut off", "it is removed",
				func() error { return durable.Remove(c.tree.Path(rel)) }})
		}
		return
	}
	text := "it is not an item and not a part of the tree"
	if why != "" {
		text = why
	}
	c.report(Finding{Stray, rel, text, "it goes to " + strayDir + " with a REASON",
		func() error { return c.tree.PutAway(rel, text) }})
}

// Quarantine moves an item that no handler can work on to Rejected, with a
// REASON. It is a person's move, whatever the table says of the state.
func (t *Tree) Quarantine(f Found, why string) error {
	it, err := t.Claim(f.Place, f.Name.String())
	if err != nil {
		return err
	}
	defer it.Release()
	return it.quarantine(In(Rejected), why)
}

// makeWay takes f out of the way of the one that stays.
func (t *Tree) makeWay(f, stays Found, why string) error {
	it, err := t.Claim(f.Place, f.Name.String())
	if err != nil {
		return err
	}
	defer it.Release()
	if _, err := os.Lstat(t.Path(stays.Dir())); err != nil {
		return ErrGone
	}
	return it.quarantine(In(Attic), why)
}

// quarantine moves a claimed item past the table of moves, with a REASON.
func (it *Item) quarantine(to Place, why string) error {
	return it.PutRight(to, "fsck", why, fmt.Sprintf("packmill fsck took this out of %s: %s.\n", it.Place, why))
}

// PutRight moves a claimed item past the table of moves, with a REASON: out of
// where no handler can work on it, because a person's mv or a fault brought it
// there.
func (it *Item) PutRight(to Place, who, why, text string) error {
	if err := it.Writable(to); err != nil {
		return err
	}
	if err := it.WriteFile(ReasonFile, []byte(strings.TrimRight(text, "\n")+"\n")); err != nil {
		return err
	}
	e := Event{Time: it.tree.now().UTC(), From: it.Place.Dir(), To: to.Dir(), Who: who, Reason: why}
	if err := durable.Append(it.At(HistoryFile), e.line(), 0o664); err != nil {
		return err
	}
	name := it.nameAt(to)
	if st, err := it.Ticket(); err == nil && st.Get(ArchField) == "" && to.State == Rejected {
		name.Arch = it.Name.Arch // a source: the place's architecture is not its own
	}
	if err := it.rename(it.Path(), to, &name); err != nil {
		return err
	}
	it.Place, it.Name = to, name
	return it.tree.record(name.String(), e)
}

// PutAway moves a stray at rel, below the tree, to the attic's strays, beside a REASON.
func (t *Tree) PutAway(rel, why string) error {
	dir := t.Path(strayDir, t.now().UTC().Format(OrderTime))
	if err := durable.MkdirAll(dir, 0o775); err != nil {
		return err
	}
	text := fmt.Sprintf("packmill fsck took this out of %s: %s.\nRemove it, or put it where it belongs.\n", rel, why)
	if err := durable.WriteFile(filepath.Join(dir, ReasonFile), []byte(text), 0o664); err != nil {
		return err
	}
	name := filepath.Base(rel)
	if name == ReasonFile {
		name = "stray-" + name
	}
	err := durable.Rename(t.Path(rel), filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return errors.Join(ErrGone, durable.RemoveAll(dir))
	}
	return err
}
