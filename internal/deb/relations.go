package deb

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"packmill/internal/pattern"
	"packmill/internal/policy"
)

// relationFields are those of a binary package that hold relations (Debian Policy 7.2 to 7.6).
var relationFields = []string{
	"Pre-Depends", "Depends", "Recommends", "Suggests", "Enhances", "Breaks", "Conflicts", "Provides", "Replaces",
}

// tight is a comparison that dpkg reads and apt does not: the obsolete > or < with the version right behind it.
var tight = pattern.Lazy(`\(\s*[<>][^<>=\s]`)

// CheckRelations says which of a binary package's relations dpkg or apt cannot
// read. apt stops at the first of a whole index: one such package in a suite, and
// none of its clients can install anything. Get returns a field, "" if it is not there.
func CheckRelations(get func(field string) string) error {
	for _, field := range relationFields {
		if v := get(field); v != "" {
			if err := checkRelations(field, v); err != nil {
				return fmt.Errorf("%s: %w; correct debian/control", field, err)
			}
		}
	}
	return nil
}

func checkRelations(field, value string) error {
	list, err := policy.ParseRelations(value)
	if err != nil {
		return err
	}
	// Source packages may have these; dpkg-gencontrol takes them out.
	for item := range strings.SplitSeq(value, ",") {
		if strings.Trim(item, " \t\n") == "" {
			return errors.New("an empty relation beside a comma")
		}
	}
	switch {
	case strings.HasPrefix(value, "\n"):
		return errors.New("an empty first line")
	case tight().MatchString(value):
		return errors.New("a comparison without a blank before the version; write (>= version)")
	}
	for _, alternatives := range list {
		switch {
		case len(alternatives) == 1:
		case field == "Breaks", field == "Conflicts", field == "Provides", field == "Replaces":
			return fmt.Errorf("alternatives (%s), which this field cannot have", policy.Relations{alternatives})
		}
		for _, r := range alternatives {
			if r.Archs != nil || r.Profiles != nil {
				return fmt.Errorf("%q has architectures or build profiles, which only build-dependencies can have", r)
			}
		}
	}
	return nil
}

// substitution is what dpkg-gencontrol replaces in debian/control.
var substitution = pattern.Lazy(`\$\{[A-Za-z0-9][-A-Za-z0-9:]*\}`)

// words are the values that dpkg knows of fields with few.
var words = map[string][]string{
	"Multi-Arch": {"no", "same", "foreign", "allowed"},
	"Essential":  {"yes", "no"},
	"Protected":  {"yes", "no"},
}

// checkWords says which field has a value of which dpkg knows nothing. A
// description may speak of substitution variables.
func (p *Package) checkWords() error {
	for _, f := range p.Control.Fields {
		if v := substitution().FindString(f.Value); v != "" && !strings.EqualFold(f.Name, "Description") {
			return fmt.Errorf("%s: %s was not replaced; build the package with dpkg-gencontrol", f.Name, v)
		}
	}
	for field, known := range words {
		if v := p.Control.Get(field); v != "" && !slices.Contains(known, v) {
			return fmt.Errorf("%s: %q; write one of: %s", field, v, strings.Join(known, ", "))
		}
	}
	return nil
}
