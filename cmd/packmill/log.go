package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp/syntax"
	"time"

	"golang.org/x/term"

	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/terminal"
	"packmill/cmd/internal/usage"
	"packmill/internal/clean"
	"packmill/queue/buildlog"
	"packmill/queue/logs"
	"packmill/spool"
)

type logCmd struct {
	Show logShow `cmd:"" default:"withargs" help:"Print the newest log of a package, or follow the build that runs."`
	Ls   logLs   `cmd:"" help:"List builds, with what they took."`
	Grep logGrep `cmd:"" help:"Search the logs of all builds."`
}

func (logCmd) Help() string {
	return `Logs lie plain in the items of jobs, and compressed in the tree's directory logs, one directory a day. What a build printed is shown escaped: nothing in it acts on the terminal.

Examples:
  packmill log hello                         the newest log of hello
  packmill log hello_2.10-3 arm64            that of a version and architecture
  packmill log -f hello                      follow the build that runs, or waits to
  packmill log ls -s sid --since 7d          builds of a week: outcome, time, memory, disk
  packmill log grep -s sid -a amd64 --since 7d --state failed "undefined reference"`
}

// builds chooses among builds.
type builds struct {
	Suite string      `short:"s" help:"Only of this suite." placeholder:"SUITE"`
	Since usage.Since `help:"Only builds that began since: 12h, 7d, 2w ago, or a day such as 2026-11-21." placeholder:"TIME"`
	State []string    `help:"Only with this outcome: ${logstates}. Several with commas." placeholder:"STATE"`
}

// filter is what the flags, a package's pattern and an architecture mean.
func (b *builds) filter(pattern, arch string) (buildlog.Filter, error) {
	f, err := logs.Filter(pattern, b.State)
	if err != nil {
		return f, daemon.Wrong{Err: err}
	}
	f.Suite, f.Arch, f.Since = b.Suite, arch, time.Time(b.Since)
	return f, nil
}

type logShow struct {
	builds
	paged
	Package string `arg:"" help:"hello or hello_2.10-3."`
	Arch    string `arg:"" optional:"" help:"Of this architecture."`
	Follow  bool   `short:"f" help:"Follow the build that runs, or that waits to, until it ends; the exit status tells its outcome."`
	Raw     bool   `help:"Do not escape; not for terminals."`
}

func (x *logShow) Run(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	f, err := x.filter(x.Package, x.Arch)
	if err != nil {
		return err
	}
	if x.Raw && term.IsTerminal(int(os.Stdout.Fd())) {
		return daemon.Wrong{Err: errors.New("what a build printed goes to no terminal as it is; leave --raw out, " +
			"or write to a file")}
	}
	if x.Follow {
		if err := x.follow(t, f); !errors.Is(err, logs.ErrNone) {
			return err
		}
	}
	l, err := x.newest(c, t, f)
	if err != nil || !x.Follow || c.JSON {
		return err
	}
	return ended(logs.EndingOf(l.Outcome))
}

// newest prints the newest of the logs that the filter means.
func (x *logShow) newest(c *cli, t *spool.Tree, f buildlog.Filter) (*logs.Log, error) {
	l, others, r, err := logs.Newest(t, f)
	if err != nil {
		return nil, err
	}
	if l == nil {
		if err := survey.NoSuite(t, f.Suite); err != nil {
			return nil, err
		}
		return nil, daemon.Refuse("there is no log of %s; packmill why %[1]s says where it is", spool.OneLine(x.Package))
	}
	defer r.Close()
	if c.JSON {
		c.print(os.Stdout, l, "")
		return l, nil
	}
	if others > 0 {
		terminal.Print(os.Stderr, "%s on %s in %s, begun %s: %s (%d more: packmill log ls %s)\n",
			terminal.Clean(l.ID()), l.Arch, l.Suite, l.Start.Format(time.RFC3339), l.Outcome, others, spool.OneLine(x.Package))
	}
	out := x.writer()
	_, err = io.Copy(out, r)
	return l, errors.Join(err, out.Close())
}

// writer is standard output, escaped unless raw was asked for.
func (x *logShow) writer() io.WriteCloser {
	if x.Raw {
		return plain{os.Stdout}
	}
	return clean.NewEscaper(os.Stdout)
}

// plain is a writer that has nothing left to write in the end.
type plain struct{ io.Writer }

func (plain) Close() error { return nil }

// ended is the exit status for a build that was followed.
func ended(e logs.Ending) error {
	if e == logs.Built {
		return nil
	}
	return exitError{int(e), errors.New(e.String())}
}

// follow prints the log of the build that runs, or waits to, until it ends.
func (x *logShow) follow(t *spool.Tree, f buildlog.Filter) error {
	ctx, stop := interruptible()
	defer stop()
	follower := &logs.Follower{Tree: t, Filter: f, Writer: x.writer, Say: func(text string) {
		terminal.Print(os.Stderr, "%s\n", text)
	}}
	end, err := follower.Follow(ctx)
	if several := (*logs.SeveralError)(nil); errors.As(err, &several) {
		return daemon.Refuse("%w; name the architecture, or the suite with -s", err)
	}
	if err != nil {
		return err
	}
	return ended(end)
}

type logLs struct {
	builds
	paged
	Package string `arg:"" optional:"" help:"hello or hello_2.10-3; all if missing."`
	Arch    string `short:"a" help:"Only of this architecture." placeholder:"ARCH"`
}

func (logLs) Help() string {
	return `One line a build, the newest first, those that run before them. Without a package and --since: of the last day. The numbers stay when the log itself was old enough to be removed (Keep-Logs in control/general).

Examples:
  packmill log ls hello
  packmill log ls -s sid -a amd64 --since 30d --state failed --json`
}

func (x *logLs) Run(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	f, err := x.filter(x.Package, x.Arch)
	if err != nil {
		return err
	}
	if f.Source == "" && f.Since.IsZero() {
		f.Since = time.Now().Add(-24 * time.Hour)
	}
	all, err := logs.Builds(t, f)
	if err == nil && len(all) == 0 {
		err = survey.NoSuite(t, f.Suite)
	}
	if err != nil {
		return err
	}
	l := c.list(c.screen(), terminal.Column{Name: "BEGUN"}, suiteColumn, archColumn, itemColumn,
		terminal.Column{Name: "OUTCOME AND NUMBERS", Least: 18, Paint: survey.OutcomeColour}, whyColumn)
	for _, b := range all {
		why := b.Reason
		if b.Error != nil {
			why = b.Error.Text
		}
		begun := b.Start.Format(time.RFC3339)
		if c.screen().Terminal() {
			begun = terminal.Age(b.Start)
		}
		l.add(b, begun, b.Suite, b.Arch, b.ID(), logs.Numbers(&b), why)
	}
	return l.end("")
}

type logGrep struct {
	builds
	paged
	Pattern    string `arg:"" help:"A regular expression (RE2)."`
	Package    string `arg:"" optional:"" help:"Only logs of hello or hello_2.10-3."`
	Arch       string `short:"a" help:"Only of this architecture." placeholder:"ARCH"`
	Fixed      bool   `short:"F" help:"The pattern is plain text."`
	IgnoreCase bool   `short:"i" help:"Without case."`
	List       bool   `short:"l" help:"Only say which builds match."`
	Max        int    `short:"m" default:"1000" help:"At most so many lines of each log." placeholder:"N"`
}

func (logGrep) Help() string {
	return `Searches all logs, those of running builds and compressed ones too, the newest first. Exit status 0: something was found, 1: nothing.

Examples:
  packmill log grep -s sid -a amd64 --since 7d --state failed "undefined reference"
  packmill log grep -l -F "No space left on device"`
}

func (x *logGrep) Run(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	f, err := x.filter(x.Package, x.Arch)
	if err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	q := buildlog.Query{Pattern: x.Pattern, Fixed: x.Fixed, IgnoreCase: x.IgnoreCase, PerFile: x.Max}
	if x.List {
		q.PerFile = 1
	}
	out := bufio.NewWriter(os.Stdout)
	start := time.Now()
	total, err := logs.Search(ctx, t, f, q, func(l *logs.Log, m buildlog.Match) error {
		h := l.Hit(m)
		text := terminal.Clean(h.Build())
		if !x.List {
			text += fmt.Sprintf(":%d: %s", m.Line, m.Text)
		}
		c.print(out, h, text)
		return nil
	}, func(file string, err error) { terminal.Print(os.Stderr, "packmill: %s: %v\n", file, err) })
	if pattern := (*syntax.Error)(nil); errors.As(err, &pattern) {
		return daemon.Wrong{Err: err}
	}
	if err == nil && total.Matches == 0 {
		err = survey.NoSuite(t, f.Suite)
	}
	if err = errors.Join(out.Flush(), err); err != nil {
		return err
	}
	terminal.Print(os.Stderr, "%d matches in %d logs: %.1f MB in %.2f s\n",
		total.Matches, total.Files, float64(total.Bytes)/1e6, time.Since(start).Seconds())
	if total.Matches == 0 {
		return daemon.ErrRefused
	}
	return nil
}
