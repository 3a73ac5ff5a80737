package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"packmill/archive"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/mail"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/queue/lacking"
	"packmill/spool"
)

// wbCmd is wanna-build's person's command, with wb's own grammar.
type wbCmd struct {
	Words []string `arg:"" optional:"" passthrough:"" name:"words" help:"CMD PKG[_VER]... . ARCH... [. SUITE] [. -m TEXT]"`
}

func (wbCmd) Help() string {
	return `Operations on build jobs, in the words of Debian's wb:

  CMD PKG[_VERSION]... . ARCH... [. SUITE] [. -m TEXT] [--override] [--changes FILE] [--dry-run] [--json]

CMD is one of
  gb                give back: build it again
  dw -m RELATIONS   wait for packages, such as "libfoo-dev (>= 2)"
  fail -m TEXT      a fault of the source; said again, the text is added
  nfu               never for this architecture; again: takes that back
  nmu [N] -m TEXT   rebuild what is installed as +bN, one changelog and time for all architectures; nmu 0 cancels
  manual            a person sees to it by hand: a note, nothing else
  cancel -m TEXT    not here, for this version; a running build is ended (also: packmill cancel)
  bp N              build priority: 10 are a class; the job is renamed in place
  info              show what is known
  take, built, attempted, uploaded         for a person who builds by hand; --changes names the result
  extra-depends, extra-conflicts -m LIST   further relations of the build

ARCH is an architecture of the suite, all, ANY (every one but all), ALL (with all), or -ARCH to leave one out. SUITE may be missing where there is only one.

Who you are the system says, never an option. What the specification of the operations does not allow is refused with the reason, and exit status 1; --override does what is not usual, and is written into the history.

Examples:
  packmill wb gb hello_2.10-3 . ANY -i386 . sid -m "mirror was down"
  packmill wb dw app . amd64 . sid . -m "libfoo-dev (>= 2)"
  packmill wb nmu libfoo . ANY . sid . -m "Rebuild against libbar 5"`
}

// order is a command line in wb's grammar.
type order struct {
	op       queue.Op
	number   int
	given    bool // a number
	packages []string
	archs    []string
	suite    string
	message  string
	override bool
	changes  string
	dry      bool
	json     bool
}

// parseOrder reads wb's grammar. Its errors are for people.
func parseOrder(words []string) (*order, error) {
	o := &order{}
	if len(words) == 0 {
		return nil, errors.New("what is to be done? packmill wb --help shows the grammar")
	}
	o.op = queue.Op(words[0])
	if !slices.Contains(queue.Ops, o.op) {
		var all []string
		for _, op := range queue.Ops {
			all = append(all, string(op))
		}
		return nil, fmt.Errorf("%q is not an operation; there are: %s", words[0], strings.Join(all, " "))
	}
	words = words[1:]
	part := 0 // 0 packages, 1 architectures, 2 suite
	value := func(i int) (string, error) {
		if i+1 >= len(words) {
			return "", fmt.Errorf("%s wants a value", words[i])
		}
		return words[i+1], nil
	}
	for i := 0; i < len(words); i++ {
		w := words[i]
		var err error
		switch {
		case w == ".":
			part++
		case w == "-m" || w == "--message":
			o.message, err = value(i)
			i++
		case w == "--changes":
			o.changes, err = value(i)
			i++
		case w == "--override":
			o.override = true
		case w == "--dry-run" || w == "-n":
			o.dry = true
		case w == "--json":
			o.json = true
		case part == 0 && len(o.packages) == 0 && !o.given && (o.op == queue.BinNMU || o.op == queue.Priority) && isNumber(w):
			o.number, err = strconv.Atoi(w)
			o.given = true
		case strings.HasPrefix(w, "--") || strings.HasPrefix(w, "-") && part != 1:
			err = fmt.Errorf("%q is not an option; packmill wb --help shows them", w)
		case part == 0:
			o.packages = append(o.packages, w)
		case part == 1:
			o.archs = append(o.archs, w)
		case part == 2 && o.suite == "":
			o.suite = w
		default:
			err = fmt.Errorf("%q stands too far behind: PKG... . ARCH... . SUITE", w)
		}
		if err != nil {
			return nil, err
		}
	}
	switch {
	case len(o.packages) == 0:
		return nil, errors.New("which package? packmill wb CMD PKG[_VERSION] . ARCH...")
	case len(o.archs) == 0:
		return nil, errors.New("for which architecture? write it after a point: packmill wb CMD PKG . amd64, or . ANY")
	case o.op == queue.Priority && !o.given:
		return nil, errors.New("bp wants a number: packmill wb bp 20 PKG . ARCH")
	}
	return o, nil
}

func isNumber(s string) bool {
	_, err := strconv.Atoi(s)
	return err == nil
}

// concrete resolves ANY, ALL and -ARCH; asked are those that were named.
func (o *order) concrete(s *control.Suite) (archs, asked []string, err error) {
	add := func(list ...string) {
		for _, a := range list {
			if !slices.Contains(archs, a) {
				archs = append(archs, a)
			}
		}
	}
	known := append(slices.Clone(s.Architectures), "all")
	for _, a := range o.archs {
		name := strings.TrimPrefix(a, "-")
		switch {
		case a == "ANY":
			add(s.Architectures...)
		case a == "ALL":
			add(known...)
		case !slices.Contains(known, name):
			return nil, nil, fmt.Errorf("the suite %s is not built for %q; it has %s", s.Name, name, strings.Join(known, " "))
		case a != name:
			if len(archs) == 0 {
				archs = slices.Clone(s.Architectures) // -i386 alone: all but that one
			}
			archs = slices.DeleteFunc(archs, func(x string) bool { return x == name })
		default:
			add(a)
			asked = append(asked, a)
		}
	}
	return archs, asked, nil
}

// wbLine is what became of one job, as --json prints it.
type wbLine struct {
	Op      string `json:"op"`
	Source  string `json:"source"`
	Version string `json:"version,omitempty"`
	Suite   string `json:"suite"`
	Arch    string `json:"arch"`
	From    string `json:"from,omitempty"`
	To      string `json:"to,omitempty"`
	Item    string `json:"item,omitempty"`
	Role    string `json:"role"`
	Done    bool   `json:"done"`
	DryRun  bool   `json:"dry_run,omitempty"`
	Refusal string `json:"refusal,omitempty"`
	Warning string `json:"warning,omitempty"`
}

func (w *wbCmd) Run(c *cli) error {
	o, err := parseOrder(w.Words)
	if err != nil {
		return daemon.Wrong{Err: err}
	}
	return o.run(c)
}

// run does the order for each of its packages and architectures.
func (o *order) run(c *cli) error {
	c.JSON, c.DryRun = c.JSON || o.json, c.DryRun || o.dry
	t, err := c.open()
	if err != nil {
		return err
	}
	all, err := c.control()
	if err != nil {
		return err
	}
	s, err := theSuite(all, o.suite)
	if err != nil {
		return daemon.Wrong{Err: err}
	}
	archs, asked, err := o.concrete(s)
	if err != nil {
		return daemon.Wrong{Err: err}
	}
	d := &wbRun{c: c, tree: t, set: all, suite: s, order: o, now: time.Now().UTC()}
	refused := 0
	for _, p := range o.packages {
		if err := d.number(p, archs); err != nil {
			return err
		}
		n := 0
		for _, a := range archs {
			line, err := d.one(p, a, slices.Contains(asked, a))
			if err != nil {
				return err
			}
			if line == nil {
				continue
			}
			n++
			if line.Refusal != "" {
				refused++
			}
			line.tell(c)
		}
		if n == 0 {
			refused++
			(&wbLine{Op: string(o.op), Source: p, Suite: s.Name, Arch: strings.Join(o.archs, " "), Role: string(queue.Other), Refusal: queue.Absent(o.op).Refusal}).tell(c)
		}
	}
	if refused > 0 {
		return errRefused
	}
	return nil
}

// theSuite is the one that is named, or the only one.
func theSuite(all *control.Settings, name string) (*control.Suite, error) {
	if name == "" && len(all.Suites) == 1 {
		return &all.Suites[0], nil
	}
	if s, ok := all.Suite(name); ok && name != "" {
		return s, nil
	}
	var names []string
	for _, s := range all.Suites {
		names = append(names, s.Name)
	}
	if name == "" {
		return nil, fmt.Errorf("in which suite? name one after a second point: %s", strings.Join(names, " "))
	}
	return nil, fmt.Errorf("there is no suite %q; there are: %s", name, strings.Join(names, " "))
}

// wbRun is one run of wb.
type wbRun struct {
	c     *cli
	tree  *spool.Tree
	set   *control.Settings
	suite *control.Suite
	order *order
	now   time.Time
	view  *lacking.View
	n     int // of the binNMU
}

// one does the order for one package and architecture. Nil says that there is no
// job, and that nobody named the architecture.
func (d *wbRun) one(pattern, arch string, asked bool) (*wbLine, error) {
	found, reply, err := queue.Patiently(d.tree, func() (*spool.Found, error) {
		f, err := queue.Lookup(d.tree, d.suite.Name, arch, pattern)
		if f != nil && !asked && f.Place.State == spool.AutoNotForUs && d.order.op != queue.Info {
			f = nil
		}
		return f, err
	}, d.request)
	switch {
	case err != nil:
		return nil, err
	case found == nil && !asked:
		return nil, nil
	case found == nil:
		reply = queue.Absent(d.order.op)
	}
	l := &wbLine{
		Op: string(d.order.op), Source: pattern, Suite: d.suite.Name, Arch: arch, Role: string(reply.Role),
		Refusal: reply.Refusal, Warning: reply.Warning, DryRun: d.c.DryRun, Done: reply.Refusal == "" && !d.c.DryRun,
	}
	if found == nil {
		return l, nil
	}
	l.Source, l.Version, l.From, l.To, l.Item = found.Name.Source, found.Name.Version, found.Place.State.String(), reply.To.State.String(), found.Name.String()
	if reply.Ticket != nil {
		l.Version = reply.Ticket.Plus()
	}
	if l.Refusal != "" {
		l.To = ""
	} else if l.Done {
		l.Item = reply.Name.String()
	}
	if d.order.op == queue.BinNMU && d.order.number != 0 && l.Refusal == "" {
		l.Version = fmt.Sprintf("%s+b%d", found.Name.Version, d.n)
		if d.c.DryRun {
			l.To = spool.NeedsBuild.Name
		}
	}
	if d.order.op == queue.Info && !d.c.JSON && l.Refusal == "" {
		d.info(*found)
	}
	return l, nil
}

func (d *wbRun) info(f spool.Found) {
	t, err := queue.TicketAt(d.tree, f)
	if err != nil {
		return
	}
	fmt.Printf("%s\n", f.Dir())
	for line := range strings.Lines(string(t.Stanza().Append(nil))) {
		fmt.Printf("  %s\n", clean(line))
	}
	if text := spool.Waiting(d.tree.Path(f.Dir())); text != "" {
		for line := range strings.Lines(text) {
			fmt.Printf("  %s\n", clean(line))
		}
	}
}

func (d *wbRun) request(spool.Found) *queue.Request {
	o := d.order
	r := &queue.Request{
		Op: o.op, Who: who(), Override: o.override, Message: o.message, Number: o.number, Now: d.now, Dry: d.c.DryRun,
		BinNMU: d.binNMU, Signed: mail.Signed(d.set, d.suite),
	}
	if o.op == queue.Cancel {
		r.Held = d.askBuilder
	}
	if o.changes != "" {
		r.Result = func(dir string, _ *queue.Ticket) (string, error) { return takeResult(o.changes, dir) }
	}
	return r
}

// number chooses N of +bN: above what is published on every architecture that
// is asked for, so that all have the same.
func (d *wbRun) number(pattern string, archs []string) error {
	o := d.order
	if o.op != queue.BinNMU || o.given {
		d.n = o.number
		return nil
	}
	v, err := d.read()
	if err != nil {
		return err
	}
	source, _, _ := strings.Cut(pattern, "_")
	d.n = v.LastBinNMU(source, archs) + 1
	o.number = d.n
	return nil
}

func (d *wbRun) read() (*lacking.View, error) {
	if d.view != nil {
		return d.view, nil
	}
	a, err := archive.Open(d.tree.Path("archive"))
	if err != nil {
		return nil, err
	}
	d.view, err = lacking.Read(a, d.suite.Lacking())
	return d.view, err
}

// binNMU makes the job of a binNMU from what is installed.
func (d *wbRun) binNMU(t *queue.Ticket, f spool.Found) (spool.Found, error) {
	v, err := d.read()
	if err != nil {
		return spool.Found{}, err
	}
	if last := v.LastBinNMU(t.Source, []string{f.Arch()}); d.n <= last {
		return spool.Found{}, queue.Refusal(fmt.Sprintf("+b%d is not above +b%d, which is published", d.n, last))
	}
	all, err := v.Sources(func(name, version string) bool {
		return name == t.Source && policy.CompareVersions(version, t.Version) == 0
	})
	if err != nil {
		return spool.Found{}, err
	}
	src := all[t.Source+"_"+t.Version]
	if src == nil {
		return spool.Found{}, queue.Refusal(fmt.Sprintf("the suite has no source of %s %s (any more)", t.Source, t.Version))
	}
	n := *src.Ticket
	n.BinNMU, n.BinNMUText, n.BinNMUTime, n.BinNMUBy = d.n, strings.TrimSpace(d.order.message), d.now.Truncate(time.Second), n.Maintainer
	return queue.Make(d.tree, &queue.Job{
		Ticket: &n, Arch: f.Arch(), Class: f.Name.Class, Time: d.now, Files: src.Files, State: spool.NeedsBuild,
		By: spool.Person, Who: who(), Reason: fmt.Sprintf("binNMU +b%d: %s", d.n, n.BinNMUText),
	})
}
