package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/mail"
	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/terminal"
	"packmill/cmd/internal/usage"
	"packmill/cmd/internal/wb"
	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/spool"
)

type buildCmd struct {
	Ls       buildLs   `cmd:"" default:"withargs" help:"List the builds that wait for a person's word."`
	Show     buildShow `cmd:"" help:"Show what is known of a build, and what can be said of it."`
	Sign     buildSign `cmd:"" help:"${word_sign}"`
	Fail     buildMust `cmd:"" help:"${word_fail}"`
	Retry    buildSay  `cmd:"" help:"${word_retry}"`
	DepWait  buildDeps `cmd:"" name:"dep-wait" help:"${word_dep_wait}"`
	GiveBack buildSay  `cmd:"" name:"giveback" help:"${word_giveback}"`
	NotForUs buildSay  `cmd:"" name:"not-for-us" help:"${word_not_for_us}"`
}

// buildHelp gives kong what the words of builds do, as sentences.
func buildHelp() kong.Vars {
	v := kong.Vars{}
	for _, w := range queue.WordsAt(queue.AtBuild) {
		v["word_"+strings.ReplaceAll(w.Name, "-", "_")] = strings.ToUpper(w.What[:1]) + w.What[1:] + "."
	}
	return v
}

func (buildCmd) Help() string {
	return `What was built lies in built until a person has read its log, where Log-Review is manual; what failed lies in build-attempted until a person judges it. The same words can be said by signed mail (packmill mail). Jobs in other states: packmill wb.

Examples:
  packmill build                                     what waits
  packmill build show hello
  packmill build sign hello                          signs with your gpg
  packmill build sign hello --with hello.changes     takes a file that you signed elsewhere
  packmill build fail hello_2.10-3 -a arm64 -m "bug 123456: unaligned access"
  packmill build giveback hello -a arm64             again, on another builder for two hours; then on any
  packmill build dep-wait app -m "libfoo-dev (>= 2)"`
}

// jobs are what most of the commands take.
type jobs struct {
	Items []string `arg:"" name:"item" help:"hello, hello_2.10-3 or an item's whole name."`
	pick
}

// judged reports whether a build there waits for a person's word.
func judged(s spool.State) bool { return queue.May(queue.Manual, s) }

type buildLs struct {
	Items []string `arg:"" optional:"" name:"item" help:"Only these: hello, hello_2.10-3, 'lib*'."`
	pick
	watch
	paged
}

func (b *buildLs) Run(c *cli, ctx *kong.Context) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	err = b.show(c, func(s *terminal.Screen) error {
		return c.ls(t, s, b.filter("judge", b.Items, judged), "no build waits for a person's word")
	})
	return usage.Mistyped(ctx, b.Items, err)
}

type buildShow struct {
	jobs
	paged
}

func (b *buildShow) Run(c *cli) error {
	return b.each(c, judged, func(t *spool.Tree, _ *control.Settings, f spool.Found) error {
		tk, err := queue.TicketAt(t, f)
		if err != nil {
			return err
		}
		r := survey.RowOf(t, f)
		text := mail.Summary(t, f, tk, spool.Event{Reason: r.Reason})
		c.print(os.Stdout, struct {
			survey.Row
			Result string `json:"result,omitempty"`
			Error  string `json:"error,omitempty"`
			Log    string `json:"log"`
		}{r, tk.Result, buildlog.ErrorAt(t.Path(f.Dir())), t.Path(f.Dir(), buildlog.LogFile)},
			text+"\nThe log: "+t.Path(f.Dir(), buildlog.LogFile)+"\n"+wb.Choice(f))
		return nil
	})
}

// each calls do for each build that the arguments name. A name that fits
// nothing is refused before anything is done.
func (j *jobs) each(
	c *cli, states func(spool.State) bool, do func(*spool.Tree, *control.Settings, spool.Found) error,
) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	set, err := c.control()
	if err != nil {
		return err
	}
	all, err := c.meant(t, j.filter("judge", j.Items, states))
	if err != nil {
		return err
	}
	var bad error
	for _, f := range all {
		if err := do(t, set, f); err != nil {
			if !errors.Is(err, daemon.ErrRefused) {
				return err
			}
			bad = daemon.ErrRefused
		}
	}
	return bad
}

// say says a word of each build: the one that the command is called by.
func (j *jobs) say(c *cli, node *kong.Context, text string) error {
	word := queue.WordAt(queue.AtBuild, node.Selected().Name)
	return j.each(c, judged, func(t *spool.Tree, _ *control.Settings, f spool.Found) error {
		return c.ask(t, f, word.Ask(text))
	})
}

// ask asks for one operation on the build at f and prints what became of it.
func (c *cli) ask(t *spool.Tree, f spool.Found, r *queue.Request) error {
	r.Who, r.Dry = terminal.Who(), c.DryRun
	l, err := wb.Say(t, f, r)
	if err != nil {
		return err
	}
	c.tell(l)
	if l.Refusal != "" {
		return daemon.ErrRefused
	}
	return nil
}

// buildMust is a word that wants a reason.
type buildMust struct {
	jobs
	Message string `short:"m" required:"" help:"Why; it is kept with the job." placeholder:"TEXT"`
}

func (b *buildMust) Run(c *cli, node *kong.Context) error { return b.say(c, node, b.Message) }

// buildSay is a word that may have one.
type buildSay struct {
	jobs
	Message string `short:"m" help:"Why." placeholder:"TEXT"`
}

func (b *buildSay) Run(c *cli, node *kong.Context) error { return b.say(c, node, b.Message) }

type buildDeps struct {
	jobs
	Message string `short:"m" required:"" help:"The packages, such as: libfoo-dev (>= 2), libbar-dev." placeholder:"RELATIONS"`
}

func (b *buildDeps) Run(c *cli, node *kong.Context) error { return b.say(c, node, b.Message) }

type buildSign struct {
	jobs
	With string `help:"The signed .changes, signed elsewhere (gpg --clearsign); - is standard input. Default: gpg signs here, with your key." placeholder:"FILE"`
	Key  string `help:"The key that gpg signs with." placeholder:"ID"`
}

func (b *buildSign) Run(c *cli) error {
	return b.each(c, survey.Only(spool.Built), func(t *spool.Tree, set *control.Settings, f spool.Found) error {
		s, ok := set.Suite(f.Place.Suite)
		if !ok {
			return daemon.Wrong{Err: fmt.Errorf("there is no suite %s in control/suites (any more)", f.Place.Suite)}
		}
		tk, err := queue.TicketAt(t, f)
		if err != nil {
			return err
		}
		if tk.Result == "" {
			return fmt.Errorf("%s has no result", f.Dir())
		}
		if c.DryRun {
			return c.ask(t, f, &queue.Request{Op: queue.Upload, Signer: true})
		}
		signed, err := b.signed(t.Path(f.Dir(), "result", tk.Result))
		if err != nil {
			return err
		}
		return c.ask(t, f, &queue.Request{
			Op: queue.Upload, Signer: true, Build: tk.Mark(f),
			Result: mail.PutSignature(set, s, signed),
		})
	})
}

// signed gets the signed form of the .changes at path: from a file, or from gpg.
func (b *buildSign) signed(path string) ([]byte, error) {
	switch b.With {
	case "":
	case "-":
		return io.ReadAll(io.LimitReader(os.Stdin, mail.MaxMail))
	default:
		return os.ReadFile(b.With)
	}
	return mail.ClearSign(path, b.Key)
}
