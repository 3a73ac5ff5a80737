// Package replay remembers what was signed and taken in, for ever, so that it
// cannot be played again: a file for each signed text below the tree's journal,
// named by the hash of what the signature covers (see openpgp.CanonicalHash).
package replay

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"packmill/internal/durable"
)

// Ledger is the directory that holds one.
type Ledger struct{ Dir string }

func (l Ledger) path(hash string) string { return filepath.Join(l.Dir, hash[:2], hash) }

// Enter makes the entry of a hash, with its one line. An entry that is there
// stays as it is.
func (l Ledger) Enter(hash, line string) error {
	if err := durable.MkdirAll(filepath.Dir(l.path(hash)), 0o775); err != nil {
		return err
	}
	err := durable.CreateFile(l.path(hash), []byte(line+"\n"), 0o664)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// Add adds a line to an entry, and makes it if need be.
func (l Ledger) Add(hash, line string) error {
	if err := durable.MkdirAll(filepath.Dir(l.path(hash)), 0o775); err != nil {
		return err
	}
	return durable.Append(l.path(hash), []byte(line+"\n"), 0o664)
}

// Lines is the entry of a hash: nothing, if it is new.
func (l Ledger) Lines(hash string) ([]string, error) {
	data, err := os.ReadFile(l.path(hash))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimRight(string(data), "\n"), "\n"), nil
}
