package builders

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"packmill/internal/durable"
)

// asideSuffix ends the name of the file that is there while a daemon is set
// aside, and until people know that it is back. It outlives the daemon. Its
// lines begin with a time and a word: aside and why, told, back.
const asideSuffix = ".aside"

// Aside is what is known over restarts of a daemon that was set aside.
type Aside struct {
	Path  string
	Since time.Time // when it was set aside
	Why   string
	Told  bool      // people were told that
	Back  time.Time // when it worked again; zero: not yet
}

func asidePath(dir, daemon string) string {
	return filepath.Join(dir, strings.ReplaceAll(daemon, "/", "@")+asideSuffix)
}

// ReadAside says whether a daemon was set aside, and nil if it was not.
func ReadAside(dir, daemon string) (*Aside, error) {
	a := &Aside{Path: asidePath(dir, daemon)}
	data, err := os.ReadFile(a.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		at, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		word, text, _ := strings.Cut(rest, " ")
		when, err := time.Parse(time.RFC3339, at)
		switch {
		case err != nil:
		case word == "aside":
			if a.Back = (time.Time{}); a.Since.IsZero() {
				a.Since, a.Why = when, text
			}
		case word == "told":
			a.Told = true
		case word == "back":
			a.Back = when
		}
	}
	return a, nil
}

// SetAside notes that a daemon is set aside; if that is known already it
// changes nothing.
func SetAside(dir, daemon, why string) error {
	a, err := ReadAside(dir, daemon)
	if err != nil || a != nil && a.Back.IsZero() && !a.Since.IsZero() {
		return err
	}
	return note(asidePath(dir, daemon), "aside "+oneLine(why))
}

// SetBack notes that it worked again.
func (a *Aside) SetBack() error { return note(a.Path, "back") }

// SetTold notes that people know that it was set aside.
func (a *Aside) SetTold() error { return note(a.Path, "told") }

// Forget removes what is known: people know that the daemon is back.
func (a *Aside) Forget() error { return durable.Remove(a.Path) }

func note(path, text string) error {
	return durable.Append(path, fmt.Appendf(nil, "%s %s\n", time.Now().UTC().Format(time.RFC3339), text), 0o664)
}

// Alone calls do with what is known of a daemon that was set aside, and nobody
// else does so meanwhile: of several processes one tells. If it was not set
// aside, or another process has it in hand, do is not called.
func Alone(dir, daemon string, do func(*Aside) error) error {
	lock, err := durable.Lock(asidePath(dir, daemon), 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, durable.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	a, err := ReadAside(dir, daemon)
	if err != nil || a == nil {
		return err
	}
	return do(a)
}
