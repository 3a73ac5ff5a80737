package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/desk"
	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/terminal"
	"packmill/spool"
)

type reviewCmd struct {
	Ls     reviewLs     `cmd:"" default:"1" help:"List what waits for a reviewer."`
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

type reviewLs struct{}

func (reviewLs) Run(c *cli) error {
	t, d, err := c.desk()
	if err != nil {
		return err
	}
	found, err := t.Find("", spool.Review)
	if err != nil {
		return err
	}
	w := terminal.Table()
	if !c.JSON && len(found) > 0 {
		fmt.Fprintln(w, "AGE\tSOURCE\tVERSION\tSUITE\tWHO\tKIND\tWAITS FOR IT\tREMARKS")
	}
	for _, f := range found {
		x, _, err := d.Look(f)
		if errors.Is(err, os.ErrNotExist) {
			continue // decided meanwhile
		}
		if err != nil {
			return err
		}
		kind := "update"
		if x.New {
			kind = "new"
		}
		if x.Hold != "" {
			kind += ", on hold by " + x.Hold
		}
		if len(x.Accepts) > 0 {
			kind += ", accepted by " + strings.Join(x.Accepts, ", ")
		}
		n := ""
		if len(x.Remarks) > 0 {
			n = fmt.Sprint(len(x.Remarks))
		}
		c.print(w, x, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", terminal.Age(f.Name.Time), x.Source, x.Version, x.Suite,
			spool.OneLine(x.Uploader), spool.OneLine(kind), strings.Join(x.Waits, " "), n))
	}
	if len(found) == 0 && !c.JSON {
		fmt.Fprintln(w, "nothing waits for review")
	}
	return w.Flush()
}

type reviewShow struct {
	Item      string `arg:"" help:"The upload."`
	NoDiff    bool   `help:"Leave the differences of the files out."`
	NoLintian bool   `help:"Do not run lintian."`
}

func (s *reviewShow) Run(c *cli) error {
	t, d, err := c.desk()
	if err != nil {
		return err
	}
	found, err := survey.Find(t, "review", s.Item, spool.Review)
	if err != nil {
		return err
	}
	for _, f := range found {
		r, err := d.Report(f, !s.NoLintian)
		if err != nil {
			return err
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
	t, d, err := c.desk()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n# Why? This goes to the uploader. Lines with # in front are left out; an empty text changes nothing.\n#\n")
	for _, i := range items {
		found, err := survey.Find(t, verb, i, spool.Review)
		if err != nil {
			return "", err
		}
		for _, f := range found {
			x, _, err := d.Look(f)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "# %s %s %s (%s), uploaded by %s\n", verb, x.Source, x.Version, x.Suite, terminal.Clean(x.Uploader))
			for _, line := range x.Remarks {
				fmt.Fprintf(&b, "#   %s\n", terminal.Clean(line))
			}
		}
	}
	text, err := terminal.Edit(b.String())
	if err == nil && text == "" {
		err = daemon.Refuse("the remark is empty")
	}
	return text, err
}

type reviewAccept struct {
	Items   []string `arg:"" name:"item" help:"Uploads."`
	Message string   `short:"m" help:"A remark for the history and the uploader." default:"accepted"`
}

func (a *reviewAccept) Run(c *cli) error {
	_, d, err := c.desk()
	if err != nil {
		return err
	}
	return c.act(a.Items, only(spool.Review), "accept", func(it *spool.Item) error {
		more, err := d.Accept(it, terminal.Who(), a.Message)
		if more && err == nil && !c.JSON {
			fmt.Printf("%s: noted; a second person must accept it too (Two-Persons in control/general)\n", it.Name)
		}
		return err
	})
}

type reviewReject struct {
	Items []string `arg:"" name:"item" help:"Uploads."`
	remark
}

func (r *reviewReject) Run(c *cli) error {
	text, err := r.text(c, "reject", r.Items)
	if err != nil {
		return err
	}
	return c.act(r.Items, only(spool.Review), "reject", func(it *spool.Item) error {
		return desk.Reject(it, terminal.Who(), text)
	})
}

type reviewHold struct {
	Items []string `arg:"" name:"item" help:"Uploads."`
	Off   bool     `help:"Take the hold off."`
	remark
}

func (h *reviewHold) Run(c *cli) error {
	text, do := h.Message, desk.Release
	if !h.Off {
		var err error
		if text, err = h.text(c, "hold", h.Items); err != nil {
			return err
		}
		do = desk.Hold
	}
	return c.act(h.Items, only(spool.Review), "hold", func(it *spool.Item) error {
		return do(it, terminal.Who(), text)
	})
}

type reviewAsk struct {
	Items []string `arg:"" name:"item" help:"Uploads."`
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
	return c.act(a.Items, only(spool.Review), "ask", func(it *spool.Item) error {
		return d.Ask(it, terminal.Who(), text)
	})
}
