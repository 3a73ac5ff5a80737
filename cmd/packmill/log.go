package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/queue/runner"
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
	Suite string   `short:"s" help:"Only of this suite." placeholder:"SUITE"`
	Since since    `help:"Only builds that began since: 12h, 7d, 2w ago, or a day such as 2026-11-21." placeholder:"TIME"`
	State []string `help:"Only with this outcome: ${logstates}. Several with commas." placeholder:"STATE"`
}

// since is a time in the past, as people say it.
type since time.Time

// UnmarshalText reads a span (control.Span) before now, or a day.
func (s *since) UnmarshalText(text []byte) error {
	if day, err := time.ParseInLocation("2006-01-02", string(text), time.Local); err == nil {
		*s = since(day)
		return nil
	}
	d, err := control.Span(string(text))
	if err != nil {
		return err
	}
	*s = since(time.Now().Add(-d))
	return nil
}

// outcomes are the words for --state and the outcomes that they mean.
var outcomes = map[string][]string{
	"built":            {buildlog.Good},
	"failed":           {buildlog.Attempted, runner.Quarantined.String()},
	"dep-wait":         {runner.DepWait.String()},
	"bd-uninstallable": {runner.Uninstallable.String()},
	"given-back":       {runner.GiveBack.String(), buildlog.Lost},
	"cancelled":        {buildlog.Cancelled},
	"running":          {buildlog.Running},
}

// logStates are the words for help.
func logStates() string {
	var names []string
	for n := range outcomes {
		names = append(names, n)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// filter is what the flags and a package's pattern, which may be empty, mean.
func (b *builds) filter(pattern, arch string) (buildlog.Filter, error) {
	f := buildlog.Filter{Suite: b.Suite, Arch: arch, Since: time.Time(b.Since)}
	if pattern != "" {
		if n, err := spool.ParseName(pattern); err == nil {
			f.Source, f.Version = n.Source, n.Version
		} else {
			f.Source, f.Version, _ = strings.Cut(pattern, "_")
			f.Version = strings.ReplaceAll(f.Version, "%3a", ":")
		}
		if err := policy.CheckSource(f.Source); err != nil {
			return f, daemon.Wrong{Err: err}
		}
	}
	for _, list := range b.State {
		for s := range strings.SplitSeq(list, ",") {
			o, ok := outcomes[s]
			if !ok {
				return f, daemon.Wrong{Err: fmt.Errorf("there is no state %q of builds; there are: %s", s, logStates())}
			}
			f.Outcomes = append(f.Outcomes, o...)
		}
	}
	return f, nil
}

// coldStore is the tree's store of logs.
func coldStore(t *spool.Tree) buildlog.Store {
	return buildlog.Store{Dir: t.Path(spool.LogsDir)}
}

// logAt is a log and where it lies.
type logAt struct {
	buildlog.Build
	Path string `json:"path"`
}

// attempt is what two logs of one attempt have in common.
type attempt struct {
	source, version, suite, arch string
	start                        int64 // microseconds
}

func (l *logAt) attempt() attempt {
	return attempt{l.Source, l.Version, l.Suite, l.Arch, l.Start.UnixMicro()}
}

// hot lists the plain logs in the items of jobs: of those that the filter names,
// wherever they are, or of all that are open.
func hot(t *spool.Tree, f buildlog.Filter) ([]logAt, error) {
	states := t.Are(spool.Jobs | spool.Queued)
	if f.Source != "" {
		states = append(states, spool.Installed, spool.Attic)
	}
	found, err := t.Find(f.Source, states...)
	if errors.Is(err, fs.ErrPermission) {
		// The attic is not for everybody; logs are, and the store has them.
		found, err = t.Find(f.Source, t.Are(spool.Jobs|spool.Queued)...)
	}
	if err != nil {
		return nil, err
	}
	var out []logAt
	for _, x := range found {
		if x.Arch() == "" || x.Arch() == spool.SourceArch {
			continue
		}
		dir := t.Path(x.Dir())
		l := logAt{Path: filepath.Join(dir, buildlog.LogFile)}
		if x.Place.State == spool.Building {
			tk, err := queue.TicketAt(t, x)
			if err != nil {
				continue // it has moved on
			}
			l.Build = buildlog.Build{Source: tk.Source, Version: tk.Plus(), Suite: x.Place.Suite, Arch: x.Arch(), Builder: tk.Builder,
				Outcome: buildlog.Running}
			l.Start, _ = queue.Claimed(t, dir)
			l.Wall = time.Since(l.Start).Seconds()
		} else if all, err := buildlog.BuildsAt(dir); err != nil || len(all) == 0 {
			continue
		} else {
			l.Build = all[len(all)-1]
		}
		if _, err := os.Lstat(l.Path); err == nil && f.Match(&l.Build) {
			out = append(out, l)
		}
	}
	return out, nil
}

// logs lists the logs that the filter means, hot and cold, the newest first. Of
// a build that has ended the cold one is taken, which does not move.
func logs(t *spool.Tree, f buildlog.Filter) ([]logAt, error) {
	out, err := hot(t, f)
	if err != nil {
		return nil, err
	}
	store := coldStore(t)
	cold, err := store.Logs(f)
	if err != nil {
		return nil, err
	}
	known := map[attempt]int{}
	for i := range out {
		known[out[i].attempt()] = i
	}
	for _, b := range cold {
		l := logAt{Build: b, Path: store.Path(b.Log)}
		if i, ok := known[l.attempt()]; ok {
			out[i].Path = l.Path
			continue
		}
		out = append(out, l)
	}
	slices.SortStableFunc(out, func(a, b logAt) int { return b.Start.Compare(a.Start) })
	return out, nil
}

type logShow struct {
	builds
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
		return daemon.Wrong{Err: errors.New("what a build printed goes to no terminal as it is; leave --raw out, or write to a file")}
	}
	if x.Follow {
		if done, err := x.follow(c, t, f); done || err != nil {
			return err
		}
	}
	for try := range 3 {
		all, err := logs(t, f)
		if err != nil {
			return err
		}
		if len(all) == 0 {
			return fmt.Errorf("%w: there is no log of %s; packmill why %s says where it is", errRefused, spool.OneLine(x.Package), spool.OneLine(x.Package))
		}
		l := all[0]
		if c.JSON {
			c.print(os.Stdout, l, "")
			return nil
		}
		r, err := buildlog.Open(l.Path)
		if errors.Is(err, fs.ErrNotExist) && try < 2 {
			continue // it has just moved on
		}
		if err != nil {
			return err
		}
		defer r.Close()
		if others := len(all) - 1; others > 0 {
			fmt.Fprintf(os.Stderr, "%s on %s in %s, begun %s: %s (%d more: packmill log ls %s)\n", clean(l.ID()), l.Arch, l.Suite,
				l.Start.Format(time.RFC3339), l.Outcome, others, spool.OneLine(x.Package))
		}
		out := x.writer()
		_, err = io.Copy(out, r)
		if err = errors.Join(err, out.Close()); err != nil {
			return err
		}
		if x.Follow {
			return ending(l.Outcome)
		}
		return nil
	}
	return nil
}

// writer is standard output, escaped unless raw was asked for.
func (x *logShow) writer() io.WriteCloser {
	if x.Raw {
		return plain{os.Stdout}
	}
	return buildlog.NewEscaper(os.Stdout)
}

// plain is a writer that has nothing left to write in the end.
type plain struct{ io.Writer }

func (plain) Close() error { return nil }

// How log -f ends, as the contract of builders has it.
var (
	exitFailed  = exitError{2, errors.New("the build failed")}
	exitDepWait = exitError{3, errors.New("the build waits for dependencies")}
	exitNone    = exitError{4, errors.New("the build ended without a verdict")}
)

// ending is the exit status for an outcome.
func ending(outcome string) error {
	for word, status := range map[string]error{"built": nil, "failed": exitFailed, "dep-wait": exitDepWait, "bd-uninstallable": exitDepWait} {
		if slices.Contains(outcomes[word], outcome) {
			return status
		}
	}
	return exitNone
}

// pollEvery is how often a followed build is looked at.
const pollEvery = 100 * time.Millisecond

// follow prints the log of the build that runs as it comes, waiting for one
// that is still to begin. done says that it ended; false: there is none, and
// nothing to wait for.
func (x *logShow) follow(c *cli, t *spool.Tree, f buildlog.Filter) (done bool, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	said := ""
	for {
		found, err := t.Find(f.Source, append(t.Are(spool.Waits), spool.Building)...)
		if err != nil {
			return false, err
		}
		found = slices.DeleteFunc(found, func(o spool.Found) bool {
			return !f.Match(&buildlog.Build{Source: o.Name.Source, Version: o.Name.Version, Suite: o.Place.Suite, Arch: o.Arch(), Start: time.Now()})
		})
		runs := func(o spool.Found) bool { return o.Place.State == spool.Building }
		if slices.ContainsFunc(found, runs) {
			found = slices.DeleteFunc(found, func(o spool.Found) bool { return !runs(o) })
		}
		switch {
		case len(found) == 0:
			return false, nil
		case len(found) > 1:
			var where []string
			for _, o := range found {
				where = append(where, o.Name.ID()+" on "+o.Arch()+" in "+o.Place.Suite)
			}
			return true, fmt.Errorf("%w: several builds: %s; name the architecture, or the suite with -s", errRefused, strings.Join(where, ", "))
		case runs(found[0]):
			done, err := x.tail(ctx, t, t.Path(found[0].Dir()))
			if done || err != nil {
				return true, err
			}
		default:
			if s := fmt.Sprintf("%s waits in %s", found[0].Name.ID(), found[0].Place); s != said {
				said = s
				fmt.Fprintf(os.Stderr, "%s; packmill why %s says for what\n", clean(s), found[0].Name.Source)
			}
		}
		select {
		case <-ctx.Done():
			return true, exitNone
		case <-time.After(pollEvery):
		}
	}
}

// tail prints the log of the build whose item lies at dir until it ends, also
// when the item has moved by then: it is held by a descriptor. done is false if
// the build ended before it was seen.
func (x *logShow) tail(ctx context.Context, t *spool.Tree, dir string) (done bool, err error) {
	hold, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer hold.Close()
	item := fmt.Sprintf("/proc/self/fd/%d", hold.Fd())
	begun, _ := queue.Claimed(t, item)
	out := x.writer()
	var log io.ReadCloser
	defer func() {
		if log != nil {
			log.Close()
		}
	}()
	for {
		// Asked before the log is read: what was written before the end is
		// printed.
		over := ended(t, item, begun)
		if log == nil {
			if log, err = current(item, begun, over); err != nil {
				return true, err
			}
		}
		if log != nil {
			if _, err := io.Copy(out, log); err != nil {
				return true, err
			}
		}
		if over {
			break
		}
		select {
		case <-ctx.Done():
			return true, errors.Join(out.Close(), exitNone)
		case <-time.After(pollEvery):
		}
	}
	if err := out.Close(); err != nil {
		return true, err
	}
	all, err := buildlog.BuildsAt(item)
	if err != nil {
		return true, err
	}
	for _, b := range slices.Backward(all) {
		if b.Start.Equal(begun) {
			fmt.Fprintf(os.Stderr, "%s on %s: %s\n", clean(b.ID()), b.Arch, clean(numbers(&b)+": "+b.Reason))
			return true, ending(b.Outcome)
		}
	}
	fmt.Fprintf(os.Stderr, "the build was taken away from its builder\n")
	return true, exitNone
}

// ended reports whether the build that began at a time has left building.
func ended(t *spool.Tree, item string, begun time.Time) bool {
	events, _ := spool.ReadHistory(item)
	if len(events) == 0 {
		return true
	}
	p, _ := t.PlaceOf(events[len(events)-1].To)
	at, _ := queue.Claimed(t, item)
	return p.State != spool.Building || !at.Equal(begun)
}

// current opens the log of the build that began at a time: nil if it is not
// there yet, and what lies there is an earlier one's. last says that no other
// will come.
func current(item string, begun time.Time, last bool) (io.ReadCloser, error) {
	st, err := os.Lstat(filepath.Join(item, buildlog.LogFile))
	// The clock of files runs some milliseconds behind.
	if errors.Is(err, fs.ErrNotExist) || err == nil && !last && st.ModTime().Before(begun.Add(-50*time.Millisecond)) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := buildlog.Open(filepath.Join(item, buildlog.LogFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return r, err
}

type logLs struct {
	builds
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
	var all []buildlog.Build
	running, err := hot(t, f)
	if err != nil {
		return err
	}
	for _, l := range running {
		if l.Outcome == buildlog.Running {
			all = append(all, l.Build)
		}
	}
	if err := coldStore(t).Builds(f, func(b *buildlog.Build) bool { all = append(all, *b); return true }); err != nil {
		return err
	}
	slices.SortStableFunc(all, func(a, b buildlog.Build) int { return b.Start.Compare(a.Start) })
	w := table()
	if !c.JSON {
		fmt.Fprintln(w, "BEGUN\tSUITE\tARCH\tPACKAGE\tOUTCOME AND NUMBERS\tWHY")
	}
	for _, b := range all {
		why := b.Reason
		if b.Error != nil {
			why = b.Error.Text
		}
		c.print(w, b, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", b.Start.Format(time.RFC3339), clean(b.Suite), clean(b.Arch), clean(b.ID()), clean(numbers(&b)), clean(why)))
	}
	return w.Flush()
}

type logGrep struct {
	builds
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

// grepLine is a match, as --json prints it.
type grepLine struct {
	Source  string    `json:"source"`
	Version string    `json:"version"`
	Suite   string    `json:"suite"`
	Arch    string    `json:"arch"`
	Start   time.Time `json:"start"`
	Outcome string    `json:"outcome"`
	Line    int       `json:"line"`
	Text    string    `json:"text"`
	Path    string    `json:"path"`
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
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	todo, err := logs(t, f)
	if err != nil {
		return err
	}
	q := buildlog.Query{Pattern: x.Pattern, Fixed: x.Fixed, IgnoreCase: x.IgnoreCase, PerFile: x.Max}
	if x.List {
		q.PerFile = 1
	}
	out := bufio.NewWriter(os.Stdout)
	start, total := time.Now(), buildlog.Found{}
	for round := 0; round < 3 && len(todo) > 0; round++ {
		paths, of := make([]string, len(todo)), map[string]*logAt{}
		for i := range todo {
			paths[i] = todo[i].Path
			of[paths[i]] = &todo[i]
		}
		gone := map[attempt]bool{} // builds that have ended since they were listed
		found, err := buildlog.Grep(ctx, paths, q, func(m buildlog.Match) error {
			l := of[m.File]
			text := fmt.Sprintf("%s_%s %s %s %s", clean(l.ID()), l.Arch, l.Suite, l.Start.Format("2006-01-02T15:04:05Z"), l.Outcome)
			if !x.List {
				text += fmt.Sprintf(":%d: %s", m.Line, m.Text)
			}
			c.print(out, grepLine{l.Source, l.Version, l.Suite, l.Arch, l.Start, l.Outcome, m.Line, m.Text, m.File}, text)
			return nil
		}, func(file string, err error) {
			if errors.Is(err, fs.ErrNotExist) {
				gone[of[file].attempt()] = true
				return
			}
			fmt.Fprintf(os.Stderr, "packmill: %s: %v\n", file, err)
		})
		total.Files, total.Matches, total.Bytes = total.Files+found.Files-len(gone), total.Matches+found.Matches, total.Bytes+found.Bytes
		if err != nil {
			return errors.Join(out.Flush(), daemon.Wrong{Err: err})
		}
		todo = nil
		if len(gone) > 0 {
			again := f
			again.Outcomes = nil // what ran then has an outcome now
			all, err := logs(t, again)
			if err != nil {
				return err
			}
			for _, l := range all {
				if gone[l.attempt()] {
					todo = append(todo, l)
				}
			}
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	took := time.Since(start)
	fmt.Fprintf(os.Stderr, "%d matches in %d logs: %.1f MB in %.2f s\n", total.Matches, total.Files, float64(total.Bytes)/1e6, took.Seconds())
	if total.Matches == 0 {
		return errRefused
	}
	return nil
}

// numbers says in words what a build took.
func numbers(b *buildlog.Build) string {
	out := []string{b.Outcome}
	seconds := func(what string, s float64) {
		if s > 0 {
			out = append(out, what+" "+(time.Duration(s*1000)*time.Millisecond).Round(100*time.Millisecond).String())
		}
	}
	bytes := func(what string, n int64) {
		if n > 0 {
			out = append(out, fmt.Sprintf("%s %.1f MiB", what, float64(n)/(1<<20)))
		}
	}
	seconds("wall", b.Wall)
	seconds("cpu", b.CPU)
	bytes("memory", b.Memory)
	bytes("disk", b.Disk)
	bytes("log", b.Size)
	seconds("waited", b.Wait)
	return strings.Join(out, ", ")
}
