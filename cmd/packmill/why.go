package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/queue/builders"
	"packmill/queue/buildlog"
	"packmill/spool"
)

type whyCmd struct {
	Package string `arg:"" help:"hello or hello_2.10-3."`
	Suite   string `short:"s" help:"Only in this suite." placeholder:"SUITE"`
}

func (whyCmd) Help() string {
	return `Says, for each architecture, where a package is, since when, what must happen next and who does it, what it waits for and what waits for it, why each builder would not take it now, and how long it took before.

Examples:
  packmill why hello`
}

// whyLine is the answer for one architecture.
type whyLine struct {
	row
	Next     string   `json:"next"`
	WaitsFor string   `json:"waits_for,omitempty"`
	Blocks   []string `json:"blocks,omitempty"`
	Builders []string `json:"builders,omitempty"` // "NAME: why not", or "NAME: takes it"
	Estimate string   `json:"estimate,omitempty"`
	Previous string   `json:"previous_failure,omitempty"`

	FirstError string `json:"first_error,omitempty"`
}

func (y *whyCmd) Run(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	all, err := c.control()
	if err != nil {
		return err
	}
	if y.Suite != "" {
		if _, err := theSuite(all, y.Suite); err != nil {
			return daemon.Wrong{Err: err}
		}
	}
	found, err := t.Find(y.Package)
	if err != nil {
		return err
	}
	found = slices.DeleteFunc(found, func(f spool.Found) bool {
		return f.Place.State == spool.Attic || y.Suite != "" && f.Place.Suite != y.Suite
	})
	if len(found) == 0 {
		return fmt.Errorf("%w: nothing here is called %s", errRefused, spool.OneLine(y.Package))
	}
	waiting, err := t.Find("", spool.DepWait, spool.BDUninstallable)
	if err != nil {
		return err
	}
	waits := &waits{tree: t, source: found[0].Name.Source}
	for _, f := range found {
		w := whyLine{row: rowOf(t, f), Next: f.Place.State.Next}
		tk, err := queue.TicketAt(t, f)
		if err != nil {
			tk = &queue.Ticket{Source: f.Name.Source, Version: f.Name.Version}
		}
		w.Previous = tk.Previous
		w.FirstError = buildlog.ErrorAt(t.Path(f.Dir()))
		switch f.Place.State {
		case spool.NeedsBuild:
			w.Builders, w.Next = whoTakes(t, all, f, tk)
			if err := all.General.Room(t.Root(), 0); err != nil {
				w.Next = "nothing new is begun: " + err.Error()
			}
		case spool.Building:
			w.Next = fmt.Sprintf("its builder, %s, ends", tk.Builder)
			if tk.TakenBy != "" {
				w.Next = tk.TakenBy + " builds it by hand"
			} else if s := silence(t, f, all, tk); s != "" {
				w.Next += "; " + s
			}
		case spool.DepWait, spool.BDUninstallable:
			// In it are the relations, what stands in their way, and the ring
			// of sources that wait for each other.
			if w.WaitsFor = spool.Waiting(t.Path(f.Dir())); w.WaitsFor == "" {
				w.WaitsFor = tk.DepWait
			}
		case spool.Master:
			w.WaitsFor = openJobs(t, f)
		}
		w.Blocks = blocks(t, waiting, tk, f)
		if f.Arch() != "" && f.Arch() != spool.SourceArch && f.Place.State != spool.Installed {
			e, known, ahead, err := waits.of(f)
			if err != nil {
				return err
			}
			w.Ahead = ahead
			if known {
				w.Estimate, w.row.Estimate = e.String(), e.Took.Seconds()
			}
		}
		c.print(os.Stdout, w, w.text())
	}
	return nil
}

func (w *whyLine) text() string {
	arch := w.Arch
	if arch == "" {
		arch = "source"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s_%s %s: %s since %s (%s)", w.Source, w.Version, arch, w.State, w.Since.Format(time.RFC3339), age(w.Since))
	if w.Suite != "" {
		fmt.Fprintf(&b, " in %s", w.Suite)
	}
	line := func(name, text string) {
		for i, l := range strings.Split(strings.TrimSpace(text), "\n") {
			if i > 0 {
				name = strings.Repeat(" ", len(name))
			}
			if l != "" {
				fmt.Fprintf(&b, "\n  %s %s", name, clean(l))
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
		why, again := all.Refuses(b, s, f.Arch(), t, f.Name.Time, time.Now())
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
			on = s.IndepOn
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
		if runs == 0 && err == nil && slices.Contains(b.Architectures, f.Arch()) {
			why += fmt.Sprintf("; but no daemon of it runs: start buildd --arch %s --builder %s", on, b.Name)
		}
		who = append(who, b.Name+": "+why)
	}
	if able == 0 {
		return who, fmt.Sprintf("no builder of control/builders would ever take it: add %s to one", f.Arch())
	}
	return who, spool.NeedsBuild.Next
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
			return fmt.Sprintf("it has said nothing for %s, and its limit is %s: look at the builder", quiet.Round(time.Minute), b.Silence)
		}
	}
	return ""
}

// openJobs lists the architectures of a source that have not settled.
func openJobs(t *spool.Tree, f spool.Found) string {
	plan, err := queue.ReadPlan(t.Path(f.Dir()))
	if err != nil {
		return ""
	}
	var out []string
	for _, a := range plan.Jobs {
		job, err := queue.FindJob(t, f.Place.Suite, a, f.Name.Source, f.Name.Version)
		switch {
		case err != nil || job == nil:
			out = append(out, a+": not seen just now")
		case !job.Place.State.Is(spool.Settled):
			out = append(out, a+": "+job.Place.State.Name)
		}
	}
	return strings.Join(out, "\n")
}

// blocks are the jobs that wait for a package of this source.
func blocks(t *spool.Tree, waiting []spool.Found, tk *queue.Ticket, f spool.Found) []string {
	var out []string
	for _, w := range waiting {
		if w.Place.Suite != f.Place.Suite || f.Arch() != "" && f.Arch() != "all" && w.Arch() != f.Arch() || w.Name.Source == f.Name.Source {
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
		text := spool.Waiting(t.Path(w.Dir()))
		hit := slices.ContainsFunc(deps, func(or []policy.Relation) bool { return slices.Contains(tk.Binary, or[0].Name) }) ||
			slices.ContainsFunc(tk.Binary, func(b string) bool {
				return strings.Contains(text, "missing "+b+",") || strings.Contains(text, "missing "+b+" ") || strings.Contains(text, "missing "+b+"\n")
			})
		if name := w.Name.ID() + " on " + w.Arch(); hit && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}
