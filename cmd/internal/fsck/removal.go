package fsck

import (
	"errors"
	"slices"
	"strings"

	"packmill/archive"
	"packmill/internal/policy"
	"packmill/spool"
	"packmill/spool/upload"
)

// takenOut begins the line of a history that names binary packages which a
// person took out of the archive: that they are missing breaks no promise.
const takenOut = "taken out of the archive: "

// TakeOut writes into the histories of the builds of a suite that these of their
// packages leave the archive while their source stays, as a person wants it. It is
// called before they do.
func TakeOut(t *spool.Tree, suite string, removed []archive.Entry, who string) error {
	removed = slices.DeleteFunc(slices.Clone(removed), func(e archive.Entry) bool {
		return slices.ContainsFunc(removed, func(s archive.Entry) bool {
			return s.Arch == "source" && (s == e || s.Package == e.Source)
		})
	})
	found, err := t.Find("", spool.Installed)
	if err != nil {
		return err
	}
	var errs []error
	for i := range found {
		f := &found[i]
		if f.Place.Suite != suite || !slices.ContainsFunc(removed, func(e archive.Entry) bool {
			return e.Source == f.Name.Source
		}) {
			continue
		}
		files, err := upload.Peek(t.Path(f.Dir(), "result"), resultOf(t, f))
		if err != nil {
			continue // no build
		}
		var names []string
		for _, e := range removed {
			deb := e.Package + "_" + policy.WithoutEpoch(e.Version) + "_" + e.Arch + ".deb"
			if slices.ContainsFunc(files, func(x upload.File) bool { return x.Name == deb }) {
				names = append(names, e.Package)
			}
		}
		if len(names) > 0 {
			errs = append(errs, note(t, f, who, takenOut+strings.Join(names, " ")))
		}
	}
	return errors.Join(errs...)
}

func note(t *spool.Tree, f *spool.Found, who, text string) error {
	it, err := t.ClaimSoon(f.Place, f.Name.String())
	if err != nil {
		return err
	}
	defer it.Release()
	return it.Note(who, text)
}

// TakenOut are the packages of the build at dir that a person took out of the archive.
func TakenOut(dir string) ([]string, error) {
	events, err := spool.ReadHistory(dir)
	var out []string
	for _, e := range events {
		if names, ok := strings.CutPrefix(e.Reason, takenOut); ok && e.From == e.To {
			out = append(out, strings.Fields(names)...)
		}
	}
	return out, err
}
