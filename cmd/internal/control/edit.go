package control

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"packmill/cmd/internal/account"
	"packmill/internal/deb822"
	"packmill/internal/durable"
)

// SetField gives a field of the suite another value in its file, and leaves the
// rest of the file, comments too, as it is.
func (s *Suite) SetField(file, field, value string) error {
	return SetField(file, s.Stanza, field, value)
}

// SetField is that of any stanza.
func SetField(file string, st *deb822.Stanza, field, value string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	lines := strings.SplitAfter(string(data), "\n")
	at := st.Line // after the first field
	old, ok := st.Lookup(field)
	if ok {
		at = old.Line - 1
		end := at + 1
		for end < len(lines) && (strings.HasPrefix(lines[end], " ") || strings.HasPrefix(lines[end], "\t")) {
			end++
		}
		if !strings.HasPrefix(strings.ToLower(lines[at]), strings.ToLower(field)+":") {
			return fmt.Errorf("%s has changed meanwhile; try again", file)
		}
		lines = slices.Delete(lines, at, end)
	}
	lines = slices.Insert(lines, at, field+": "+value+"\n")
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	// It has its owner before it has its name: the daemons are other users.
	tmp := filepath.Join(filepath.Dir(file), durable.NewPrefix+filepath.Base(file))
	if err := durable.WriteFile(tmp, []byte(strings.Join(lines, "")), info.Mode().Perm()); err != nil {
		return err
	}
	if err := account.OwnedAs(tmp, file); err != nil {
		return err
	}
	return durable.Replace(tmp, file)
}
