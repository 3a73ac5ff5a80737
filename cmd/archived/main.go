// Command archived publishes packages as a signed archive: it takes sources and signed binaries out of the
// archive queue, puts them into the pool, and writes and signs the indexes.
//
//	archived [--tree DIR] [--once]
//
// Everything that waits for a suite in archive/incoming/SUITE is one
// publication. In a suite with Publish: together, binaries wait for their
// source, which master-buildd sends when every architecture has settled. What
// was published lies in archive/installed afterwards; a source that is refused
// goes to spool/rejected, binaries to the architecture's build-attempted, with
// a REASON.
//
// Settings: control/suites, control/builders (whose key may sign binaries of
// which architecture), control/uploaders, control/keys.
//
// Exit status: 0 done, 100 wrong use or settings, 111 may pass (start it
// again).
package main

import (
	"context"
	"time"

	"packmill/archive"
	"packmill/cmd/internal/daemon"
	"packmill/spool"
)

const manual = `Publishes: takes sources and signed binaries out of the archive queue, puts them into the pool, writes and signs the indexes.

It watches archive/incoming. What archive holds can be served by any web server as it is.

Examples:
  archived --tree /srv/packmill          run for ever
  archived --tree /srv/packmill --once   publish what waits, and end`

var cli struct {
	daemon.Flags
}

func main() {
	daemon.Main("archived", manual, &cli, run)
}

func run(ctx context.Context) error {
	env, err := cli.Start("archived")
	if err != nil {
		return err
	}
	a, err := archive.Open(env.Tree.Path("archive"))
	if err != nil {
		return err
	}
	return env.Serve(ctx, (&publisher{Env: env, archive: a, now: time.Now,
		arrivals: spool.Arrivals{Tree: env.Tree, First: time.Now().Add(-24 * time.Hour)}}).loop())
}
