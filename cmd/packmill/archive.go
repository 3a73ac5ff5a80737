package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"packmill/archive"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/hand"
	"packmill/cmd/internal/terminal"
)

// archiveCmd is the archive by hand. VIEW is a suite, or a snapshot of one as
// NAME/SUITE.
type archiveCmd struct {
	Ls       archiveLs       `cmd:"" help:"List the packages of a suite or snapshot."`
	Show     archiveShow     `cmd:"" help:"Show a package as it is published."`
	Include  archiveInclude  `cmd:"" help:"Publish uploads past the queues."`
	Copy     archiveCopy     `cmd:"" help:"Give a suite packages that another suite or snapshot has."`
	Move     archiveMove     `cmd:"" help:"Copy, and take them out of where they were."`
	Rm       archiveRm       `cmd:"" help:"Take packages out of a suite; says first what that breaks."`
	Cruft    archiveCruft    `cmd:"" help:"List packages that no source builds any more."`
	Override archiveOverride `cmd:"" help:"Change a package's section or priority."`
	Snapshot archiveSnapshot `cmd:"" help:"Keep suites as they are, at an address of their own."`
	Rollback archiveRollback `cmd:"" help:"Make a suite what a snapshot is."`
	Diff     archiveDiff     `cmd:"" help:"Say what changed between two suites or snapshots."`
	Gc       archiveGc       `cmd:"" help:"Put away files that no suite and no snapshot names."`
	Check    archiveCheck    `cmd:"" help:"Read everything that clients can get, and compare it."`
	Import   archiveImport   `cmd:"" help:"Take over another apt repository."`
	Export   archiveExport   `cmd:"" help:"Write a suite or snapshot into a directory."`
	Push     archivePush     `cmd:"" help:"Send a suite or snapshot to another place."`
	Serve    archiveServe    `cmd:"" help:"Serve the archive over http, for trying."`
	Sources  archiveSources  `cmd:"" help:"Print the .sources file that clients need."`
	OpkgConf archiveOpkgConf `cmd:"" help:"Print the settings that opkg's clients need."`
	Key      archiveKey      `cmd:"" help:"Keys that sign a suite."`
}

func (archiveCmd) Help() string {
	return `A VIEW is a suite (unstable) or a snapshot of one (monday/unstable). A PACKAGE is a source (hello), a version of it (hello_2.10-3) or a binary package.

Examples:
  packmill archive ls unstable 'hello*'
  packmill archive copy testing stable hello world     a transition at once
  packmill archive rm unstable hello --dry-run         what would break
  packmill archive snapshot create stable 2026-11
  packmill archive rollback stable 2026-11
  packmill archive import unstable http://old.example/debian sid --keyring old.asc

A new one begins with packmill init --archive, packmill key new archive, a stanza in control/suites, and include.

Who knows reprepro: include is include, list is ls, copysrc is copy, removesrc is rm, gensnapshot is snapshot create, deleteunreferenced is gc, checkpool is check, and its export is include without uploads. Who knows aptly: repo add is include or import, repo search is ls, repo copy is copy, repo remove is rm, snapshot create is the same and published at once, publish switch is rollback, db cleanup is gc, mirror is import.`
}

// hand opens the tree's archive and its settings.
func (c *cli) hand() (*hand.Hand, error) {
	ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM) // until the process ends
	return hand.Open(ctx, c.Tree, func(err error) { terminal.Print(os.Stderr, "packmill: %v\n", err) })
}

// noSuite says that the settings do not know the suite, and what they know.
func noSuite(s *control.Settings, name string) error { return daemon.Wrong{Err: s.NoSuite(name)} }

// outcome prints what a change did: it added packages and removed others.
func (c *cli) outcome(p *archive.Plan, err error) error { return c.outcomeOf("add", p, err) }

// outcomeOf is outcome of a change that did something else than to add packages.
func (c *cli) outcomeOf(verb string, p *archive.Plan, err error) error {
	if err != nil {
		return hand.Missing(err)
	}
	c.changes(verb, p, c.DryRun || len(p.Refused) > 0)
	for _, r := range p.Refused {
		terminal.Print(os.Stderr, "%s\n", r)
	}
	if len(p.Refused) > 0 {
		return daemon.ErrRefused
	}
	return nil
}

// changes prints what a change did, or would do.
func (c *cli) changes(verb string, p *archive.Plan, would bool) {
	did := [2]string{strings.TrimSuffix(verb, "e") + "ed", "removed"}
	if would {
		did = [2]string{"would " + verb, "would remove"}
	}
	one := func(what string, list []archive.Entry) {
		for _, e := range list {
			c.print(os.Stdout, struct {
				Does string `json:"does"`
				entry
			}{what, entryOf(e)}, fmt.Sprintf("%s %s %s %s (%s)", what, e.Package, e.Version, e.Arch, e.Component))
		}
	}
	one(did[0], p.Added)
	one(did[1], p.Removed)
	for _, n := range p.Notes {
		c.print(os.Stdout, map[string]string{"note": n}, "note: "+n)
	}
}

type entry struct {
	Package   string `json:"package"`
	Version   string `json:"version"`
	Arch      string `json:"arch"`
	Component string `json:"component"`
	Source    string `json:"source,omitempty"`
}

func entryOf(e archive.Entry) entry {
	return entry{e.Package, e.Version, e.Arch, e.Component, e.Source}
}

type archiveLs struct {
	View    string `arg:"" optional:"" help:"A suite or snapshot; without it they are listed."`
	Pattern string `arg:"" optional:"" help:"Names or source names: shell wildcards."`
	paged
}

func (archiveLs) Help() string {
	return `Examples:
  packmill archive ls                     the suites and snapshots
  packmill archive ls unstable
  packmill archive ls unstable 'hello*'`
}

func (x *archiveLs) Run(c *cli, h *hand.Hand) error {
	if x.View == "" {
		views, err := h.Views()
		if err != nil {
			return err
		}
		for _, view := range views {
			c.print(os.Stdout, map[string]string{"view": view}, view)
		}
		return nil
	}
	list, err := h.List(h.Ctx, x.View, x.Pattern)
	if err != nil {
		return hand.Missing(err)
	}
	l := c.list(c.screen(), itemColumn, terminal.Column{Name: "VERSION", Least: 8}, archColumn,
		terminal.Column{Name: "COMPONENT", Least: 4}, terminal.Column{Name: "SOURCE", Least: 8})
	for _, e := range list {
		l.add(entryOf(e), e.Package, e.Version, e.Arch, e.Component, e.Source)
	}
	return l.end("")
}

type archiveShow struct {
	View    string `arg:"" help:"A suite or snapshot."`
	Package string `arg:"" help:"A source or binary package."`
	paged
}

func (archiveShow) Help() string {
	return `Example:
  packmill archive show unstable hello`
}

func (x *archiveShow) Run(c *cli, h *hand.Hand) error {
	list, err := h.Show(h.Ctx, x.View, x.Package)
	if err != nil {
		return hand.Missing(err)
	}
	if len(list) == 0 {
		return daemon.Refuse("%s has no package %s", x.View, x.Package)
	}
	for _, text := range list {
		c.print(os.Stdout, map[string]string{"stanza": text}, strings.TrimRight(text, "\n")+"\n")
	}
	return nil
}

type archiveInclude struct {
	Suite   string   `arg:"" help:"A suite of control/suites."`
	Changes []string `arg:"" optional:"" help:"The .changes files." type:"existingfile"`
	Force   bool     `help:"Versions may go down: a newer one goes, with all that was built from it."`
}

func (archiveInclude) Help() string {
	return `Publishes what .changes files list, all at once, checked as archived checks it but without review and build. Who runs this is trusted: signatures are not asked for. Without any it brings the suite in line with its settings, and renews a Release that is about to expire. Packages without a .changes come from a directory: run dpkg-scanpackages there, then packmill archive import.

Examples:
  packmill archive include unstable hello_2.10-3_amd64.changes world_1.0-1_amd64.changes
  packmill archive include unstable`
}

func (x *archiveInclude) Run(c *cli, h *hand.Hand) error {
	suite, err := h.Suite(x.Suite)
	if err != nil {
		return err
	}
	batch, err := hand.Inclusions(x.Suite, x.Changes, x.Force)
	if err != nil {
		return err
	}
	do := h.Publish
	if c.DryRun {
		do = h.Try
	}
	end := h.Publishing()
	rep, err := do(h.Ctx, suite, batch, time.Now())
	end()
	if err != nil {
		return err
	}
	warn(rep.Warnings)
	if len(x.Changes) == 0 {
		text := map[bool]string{true: "published", false: "nothing to do"}[rep.Changed]
		if c.DryRun {
			text = "would be brought in line with its settings"
		}
		c.print(os.Stdout, map[string]any{"suite": suite.Name, "published": rep.Changed, "done": !c.DryRun},
			suite.Name+": "+text)
	}
	return c.results(rep.Results)
}

func warn(list []string) {
	for _, w := range list {
		terminal.Print(os.Stderr, "packmill: %s\n", w)
	}
}

// results prints what became of uploads.
func (c *cli) results(list []archive.Result) error {
	bad := false
	for _, r := range list {
		outcome := r.Outcome.String()
		if c.DryRun && r.Outcome == archive.Published {
			outcome = "would be published"
		}
		text := r.Changes + ": " + outcome
		if r.Reason != "" {
			text += ": " + r.Reason
		}
		for _, n := range r.Notes {
			text += "\n  note: " + n
		}
		c.print(os.Stdout, map[string]any{"changes": r.Changes, "outcome": outcome, "reason": r.Reason,
			"notes": r.Notes, "files": r.Files}, text)
		bad = bad || r.Outcome == archive.Refused
	}
	if bad {
		return daemon.ErrRefused
	}
	return nil
}

type archiveCopy struct {
	From     string   `arg:"" help:"A suite or snapshot."`
	To       string   `arg:"" help:"A suite of control/suites."`
	Packages []string `arg:"" name:"package" help:"Source packages: hello or hello_2.10-3."`
	Force    bool     `help:"Versions may go down: a newer one goes, with all that was built from it."`
}

func (archiveCopy) Help() string {
	return `All the packages at once or, if one of them cannot, none.

Examples:
  packmill archive copy unstable testing hello world --dry-run
  packmill archive copy unstable testing hello world
  packmill archive copy testing stable hello_2.10-3`
}

func (x *archiveCopy) Run(c *cli, h *hand.Hand) error {
	to, err := h.Suite(x.To)
	if err != nil {
		return err
	}
	o := archive.ChangeOptions{Force: x.Force, Dry: c.DryRun}
	end := h.Publishing()
	plan, err := h.Copy(h.Ctx, x.From, to, x.Packages, o, time.Now())
	end()
	return c.outcome(plan, err)
}

type archiveMove struct {
	From     string   `arg:"" help:"A suite of control/suites."`
	To       string   `arg:"" help:"A suite of control/suites."`
	Packages []string `arg:"" name:"package" help:"Source packages: hello or hello_2.10-3."`
	Force    bool     `help:"Versions may go down: a newer one goes, with all that was built from it. Asks nothing."`
	terminal.Sure
}

func (archiveMove) Help() string {
	return `On a terminal it asks, if the suite that they leave could not install or build others any more. A copy breaks nothing.

Example:
  packmill archive move testing stable hello world`
}

func (x *archiveMove) Run(c *cli, h *hand.Hand) error {
	from, err := h.Suite(x.From)
	if err != nil {
		return err
	}
	to, err := h.Suite(x.To)
	if err != nil {
		return err
	}
	if x.Asks() && !x.Force && !c.DryRun {
		plan, err := h.Move(h.Ctx, from, to, x.Packages, archive.ChangeOptions{Dry: true}, time.Now())
		if err != nil || len(plan.Refused) > 0 {
			return c.outcome(plan, err)
		}
		broken, err := h.Breaks(from.Name, plan.Removed)
		if err != nil {
			return err
		}
		if question := hand.Leaving(from.Name, x.Packages, broken); question != "" {
			c.breaks(broken)
			if err := x.Ask(h.Ctx, question); err != nil {
				return err
			}
		}
	}
	o := archive.ChangeOptions{Force: x.Force, Dry: c.DryRun}
	end := h.Publishing()
	plan, err := h.Move(h.Ctx, from, to, x.Packages, o, time.Now())
	end()
	return c.outcome(plan, err)
}

type archiveRm struct {
	Suite    string   `arg:"" help:"A suite of control/suites."`
	Packages []string `arg:"" name:"package" help:"Source packages with all their binaries, or binary packages."`
	Force    bool     `help:"Remove them though that breaks others; asks nothing."`
	NoCheck  bool     `help:"Do not look what it breaks."`
	terminal.Sure
}

func (archiveRm) Help() string {
	return `What the rest of the suite could not install or build any more is said first (dose-debcheck, dose-builddebcheck). On a terminal it shows that and what goes, and asks if more than one package goes or something breaks. Where nobody can be asked, and with --yes, what breaks others is refused without --force. The files stay in the pool until gc. Binaries that go while their source stays are not built again; the history of their build tells who took them out.

Examples:
  packmill archive rm stable hello --dry-run
  packmill archive rm stable hello world`
}

func (x *archiveRm) Run(c *cli, h *hand.Hand) error {
	r, err := h.Removal(x.Suite, x.Packages, !x.NoCheck)
	if err != nil {
		return err
	}
	c.breaks(r.Broken)
	if c.DryRun || len(r.Plan.Refused) > 0 {
		return c.outcome(r.Plan, nil)
	}
	switch question := r.Question(); {
	case x.Force || question == "":
	case x.Asks():
		c.changes("add", r.Plan, true)
		if err := x.Ask(h.Ctx, question); err != nil {
			return err
		}
	default:
		if err := r.Refusal(); err != nil {
			return err
		}
	}
	return c.outcome(r.Do())
}

// breaks prints what a removal breaks.
func (c *cli) breaks(broken []archive.Broken) {
	for _, b := range broken {
		text := fmt.Sprintf("breaks %s %s %s", b.Package, b.Version, b.Arch)
		if b.Wants != "" {
			text += ", which needs " + b.Wants
		}
		if b.Wants != "" && b.Arch == "source" {
			text += " to be built"
		}
		c.print(os.Stdout, map[string]string{"breaks": b.Package, "version": b.Version, "arch": b.Arch, "needs": b.Wants},
			text)
	}
}

type archiveCruft struct {
	View string `arg:"" help:"A suite or snapshot."`
	paged
}

func (archiveCruft) Help() string {
	return `Lists the packages whose source is there in a version that does not name them any more, for their architecture. They and the source that they were built from stay until somebody takes them out; packmill archive rm says what that breaks.

Example:
  packmill archive cruft unstable`
}

// cruft is such a package as archive cruft prints it.
type cruft struct {
	entry
	Newest string `json:"newest"` // version of its source, which does not build it
}

func (x *archiveCruft) Run(c *cli, h *hand.Hand) error {
	list, err := h.Cruft(h.Ctx, x.View)
	if err != nil {
		return hand.Missing(err)
	}
	l := c.list(c.screen(), itemColumn, terminal.Column{Name: "VERSION", Least: 8}, archColumn,
		terminal.Column{Name: "SOURCE", Least: 8}, terminal.Column{Name: "NEWEST", Least: 8})
	for _, e := range list {
		l.add(cruft{entryOf(e.Entry), e.Newest}, e.Package, e.Version, e.Arch, e.Source, e.Newest)
	}
	return l.end("no cruft")
}

type archiveOverride struct {
	Suite    string `arg:"" help:"A suite of control/suites."`
	Package  string `arg:"" help:"A binary package, or src:NAME."`
	Section  string `help:"The new section." placeholder:"SECTION"`
	Priority string `help:"The new priority." placeholder:"PRIORITY"`
}

func (archiveOverride) Help() string {
	return `Changes the package where it is published, and writes the line into the suite's Override file, if control/suites names one, so that later versions get it too.

Example:
  packmill archive override unstable hello --section games --priority optional`
}

func (x *archiveOverride) Run(c *cli, h *hand.Hand) error {
	plan, err := h.Override(x.Suite, x.Package, archive.Override{Section: x.Section, Priority: x.Priority}, c.DryRun)
	return c.outcomeOf("change", plan, err)
}

type archiveDiff struct {
	From string `arg:"" help:"A suite or snapshot."`
	To   string `arg:"" help:"A suite or snapshot."`
}

func (archiveDiff) Help() string {
	return `Examples:
  packmill archive diff testing unstable
  packmill archive diff monday/unstable unstable`
}

func (x *archiveDiff) Run(c *cli, h *hand.Hand) error {
	list, err := h.Diff(h.Ctx, x.From, x.To)
	if err != nil {
		return hand.Missing(err)
	}
	return c.differences(list, x.From, x.To)
}

// differences prints what changes from one suite or snapshot to another.
func (c *cli) differences(list []archive.Difference, from, to string) error {
	l := c.list(c.screen(), itemColumn, archColumn, terminal.Column{Name: strings.ToUpper(from), Least: 8},
		terminal.Column{Name: strings.ToUpper(to), Least: 8})
	dash := func(v string) string {
		if v == "" {
			return "-"
		}
		return v
	}
	for _, d := range list {
		l.add(map[string]string{"package": d.Package, "arch": d.Arch, "from": d.Old, "to": d.New},
			d.Package, d.Arch, dash(d.Old), dash(d.New))
	}
	return l.end("")
}

type archiveRollback struct {
	Suite    string `arg:"" help:"A suite of control/suites."`
	Snapshot string `arg:"" help:"The snapshot's name."`
	terminal.Sure
}

func (archiveRollback) Help() string {
	return `Clients see the whole suite change at once, opkg's right after apt's. Before it asks, and with --dry-run, it shows each package that changes. What the suite had stays in the pool until gc; make a snapshot of it first if you may want it back.

Examples:
  packmill archive rollback unstable monday --dry-run
  packmill archive rollback unstable monday`
}

func (x *archiveRollback) Run(c *cli, h *hand.Hand) error {
	suite, err := h.Suite(x.Suite)
	if err != nil {
		return err
	}
	list, err := h.Diff(h.Ctx, suite.Name, x.Snapshot+"/"+suite.Name)
	if err != nil {
		return hand.Missing(err)
	}
	did := "made"
	if c.DryRun {
		did = "would make"
	}
	if c.DryRun || x.Asks() {
		if err := c.differences(list, suite.Name, x.Snapshot+"/"+suite.Name); err != nil {
			return err
		}
	}
	if !c.DryRun {
		if err := x.Ask(h.Ctx, fmt.Sprintf("Make %s what it was in %s: change %s?",
			suite.Name, x.Snapshot, terminal.Counted(len(list), "package"))); err != nil {
			return err
		}
		end := h.Publishing()
		err := h.Rollback(h.Ctx, suite, x.Snapshot, time.Now())
		if end(); err != nil {
			return hand.Missing(err)
		}
	}
	c.print(os.Stdout, map[string]any{"suite": suite.Name, "snapshot": x.Snapshot, "packages": len(list),
		"done": !c.DryRun},
		fmt.Sprintf("%s %s what it was in %s: %d packages differ", did, suite.Name, x.Snapshot, len(list)))
	return nil
}

type archiveSnapshot struct {
	Create snapshotCreate `cmd:"" help:"Keep a suite as it is now."`
	Ls     snapshotLs     `cmd:"" default:"1" help:"List snapshots."`
	Rm     snapshotRm     `cmd:"" help:"Remove a snapshot."`
}

func (archiveSnapshot) Help() string {
	return `A snapshot is an address for apt (snapshots/NAME/) and for opkg (snapshots/NAME/opkg/SUITE/ARCH), and a VIEW for the other commands (NAME/SUITE). What it names stays in the pool.

Examples:
  packmill archive snapshot create unstable monday
  packmill archive snapshot ls
  packmill archive snapshot rm monday`
}

type snapshotCreate struct {
	Suite string `arg:"" help:"A suite of control/suites."`
	Name  string `arg:"" help:"The snapshot's name; it becomes snapshots/NAME."`
}

func (snapshotCreate) Help() string {
	return `Example:
  packmill archive snapshot create unstable tuesday`
}

func (x *snapshotCreate) Run(c *cli, h *hand.Hand) error {
	suite, err := h.Suite(x.Suite)
	if err != nil {
		return err
	}
	if !c.DryRun {
		if err := h.Snapshot(h.Ctx, suite, x.Name, time.Now()); err != nil {
			return hand.Missing(err)
		}
	}
	text := "kept " + suite.Name + " as snapshots/" + x.Name
	if c.DryRun {
		text = "would keep " + suite.Name + " as snapshots/" + x.Name
	}
	c.print(os.Stdout, map[string]any{"suite": suite.Name, "snapshot": x.Name, "done": !c.DryRun}, text)
	return nil
}

type snapshotLs struct{}

func (snapshotLs) Help() string {
	return `Example:
  packmill archive snapshot ls --json`
}

func (snapshotLs) Run(c *cli, h *hand.Hand) error {
	list, err := h.Snapshots()
	if err != nil {
		return err
	}
	for _, s := range list {
		c.print(os.Stdout, map[string]string{"snapshot": s.Name, "suite": s.Suite}, s.Name+"/"+s.Suite)
	}
	return nil
}

type snapshotRm struct {
	Name string `arg:"" help:"The snapshot's name."`
	terminal.Sure
}

func (snapshotRm) Help() string {
	return `Its address is gone for clients at once, and what only it named goes with the next gc.

Examples:
  packmill archive snapshot rm tuesday --dry-run
  packmill archive snapshot rm tuesday`
}

func (x *snapshotRm) Run(c *cli, h *hand.Hand) error {
	list, err := h.Snapshots()
	if err != nil {
		return err
	}
	var suites []string
	for _, s := range list {
		if s.Name == x.Name {
			suites = append(suites, s.Suite)
		}
	}
	if len(suites) == 0 {
		return daemon.Refuse("there is no snapshot %s; packmill archive snapshot lists them", x.Name)
	}
	text := fmt.Sprintf("removed snapshots/%s (%s)", x.Name, strings.Join(suites, ", "))
	if c.DryRun {
		text = "would have " + text
	} else {
		if err := x.Ask(h.Ctx,
			fmt.Sprintf("Remove snapshots/%s (%s), for clients too?", x.Name, strings.Join(suites, ", "))); err != nil {
			return err
		}
		if err := h.RemoveSnapshot(h.Ctx, x.Name); err != nil {
			return hand.Missing(err)
		}
	}
	c.print(os.Stdout, map[string]any{"snapshot": x.Name, "suites": suites, "done": !c.DryRun}, text)
	return nil
}

type archiveGc struct {
	Stay time.Duration `help:"How long a file waits in the pool, and then in the attic." default:"72h"`
}

func (archiveGc) Help() string {
	return `Run it from cron, once a day. What a suite, a feed or a snapshot names stays; the rest waits, goes to the attic, waits there, and is deleted.

Examples:
  packmill archive gc --dry-run
  packmill archive gc --stay 240h`
}

func (x *archiveGc) Run(c *cli, h *hand.Hand) error {
	did, err := h.Collect(h.Ctx,
		archive.CollectOptions{Attic: filepath.Join(c.Tree, "attic"), Stay: x.Stay, Dry: c.DryRun, Now: time.Now()})
	if err != nil {
		return err
	}
	would := ""
	if c.DryRun {
		would = "would be "
	}
	if !c.JSON {
		for _, n := range did.Moved {
			terminal.Print(os.Stdout, "%sput into the attic: %s\n", would, n)
		}
		for _, n := range did.Deleted {
			terminal.Print(os.Stdout, "%sdeleted from the attic: %s\n", would, n)
		}
	}
	c.print(os.Stdout, map[string]any{"waiting": did.Waiting, "moved": did.Moved, "deleted": did.Deleted,
		"bytes": did.Bytes, "done": !c.DryRun},
		fmt.Sprintf("%d files that nothing names wait, %d %sput into the attic, %d %sdeleted (%d bytes)",
			len(did.Waiting), len(did.Moved), would, len(did.Deleted), would, did.Bytes))
	return nil
}

type archiveCheck struct {
	Quick bool `help:"Compare sizes in the pool, not contents."`
}

func (archiveCheck) Help() string {
	return `Ends with 1 if something does not fit.

Examples:
  packmill archive check
  packmill archive check --quick`
}

func (x *archiveCheck) Run(c *cli, h *hand.Hand) error {
	progress := terminal.Begin("checking")
	faults, err := h.Check(h.Ctx, archive.CheckOptions{Deep: !x.Quick, Progress: progress.Bytes})
	progress.End()
	if err != nil {
		return err
	}
	for _, f := range faults {
		c.print(os.Stdout, map[string]string{"path": f.Path, "fault": f.Text}, f.String())
	}
	if len(faults) > 0 {
		return daemon.Refuse("%d faults", len(faults))
	}
	if !c.JSON {
		terminal.Print(os.Stdout, "no fault found\n")
	}
	return nil
}
