package archive

import (
	"context"
	"slices"
	"strings"

	"packmill/internal/deb822"
	"packmill/internal/policy"
)

// Cruft is a package that no source of its suite builds any more.
type Cruft struct {
	Entry
	Newest string // version of its source, which does not name it
}

// Cruft lists, in the order of List, the packages of a view whose source is there in a
// newer version that does not name them, for their architecture, nor does any other.
// Packages that came without a source are none.
func (a *Archive) Cruft(ctx context.Context, view string) ([]Cruft, error) {
	newest, makes := map[string]string{}, map[string][]string{} // by source; by package: where it is built
	err := a.each(ctx, view, func(e Entry, sc *deb822.Scanner) error {
		if e.Arch != "source" || sc.Get(extraSource) != nil {
			return nil
		}
		newest[e.Package] = e.Version
		for name, archs := range madeBy(sc) {
			makes[name] = append(makes[name], archs...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	list, err := a.List(ctx, view, "")
	var out []Cruft
	for _, e := range list {
		v := newest[e.Source]
		if v == "" || policy.BuildsOn(makes[strings.TrimSuffix(e.Package, "-dbgsym")], e.Arch) ||
			policy.BuildsOn(makes[e.Package], e.Arch) {
			continue
		}
		out = append(out, Cruft{e, v})
	}
	return out, err
}

// madeBy are the packages that a source names, and where it builds each: anywhere, if it
// does not say.
func madeBy(sc *deb822.Scanner) map[string][]string {
	out := map[string][]string{}
	for line := range strings.SplitSeq(string(sc.Get("Package-List")), "\n") {
		words := deb822.Words(line)
		if i := slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, "arch=") }); i > 0 {
			out[words[0]] = strings.Split(strings.TrimPrefix(words[i], "arch="), ",")
		}
	}
	for _, name := range deb822.Words(strings.ReplaceAll(string(sc.Get("Binary")), ",", " ")) {
		if out[name] == nil {
			out[name] = []string{"any", "all"}
		}
	}
	return out
}
