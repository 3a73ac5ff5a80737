package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/mail"
	"packmill/queue/builders"
	"packmill/spool"
)

// eventAside of control/notify: a builder was set aside, or is back.
const eventAside = "aside"

// notices say who hears that this builder was set aside: whom control/notify
// names, and in any case who looks after it.
func (b *builder) notices() []control.Notice {
	all := b.Settings.Get().Notify
	if slices.ContainsFunc(all, func(n control.Notice) bool {
		return (n.Event == eventAside || n.Event == "*") && slices.Contains(n.To, mail.Builder)
	}) {
		return all
	}
	return append(slices.Clip(all),
		mail.Way(all, eventAside, mail.Builder, eventAside, mail.EventLog, mail.EventFailed, "*"))
}

// aside says why this builder takes nothing now, and when nobody hears of that.
func (b *builder) aside() error {
	err := b.health.aside()
	x, serr := b.stanza()
	if !errors.Is(err, errAside) || serr != nil {
		return err
	}
	if len(mail.Recipients(b.notices(), about(x))) == 0 {
		err = fmt.Errorf("%w; nobody is mailed of that: there is no Email in the stanza %s of control/builders, "+
			"and nobody for aside in control/notify", err, x.Name)
	}
	return err
}

// about begins a mail about this builder.
func about(x *control.Builder) *mail.Message {
	return &mail.Message{Event: eventAside, Date: time.Now(), People: map[string]string{mail.Builder: x.Email}}
}

// setAside keeps over restarts that people must hear of it.
func (b *builder) setAside(why string) {
	if err := builders.SetAside(b.Tree.Path(spool.BuildersDir), b.who(), why); err != nil {
		b.Log.Error("nobody will be mailed that this builder is set aside", "err", err)
	}
}

// worked notes a build that came to a verdict.
func (b *builder) worked() {
	was := b.health.worked()
	b.say(func(e *builders.Entry) { e.Trouble = "" })
	a, err := builders.ReadAside(b.Tree.Path(spool.BuildersDir), b.who())
	// Another process of the same name may be set aside while this one works.
	if err == nil && a != nil && (was || a.Since.Before(b.begun)) && a.Back.IsZero() {
		err = a.SetBack()
	}
	if err != nil {
		b.Log.Error("nobody will be mailed that this builder is back", "err", err)
	}
}

// tellAside mails people that this builder was set aside, and later that it is
// back: once each, whichever process does it.
func (b *builder) tellAside(ctx context.Context) error {
	x, err := b.stanza()
	if err != nil {
		return nil // said by others
	}
	return builders.Alone(b.Tree.Path(spool.BuildersDir), b.who(), func(a *builders.Aside) error {
		if a.Told && a.Back.IsZero() {
			return nil
		}
		if !a.Told && !a.Back.IsZero() {
			return a.Forget() // it is over, and nobody knew
		}
		host, _ := os.Hostname()
		name := fmt.Sprintf("%s of the builder %s on %s", b.who(), x.Name, cmp.Or(x.Host, host, "this host"))
		m := about(x)
		m.Item, m.Key = b.who(), a.Since.Format(time.RFC3339)
		if a.Back.IsZero() {
			m.Subject = fmt.Sprintf("Builder %s is set aside (%s)", x.Name, b.who())
			m.Body = fmt.Sprintf(`%s was set aside at %s:
%d different packages in a row failed on it without a verdict. The last:

  %s

It takes nothing for an hour, then one job, and goes on so until one comes to a
verdict. The jobs wait in needs-build, or went to build-attempted after too
many tries. What there is to see:

  packmill status
  packmill chroot ls
  packmill log ls --since 1d

When the trouble is mended start the daemon again, and it tries at once. You will
hear when a build has come to a verdict; until then there is no other mail.
`, name, m.Key, maxBad, a.Why)
		} else {
			m.Key += " back"
			m.Subject = fmt.Sprintf("Builder %s is back (%s)", x.Name, b.who())
			m.Body = fmt.Sprintf("%s builds again: a build came to a verdict at %s.\nIt had been set aside at %s.\n",
				name, a.Back.Format(time.RFC3339), a.Since.Format(time.RFC3339))
		}
		sent, err := mail.Send(ctx, b.Tree, b.notices(), m)
		if err != nil {
			return err
		}
		if sent > 0 {
			b.Log.Info("told", "reason", m.Subject, "to", sent)
		}
		switch {
		case !a.Back.IsZero():
			return a.Forget()
		case sent > 0:
			return a.SetTold()
		}
		return nil // nobody is named: later, if somebody is
	})
}
