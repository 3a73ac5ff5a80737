package control

import (
	"fmt"
	"strings"

	"packmill/internal/near"
)

// SuiteNames are the names of all suites.
func (s *Settings) SuiteNames() (names []string) {
	for i := range s.Suites {
		names = append(names, s.Suites[i].Name)
	}
	return names
}

// NoSuite says that the settings do not know the suite, and what they know.
func (s *Settings) NoSuite(name string) error {
	names := s.SuiteNames()
	if len(names) == 0 {
		return fmt.Errorf("there is no suite in control/suites yet: write a stanza for %s there (man 5 packmill)", name)
	}
	hint := near.Hint(name, names)
	if hint == "" {
		return fmt.Errorf("there is no suite %s in control/suites, only %s", name, strings.Join(names, ", "))
	}
	return fmt.Errorf("there is no suite %s in control/suites; %s", name, hint)
}

// TheSuite is the one that is named, or the only one. how says where to name it.
func (s *Settings) TheSuite(name, how string) (*Suite, error) {
	if name == "" && len(s.Suites) == 1 {
		return &s.Suites[0], nil
	}
	if x, ok := s.Suite(name); ok && name != "" {
		return x, nil
	}
	if name == "" && len(s.Suites) > 0 {
		return nil, fmt.Errorf("in which suite? %s: %s", how, strings.Join(s.SuiteNames(), ", "))
	}
	return nil, s.NoSuite(name)
}
