// Command maild hands the letters of the other daemons to the mail system.
//
//	maild [--tree DIR] [--once]
//
// Where the daemons run as accounts of their own (packmill init --users), what
// they and reviewers mail is a file in spool/mail/new. maild gives each to the
// program that Via of control/notify names, and removes it when that has taken
// it. The calls of hooks (Hook of control/notify) lie there too, in any tree, and maild
// makes them. What is not taken stays and is brought again, after a minute and later
// after an hour at most; packmill doctor says what has waited for long. So only
// maild runs a sendmail, which has rights of its own, and the daemons that read
// what strangers sent can be locked up. In a tree of one user each daemon runs the
// sendmail itself, and only hooks need maild.
//
// Settings: control/notify.
//
// Exit status: 0 done, 100 wrong use or settings, 111 may pass (start it
// again).
package main

import (
	"context"

	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/mail"
)

const manual = `Hands the letters of the other daemons, in spool/mail/new, to the mail system.

Examples:
  maild --tree /srv/packmill          run for ever
  maild --tree /srv/packmill --once   hand on what waits now, and end`

var cli struct {
	daemon.Flags
}

func main() {
	daemon.Main("maild", manual, &cli, run)
}

func run(ctx context.Context) error {
	env, err := cli.Start("maild")
	if err != nil {
		return err
	}
	return (&mail.Post{Tree: env.Tree, Settings: env.Settings, Log: env.Log}).Serve(ctx, env.Once)
}
