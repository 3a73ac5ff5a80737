package queue

import (
	"os"
	"strings"

	"packmill/internal/policy"
	"packmill/spool"
)

// findNamed looks where a job is under its source's own name, which it has
// unless a person changed its order: one call for each state, and no listing
// of long queues.
func findNamed(tree *spool.Tree, states []spool.State, suite, arch string, name spool.Name) *spool.Found {
	for _, s := range states {
		f := &spool.Found{Place: spool.In(s, suite, arch).Of(name.Source), Name: name}
		if f.Place.Arch == "" {
			f.Name.Arch = arch
		}
		if _, err := os.Lstat(tree.Path(f.Dir())); err == nil && (f.Place.Suite == suite || sameSuite(tree, f, suite)) {
			return f
		}
	}
	return nil
}

// FindJob looks for the job of exactly this source version on an
// architecture; nil says that it was not seen, which while jobs move is no
// proof that there is none.
func FindJob(tree *spool.Tree, suite, arch string, name spool.Name) (*spool.Found, error) {
	return findJob(tree, tree.Are(spool.Jobs), suite, arch, name)
}

// Retired looks for the source of a version in the attic: binaries that wait
// for it wait in vain. nil says that it was not seen there.
func Retired(tree *spool.Tree, suite string, name spool.Name) (*spool.Found, error) {
	return findJob(tree, []spool.State{spool.Attic}, suite, "", name)
}

// findJob looks for the item of exactly the source and version of a name.
func findJob(tree *spool.Tree, states []spool.State, suite, arch string, name spool.Name) (*spool.Found, error) {
	found, err := tree.Of(name.Source, in(states, suite, arch)...)
	if err != nil {
		return nil, err
	}
	for i := range found {
		f := &found[i]
		if f.Name.Version == name.Version && archOf(tree, f) == arch &&
			(f.Place.Suite == suite || sameSuite(tree, f, suite)) {
			return f, nil
		}
	}
	return nil, nil
}

// in are the places of several states.
func in(states []spool.State, where ...string) []spool.Place {
	places := make([]spool.Place, len(states))
	for i, s := range states {
		places[i] = spool.In(s, where...)
	}
	return places
}

// archOf is Found.Arch of what a person's mv may have brought to a place whose
// items end in their architecture: that one's name lacks it, and its ticket knows.
func archOf(tree *spool.Tree, f *spool.Found) string {
	arch := f.Arch()
	if arch != "" || f.Place.State.Has("ARCH") || !f.Place.State.Is(spool.Settled) {
		return arch
	}
	st, err := spool.ReadTicket(tree.Path(f.Dir()))
	if err != nil {
		return ""
	}
	return st.Get(spool.ArchField)
}

// sameSuite asks the ticket, where the directory does not say the suite.
func sameSuite(tree *spool.Tree, f *spool.Found, suite string) bool {
	st, err := spool.ReadTicket(tree.Path(f.Dir()))
	return err == nil && st.Get("Distribution") == suite
}

// Lookup finds the job that a person means by pattern (hello or hello_2.10-3)
// on an architecture: of several the newest version's, and what is still open
// before what is in the archive. Nil says that none was seen.
func Lookup(tree *spool.Tree, suite, arch, pattern string) (*spool.Found, error) {
	source, _, _ := strings.Cut(pattern, "_")
	if policy.CheckSource(source) != nil {
		return nil, nil
	}
	found, err := tree.Seek(source, in(tree.Are(spool.Jobs), suite, arch)...)
	if err != nil {
		return nil, err
	}
	var best *spool.Found
	for i := range found {
		if f := &found[i]; f.Arch() == arch && f.Name.Matches(pattern) && (best == nil || ahead(f, best)) {
			best = f
		}
	}
	return best, nil
}

// ahead reports whether a person more likely means a than b.
func ahead(a, b *spool.Found) bool {
	if c := policy.CompareVersions(a.Name.Version, b.Name.Version); c != 0 {
		return c > 0
	}
	if x, y := a.Place.State == spool.Installed, b.Place.State == spool.Installed; x != y {
		return y
	}
	return a.Name.Time.After(b.Name.Time)
}

// BinNMUOf finds the ticket of the binNMU of the same source version and number
// on any of the architectures; nil: there is none.
func BinNMUOf(tree *spool.Tree, suite string, archs []string, t *Ticket) (*Ticket, error) {
	for _, arch := range archs {
		found, err := tree.Of(t.Source, in(tree.Are(spool.Jobs), suite, arch)...)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			if f.Name.Version != t.Version {
				continue
			}
			if o, err := TicketAt(tree, f); err == nil && o.BinNMU == t.BinNMU {
				return o, nil
			}
		}
	}
	return nil, nil
}
