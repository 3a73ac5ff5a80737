// Command buildd builds packages in clean chroots: it takes the oldest package that waits for its
// architecture, builds it in a clean chroot, and hands good binaries to the
// archive queue.
//
//	buildd-ARCH [--tree DIR] [--once] [--builder NAME]
//	buildd --arch ARCH ...
//	buildd --master USER@HOST [--tree DIR] [--builder NAME] [--work DIR] [--ssh COMMAND]
//
// It is one program, installed under a name for each architecture. A package
// goes from queue/SUITE/ARCH/needs-build to building, and from there to
// archive/incoming (built; the result is signed with the builder's key), built
// (where Log-Review is manual), build-attempted (the build failed), dep-wait
// (packages that it needs are missing), bd-uninstallable, or back to
// needs-build (the fault is not the package's).
//
// Any number of builders may serve an architecture, in as many processes. The
// build inherits the lock on its item: if the daemon dies the job is either
// still locked by the build, or free and given back by the next look of any
// builder.
//
// What the machine lacks to build for an architecture (sbuild, the build user, an
// emulator) is looked at before a job is taken: it stays in needs-build, costs
// no attempt, and the log and packmill why say what to install.
//
// Where control/notify says so, the log of each build goes by mail to people:
// log, of a good build that waits for a person's signature, and failed, of any
// other. What they answer is for packmill mail.
//
// After a build that ends without a verdict nothing is begun for a pause, and then
// another is tried. A builder on which three different packages in a row end so is
// set aside for an hour and then tries one, so that a broken chroot does not eat
// the queue. Its Email in control/builders, and whom control/notify names for
// aside, hear of it once, and once more when a build has come to a verdict
// again, also if the daemon was started anew meanwhile. Where there is no
// address, packmill status says so beside the builder that is set aside.
//
// With --master it builds for the master on another machine, which it calls by ssh(1) again and again: the
// master hands out jobs, follows their logs and fetches what was built. What is being built goes on when the line
// breaks. The settings are this machine's own. Packmill builder add, at the master, makes the account; doc/remote.md
// has the whole.
//
// Settings: control/builders (the stanza that --builder names, or the first of
// this architecture), control/suites, control/notify.
//
// Exit status: 0 done, 100 wrong use or settings, 111 may pass (start it
// again).
package main

import (
	"context"
	"errors"
	"fmt"
	"log/syslog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/mail"
	"packmill/queue/runner"
)

const manual = `Builds: takes the oldest package that waits for its architecture, builds it in a clean chroot, and hands good binaries to the archive queue.

Examples:
  buildd-amd64 --tree /srv/packmill           run for ever
  buildd --arch i386 --once                   build what waits for i386, and end
  buildd-amd64 --builder big --tree DIR       as the builder "big" of control/builders
  buildd --master packmill-build@HOST         build for the master on another machine
  buildd --builder big                        the same for all architectures of its stanza, Jobs at once together`

var cli struct {
	daemon.Flags
	Arch    string `help:"The architecture (default: from the program's name, buildd-ARCH)." placeholder:"ARCH"`
	Builder string `help:"The stanza of control/builders (default: the first of the architecture)." placeholder:"NAME"`
	Master  string `help:"Build for the master on another machine, which is called by ssh." placeholder:"USER@HOST"`
	SSH     string `name:"ssh" help:"The command that calls the master." default:"ssh" placeholder:"COMMAND"`
	Work    string `help:"With --master: where its jobs lie (default: ~/remote/of-USER_HOST)." placeholder:"DIR" type:"path"`
	Linger  bool   `hidden:"" help:"Wait for a builder that is away: buildd --serve starts this."`
	Node    string `hidden:"" help:"Be a job of the cluster, on its node: Slurm starts this." type:"path"`
	Serve   bool   `hidden:"" help:"Serve the builder that has called: packmill serve-builder starts this."`
}

func main() {
	runner.Reexec()
	daemon.Main(filepath.Base(os.Args[0]), manual, &cli, run)
}

func run(ctx context.Context) error {
	if cli.Work == "" {
		cli.Work = defaultWork(cli.Master)
	}
	switch {
	case cli.Node != "":
		return node(ctx)
	case cli.Master != "":
		return call(ctx)
	case cli.Serve, cli.Linger:
		// Its log must not go to the builder, where standard error ends.
		if w, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, "buildd/"+cli.Builder); err == nil {
			cli.LogTo = w
		}
		if cli.Linger {
			return linger(ctx)
		}
		return serve(ctx)
	}
	arch := cli.Arch
	if arch == "" {
		_, arch, _ = strings.Cut(filepath.Base(os.Args[0]), "buildd-")
	}
	if arch == "" && cli.Builder == "" {
		return daemon.Wrong{Err: errors.New("which architecture? call it buildd-ARCH, say --arch ARCH, " +
			"or --builder NAME for all of that builder's")}
	}
	env, err := cli.Start(strings.TrimSuffix("buildd-"+arch, "-"))
	if err != nil {
		return err
	}
	b := &builder{Env: env, arch: arch, name: cli.Builder, begun: time.Now()}
	if _, err := b.stanza(); err != nil {
		return daemon.Wrong{Err: fmt.Errorf("control/builders: %w", err)}
	}
	b.enter()
	defer b.leave()
	b.lookAround()
	b.tend(ctx)
	defer b.wait.Wait()
	if !env.Once {
		go b.watchLost(ctx)
	}
	teller := mail.NewTeller(env, b.places)
	teller.Also = b.tellAside
	return teller.Serve(ctx, func(ctx context.Context) error {
		return env.Serve(ctx, b.loop())
	})
}
