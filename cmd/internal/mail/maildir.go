package mail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"packmill/internal/durable"
	"packmill/internal/regular"
	"packmill/spool"
)

// Maildir takes every message of dir/new, tells what became of it and puts it into
// dir/cur. Who has the lock of a message takes it: any number of these may run at
// a time. A message that met trouble stays; the error names each.
func (b *Box) Maildir(ctx context.Context, dir string, tell func(*Outcome)) error {
	entries, err := os.ReadDir(filepath.Join(dir, "new"))
	if err != nil {
		return err
	}
	if !b.Dry {
		if err := durable.MkdirAll(filepath.Join(dir, "cur"), 0o700); err != nil {
			return err
		}
	}
	var errs []error
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !e.Type().IsRegular() {
			continue
		}
		if err := b.message(ctx, dir, e.Name(), tell); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("%s stays in new: %w", spool.OneLine(e.Name()), err))
		}
	}
	return errors.Join(errs...)
}

// message takes one message, unless another process has it, or had it.
func (b *Box) message(ctx context.Context, dir, name string, tell func(*Outcome)) error {
	path := filepath.Join(dir, "new", name)
	f, err := regular.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := durable.LockFile(f); errors.Is(err, durable.ErrLocked) {
		return nil
	} else if err != nil {
		return err
	}
	if _, err := os.Lstat(path); err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxMail+1))
	if err != nil {
		return err
	}
	o, err := b.Take(ctx, data)
	if err != nil {
		return err
	}
	if tell(o); b.Dry {
		return nil
	}
	to := filepath.Join(dir, "cur", name+":2,S")
	err = durable.Rename(path, to)
	if errors.Is(err, fs.ErrExist) && sameFile(path, to) {
		return durable.Remove(path) // a power cut left both names
	}
	return err
}

func sameFile(a, b string) bool {
	x, err := os.Lstat(a)
	y, yerr := os.Lstat(b)
	return err == nil && yerr == nil && os.SameFile(x, y)
}
