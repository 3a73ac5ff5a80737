package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/mail"
	"packmill/cmd/internal/terminal"
	"packmill/internal/durable"
	"packmill/internal/regular"
	"packmill/spool"
)

type mailCmd struct {
	Maildir string `help:"Take every message of DIR/new and put it into DIR/cur, instead of one from standard input." placeholder:"DIR" type:"path"`
}

func (mailCmd) Help() string {
	return `Takes replies to the mails that buildd sends about builds, and does what they say. Each must be signed by a key of control/uploaders whose Allow has sign= for the architecture: a signed .changes sends what was built to the archive; fail TEXT, retry, dep-wait RELATIONS, giveback, manual and not-for-us do what they say. Who signed gets an answer; a mail that nobody signed is passed over, with a line in the log.

Exit status: 0 the mail was taken, or is nobody's; 75 trouble that may pass: the mail system keeps it and tries again.

Examples:
  "|/usr/local/bin/packmill --tree /srv/packmill mail"     in the .forward of the account that control/notify has in From
  packmill mail --maildir ~/Maildir                         from cron`
}

// tempFail is EX_TEMPFAIL of sysexits.h: the mail system keeps the mail.
const tempFail = 75

// exitError ends the program with a status of its own.
type exitError struct {
	status int
	err    error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

func (m *mailCmd) Run(c *cli) error {
	err := m.run(c)
	if err != nil {
		// Whatever it is, the sender is not to blame and gets no bounce.
		return exitError{tempFail, err}
	}
	return nil
}

func (m *mailCmd) run(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	set, err := control.Load(t.Path("control"))
	if err != nil {
		return err
	}
	b := &mail.Box{Tree: t, Settings: set, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Dry: c.DryRun}
	if m.Maildir != "" {
		return m.fetch(c, b)
	}
	data, err := io.ReadAll(io.LimitReader(os.Stdin, mail.MaxMail+1))
	if err != nil {
		return err
	}
	io.Copy(io.Discard, os.Stdin) // a writer that cannot write calls it a failure
	if mail.NullSender() {
		b.Log.Warn("mail", "reason", "without a sender: passed over")
		return nil
	}
	return m.take(c, b, data)
}

func (m *mailCmd) take(c *cli, b *mail.Box, data []byte) error {
	o, err := b.Take(context.Background(), data)
	if err == nil && (c.JSON || c.DryRun || m.Maildir != "") {
		c.print(os.Stdout, o, terminal.Clean(strings.Trim(o.Signer+": "+o.Text, ": ")))
	}
	return err
}

// fetch takes what is in new. Who has the lock of a message takes it: any
// number of these may run at a time.
func (m *mailCmd) fetch(c *cli, b *mail.Box) error {
	entries, err := os.ReadDir(filepath.Join(m.Maildir, "new"))
	if err != nil {
		return err
	}
	if !c.DryRun {
		if err := durable.MkdirAll(filepath.Join(m.Maildir, "cur"), 0o700); err != nil {
			return err
		}
	}
	var errs []error
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !e.Type().IsRegular() {
			continue
		}
		if err := m.message(c, b, e.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("%s stays in new: %w", spool.OneLine(e.Name()), err))
		}
	}
	return errors.Join(errs...)
}

func (m *mailCmd) message(c *cli, b *mail.Box, name string) error {
	path := filepath.Join(m.Maildir, "new", name)
	f, err := regular.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := durable.LockFile(f); errors.Is(err, durable.ErrLocked) {
		return nil // another copy has it
	} else if err != nil {
		return err
	}
	if _, err := os.Lstat(path); err != nil {
		return err // another copy had it
	}
	data, err := io.ReadAll(io.LimitReader(f, mail.MaxMail+1))
	if err != nil {
		return err
	}
	if err := m.take(c, b, data); err != nil || c.DryRun {
		return err
	}
	to := filepath.Join(m.Maildir, "cur", name+":2,S")
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
