// Command master-buildd keeps the build queues: it gives each architecture its job and passes a source on
// when every architecture has settled.
//
//	master-buildd [--tree DIR] [--once]
//
// It takes accepted sources out of spool/accepted/SUITE, puts a job for each
// architecture that the Architecture field names into
// queue/SUITE/ARCH/needs-build, and the source into queue/SUITE/master. It
// takes the source out of there, into the archive queue, when it has seen a
// settled job for each of them: built and signed, tried and failed, or not for
// that architecture. Jobs in dep-wait and bd-uninstallable go back to needs-build
// when the suite and its Base have what they need.
//
// When the archive has changed it holds Sources against Packages (quinn-diff)
// and makes the jobs that are lacking; it retires those of sources and
// architectures that the suite does not have any more. The Base's indexes are
// fetched by apt, every hour, into archive/cache/base; without them only
// packages of the suite's own open sources are waited for.
//
// Settings: control/suites (Architectures, Base, Publish, Tries, Weights),
// control/packages-arch-specific.
//
// Exit status: 0 done, 100 wrong use or settings, 111 may pass (start it
// again).
package main

import (
	"context"
	"runtime/debug"

	"packmill/cmd/internal/daemon"
	"packmill/queue"
)

const manual = `Gives each architecture its job and passes a source on when every architecture has settled.

It watches spool/accepted and queue/SUITE/master, and the queues and the archive for what settles a job.

Examples:
  master-buildd --tree /srv/packmill          run for ever
  master-buildd --tree /srv/packmill --once   do what is to be done now, and end`

var cli struct {
	daemon.Flags
}

func main() {
	daemon.Main("master-buildd", manual, &cli, run)
}

func run(ctx context.Context) error {
	env, err := cli.Start("master-buildd")
	if err != nil {
		return err
	}
	// What it holds are the indexes of the Base, and two of each while one is read anew.
	debug.SetGCPercent(30)
	m := newMaster(env)
	if err := queue.Adopt(env.Tree); err != nil {
		return err
	}
	return env.Serve(ctx, m.fanOut(), m.join(), m.release())
}
