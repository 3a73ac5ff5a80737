// Command statusd shows on web pages what is where, and why, as it happens.
//
//	statusd [--tree DIR] [--listen ADDRESS ...] [--archive ADDRESS] [--once]
//
// It only reads: no page changes anything, and there are no accounts, no cookies
// and no database. ADDRESS is HOST:PORT, or unix:PATH for a socket; without one
// statusd answers at the sockets that systemd gives it (statusd.socket), or at
// 127.0.0.1:8077. Put a web server before it that speaks TLS (scripts/web).
//
// The pages: / what is where; /package/NAME one package; /suite/SUITE/ARCH an
// architecture; a build with its log, as it is written; /review the reviewers' desk;
// /upload/NAME.changes where an upload is; /builders; /archive; /search packages and
// logs; /statistics. Each says which command shows the same, and with .json behind its
// address it is for programs: /schema lists the fields. Pages follow the tree by
// themselves in a browser with scripts, and are whole without.
//
// What came from outside is shown as text. A suite with Hidden: yes is on no page,
// in no feed, figure or search. Addresses of people are left out unless
// control/general has Show-Addresses: yes.
//
// With --archive https://HOST/PATH, where the world fetches the archive, pages link to
// what is published there.
//
// With --once it writes the first page to standard output, and ends.
//
// Settings: control/suites, control/builders, control/general.
//
// Exit status: 0 done, 100 wrong use or settings, 111 may pass (start it
// again).
package main

import (
	"context"
	"os"
	"runtime/debug"

	"golang.org/x/sync/errgroup"

	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/pages"
	"packmill/cmd/internal/view"
)

const manual = `Shows on web pages what is where, and why, as it happens. It only reads.

Examples:
  statusd --tree /srv/packmill --listen 127.0.0.1:8077
  statusd --tree /srv/packmill --listen unix:/run/packmill-statusd/socket
  statusd --tree /srv/packmill --once >index.html`

// memory is what the program shall not need more of, in bytes: near it the garbage
// collector works harder.
const memory = 120 << 20

var cli struct {
	daemon.Flags
	Listen  []string `help:"Where to answer: HOST:PORT or unix:PATH. Several times for several." placeholder:"ADDRESS"`
	Archive string   `help:"Where the world fetches the archive, such as https://archive.example.org: pages link to what is published there." placeholder:"ADDRESS"`
}

func main() {
	daemon.Main("statusd", manual, &cli, run)
}

func run(ctx context.Context) error {
	debug.SetMemoryLimit(memory)
	env, err := cli.Start("statusd")
	if err != nil {
		return err
	}
	v := view.New(env.Tree, env.Settings, env.Log)
	site, err := pages.New(v, env.Log, daemon.Version("statusd"))
	if err != nil {
		return err
	}
	if err := site.Fetched(cli.Archive); err != nil {
		return daemon.Refuse("--archive: %v", err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	if env.Once {
		g.Go(func() error { return v.Run(ctx) })
		g.Go(func() error {
			defer stop()
			select {
			case <-ctx.Done():
				return nil
			case <-v.Ready():
				return site.Print(os.Stdout)
			}
		})
		return g.Wait()
	}
	listeners, err := listen(cli.Listen)
	if err != nil {
		return err
	}
	g.Go(func() error { return v.Run(ctx) })
	for _, l := range listeners {
		env.Log.Info("answering", "at", l.Addr().String())
		g.Go(func() error { return site.Serve(ctx, l) })
	}
	return g.Wait()
}
