package main

import (
	"fmt"
	"os"
	"strings"

	"packmill/queue"
	"packmill/spool"
)

type reviewCmd struct {
	Ls     reviewLs     `cmd:"" default:"1" help:"List what waits for a reviewer."`
	Show   reviewShow   `cmd:"" help:"Show one upload."`
	Accept reviewAccept `cmd:"" help:"Let uploads through to the build queues."`
	Reject reviewReject `cmd:"" help:"Refuse uploads."`
}

type reviewLs struct{}

func (reviewLs) Run(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	found, err := t.Find("", spool.Review)
	if err != nil {
		return err
	}
	w := table()
	if !c.JSON {
		fmt.Fprintln(w, "AGE\tSOURCE\tVERSION\tSUITE\tWHO\tREMARKS")
	}
	for _, f := range found {
		r := struct {
			row
			Uploader string `json:"uploader,omitempty"`
			Remarks  string `json:"remarks,omitempty"`
		}{row: rowOf(t, f)}
		if st, err := spool.ReadTicket(t.Path(f.Dir())); err == nil {
			if tk, err := queue.ReadTicket(st); err == nil {
				r.Uploader, r.Remarks = tk.Uploader, tk.Remarks
			}
		}
		n := ""
		if r.Remarks != "" {
			n = fmt.Sprint(strings.Count(r.Remarks, "\n") + 1)
		}
		c.print(w, r, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", age(f.Name.Time), r.Source, r.Version, r.Suite, clean(r.Uploader), n))
	}
	if len(found) == 0 && !c.JSON {
		fmt.Fprintln(w, "nothing waits for review")
	}
	return w.Flush()
}

type reviewShow struct {
	Item string `arg:"" help:"The upload."`
}

func (s *reviewShow) Run(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	found, err := t.Find(s.Item, spool.Review)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return c.absent(t, s.Item, "review")
	}
	if err := (&showCmd{Item: found[0].Name.String()}).Run(c); err != nil {
		return err
	}
	if c.JSON {
		return nil
	}
	entries, err := os.ReadDir(t.Path(found[0].Dir()))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			fmt.Printf("  %10d  %s\n", info.Size(), clean(e.Name()))
		}
	}
	return nil
}

type reviewAccept struct {
	Items   []string `arg:"" name:"item" help:"Uploads."`
	Message string   `short:"m" help:"A remark for the history." default:"accepted"`
}

func (a *reviewAccept) Run(c *cli) error {
	return c.act(a.Items, []spool.State{spool.Review}, "accept", func(t *spool.Tree, it *spool.Item) error {
		return it.Move(spool.Person, who(), spool.Verdict{To: spool.In(spool.Accepted, it.Place.Suite), Reason: a.Message})
	})
}

type reviewReject struct {
	Items   []string `arg:"" name:"item" help:"Uploads."`
	Message string   `short:"m" required:"" help:"Why, for the uploader." placeholder:"TEXT"`
}

func (r *reviewReject) Run(c *cli) error {
	return c.act(r.Items, []spool.State{spool.Review}, "reject", func(t *spool.Tree, it *spool.Item) error {
		return it.Move(spool.Person, who(), spool.Verdict{
			To: spool.In(spool.Rejected), Reason: r.Message,
			Text: fmt.Sprintf("Refused by %s:\n%s\n", who(), r.Message),
		})
	})
}
