package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/mail"
	"packmill/internal/openpgp"
	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/spool"
)

type buildCmd struct {
	Ls       buildLs   `cmd:"" default:"withargs" help:"List the builds that wait for a person's word."`
	Show     buildShow `cmd:"" help:"Show what is known of a build, and what can be said of it."`
	Sign     buildSign `cmd:"" help:"Sign what was built: it goes to the archive."`
	Fail     buildFail `cmd:"" help:"A fault of the source: no more builds of this version."`
	Retry    buildSay  `cmd:"" help:"Build it again, on whichever builder is free first."`
	DepWait  buildDeps `cmd:"" name:"dep-wait" help:"Wait for packages."`
	GiveBack buildBack `cmd:"" name:"giveback" help:"Build it again, on another builder than the one that had it, if there is one."`
	NotForUs buildNfu  `cmd:"" name:"not-for-us" help:"Never for this architecture."`
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

type pick struct {
	Arch  string `short:"a" help:"Only of this architecture." placeholder:"ARCH"`
	Suite string `short:"s" help:"Only of this suite." placeholder:"SUITE"`
}

// judged reports whether a build there waits for a person's word.
func judged(s spool.State) bool { return queue.May(queue.Manual, s) }

// find gives the builds that a pattern names.
func (p *pick) find(t *spool.Tree, pattern string, states func(spool.State) bool) ([]spool.Found, error) {
	all, err := t.Find(pattern, t.Where(states)...)
	var out []spool.Found
	for _, f := range all {
		if (p.Arch == "" || p.Arch == f.Arch()) && (p.Suite == "" || p.Suite == f.Place.Suite) {
			out = append(out, f)
		}
	}
	return out, err
}

type buildLs struct{ pick }

func (b *buildLs) Run(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	found, err := b.find(t, "", judged)
	if err != nil {
		return err
	}
	w := table()
	if !c.JSON {
		fmt.Fprintln(w, "STATE\tSUITE\tARCH\tITEM\tSINCE\tWHY")
	}
	for _, f := range found {
		r := rowOf(t, f)
		c.print(w, r, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", r.State, r.Suite, r.Arch, r.Item, age(r.Since), clean(r.Reason)))
	}
	return w.Flush()
}

type buildShow struct{ jobs }

func (b *buildShow) Run(c *cli) error {
	return b.each(c, judged, func(t *spool.Tree, _ *control.Settings, f spool.Found) error {
		tk, err := queue.TicketAt(t, f)
		if err != nil {
			return err
		}
		r := rowOf(t, f)
		text := mail.Summary(t, f, tk, spool.Event{Reason: r.Reason})
		c.print(os.Stdout, struct {
			row
			Result string `json:"result,omitempty"`
			Error  string `json:"error,omitempty"`
			Log    string `json:"log"`
		}{r, tk.Result, buildlog.ErrorAt(t.Path(f.Dir())), t.Path(f.Dir(), buildlog.LogFile)},
			text+"\nThe log: "+t.Path(f.Dir(), buildlog.LogFile)+"\n"+choice(f))
		return nil
	})
}

// choice says what can be said of a build.
func choice(f spool.Found) string {
	words := "fail -m TEXT | retry | dep-wait -m RELATIONS | giveback | not-for-us"
	if f.Place.State == spool.Built {
		words = "sign | " + words
	}
	return fmt.Sprintf("What you can say: packmill build %s  %s -a %s\n", words, strings.ReplaceAll(f.Name.ID(), ":", "%3a"), f.Arch())
}

// each calls do for each build that the arguments name. A name that fits
// nothing is refused before anything is done.
func (j *jobs) each(c *cli, states func(spool.State) bool, do func(*spool.Tree, *control.Settings, spool.Found) error) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	set, err := c.control()
	if err != nil {
		return err
	}
	var all []spool.Found
	for _, p := range j.Items {
		found, err := j.find(t, p, states)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return c.absent(t, p, "judge")
		}
		all = append(all, found...)
	}
	var bad error
	for _, f := range all {
		if err := do(t, set, f); err != nil {
			if !errors.Is(err, errRefused) {
				return err
			}
			bad = errRefused
		}
	}
	return bad
}

// say asks for an operation on each build.
func (j *jobs) say(c *cli, op queue.Op, text string) error {
	return j.each(c, judged, func(t *spool.Tree, _ *control.Settings, f spool.Found) error {
		return c.ask(t, f, &queue.Request{Op: op, Message: text})
	})
}

// ask asks for one operation on the build at f and prints what became of it.
func (c *cli) ask(t *spool.Tree, f spool.Found, r *queue.Request) error {
	r.Who, r.Now, r.Dry = who(), time.Now().UTC(), c.DryRun
	_, reply, err := queue.Patiently(t, func() (*spool.Found, error) { return &f, nil }, func(spool.Found) *queue.Request { return r })
	if errors.Is(err, spool.ErrGone) {
		reply, err = &queue.Reply{From: f.Place, Refusal: "it has moved; look with packmill ls"}, nil
	}
	if err != nil {
		return err
	}
	l := &wbLine{
		Op: string(r.Op), Source: f.Name.Source, Version: f.Name.Version, Suite: f.Place.Suite, Arch: f.Arch(), Item: f.Name.String(),
		From: f.Place.State.String(), To: reply.To.State.String(), Role: string(reply.Role), DryRun: c.DryRun,
		Refusal: reply.Refusal, Warning: reply.Warning, Done: reply.Refusal == "" && !c.DryRun,
	}
	l.tell(c)
	if l.Refusal != "" {
		return errRefused
	}
	return nil
}

type buildFail struct {
	jobs
	Message string `short:"m" required:"" help:"Why; it is kept with the job."`
}

func (b *buildFail) Run(c *cli) error { return b.say(c, queue.Fail, b.Message) }

type buildSay struct {
	jobs
	Message string `short:"m" help:"Why."`
}

func (b *buildSay) Run(c *cli) error { return b.say(c, queue.GiveBack, b.Message) }

type buildBack struct{ buildSay }

func (b *buildBack) Run(c *cli) error {
	return b.each(c, judged, func(t *spool.Tree, _ *control.Settings, f spool.Found) error {
		return c.ask(t, f, &queue.Request{Op: queue.GiveBack, Message: b.Message, Away: true})
	})
}

type buildNfu struct{ buildSay }

func (b *buildNfu) Run(c *cli) error { return b.say(c, queue.NoBuild, b.Message) }

type buildDeps struct {
	jobs
	Message string `short:"m" required:"" help:"The packages, such as: libfoo-dev (>= 2), libbar-dev."`
}

func (b *buildDeps) Run(c *cli) error { return b.say(c, queue.DepWait, b.Message) }

type buildSign struct {
	jobs
	With string `help:"The signed .changes, signed elsewhere (gpg --clearsign); - is standard input. Default: gpg signs here, with your key." placeholder:"FILE"`
	Key  string `help:"The key that gpg signs with." placeholder:"ID"`
}

func (b *buildSign) Run(c *cli) error {
	return b.each(c, only(spool.Built), func(t *spool.Tree, set *control.Settings, f spool.Found) error {
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
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if openpgp.IsSigned(data) {
		if data, err = openpgp.ClearText(data); err != nil {
			return nil, err
		}
	}
	args := []string{"--clearsign", "--digest-algo", "SHA512", "--output", "-"}
	if b.Key != "" {
		args = append(args, "--local-user", b.Key)
	}
	cmd := exec.Command("gpg", args...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(data), &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("gpg does not sign %s: %w (another key: --key; signed elsewhere: --with)", filepath.Base(path), err)
	}
	return bytes.ReplaceAll(out.Bytes(), []byte("\r\n"), []byte("\n")), nil
}

// tell prints what became of an operation.
func (l *wbLine) tell(c *cli) {
	what := fmt.Sprintf("%s_%s on %s: ", l.Source, l.Version, l.Arch)
	if l.Version == "" {
		what = fmt.Sprintf("%s on %s: ", l.Source, l.Arch)
	}
	switch {
	case l.Refusal != "":
		what += "refused: " + l.Refusal
		if l.From != "" {
			what = strings.Replace(what, ": refused", " ("+l.From+"): refused", 1)
		}
	case l.To == l.From:
		what += l.From + ": " + l.Op
	default:
		what += l.From + " -> " + l.To
	}
	if l.DryRun && l.Refusal == "" {
		what = "would do " + what
	}
	if l.Warning != "" {
		what += " (" + l.Warning + ")"
	}
	out := os.Stdout
	if l.Refusal != "" && !c.JSON {
		out = os.Stderr
	}
	c.print(out, l, clean(what))
}
