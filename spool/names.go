package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"packmill/internal/durable"
	"packmill/internal/policy"
	"packmill/internal/regular"
)

// NamesDir has a file for each source, with the names that its items have had, one a
// line and without architecture. It tells where to look: who asks for one source tries
// these names in the places where they could be, and reads no long queue. A name is
// written there before an item bears it. The names that people give with mv are written
// when a daemon meets them.
const NamesDir = "journal/names"

// completeFile in NamesDir bears the id of the boot since which every name has been
// written there, and the states of which that is not so. The names of an earlier boot do not count, for none of the writes is
// synced: master-buildd and reviewd learn them anew when they start, and until then queues are read.
const completeFile = ".complete"

// boot is the id of this boot, "" where it may not be read.
var boot = sync.OnceValue(func() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
})

// maxNames bounds what is read of the names of a source.
const maxNames = 16 << 20

// born is the name without what may follow it, an architecture.
func (n Name) born() Name {
	n.Arch = ""
	return n
}

func (n Name) birth() string { return n.born().String() }

// bears reports whether an item's directory is called so already.
func bears(dir, birth string) bool { return dir == birth || strings.HasPrefix(dir, birth+"_") }

// Note writes the name of an item down, if it is not known.
func (t *Tree) Note(n Name) error {
	file, line := t.Path(NamesDir, n.Source), n.birth()+"\n"
	known, err := regular.Read(file, maxNames)
	if err == nil && strings.Contains("\n"+string(known), "\n"+line) {
		return nil
	}
	err = durable.Append(file, []byte(line), 0o664)
	if errors.Is(err, fs.ErrNotExist) {
		if err = durable.MkdirAll(filepath.Dir(file), 0o770); err == nil {
			err = durable.Append(file, []byte(line), 0o664)
		}
	}
	if err != nil {
		return fmt.Errorf("note the name %s: %w", n, err)
	}
	return nil
}

// names are those that the items of a source have had; known is false where that may
// not be all of them.
func (t *Tree) names(source string) (names []Name, known bool) {
	data, err := regular.Read(t.Path(NamesDir, source), maxNames)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true
	}
	if err != nil {
		return nil, false
	}
	for line := range strings.Lines(string(data)) {
		n, err := ParseName(strings.TrimSuffix(line, "\n"))
		if err == nil && n.Source == source && n.Arch == "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names, true
}

// namesComplete reports whether the names of items are written down, but for those in
// the states unread.
func (t *Tree) namesComplete() (unread []string, complete bool) {
	data, err := regular.Read(t.Path(NamesDir, completeFile), maxSmall)
	words := strings.Fields(string(data))
	if err != nil || boot() == "" || len(words) == 0 || words[0] != boot() {
		return nil, false
	}
	return words[1:], true
}

// LearnNames writes down the names of all items in the states, or in all of them, that it
// may read: of a tree that was made before there was such a record, that was copied, or
// whose machine lost power. Afterwards the record is complete for those states, but for
// such as are closed to who calls it: their own daemon learns them.
func (t *Tree) LearnNames(states ...State) error {
	if len(states) == 0 {
		states = t.States
	}
	unread, complete := t.namesComplete()
	known := complete && !slices.ContainsFunc(states, func(s State) bool { return slices.Contains(unread, s.Name) })
	seen, closed := map[string]bool{}, []State{}
	pass := func() (news bool, err error) {
		for _, s := range states {
			fresh, shut, err := t.learn(s, seen)
			if err != nil {
				return false, err
			}
			if news = news || fresh; shut && !slices.Contains(closed, s) {
				closed = append(closed, s)
			}
		}
		return news, nil
	}
	// What moves meanwhile can be missed in every place, so it is looked for again.
	for looks := 0; looks < 5; looks++ {
		news, err := pass()
		if err != nil {
			return fmt.Errorf("learn the names of items: %w", err)
		}
		if known || looks > 0 && !news {
			break
		}
	}
	return t.completeNames(slices.DeleteFunc(slices.Clone(states), func(s State) bool { return slices.Contains(closed, s) }))
}

// learn writes down the names in the places of a state that are not among the seen;
// closed says that who calls it may not read all of them.
func (t *Tree) learn(s State, seen map[string]bool) (news, closed bool, err error) {
	places, err := t.Places(s)
	read := []error{err}
	var wrote error
	for _, p := range places {
		err := t.Each(p, func(name string) {
			n, err := ParseName(name)
			if err != nil || wrote != nil || seen[n.birth()] {
				return
			}
			wrote = t.Note(n)
			seen[n.birth()], news = true, true
		})
		read = append(read, err)
	}
	dirs, err := Closed(errors.Join(read...))
	return news, len(dirs) > 0, errors.Join(err, wrote)
}

// completeNames says that every name in the states is written down, and will be.
func (t *Tree) completeNames(read []State) error {
	dir := t.Path(NamesDir)
	if err := durable.MkdirAll(dir, 0o770); err != nil {
		return err
	}
	lock, err := durable.Await(context.Background(), dir, 0) // of daemons that start at once
	if err != nil {
		return err
	}
	defer lock.Close()
	unread, complete := t.namesComplete()
	if !complete {
		for _, s := range t.States {
			unread = append(unread, s.Name)
		}
	}
	for _, s := range read {
		unread = slices.DeleteFunc(unread, func(name string) bool { return name == s.Name })
	}
	return durable.WriteFile(filepath.Join(dir, completeFile), []byte(boot()+"\n"+strings.Join(unread, " ")+"\n"), 0o664)
}

// Of lists the items of one source in these places, in their order and then by name. It
// costs the same however many items of others there are. After an error it has what
// could be read.
func (t *Tree) Of(source string, places ...Place) ([]Found, error) {
	unread, complete := t.namesComplete()
	var names []Name
	if complete {
		names, complete = t.names(source)
	}
	var out []Found
	var errs []error
	var archs []string
	for _, p := range places {
		if p.Hash != "" && p.Hash != policy.PoolPrefix(source) {
			continue
		}
		p = p.Of(source)
		var some []Found
		var err error
		switch {
		case !complete || slices.Contains(unread, p.State.Name):
			some, err = t.listOf(p, source)
		case len(names) > 0:
			if archs == nil {
				archs = t.archs()
			}
			some, err = t.tryOf(p, names, archs)
		}
		out, errs = append(out, some...), append(errs, err)
	}
	return out, errors.Join(errs...)
}

// Seek is Of that also reads the places, if it finds nothing under the names that are
// known: for who asks seldom, and must not be told that something is not there because
// nobody has noticed what a person called it.
func (t *Tree) Seek(source string, places ...Place) ([]Found, error) {
	found, err := t.Of(source, places...)
	if len(found) > 0 || err != nil {
		return found, err
	}
	var errs []error
	for _, p := range places {
		some, err := t.listOf(p.Of(source), source)
		found, errs = append(found, some...), append(errs, err)
	}
	return found, errors.Join(errs...)
}

// archs are the architectures that a job can be of, and SourceArch.
func (t *Tree) archs() []string {
	out := []string{SourceArch}
	dirs, _ := filepath.Glob(t.Path("queue", "*", "*"))
	for _, dir := range dirs {
		if a := filepath.Base(dir); !slices.Contains(out, a) && policy.CheckArch(a) == nil {
			out = append(out, a)
		}
	}
	return out
}

// tryOf looks in one place under each of the names: where jobs of several architectures
// meet they end in those.
func (t *Tree) tryOf(p Place, names []Name, archs []string) ([]Found, error) {
	if p.Arch != "" {
		archs = []string{p.Arch}
	}
	dir := t.Path(p.Dir())
	var out []Found
	for _, n := range names {
		path := dir + "/" + n.birth()
		for _, arch := range append([]string{""}, archs...) {
			at := path
			if arch != "" {
				at += "_" + arch
			}
			var st unix.Stat_t
			switch err := unix.Lstat(at, &st); {
			case err == nil:
				n.Arch = arch
				out = append(out, Found{p, n})
			case errors.Is(err, unix.EACCES):
				return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
			}
		}
	}
	sortFound(out)
	return out, nil
}

// listOf reads one place. Names of other sources cost one comparison each.
func (t *Tree) listOf(p Place, source string) (out []Found, err error) {
	err = t.Each(p, func(name string) {
		if SourceOf(name) != source {
			return
		}
		if n, err := ParseName(name); err == nil {
			out = append(out, Found{p, n})
		}
	})
	sortFound(out)
	return out, err
}

func sortFound(list []Found) {
	slices.SortFunc(list, func(a, b Found) int { return strings.Compare(a.Name.String(), b.Name.String()) })
}

// sourceIn is the one source that a person means by a pattern, "" if it may be several.
func sourceIn(pattern string) string {
	if n, err := ParseName(pattern); err == nil {
		return n.Source
	}
	source, _, _ := strings.Cut(pattern, "_")
	if IsPattern(pattern) || policy.CheckSource(source) != nil {
		return ""
	}
	return source
}
