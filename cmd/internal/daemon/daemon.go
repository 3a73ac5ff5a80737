// Package daemon is the frame of a daemon: flags, tree, settings, log,
// signals, readiness and exit status. The work sits in cmd/NAME.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"packmill/archive"
	"packmill/cmd/internal/control"
	"packmill/internal/clean"
	"packmill/spool"
	"packmill/spool/statement"
)

// The exit status of every program of the project.
const (
	ExitDone  = 0
	ExitWrong = 100 // wrong use or settings: a restart would not help
	ExitPass  = 111 // may pass: the supervisor restarts it
)

// Flags are what every daemon takes.
type Flags struct {
	Tree  string `help:"The tree." default:"/var/lib/packmill" env:"PACKMILL_TREE" placeholder:"DIR" type:"path"`
	Once  bool   `help:"Work until nothing is left to do now, then exit (for cron)."`
	Quiet bool   `help:"Log only what a person should look at: what cron mails then is worth reading."`
	Debug bool   `help:"Log each scan too, and what stays where it is, and why."`

	Version kong.VersionFlag `help:"Print the version."`

	LogTo io.Writer `kong:"-"` // nil: standard error
}

// version is what the linker was told (-X), for sources that are no repository.
var version string

// Version names a program and the source it was built from, as the linker was
// told or as Go's tools wrote it down: "packmill v0.0.0-20261122013353-49e3443d2c1a",
// with +dirty if files were changed; "packmill (devel)" if nobody said it.
func Version(name string) string {
	if version != "" {
		return name + " " + version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		return name + " " + info.Main.Version
	}
	return name
}

// Env is what a daemon works with.
type Env struct {
	Tree     *spool.Tree
	Settings *control.Store
	Log      *slog.Logger
	Once     bool
	Name     string // of the program: buildd-amd64
}

// Wrong marks an error that a restart would not mend: exit status 100.
type Wrong struct{ Err error }

func (w Wrong) Error() string { return w.Err.Error() }
func (w Wrong) Unwrap() error { return w.Err }

// Start opens the tree and reads the settings.
func (f *Flags) Start(name string) (*Env, error) {
	// What one daemon writes the next must be able to move: the group shares.
	unix.Umask(0o002)
	level := slog.LevelInfo
	switch {
	case f.Debug:
		level = slog.LevelDebug
	case f.Quiet:
		level = slog.LevelWarn
	}
	to := f.LogTo
	if to == nil {
		to = os.Stderr
	}
	log := newLog(to, level)
	tree, err := spool.Open(f.Tree)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w; run it as the user that the service file names", err)
		}
		return nil, Wrong{err}
	}
	if _, err := statement.OpenRing(tree.Root()); err != nil {
		return nil, Wrong{err}
	}
	store, err := control.NewStore(tree.Path("control"), log)
	if err != nil {
		return nil, Wrong{err}
	}
	return &Env{Tree: tree, Settings: store, Log: log, Once: f.Once, Name: name}, nil
}

// newLog is a log in which nothing from outside acts on who reads it: oneLine has
// strings, and the handler quotes whatever else is not simply to be seen.
func newLog(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: oneLine}))
}

// oneLine keeps control characters from outside out of the log.
func oneLine(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindString {
		a.Value = slog.StringValue(spool.OneLine(a.Value.String()))
	}
	return a
}

// Main parses the command line into cli, runs the daemon and ends the process.
// It ends well on SIGTERM and SIGINT, once what is in hand has been put down.
func Main(name, manual string, cli any, run func(context.Context) error) {
	parser, err := kong.New(cli, kong.Name(name), kong.Description(manual), kong.UsageOnError(),
		kong.Vars{"version": Version(name)}, kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 100}))
	if err != nil {
		panic(err) // a fault of the program, found by its first test
	}
	if _, err := parser.Parse(os.Args[1:]); err != nil {
		os.Stderr.Write(clean.Escape(nil, fmt.Appendf(nil, "%s: %v\nTry: %s --help\n", name, err, name)))
		os.Exit(ExitWrong)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	sd.SdNotify(false, sd.SdNotifyReady)
	os.Exit(Status(name, run(ctx)))
}

// Status prints the error, if there is one, and gives the exit status for it.
func Status(name string, err error) int {
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			os.Stderr.Write(clean.Escape(nil, fmt.Appendf(nil, "%s: %s\n", name, strings.TrimRight(line, "\n"))))
		}
	}
	return StatusOf(err)
}

// StatusOf is the exit status for an error.
func StatusOf(err error) int {
	var wrong Wrong
	var key *archive.KeyError
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &wrong), errors.As(err, &key):
		return ExitWrong
	}
	return ExitPass
}

// Loop fills in what every loop of a daemon has. A change of the settings makes
// it scan, with the new ones: it may have other places now.
func (e *Env) Loop(by spool.Actor, l *spool.Loop) *spool.Loop {
	l.Tree, l.By, l.Who, l.Log, l.Once = e.Tree, by, e.Name, e.Log, e.Once
	if l.Ready == nil {
		l.Ready = e.Room
	}
	l.Rules = func() any { return e.Settings.Get() }
	places, also := l.Places, l.Also
	l.Places = func() ([]spool.Place, error) {
		e.Settings.Look()
		return places()
	}
	l.Also = func() []string {
		dirs := []string{e.Tree.Path("control")}
		if also != nil {
			dirs = append(dirs, also()...)
		}
		return dirs
	}
	return l
}

// Rounds serves loops with Once in turn until a round of all of them moves
// nothing: what one of them does may be work for another.
func Rounds(ctx context.Context, loops ...*spool.Loop) error {
	var left error
	for ctx.Err() == nil {
		moved := 0
		for _, l := range loops {
			l.Once = true
			err := l.Run(ctx)
			if errors.Is(err, spool.ErrLeft) {
				left = err
			} else if err != nil {
				return err
			}
			moved += l.Moved
		}
		if moved == 0 {
			break
		}
	}
	return left
}

// Together runs loops side by side until ctx ends; the first that ends badly
// ends all.
func Together(ctx context.Context, loops ...*spool.Loop) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range loops {
		g.Go(func() error { return l.Run(ctx) })
	}
	return g.Wait()
}

// Serve is Rounds or Together, as --once says.
func (e *Env) Serve(ctx context.Context, loops ...*spool.Loop) error {
	if e.Once {
		return Rounds(ctx, loops...)
	}
	return Together(ctx, loops...)
}

// Vouched reads the statement of an item for the suite in which it lies. A
// statement.Refusal says why the item is not what was let in.
func (e *Env) Vouched(it *spool.Item) (*statement.Statement, error) {
	ring, err := statement.OpenRing(e.Tree.Root())
	if err != nil {
		return nil, err
	}
	return ring.Of(it.At(), it.Name.Source, it.Name.Version, it.Place.Suite)
}

// Verified is Vouched, and every file of the upload is what was let in.
func (e *Env) Verified(it *spool.Item) (*statement.Statement, error) {
	s, err := e.Vouched(it)
	if err != nil {
		return nil, err
	}
	return s, s.Verify(it.At())
}

// Room says why nothing new should be begun: see control.General.Room.
func (e *Env) Room() error { return e.RoomFor(0) }

// RoomFor is Room, and there must be that many bytes more.
func (e *Env) RoomFor(bytes int64) error {
	return e.Settings.Get().General.Room(e.Tree.Root(), bytes)
}
