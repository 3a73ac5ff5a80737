package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"packmill/internal/durable"
)

// formatFile has a line for each format that the tree has had: its number, and since
// when. A tree from before there was a number has had 0.
const formatFile = "control/format"

// Format is what this package reads and writes. A change after which the programs
// before it would do harm to a tree raises it by one; Init brings an older tree
// along, and every program refuses a newer one.
const Format = 1

// ErrFormat says that a tree is that of an older or a newer Packmill.
var ErrFormat = errors.New("another format")

// formats reads the file's lines; none is an older tree's.
func formats(root string) (since map[int]time.Time, last int, err error) {
	data, err := os.ReadFile(filepath.Join(root, formatFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, 0, err
	}
	since = map[int]time.Time{}
	for line := range strings.Lines(string(data)) {
		number, at, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %q is no number of a format", filepath.Join(root, formatFile), number)
		}
		since[n], _ = time.Parse(time.RFC3339, at)
		last = max(last, n)
	}
	return since, last, nil
}

// checkFormat refuses a tree of another format. Who may not read its settings finds
// that out elsewhere.
func (t *Tree) checkFormat() error {
	since, n, err := formats(t.root)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil
	case err != nil:
		return err
	case n > Format:
		return newer(t.root, n)
	case n < Format:
		return fmt.Errorf("%s: %w: it is %d, and this Packmill's is %d; bring it along with: packmill init --tree %s "+
			"(--users, if the daemons have accounts of their own)", t.root, ErrFormat, n, Format, t.root)
	}
	if _, older := since[0]; older {
		t.since = since[Format]
	}
	return nil
}

func newer(root string, n int) error {
	return fmt.Errorf("%s: %w: it is %d, and this Packmill's is %d; install the newer one again",
		root, ErrFormat, n, Format)
}

// Since is when an older tree was brought to this format; zero, if it was made in it.
// What programs do since then was not done before.
func (t *Tree) Since() time.Time { return t.since }

// bringAlong notes the format. fresh says that the tree is being made.
func bringAlong(root string, fresh bool) error {
	_, n, err := formats(root)
	switch {
	case err != nil:
		return err
	case n > Format:
		return newer(root, n)
	case n == Format:
		return nil
	}
	text := fmt.Sprintf("%d %s\n", Format, time.Now().UTC().Format(time.RFC3339))
	if !fresh {
		text = "0\n" + text
	}
	return durable.WriteFile(filepath.Join(root, formatFile), []byte(text), 0o644)
}
