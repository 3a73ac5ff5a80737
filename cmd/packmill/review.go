package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/desk"
	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/terminal"
	"packmill/cmd/internal/usage"
	"packmill/spool"
)

type reviewCmd struct {
	Ls     reviewLs     `cmd:"" default:"withargs" help:"List what waits for a reviewer."`
	Show   reviewShow   `cmd:"" help:"Show one upload: what is new in it, and what is known of it."`
	Accept reviewAccept `cmd:"" help:"Let uploads through to the build queues."`
	Reject reviewReject `cmd:"" help:"Refuse uploads."`
	Hold   reviewHold   `cmd:"" help:"Mark uploads as on hold; they go on waiting."`
	Ask    reviewAsk    `cmd:"" help:"Ask the uploader something, by mail."`
}

func (reviewCmd) Help() string {
	return `An upload lies in spool/review/SUITE until somebody decides. To accept is also: mv it to spool/accepted/SUITE.

Examples:
  packmill review                                what waits
  packmill review show hello                     what is new in hello
  packmill review accept hello world
  packmill review reject hello -m "debian/copyright does not name the licence of src/md5.c"`
}

// desk opens the reviewer's desk.
func (c *cli) desk() (*spool.Tree, *desk.Desk, error) {
	t, err := c.open()
	if err != nil {
		return nil, nil, err
	}
	set, err := c.control()
	if err != nil {
		return nil, nil, err
	}
	d, err := desk.Open(t, set)
	return t, d, err
}

type reviewLs struct {
	Items []string `arg:"" optional:"" name:"item" help:"Only these: hello, hello_2.10-3, 'lib*'."`
	pick
	watch
	paged
}

func (x *reviewLs) Run(c *cli, ctx *kong.Context) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	err = x.show(c, func(s *terminal.Screen) error {
		return c.reviews(t, s, x.filter("review", x.Items, survey.Only(spool.Review)))
	})
	return usage.Mistyped(ctx, x.Items, err)
}

// reviews lists what waits for a reviewer.
func (c *cli) reviews(t *spool.Tree, s *terminal.Screen, f *survey.Filter) error {
	_, d, err := c.desk()
	if err != nil {
		return err
	}
	found, err := c.find(t, f)
	if err != nil {
		return err
	}
	l := c.list(s, terminal.Column{Name: "AGE"}, terminal.Column{Name: "SOURCE", Least: 10},
		terminal.Column{Name: "VERSION", Least: 8}, suiteColumn, terminal.Column{Name: "WHO", Least: 6},
		terminal.Column{Name: "KIND", Least: 6, Paint: desk.KindColour}, terminal.Column{Name: "WAITS FOR IT", Least: 12},
		terminal.Column{Name: "REMARKS", Least: 7})
	for _, f := range found {
		x, _, err := d.Look(f)
		if errors.Is(err, os.ErrNotExist) {
			continue // decided meanwhile
		}
		if err != nil {
			return err
		}
		n := ""
		if len(x.Remarks) > 0 {
			n = strconv.Itoa(len(x.Remarks))
		}
		l.add(x, terminal.Age(f.Name.Time), x.Source, x.Version, x.Suite, x.Uploader, x.Kind(), strings.Join(x.Waits, " "), n)
	}
	return l.end("nothing waits for review")
}

type reviewShow struct {
	Item      string `arg:"" help:"The upload."`
	NoDiff    bool   `help:"Leave the differences of the files out."`
	NoLintian bool   `help:"Do not run lintian."`
	paged
}

func (s *reviewShow) Run(c *cli) error {
	t, d, err := c.desk()
	if err != nil {
		return err
	}
	found, err := c.find(t, &survey.Filter{Verb: "review", Patterns: []string{s.Item}, States: survey.Only(spool.Review)})
	if err != nil {
		return err
	}
	for _, f := range found {
		progress := terminal.Begin("reading " + f.Name.ID())
		r, err := d.Report(context.Background(), f, !s.NoLintian)
		progress.End()
		if err != nil {
			return err
		}
		if !s.NoLintian && !c.DryRun {
			d.KeepLintian(f, r)
		}
		if s.NoDiff {
			r.Diff = ""
		}
		if c.JSON {
			c.print(os.Stdout, r, "")
			continue
		}
		r.Print(os.Stdout)
	}
	return nil
}

// remark is how a reviewer says why.
type remark struct {
	Message string `short:"m" help:"The remark; without it an editor opens (VISUAL, EDITOR)." placeholder:"TEXT"`
}

// text gives the remark for uploads on which verb is done: of -m, or from the
// editor, whose lines with # in front are left out.
func (r *remark) text(c *cli, verb string, items []string) (string, error) {
	if r.Message != "" || c.DryRun {
		return r.Message, nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return "", daemon.Wrong{Err: fmt.Errorf("%s: say why with -m TEXT; there is no terminal for an editor", verb)}
	}
	_, d, err := c.desk()
	if err != nil {
		return "", err
	}
	text, err := d.Template(verb, items)
	if err == nil {
		text, err = terminal.Edit(text)
	}
	if err == nil && text == "" {
		err = daemon.Refuse("the remark is empty")
	}
	return text, err
}

type reviewAccept struct {
	Items   []string `arg:"" name:"item" help:"Uploads; wildcards too."`
	Message string   `short:"m" help:"A remark for the history and the uploader." default:"accepted" placeholder:"TEXT"`
	pick
}

func (a *reviewAccept) Run(c *cli) error {
	_, d, err := c.desk()
	if err != nil {
		return err
	}
	return c.act(&a.pick, a.Items, survey.Only(spool.Review), "accept", func(it *spool.Item) (string, error) {
		if old, err := d.Replaced(it); err != nil {
			return "", err
		} else if old != "" && !slices.Contains(a.Items, it.Name.String()) {
			return "", daemon.Refuse("it came in the place of %s, which may be what you read; read this one, and say its "+
				"whole name: packmill review accept %s", old, it.Name)
		}
		if o, ok := desk.Held(desk.ReadOpinions(it.Path())); ok {
			terminal.Print(os.Stderr, "packmill: %s was on hold by %s: %s\n",
				it.Name.ID(), terminal.Clean(o.Who), terminal.Clean(o.Text))
		}
		more, err := d.Accept(it, terminal.Who(), a.Message)
		if more {
			return "noted; a second person must accept it too (Two-Persons in control/general)", err
		}
		return "", err
	})
}

type reviewReject struct {
	Items []string `arg:"" name:"item" help:"Uploads; wildcards too."`
	pick
	remark
}

func (r *reviewReject) Run(c *cli) error {
	text, err := r.text(c, "reject", r.Items)
	if err != nil {
		return err
	}
	return c.act(&r.pick, r.Items, survey.Only(spool.Review), "reject", func(it *spool.Item) (string, error) {
		return "", desk.Reject(it, terminal.Who(), text)
	})
}

type reviewHold struct {
	Items []string `arg:"" name:"item" help:"Uploads; wildcards too."`
	Off   bool     `help:"Take the hold off."`
	pick
	remark
}

func (h *reviewHold) Run(c *cli) error {
	text, do, did := h.Message, desk.Release, "no longer on hold"
	if !h.Off {
		var err error
		if text, err = h.text(c, "hold", h.Items); err != nil {
			return err
		}
		do, did = desk.Hold, "on hold: "+text
	}
	return c.act(&h.pick, h.Items, survey.Only(spool.Review), "hold", func(it *spool.Item) (string, error) {
		if _, ok := desk.Held(desk.ReadOpinions(it.Path())); h.Off && !ok {
			return "", daemon.Refuse("it is not on hold")
		}
		return did, do(it, terminal.Who(), text)
	})
}

type reviewAsk struct {
	Items []string `arg:"" name:"item" help:"Uploads; wildcards too."`
	pick
	remark
}

func (a *reviewAsk) Run(c *cli) error {
	text, err := a.text(c, "ask", a.Items)
	if err != nil {
		return err
	}
	_, d, err := c.desk()
	if err != nil {
		return err
	}
	return c.act(&a.pick, a.Items, survey.Only(spool.Review), "ask", func(it *spool.Item) (string, error) {
		return "asked by mail", d.Ask(it, terminal.Who(), text)
	})
}
