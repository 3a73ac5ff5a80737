package survey

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/archive/opkg"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/terminal"
	"packmill/internal/deb"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/queue/builders"
	"packmill/queue/buildlog"
	"packmill/spool"
)

// Answer says why a package is where it is, on one architecture.
type Answer struct {
	Row
	Next     string   `json:"next"`
	WaitsFor string   `json:"waits_for,omitempty"`
	Blocks   []string `json:"blocks,omitempty"`
	Builders []string `json:"builders,omitempty"` // "NAME: why not", or "NAME: takes it"
	Estimate string   `json:"estimate,omitempty"`
	Previous string   `json:"previous_failure,omitempty"`

	FirstError string `json:"first_error,omitempty"`

	NotForOpkg []string `json:"not_for_opkg,omitempty"` // "FEED: PACKAGE VERSION: why opkg cannot take it"
}

// Why answers for every job and source that a person calls pattern, in one
// suite or with "" in all; for uploads that are not taken in yet, and for what somebody brought into
// the archive. What is in the attic is nowhere any more.
func Why(t *spool.Tree, set *control.Settings, pattern, suite string) (out []*Answer, closed []string, err error) {
	f := &Filter{Verb: "explain", Patterns: []string{pattern}}
	found, closed, absent := f.Find(t)
	if absent != nil && !errors.Is(absent, daemon.ErrRefused) {
		return nil, closed, absent
	}
	found = slices.DeleteFunc(found, func(f spool.Found) bool {
		return f.Place.State == spool.Attic || suite != "" && f.Place.Suite != suite
	})
	waiting, _, err := read(t, "", []spool.State{spool.DepWait, spool.BDUninstallable})
	if err != nil {
		return nil, closed, err
	}
	if out, err = WhyOf(t, set, found, waiting, nil); err != nil {
		return nil, closed, err
	}
	if len(closed) == 0 { // else what is closed may tell of what the archive has
		source, versions, err := archived(t, pattern)
		if err != nil {
			return nil, closed, err
		}
		for _, a := range compare(out, source, versions) {
			if (spool.Name{Source: a.Source, Version: a.Version}).Matches(pattern) && (suite == "" || a.Suite == suite) {
				out = append(out, a)
			}
		}
	}
	for _, r := range Drops(t, set, pattern) {
		if next := r.Reason; suite == "" {
			r.Reason = ""
			out = append(out, &Answer{Row: r, Next: next})
		}
	}
	switch {
	case len(out) > 0:
		return out, closed, nil
	case absent != nil:
		return nil, closed, absent
	}
	return nil, closed, daemon.Refuse("nothing here is called %s", spool.OneLine(pattern))
}

// WhyOf answers for these items, one each. Waiting are the jobs that wait for packages; takes estimates builds, or is
// nil: then the record of builds is read.
func WhyOf(t *spool.Tree, set *control.Settings, found, waiting []spool.Found, takes Takes) (out []*Answer, err error) {
	q := &inquiry{tree: t, set: set, waiting: waiting, waits: NewWaitsOf(t, found)}
	q.waits.takes = takes
	for _, f := range found {
		a, err := q.answer(f)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// inquiry is what every answer needs.
type inquiry struct {
	tree    *spool.Tree
	set     *control.Settings
	waiting []spool.Found // the jobs that wait for packages
	waits   *Waits
}

func (q *inquiry) answer(f spool.Found) (*Answer, error) {
	t := q.tree
	w := &Answer{Row: RowOf(t, f), Next: f.Place.State.Next}
	tk, err := queue.TicketAt(t, f)
	if err != nil {
		tk = &queue.Ticket{Source: f.Name.Source, Version: f.Name.Version}
	}
	w.Previous = tk.Previous
	w.FirstError = buildlog.ErrorAt(t.Path(f.Dir()))
	switch f.Place.State {
	case spool.NeedsBuild:
		w.Builders, w.Next = whoTakes(t, q.set, f, tk)
		if err := q.set.General.Room(t.Root(), 0); err != nil {
			w.Next = "nothing new is begun: " + err.Error()
		}
	case spool.Building:
		w.Next = fmt.Sprintf("its builder, %s, ends", tk.Builder)
		if tk.TakenBy != "" {
			w.Next = tk.TakenBy + " builds it by hand"
		} else if s := silence(t, f, q.set, tk); s != "" {
			w.Next += "; " + s
		}
		if l, err := spool.ReadLease(t.Path(f.Dir())); err == nil && l != nil {
			w.Next += "; " + leaseOf(l, time.Now())
		}
	case spool.DepWait, spool.BDUninstallable:
		// In it are the relations, what stands in their way, and the ring
		// of sources that wait for each other.
		if w.WaitsFor = spool.ReadReason(t.Path(f.Dir())); w.WaitsFor == "" {
			w.WaitsFor = tk.DepWait
		}
	case spool.Master:
		w.WaitsFor = openJobs(t, f)
	case spool.Uploaded:
		w.WaitsFor = ownNeeds(t, f, tk)
	case spool.Installed:
		if w.NotForOpkg, err = notForOpkg(t, f); err != nil {
			return nil, err
		}
	}
	if wrong := t.Misowned(f); wrong != "" {
		w.Next = wrong + "; as root: packmill fsck --repair"
	}
	w.Blocks = blocks(t, q.waiting, tk, f)
	if f.Arch() == "" || f.Arch() == spool.SourceArch || f.Place.State == spool.Installed {
		return w, nil
	}
	e, known, ahead, err := q.waits.Of(f)
	if err != nil {
		return nil, err
	}
	w.Ahead = ahead
	if known {
		w.Estimate, w.Row.Estimate = e.String(), e.Took.Seconds()
	}
	return w, nil
}

// Text is the answer for a person, as wide as the screen.
func (w *Answer) Text(s *terminal.Screen) string {
	arch := w.Arch
	if arch == "" {
		arch = "source"
	}
	var b strings.Builder
	where := ""
	if w.Suite != "" {
		where = " in " + w.Suite
	}
	since := ""
	if !w.Since.IsZero() {
		since = fmt.Sprintf(" since %s (%s)", w.Since.Format(time.RFC3339), terminal.Age(w.Since))
	}
	head := s.Wrap(terminal.Clean(fmt.Sprintf("%s_%s %s: %s%s%s", w.Source, w.Version, arch, w.State, since, where)), "  ")
	b.WriteString(strings.Replace(head, w.State+" since", s.Paint(Colour(w.State), w.State)+" since", 1))
	line := func(name, text string) {
		for i, l := range strings.Split(strings.TrimSpace(text), "\n") {
			if i > 0 {
				name = strings.Repeat(" ", len(name))
			}
			if l != "" {
				b.WriteString("\n" + s.Wrap(fmt.Sprintf("  %s %s", name, terminal.Clean(l)), strings.Repeat(" ", len(name)+3)))
			}
		}
	}
	line("because:   ", w.Reason)
	line("next:      ", w.Next)
	line("waits for: ", w.WaitsFor)
	line("blocks:    ", strings.Join(w.Blocks, ", "))
	for _, x := range w.Builders {
		line("builder:   ", x)
	}
	if w.Ahead > 0 {
		line("before it: ", fmt.Sprintf("%d", w.Ahead))
	}
	line("takes:     ", w.Estimate)
	for _, x := range w.NotForOpkg {
		line("not opkg:  ", x)
	}
	line("log:       ", w.FirstError)
	line("before:    ", w.Previous)
	return b.String()
}

// whoTakes asks each builder of the settings, and what its daemons say of
// themselves.
func whoTakes(tree *spool.Tree, all *control.Settings, f spool.Found, t *queue.Ticket) (who []string, what string) {
	s, ok := all.Suite(f.Place.Suite)
	if !ok {
		return nil, "the suite is not in the settings any more: nobody builds for it"
	}
	daemons, err := builders.Read(tree.Path(spool.BuildersDir))
	if err != nil {
		who = append(who, "(which daemons run is not known: "+err.Error()+")")
	}
	able := 0
	for i := range all.Builders {
		b := &all.Builders[i]
		why, again := all.Refuses(b, s, f, t, time.Now())
		if why == "" || !again.IsZero() {
			able++
		}
		switch {
		case why == "" && b.Last.Match(t.Source):
			why = "takes it when nothing else waits (Last)"
		case why == "":
			why = "takes it when it is its turn"
		}
		on := f.Arch()
		if on == "all" {
			on = s.IndepOf(t)
		}
		runs := 0
		for _, d := range daemons {
			if d.Builder != b.Name || !slices.Contains(d.Archs, on) && !slices.Contains(d.Archs, f.Arch()) {
				continue
			}
			runs++
			lacks := d.Lacks[f.Arch()]
			switch {
			case lacks != "":
				why += "; but the machine of " + d.Daemon + " cannot: " + lacks
			case d.Refuses != "":
				why += "; but " + d.Daemon + " takes nothing now: " + d.Refuses
			case d.Trouble != "":
				why += "; the last build of " + d.Daemon + " ended without a verdict: " + d.Trouble
			}
		}
		switch {
		case runs > 0 || err != nil || !slices.Contains(b.Architectures, f.Arch()):
		case b.Elsewhere():
			why += "; but it is away, and has to call: buildd --master there"
		default:
			why += fmt.Sprintf("; but no daemon of it runs: start buildd --arch %s --builder %s", on, b.Name)
		}
		who = append(who, b.Name+": "+why)
	}
	if able == 0 {
		return who, fmt.Sprintf("no builder of control/builders would ever take it: add %s to one", f.Arch())
	}
	return who, spool.NeedsBuild.Next
}

// leaseOf says how a builder on another machine has a job.
func leaseOf(l *spool.Lease, now time.Time) string {
	text := ""
	if l.Says != "" {
		text = "it does not run yet (" + l.Says + "); "
	}
	text += fmt.Sprintf("%s on another machine has it by a lease, was heard %s ago, ", l.Builder,
		now.Sub(l.Heard).Round(time.Second))
	if until := l.Until(); now.Before(until) {
		return text + "and keeps it until " + until.UTC().Format(time.RFC3339) + " if it is not heard again"
	}
	return text + "and has lost it: it is given back"
}

// silence says that a build has not written to its log for longer than its
// builder allows.
func silence(t *spool.Tree, f spool.Found, all *control.Settings, tk *queue.Ticket) string {
	st, err := os.Stat(t.Path(f.Dir(), "log"))
	if err != nil {
		return ""
	}
	quiet := time.Since(st.ModTime())
	_, name, _ := strings.Cut(tk.Builder, "/")
	for _, b := range all.Builders {
		if (name == "" || b.Name == name) && slices.Contains(b.Architectures, f.Arch()) && quiet > b.Silence {
			return fmt.Sprintf("it has said nothing for %s, and its limit is %s: look at the builder",
				quiet.Round(time.Minute), b.Silence)
		}
	}
	return ""
}

// notForOpkg lists the packages of a source that are missing in the suite's feeds
// for opkg.
func notForOpkg(t *spool.Tree, f spool.Found) (out []string, err error) {
	feeds, err := opkg.Skipped(t.Path("archive"), f.Place.Suite)
	for feed, list := range feeds {
		for _, s := range list {
			if s.Source == f.Name.Source {
				out = append(out, feed+": "+s.String())
			}
		}
	}
	slices.Sort(out)
	return out, err
}

// openJobs lists the architectures of a source that have not settled.
func openJobs(t *spool.Tree, f spool.Found) string {
	plan, err := queue.ReadPlan(t.Path(f.Dir()))
	if err != nil {
		return ""
	}
	var out []string
	for _, a := range plan.Jobs {
		job, err := queue.FindJob(t, f.Place.Suite, a, f.Name)
		switch {
		case err != nil || job == nil:
			out = append(out, a+": not seen just now")
		case !job.Place.State.Is(spool.Settled):
			out = append(out, a+": "+job.Place.State.Name)
		}
	}
	return strings.Join(out, "\n")
}

// ownNeeds says what the packages of a result need of the other builds of their source,
// and where those are: archived shows none that apt could not install.
func ownNeeds(t *spool.Tree, f spool.Found, tk *queue.Ticket) string {
	debs, err := filepath.Glob(t.Path(f.Dir(), "result", "*.deb"))
	if err != nil || len(debs) == 0 {
		return ""
	}
	var needs, mine []string
	made := map[string]string{} // of those that are needed in this build's version, the relation
	for _, path := range debs {
		p, err := deb.ReadFile(path, deb.Options{SkipContents: true})
		if err != nil {
			return ""
		}
		mine = append(mine, p.Name)
		for _, field := range []string{"Pre-Depends", "Depends"} {
			list, _ := policy.ParseRelations(p.Control.Get(field))
			for _, or := range list {
				r := or[0]
				if !slices.Contains(tk.Binary, r.Name) {
					continue
				}
				needs = append(needs, r.Name)
				again := p.Version != p.SourceVersion && f.Arch() != "all"
				if again && r.Op == "=" && r.Version == p.Version {
					made[r.Name] = r.String()
				}
			}
		}
	}
	slices.Sort(needs)
	needs = slices.DeleteFunc(slices.Compact(needs), func(name string) bool { return slices.Contains(mine, name) })
	if len(needs) == 0 {
		return ""
	}
	jobs, err := t.Find(f.Name.Source, t.Where(func(s spool.State) bool {
		return s.Is(spool.Jobs) && s.Has("ARCH") && s != spool.Installed
	})...)
	if err != nil {
		return ""
	}
	var open []string
	for _, j := range jobs {
		if j.Place.Suite == f.Place.Suite && j.Name.Version == f.Name.Version && (j.Arch() == "all" || f.Arch() == "all") {
			open = append(open, j.Arch()+": "+j.Place.State.Name)
		}
	}
	if i := slices.IndexFunc(needs, func(name string) bool { return made[name] != "" }); len(open) == 0 && i >= 0 {
		return fmt.Sprintf("%s, which nobody makes: what was built again for %s alone asks for it in its own version, "+
			"and not in ${source:Version}, as debian/control must for that\n"+
			"upload a new version, or end this with: packmill wb fail %s . %s . %s",
			made[needs[i]], f.Arch(), f.Name.Source, f.Arch(), f.Place.Suite)
	}
	if len(open) == 0 {
		return ""
	}
	return fmt.Sprintf("%s, without which apt cannot install its packages, and which other builds of its source make\n%s",
		strings.Join(needs, " "), strings.Join(open, "\n"))
}

// blocks are the jobs that wait for a package of this source.
func blocks(t *spool.Tree, waiting []spool.Found, tk *queue.Ticket, f spool.Found) []string {
	var out []string
	for _, w := range waiting {
		if w.Place.Suite != f.Place.Suite || f.Arch() != "" && f.Arch() != "all" && w.Arch() != f.Arch() ||
			w.Name.Source == f.Name.Source {
			continue
		}
		wt, err := queue.TicketAt(t, w)
		if err != nil {
			continue
		}
		deps, err := policy.ParseRelations(wt.DepWait)
		if err != nil {
			continue
		}
		text := spool.ReadReason(t.Path(w.Dir()))
		hit := slices.ContainsFunc(deps, func(or []policy.Relation) bool { return slices.Contains(tk.Binary, or[0].Name) }) ||
			slices.ContainsFunc(tk.Binary, func(b string) bool {
				return strings.Contains(text, "missing "+b+",") || strings.Contains(text, "missing "+b+" ") ||
					strings.Contains(text, "missing "+b+"\n")
			})
		if name := w.Name.ID() + " on " + w.Arch(); hit && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}
