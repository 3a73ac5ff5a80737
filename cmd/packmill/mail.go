package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strings"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/mail"
	"packmill/cmd/internal/terminal"
)

type mailCmd struct {
	Maildir string `help:"Take every message of DIR/new and put it into DIR/cur, instead of one from standard input." placeholder:"DIR" type:"path"`
}

func (mailCmd) Help() string {
	return `Takes replies to the mails that buildd sends about builds, and does what they say. Each must be signed by a key of control/uploaders whose Allow has sign= for the architecture: a signed .changes sends what was built to the archive; fail TEXT, retry, dep-wait RELATIONS, giveback, manual and not-for-us do what they say; newvers and purge send the job to the attic, and upload-rem takes back what is not published yet. Who signed gets an answer; a mail that nobody signed is passed over, with a line in the log.

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
		return b.Maildir(context.Background(), m.Maildir, c.tellMail)
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
	o, err := b.Take(context.Background(), data)
	if err == nil && (c.JSON || c.DryRun) {
		c.tellMail(o)
	}
	return err
}

// tellMail prints what became of a mail.
func (c *cli) tellMail(o *mail.Outcome) {
	c.print(os.Stdout, o, terminal.Clean(strings.Trim(o.Signer+": "+o.Text, ": ")))
}
