//go:build linux && amd64

package crash

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"packmill/spool"
)

// A Sweep strikes one program at its points, one strike a run, each on a fresh
// copy of one small tree, restarts everything and checks the promises.
type Sweep struct {
	Name    string
	Tree    string                     // prepared; only copied
	Program func(tree string) *Program // the one that is struck
	// what is broken at once, before anything is restarted; may be nil
	Instant func(tree string) []string
	Settle  func(tree string) error                       // runs everything until nothing moves
	Check   func(tree string, acknowledged bool) []string // what is broken; nil: all is well

	Scratch string // directory for copies
	Seed    uint64
	Workers int
	Part    Part
	Only    *regexp.Regexp // what to try, as a broken promise names it; nil: all

	Restarts bool // its supervisor starts it again: a daemon, and not a verb
	Far      bool // it writes to another machine too: no power cuts
}

// A Part is the K-th of N parts of a sweep, from 1; the zero Part is all of it.
type Part struct{ K, N int }

// A Tally is how much was tried.
type Tally struct {
	Points int            // calls that change the tree, in a run that nothing struck
	Acts   map[string]int // strikes tried, by what was done
	Cuts   int            // moments of a power cut
	States int            // disks after a power cut that were tried
	Left   int            // strikes and disks that were not asked for
	Took   time.Duration
	Broken []string // each a sentence: where, what was done, what is wrong
}

func (t *Tally) String() string {
	var acts []string
	sum := 0
	for a, n := range t.Acts {
		acts = append(acts, fmt.Sprintf("%s %d", a, n))
		sum += n
	}
	slices.Sort(acts)
	return fmt.Sprintf("%d points, %d strikes (%s), %d disks of %d power cuts, %d left, %d broken, %s",
		t.Points, sum, strings.Join(acts, ", "), t.States, t.Cuts, t.Left, len(t.Broken), t.Took.Round(time.Second))
}

// A strike is one thing to try: do act at call n. With always, every later
// call that it fits fails too, until the program ends: a disk that is full
// stays full.
type strike struct {
	n      int
	act    Act
	always bool
}

func (s strike) String() string {
	if s.always {
		return fmt.Sprintf("from call %d on, %s", s.n, s.act)
	}
	return fmt.Sprintf("call %d, %s", s.n, s.act)
}

// name is the strike without its point, for counts.
func (s strike) name() string {
	if s.always {
		return s.act.String() + " for good"
	}
	return s.act.String()
}

// files reports whether it is a want of file descriptors.
func (s strike) files() bool { return s.act.Errno == unix.EMFILE || s.act.Errno == unix.ENFILE }

// fits reports whether the act makes sense for a call.
func (s strike) fits(c *Call) bool {
	switch {
	case s.act.Deed == Short || s.act.Deed == ShortKill:
		return c.Writes()
	case s.files():
		return c.Opens()
	case s.act.Errno == unix.ENOSPC || s.act.Errno == unix.EDQUOT:
		return c.Grows()
	case s.act.Errno == unix.EROFS:
		return !c.Syncs()
	}
	// An open for reading changes nothing: a kill there is the kill before.
	return !c.Opens() || c.Flags&openChanges != 0 || s.act.Deed == Fail
}

// strikes is what is tried at every call.
var strikes = []strike{
	{act: Act{Deed: KillBefore}},
	{act: Act{Deed: KillAfter}},
	{act: Act{Fail, unix.EIO}},
	{act: Act{FailDone, unix.EIO}},
	{act: Act{Fail, unix.ENOSPC}, always: true},
	{act: Act{Fail, unix.EDQUOT}},
	{act: Act{Fail, unix.EROFS}, always: true},
	{act: Act{Fail, unix.EMFILE}},
	{act: Act{Fail, unix.ENFILE}, always: true},
	{act: Act{Deed: Short}},
	{act: Act{Deed: ShortKill}},
}

// Run tries the strikes at every point and the disks of every power cut: n of
// them, chosen by chance from Seed, or all if n is 0.
func (s *Sweep) Run(n int) (*Tally, error) {
	start := time.Now()
	t := &Tally{Acts: map[string]int{}}
	calls, record, err := s.clean(t)
	if err != nil {
		return t, err
	}
	opens, err := s.opens()
	if err != nil {
		return t, err
	}
	p := &plan{Sweep: s}
	if !s.Far {
		t.Cuts = record.Cuts()
		p.cuts(record)
	}
	p.strikes(calls, opens)
	rng := rand.New(rand.NewPCG(s.Seed, 1))
	rng.Shuffle(len(p.tries), func(i, j int) { p.tries[i], p.tries[j] = p.tries[j], p.tries[i] })
	all := len(p.tries)
	if n > 0 {
		p.tries = p.tries[:min(n, len(p.tries))]
	}
	var g sync.WaitGroup
	for range max(1, s.Workers) {
		g.Go(func() { p.work(t) })
	}
	g.Wait()
	t.Left = all - p.next
	t.Took = time.Since(start)
	return t, p.failed
}

// A try does one thing in a directory of its own. It returns what counts as
// done (nothing, of a power cut's disk) and the promises that it saw broken.
type try func(dir string) (name string, broken []string, err error)

// plan is what a Run has to do.
type plan struct {
	*Sweep
	tries []try

	mu     sync.Mutex // of what follows, and the Tally
	next   int        // try
	failed error
}

// add plans a try, if it is of this sweep's part. The key alone decides it: how
// many points there are differs from run to run, and the parts must come to the whole.
func (p *plan) add(key string, t try) {
	if p.Only != nil && !p.Only.MatchString(key) {
		return
	}
	h := fnv.New32a()
	h.Write([]byte(key))
	if p.Part.N == 0 || int(h.Sum32()%uint32(p.Part.N)) == p.Part.K-1 {
		p.tries = append(p.tries, t)
	}
}

// cuts plans the disks that a power cut could leave.
func (p *plan) cuts(record *Record) {
	seen := map[string]bool{}
	for cut := 1; cut <= record.Cuts(); cut++ {
		for _, state := range record.States(cut, 3, p.Seed, seen) {
			p.add("power "+state.String(), func(dir string) (string, []string, error) {
				broken, err := p.cut(record, state, dir)
				return "", broken, err
			})
		}
	}
}

// strikes plans every strike at every call that it fits; opens are those for a
// want of file descriptors.
func (p *plan) strikes(calls, opens []*Call) {
	for _, c := range calls {
		if p.Restarts {
			p.add(fmt.Sprintf("killed after call %d", c.N), func(dir string) (string, []string, error) {
				broken, err := p.strikeAndCut(c.N, dir)
				return "kill, restart and power cut", broken, err
			})
		}
		p.strikesAt(c, false)
	}
	for _, c := range opens {
		p.strikesAt(c, true)
	}
}

func (p *plan) strikesAt(c *Call, files bool) {
	for _, k := range strikes {
		if k.n = c.N; k.fits(c) && k.files() == files {
			p.add(k.String(), func(dir string) (string, []string, error) {
				broken, err := p.strike(k, dir)
				return k.name(), broken, err
			})
		}
	}
}

// work does one try after the other, until there is none or one could not be done.
func (p *plan) work(t *Tally) {
	for {
		p.mu.Lock()
		if p.next == len(p.tries) || p.failed != nil {
			p.mu.Unlock()
			return
		}
		do, dir := p.tries[p.next], filepath.Join(p.Scratch, fmt.Sprint(p.next))
		p.next++
		p.mu.Unlock()
		name, broken, err := do(dir)
		if len(broken) == 0 {
			err = errors.Join(err, removeTree(dir))
		}
		p.mu.Lock()
		if name == "" {
			t.States++
		} else {
			t.Acts[name]++
		}
		t.Broken = append(t.Broken, broken...)
		p.failed = errors.Join(p.failed, err)
		p.mu.Unlock()
	}
}

// clean runs the program once unharmed, and records it.
func (s *Sweep) clean(t *Tally) ([]*Call, *Record, error) {
	tree := filepath.Join(s.Scratch, "clean")
	if err := CopyTree(s.Tree, tree); err != nil {
		return nil, nil, err
	}
	record, err := NewRecord(tree)
	if err != nil {
		return nil, nil, err
	}
	p := s.Program(tree)
	p.Children = true
	var calls []*Call
	run, err := Trace(p, nil, func(c *Call) {
		c.Data = bytes.Clone(c.Data)
		record.After(c)
		calls = append(calls, c)
	})
	if err == nil && run.Exit() != 0 {
		err = fmt.Errorf("exit status %d", run.Exit())
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s, unharmed: %w\n%s", s.Name, err, run.Output)
	}
	t.Points = len(calls)
	if broken, err := s.after(tree, true, "unharmed"); err != nil || len(broken) > 0 {
		return nil, nil, fmt.Errorf("%s, unharmed: %w: %s", s.Name, errors.Join(err, errors.New("the promises are broken")),
			strings.Join(broken, "\n"))
	}
	return calls, record, removeTree(tree)
}

// opens runs the program once more and lists where it opens files, for reading
// too: what only there can fail is numbered among those.
func (s *Sweep) opens() ([]*Call, error) {
	tree := filepath.Join(s.Scratch, "opens")
	if err := CopyTree(s.Tree, tree); err != nil {
		return nil, err
	}
	p := s.Program(tree)
	p.Children, p.Reads = true, true
	var calls []*Call
	if _, err := Trace(p, nil, func(c *Call) {
		if c.Opens() && !c.Child {
			calls = append(calls, c)
		}
	}); err != nil {
		return nil, fmt.Errorf("%s, unharmed: %w", s.Name, err)
	}
	return calls, removeTree(tree)
}

// strike runs the program and does one thing to it.
func (s *Sweep) strike(k strike, tree string) ([]string, error) {
	if err := CopyTree(s.Tree, tree); err != nil {
		return nil, err
	}
	p := s.Program(tree)
	p.Children = true
	p.Reads = k.files()
	what := ""
	run, err := Trace(p, func(c *Call) Act {
		if c.N < k.n || !k.always && what != "" || !k.fits(c) ||
			c.Child && k.act.Deed != KillBefore && k.act.Deed != KillAfter {
			return Act{}
		}
		if what == "" {
			what = strings.ReplaceAll(c.String(), tree+"/", "")
		}
		return k.act
	}, nil)
	where := fmt.Sprintf("%s: %s (%s)", s.Name, k, what)
	switch {
	case errors.Is(err, ErrLimit):
		return []string{fmt.Sprintf("%s: it stood still, or did not end\n%s", where, run.Output)}, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	var broken []string
	if bytes.Contains(run.Output, []byte("panic:")) || bytes.Contains(run.Output, []byte("fatal error:")) {
		broken = append(broken, fmt.Sprintf("%s: it panicked\n%s", where, run.Output))
	}
	if k.act.Deed == Fail && what != "" && run.Exit() > 0 && len(run.Output) == 0 {
		broken = append(broken, where+": it ended without a word")
	}
	more, err := s.after(tree, run.Exit() == 0, where)
	if len(more) > 0 {
		more[0] += "\n" + strings.TrimSpace(string(run.Output))
	}
	return append(broken, more...), err
}

// strikeAndCut kills the program after call n, starts it again, and cuts the power
// at some moment of its second life: what the first one left visible may not be on
// the disk.
func (s *Sweep) strikeAndCut(n int, dir string) ([]string, error) {
	first := dir + "-live"
	if err := CopyTree(s.Tree, first); err != nil {
		return nil, err
	}
	record, err := NewRecord(first)
	if err != nil {
		return nil, err
	}
	after := func(c *Call) {
		c.Data = bytes.Clone(c.Data)
		record.After(c)
	}
	killed := 0
	for _, judge := range []func(*Call) Act{
		func(c *Call) Act {
			if c.N == n {
				return Act{Deed: KillAfter}
			}
			return Act{}
		},
		nil,
	} {
		killed = record.Cuts()
		p := s.Program(first)
		p.Children = true
		if _, err := Trace(p, judge, after); err != nil {
			return nil, fmt.Errorf("%s: killed after call %d, and again: %w", s.Name, n, err)
		}
	}
	rng := rand.New(rand.NewPCG(s.Seed, uint64(n)))
	cut := killed + rng.IntN(record.Cuts()-killed+1)
	if cut == 0 {
		return nil, removeTree(first)
	}
	states := record.States(cut, 3, s.Seed, nil)
	state := states[rng.IntN(len(states))]
	if err := errors.Join(record.Make(state, dir), reboot(dir), removeTree(first)); err != nil {
		return nil, err
	}
	return s.after(dir, false,
		fmt.Sprintf("%s: killed after call %d, started again, then power %s (%s)", s.Name, n, state, record.Call(cut)))
}

// cut goes on from a disk that a power cut left.
func (s *Sweep) cut(r *Record, state *State, tree string) ([]string, error) {
	if err := errors.Join(r.Make(state, tree), reboot(tree)); err != nil {
		return nil, err
	}
	return s.after(tree, state.Cut == r.Cuts(), fmt.Sprintf("%s: power %s (%s)", s.Name, state, r.Call(state.Cut)))
}

// reboot makes the tree one of another boot, as it is after a power cut: the names of
// items, of which no write is synced, are not believed then.
func reboot(tree string) error {
	err := os.Remove(filepath.Join(tree, spool.NamesDir, ".complete"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// after restarts everything and checks.
func (s *Sweep) after(tree string, acknowledged bool, where string) ([]string, error) {
	var broken []string
	if s.Instant != nil {
		for _, b := range s.Instant(tree) {
			broken = append(broken, where+": at once: "+b)
		}
	}
	if err := s.Settle(tree); err != nil {
		return append(broken, fmt.Sprintf("%s: afterwards: %v", where, err)), nil
	}
	for _, b := range s.Check(tree, acknowledged) {
		broken = append(broken, where+": "+b)
	}
	return broken, nil
}

// CopyTree copies a tree of files, directories and links, with modes and times;
// names of one file are names of one file again.
func CopyTree(from, to string) error {
	type copied struct {
		path string
		info fs.FileInfo
	}
	var dirs []copied
	first := map[uint64]string{}
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		dst := to + strings.TrimPrefix(path, from)
		switch {
		case e.IsDir():
			dirs = append(dirs, copied{dst, info})
			return os.Mkdir(dst, 0o700)
		case e.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, dst)
		case !e.Type().IsRegular():
			return fmt.Errorf("copy %s: a %s", path, e.Type())
		}
		ino := inode(path, false)
		if old, ok := first[ino]; ok {
			return os.Link(old, dst)
		}
		first[ino] = dst
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(dst, data, 0o600); err != nil {
			return err
		}
		return errors.Join(os.Chmod(dst, info.Mode().Perm()), os.Chtimes(dst, info.ModTime(), info.ModTime()))
	})
	for _, d := range slices.Backward(dirs) {
		mode := d.info.Mode()
		err = errors.Join(err, os.Chmod(d.path, mode.Perm()|mode&(fs.ModeSetgid|fs.ModeSticky)),
			os.Chtimes(d.path, d.info.ModTime(), d.info.ModTime()))
	}
	return err
}

// removeTree removes also what has no modes that allow it.
func removeTree(dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	filepath.WalkDir(dir, func(p string, e fs.DirEntry, _ error) error {
		if e != nil && e.IsDir() {
			os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}
