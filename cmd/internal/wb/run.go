package wb

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"packmill/archive"
	"packmill/cmd/internal/account"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/mail"
	"packmill/cmd/internal/terminal"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/queue/lacking"
	"packmill/spool"
)

// Run is an order with what it is done to.
type Run struct {
	Tree     *spool.Tree
	Settings *control.Settings
	Suite    *control.Suite
	Order    *Order
	Who      string
	Now      time.Time
	Dry      bool // say what would be done

	view *lacking.View
	n    int // of the binNMU
}

// Do does the order for each of its packages and architectures and tells what
// became of each, refusals too. What is no job's refusal ends it.
func (d *Run) Do(tell func(*Line)) error {
	archs, asked, err := d.Order.Concrete(d.Suite)
	if err != nil {
		return daemon.Wrong{Err: err}
	}
	for _, p := range d.Order.Packages {
		if err := d.number(p, archs); err != nil {
			return err
		}
		jobs := 0
		for _, a := range archs {
			line, err := d.one(p, a, slices.Contains(asked, a))
			if err != nil {
				return err
			}
			if line != nil {
				jobs++
				tell(line)
			}
		}
		if jobs == 0 {
			tell(&Line{Op: string(d.Order.Op), Source: p, Suite: d.Suite.Name, Arch: strings.Join(d.Order.Archs, " "),
				Role:    string(queue.Other),
				Refusal: queue.Absent(d.Order.Op).Refusal})
		}
	}
	return nil
}

// one does the order for one package and architecture. Nil says that there is no
// job, and that nobody named the architecture.
func (d *Run) one(pattern, arch string, asked bool) (*Line, error) {
	find := func() (*spool.Found, error) {
		f, err := queue.Lookup(d.Tree, d.Suite.Name, arch, pattern)
		if f != nil && !asked && f.Place.State == spool.AutoNotForUs && d.Order.Op != queue.Info {
			f = nil
		}
		return f, err
	}
	at := "queue" // if it is not there yet
	if f, err := find(); err == nil && f != nil {
		at = f.Dir()
	}
	var found *spool.Found
	var reply *queue.Reply
	err := account.As(d.Tree.Root(), at, func() (err error) {
		found, reply, err = queue.Patiently(d.Tree, find, d.request)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case found == nil && !asked:
		return nil, nil
	case found == nil:
		reply = queue.Absent(d.Order.Op)
	}
	l := &Line{
		Op: string(d.Order.Op), Source: pattern, Suite: d.Suite.Name, Arch: arch, Role: string(reply.Role),
		Refusal: reply.Refusal, Warning: reply.Warning, DryRun: d.Dry, Done: reply.Refusal == "" && !d.Dry, Found: found,
	}
	if found == nil {
		return l, nil
	}
	l.Source, l.Version, l.Item = found.Name.Source, found.Name.Version, found.Name.String()
	l.From, l.To = found.Place.State.String(), reply.To.State.String()
	if reply.Ticket != nil {
		l.Version = reply.Ticket.Plus()
	}
	if l.Refusal != "" {
		l.To = ""
	} else if l.Done {
		l.Item = reply.Name.String()
	}
	if d.Order.Op == queue.BinNMU && d.Order.Number != 0 && l.Refusal == "" {
		l.Version = fmt.Sprintf("%s+b%d", found.Name.Version, d.n)
		if d.Dry {
			l.To = spool.NeedsBuild.Name
		}
	}
	return l, nil
}

func (d *Run) request(spool.Found) *queue.Request {
	o := d.Order
	r := &queue.Request{
		Op: o.Op, Who: d.Who, Override: o.Override, Message: o.Message, Number: o.Number, Now: d.Now, Dry: d.Dry,
		BinNMU: d.binNMU, Signed: mail.Signed(d.Settings, d.Suite),
	}
	if o.Op == queue.Cancel {
		r.Held = d.askBuilder
	} else if o.Op != queue.Info {
		r.Held = d.handOver
	}
	if o.Extra != nil && o.Op != queue.BinNMU {
		r.ExtraDepends = o.Extra
	}
	if o.Changes != "" {
		r.Result = func(dir string, _ *queue.Ticket) (string, error) { return takeResult(o.Changes, dir) }
	}
	return r
}

// number chooses N of +bN: above what is published on every architecture that
// is asked for, so that all have the same.
func (d *Run) number(pattern string, archs []string) error {
	o := d.Order
	if o.Op != queue.BinNMU || o.Given {
		d.n = o.Number
		return nil
	}
	v, err := d.read()
	if err != nil {
		return err
	}
	source, _, _ := strings.Cut(pattern, "_")
	d.n = v.LastBinNMU(source, archs) + 1
	o.Number = d.n
	return nil
}

func (d *Run) read() (*lacking.View, error) {
	if d.view != nil {
		return d.view, nil
	}
	a, err := archive.Open(d.Tree.Path("archive"))
	if err != nil {
		return nil, err
	}
	d.view, err = lacking.Read(a, d.Suite.Lacking())
	return d.view, err
}

// binNMU makes the job of a binNMU from what is installed.
func (d *Run) binNMU(t *queue.Ticket, f spool.Found) (spool.Found, error) {
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
	n.BinNMU, n.BinNMUText, n.BinNMUTime = d.n, strings.TrimSpace(d.Order.Message), d.Now.Truncate(time.Second)
	// One number has one time on all architectures, whenever each is asked for:
	// files of Multi-Arch: same packages are the same only so.
	if other, err := queue.BinNMUOf(d.Tree, d.Suite.Name, d.Suite.Architectures, &n); err != nil {
		return spool.Found{}, err
	} else if other != nil {
		n.BinNMUTime = other.BinNMUTime
	}
	j := &queue.Job{
		Ticket: &n, Arch: f.Arch(), Class: f.Name.Class, Time: d.Now, Files: src.Files, State: spool.NeedsBuild,
		By: spool.Person, Who: terminal.Who(), Reason: fmt.Sprintf("binNMU +b%d: %s", d.n, n.BinNMUText),
	}
	if d.Order.Extra != nil {
		n.ExtraDepends = strings.TrimSpace(*d.Order.Extra)
		// No builder may begin before master-buildd has seen that it can be built so.
		j.State, j.Text = spool.BDUninstallable, "Waits for: "+n.ExtraDepends+"\nmaster-buildd lets it go on when that "+
			"can be installed.\n"
	}
	return queue.Make(d.Tree, j)
}
