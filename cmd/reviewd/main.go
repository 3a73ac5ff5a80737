// Command reviewd checks what was uploaded: it waits until one is complete, copies and
// checks it, and lays it before the reviewers.
//
//	reviewd [--tree DIR] [--once]
//
// An upload is a .changes file in spool/incoming, or in spool/incoming/ACCOUNT
// of an ssh account, with the files that it lists. When all of them are there
// at their sizes and nobody writes to them, it is claimed into spool/intake,
// copied to files that the uploader cannot reach, and judged: signature,
// rights, checksums, and everything else that control/suites asks for. It goes
// to spool/review, or spool/accepted where no review is asked for, or to
// spool/rejected with every finding in its REASON. What is not complete waits,
// up to the suite's Incomplete.
//
// What is let in gets a statement, signed with control/private/reviewd.key: who
// uploaded it by which right, and the checksum of every file. The other daemons
// verify it (control/reviewd.asc), and take nothing without.
//
// Settings: control/uploaders, control/suites, control/keys.
//
// Exit status: 0 done, 100 wrong use or settings, 111 may pass (start it
// again).
package main

import (
	"context"

	"packmill/archive"
	"packmill/cmd/internal/daemon"
	"packmill/spool/statement"
)

const manual = `Takes uploads in: waits until one is complete, copies and checks it, and lays it before the reviewers.

It watches spool/incoming, and the directory of each account in it.

Examples:
  reviewd --tree /srv/packmill          run for ever
  reviewd --tree /srv/packmill --once   take what is complete now, and end`

var cli struct {
	daemon.Flags
}

func main() {
	daemon.Main("reviewd", manual, &cli, run)
}

func run(ctx context.Context) error {
	env, err := cli.Start("reviewd")
	if err != nil {
		return err
	}
	a, err := archive.Open(env.Tree.Path("archive"))
	if err != nil {
		return err
	}
	key, err := statement.OpenKey(env.Tree.Root())
	if err != nil {
		return daemon.Wrong{Err: err}
	}
	return newTeller(env, a).Serve(ctx, func(ctx context.Context) error {
		return env.Serve(ctx, (&intake{Env: env, archive: a, key: key}).loop())
	})
}
