package queue

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"packmill/spool"
)

// triple is one letter of the grid.
type triple struct {
	from spool.State
	op   Op
	by   Role
	to   spool.State
}

func triples() (out []triple) {
	for _, op := range Ops {
		for _, from := range columns {
			for _, by := range Roles {
				out = append(out, triple{from, op, by, SpecOf(from, op, by).To})
			}
		}
	}
	return out
}

// The grid has a line for each operation and nothing else, a column for each
// state in which jobs lie, and letters that lead somewhere.
func TestGrid(t *testing.T) {
	for _, s := range spool.Standard.Are(spool.Jobs) {
		if !slices.Contains(columns, s) {
			t.Errorf("the grid has no column for %s", s)
		}
	}
	var ops []Op
	for line := range strings.Lines(grid) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "none" {
			continue
		}
		ops = append(ops, Op(f[0]))
		if len(f) != len(columns)+1 {
			t.Fatalf("grid: %q", line)
		}
		for _, cell := range f[1:] {
			for _, letter := range []byte(cell) {
				if _, ok := letters[letter]; !ok || len(cell) != len(Roles) {
					t.Errorf("grid: %q in %q", cell, line)
				}
			}
		}
	}
	if !slices.Equal(ops, Ops) {
		t.Errorf("grid: got the operations %s, want %s", ops, Ops)
	}
	for key := range effects {
		if op, _, _ := strings.Cut(key, " "); !slices.Contains(ops, Op(op)) {
			t.Errorf("effects: there is no operation %s", key)
		}
	}
}

// What is refused has a sentence; each move is one that the engine's table
// allows a person; and who is more to a job may do what others may.
func TestSpecs(t *testing.T) {
	for _, x := range triples() {
		s := SpecOf(x.from, x.op, x.by)
		if s.Refused() && s.Say == "" {
			t.Errorf("%s of %q by %s: refused without a reason", x.op, x.from, x.by)
		}
		if s.To != nil && s.To != Same && !spool.Standard.Legal(x.from, s.To, spool.Person) {
			t.Errorf("%s of %q by %s: the table of moves forbids %s", x.op, x.from, x.by, s.To)
		}
		if slices.Contains(s.Do, CancelBinNMU) && !spool.Standard.Legal(x.from, spool.Attic, spool.Person) {
			t.Errorf("%s of %q by %s: the table of moves forbids the attic", x.op, x.from, x.by)
		}
		if x.from == spool.Unborn && !s.Refused() {
			t.Errorf("%s of no job by %s: not refused", x.op, x.by)
		}
		if o := SpecOf(x.from, x.op, Other); !o.Refused() && o.To != s.To {
			t.Errorf("%s of %q: %s may, and comes to %s; %s comes to %q", x.op, x.from, Other, o.To, x.by, s.To)
		}
		if s.Refused() && x.by == Override && !SpecOf(x.from, x.op, Signer).Refused() {
			t.Errorf("%s of %q: %s may, and %s may not", x.op, x.from, Signer, x.by)
		}
		if got := SpecOf(x.from, x.op, Other); x.from.Is(spool.Owned) && got.To != nil && x.op == Take {
			t.Errorf("%s of %q: taken from its owner without an override", x.op, x.from)
		}
	}
}

var testTime = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// jobIn makes a job that alice has, in a state.
func jobIn(t *testing.T, tree *spool.Tree, suite string, state spool.State, change func(*Ticket)) spool.Found {
	t.Helper()
	tk := &Ticket{
		Source: "hello", Version: "1:2.10-3", Suite: suite, Architecture: []string{"any"}, BuildArch: "amd64",
		Dsc:     "hello_2.10-3.dsc",
		Builder: "alice", Tries: 2, NotBefore: testTime, Result: "hello_2.10-3_amd64.changes", Index: "old",
	}
	if state == spool.DepWait {
		tk.DepWait = "liba (>= 1), libb"
	}
	if change != nil {
		change(tk)
	}
	f, err := Make(tree,
		&Job{Ticket: tk, Arch: "amd64", Class: 50, Time: testTime, State: spool.NeedsBuild, By: spool.MasterD, Who: "test",
			Reason: "test"})
	if err != nil {
		t.Fatal(err)
	}
	place := spool.In(state, suite, "amd64")
	name := f.Name
	switch state {
	case spool.Installed:
		place.Hash = "h"
	case spool.Uploaded:
		place.Arch, name.Arch = "", "amd64"
	}
	to := spool.Found{Place: place, Name: name}
	if to != f {
		byHand(t, tree, f, to)
	}
	if state == spool.Failed {
		if err := os.WriteFile(tree.Path(to.Dir(), spool.ReasonFile), []byte("the old text\n"), 0o664); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// look is what an item is, for comparison.
func look(t *testing.T, tree *spool.Tree, suite string) string {
	t.Helper()
	var out []string
	for _, f := range inSuite(t, tree, suite) {
		ticket, _ := os.ReadFile(tree.Path(f.Dir(), spool.TicketFile))
		out = append(out, f.Dir()+"\n"+string(ticket)+spool.ReadReason(tree.Path(f.Dir())))
	}
	return strings.Join(out, "\n")
}

// inSuite finds the items of one suite: the tests share a tree.
func inSuite(t *testing.T, tree *spool.Tree, suite string, states ...spool.State) []spool.Found {
	t.Helper()
	if len(states) == 0 {
		states = append(slices.Clone(columns[1:]), spool.Attic)
	}
	var out []spool.Found
	for _, s := range states {
		p := spool.In(s, suite, "amd64")
		switch s {
		case spool.Uploaded:
			p.Arch = ""
		case spool.Installed:
			p.Hash = "h"
		case spool.Attic:
			p = spool.In(s)
		}
		names, err := tree.List(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			n, err := spool.ParseName(name)
			if err != nil {
				t.Fatal(err)
			}
			if f := (spool.Found{Place: p, Name: n}); s != spool.Attic || sameSuite(tree, &f, suite) {
				out = append(out, f)
			}
		}
	}
	return out
}

// Every triple, asked of a real tree: what is allowed has its effects, its
// REASON and its line in the history with the person's name; what is refused
// changes nothing at all.
func TestAskEveryTriple(t *testing.T) {
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range triples() {
		if x.from == spool.Unborn {
			if got := Absent(x.op).Refusal; got != sayNone {
				t.Errorf("%s of nothing: %q", x.op, got)
			}
			continue
		}
		working := x.from == spool.Building || x.from == spool.Built || x.from == spool.BuildAttempted
		if x.by == Owner && !working {
			continue // nobody owns it there
		}
		t.Run(fmt.Sprintf("%s %s by %s", x.op, x.from, x.by), func(t *testing.T) {
			t.Parallel()
			ask(t, tree, fmt.Sprintf("suite%d", i), x)
		})
	}
}

func ask(t *testing.T, tree *spool.Tree, suite string, x triple) {
	f := jobIn(t, tree, suite, x.from, func(tk *Ticket) {
		if x.op == BinNMU && x.from != spool.Installed {
			tk.BinNMU = 3
		}
	})
	r := &Request{Op: x.op, Who: "bob", Message: "some words", Now: testTime}
	if x.by == Owner {
		r.Who = "alice"
	}
	r.Override, r.Signer = x.by == Override, x.by == Signer
	switch x.op {
	case DepWait:
		r.Message = "libb (>= 2), libc"
	case ExtraDepends, ExtraConflicts:
		r.Message = "libx (>= 7)"
	case Priority:
		r.Number = 95
	case BinNMU:
		r.BinNMU = func(tk *Ticket, _ spool.Found) (spool.Found, error) {
			n := *tk
			n.BinNMU, n.BinNMUText, n.BinNMUTime = 1, r.Message, r.Now
			return Make(tree, &Job{Ticket: &n, Arch: "amd64", Class: 50, Time: r.Now, State: spool.NeedsBuild, By: spool.Person,
				Who: r.Who, Reason: "binNMU"})
		}
		if x.from == spool.Installed {
			r.Number = 1
		}
	}
	before := look(t, tree, suite)
	r.Dry = true
	dry, err := Ask(tree, f, r)
	if err != nil {
		t.Fatal(err)
	}
	if now := look(t, tree, suite); now != before {
		t.Fatalf("a dry run changed the tree:\n%s\nit was:\n%s", now, before)
	}
	r.Dry = false
	reply, err := Ask(tree, f, r)
	if err != nil {
		t.Fatal(err)
	}
	if reply.Role != x.by {
		t.Errorf("role %s, want %s", reply.Role, x.by)
	}
	if (dry.Refusal == "") != (reply.Refusal == "") {
		t.Errorf("dry run: %q, done: %q", dry.Refusal, reply.Refusal)
	}
	if x.to == nil {
		if reply.Refusal == "" || strings.Contains(reply.Refusal, "%o") {
			t.Errorf("not refused, or badly: %q", reply.Refusal)
		}
		if now := look(t, tree, suite); now != before {
			t.Errorf("refused, and changed:\n%s\nit was:\n%s", now, before)
		}
		return
	}
	if reply.Refusal != "" {
		t.Fatalf("refused: %s", reply.Refusal)
	}
	s := SpecOf(x.from, x.op, x.by)
	want := x.to
	switch {
	case slices.Contains(s.Do, CancelBinNMU):
		want = spool.Attic
	case want == Same:
		want = x.from
	}
	found := inSuite(t, tree, suite, want)
	if len(found) != 1 {
		t.Fatalf("in %s: %v\n%s", want, found, look(t, tree, suite))
	}
	checkEffects(t, tree, x, s, found[0], r)
}

// checkEffects looks for each effect of the specification.
func checkEffects(t *testing.T, tree *spool.Tree, x triple, s *Spec, f spool.Found, r *Request) {
	t.Helper()
	dir := tree.Path(f.Dir())
	tk, err := TicketAt(tree, f)
	if err != nil {
		t.Fatal(err)
	}
	reason := spool.ReadReason(dir)
	check := func(ok bool, what string, got any) {
		t.Helper()
		if !ok {
			t.Errorf("%s: %v\nREASON: %s", what, got, reason)
		}
	}
	for _, e := range s.Do {
		switch e {
		case SetOwner:
			check(tk.Builder == r.Who && tk.TakenBy == r.Who, "owner", tk.Builder)
		case ClearOwner:
			check(tk.Builder == "" && tk.TakenBy == "", "owner", tk.Builder)
		case ClearTries:
			check(tk.Tries == 0 && tk.NotBefore.IsZero() && tk.Index == "", "attempts", tk.Tries)
		case ClearWait:
			check(tk.DepWait == "", "dep-wait", tk.DepWait)
		case MergeWait:
			want := "libb (>= 2), libc"
			if x.from == spool.DepWait {
				want = "liba (>= 1), " + want
			}
			check(tk.DepWait == want && strings.Contains(reason, want), "dep-wait, not "+want, tk.DepWait)
		case AppendText:
			check(strings.Contains(reason, "1:2.10-3 failed, says bob:\n") || strings.Contains(reason, "says alice:\n"),
				"who failed it", "")
			check(x.op == NoBuild || strings.Contains(reason, "some words"), "the text", "")
			check(x.from != spool.Failed || strings.Contains(reason, "the old text"), "the old text", "")
		case KeepText:
			text, err := failedText(dir)
			check(err == nil && (x.from != spool.Failed || strings.Contains(text, "the old text")), "the kept text", text)
		case SayNotForUs:
			check(strings.Contains(reason, r.Who) && strings.Contains(reason, "some words"), "who said so", "")
		case NeedResult:
			check(tk.Result != "", "result", tk.Result)
		case Rename:
			check(f.Name.Class == 40 && tk.BaseClass == "50" && tk.BuildPriority == 95, "class", f.Name)
		case SetExtra:
			got := map[Op]string{ExtraDepends: tk.ExtraDepends, ExtraConflicts: tk.ExtraConflicts,
				Profiles: strings.Join(tk.BuildProfiles, " "), Options: strings.Join(tk.BuildOptions, " ")}[x.op]
			check(got == r.Message, "extra", got)
		case MakeBinNMU:
			made := inSuite(t, tree, tk.Suite, spool.NeedsBuild)
			check(len(made) == 1, "the new job", made)
			return // the old one's history has nothing to tell
		}
	}
	if x.op == Info {
		return
	}
	events, err := spool.ReadHistory(dir)
	if err != nil || len(events) == 0 {
		t.Fatalf("history: %v, %v", events, err)
	}
	last := events[len(events)-1]
	check(last.Who == r.Who && last.To == f.Place.Dir(), "the last line of the history", last)
	word := "some words"
	switch x.op {
	case Priority:
		word = "95"
	case BinNMU:
		word = "cancelled"
	case DepWait:
		word = "libc"
	case ExtraDepends, ExtraConflicts:
		word = "libx"
	}
	check(strings.Contains(last.Reason, word), "the reason in the history", last.Reason)
	check(x.by != Override || x.op == Priority || x.op == BinNMU || strings.Contains(last.Reason, "override"),
		"the override in the history", last.Reason)
}

// What a person may get wrong is refused before anything is done.
func TestAskBadRequests(t *testing.T) {
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		from spool.State
		r    Request
		want string
	}{
		{"other version", spool.Built, Request{Op: GiveBack, Version: "1:2.10-2"}, "its version is 1:2.10-3, not 1:2.10-2"},
		{"fail without a reason", spool.Built, Request{Op: Fail}, "say why it failed, with -m"},
		{"dep-wait without packages", spool.Built, Request{Op: DepWait}, `say what it waits for, with -m "libfoo-dev (>= 2)"`},
		{"alternatives", spool.Built, Request{Op: DepWait, Message: "a | b"}, "name the one that the build takes"},
		{"older", spool.Built, Request{Op: DepWait, Message: "a (<< 2)"}, "use >= or >>"},
		{"restricted", spool.Built, Request{Op: DepWait, Message: "a [i386]"}, "leave the restriction out"},
		{"not a relation", spool.Built, Request{Op: DepWait, Message: "$(id)"}, "$(id)"},
		{"extra", spool.NeedsBuild, Request{Op: ExtraDepends, Message: "a (1"}, "a (1"},
		{"priority", spool.NeedsBuild, Request{Op: Priority, Number: 2000}, "from -1000 to 1000"},
		{"no binNMU to cancel", spool.Installed, Request{Op: BinNMU}, "there is no binNMU to cancel"},
		{"binNMU without a reason", spool.Installed, Request{Op: BinNMU, Number: 1}, "say why, with -m"},
		{"two lines", spool.Installed, Request{Op: BinNMU, Number: 1, Message: "a\nb"}, "one line"},
		{"not installed", spool.NeedsBuild, Request{Op: BinNMU, Number: 1, Message: "a"}, "not in the archive yet"},
		{"cancel what is none", spool.NeedsBuild, Request{Op: BinNMU}, "not in the archive yet"},
	} {
		t.Run(c.name, func(t *testing.T) {
			suite := strings.ToLower(strings.ReplaceAll(c.name, " ", "-"))
			f := jobIn(t, tree, suite, c.from, nil)
			before := look(t, tree, suite)
			c.r.Who, c.r.Now = "bob", testTime
			reply, err := Ask(tree, f, &c.r)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(reply.Refusal, c.want) {
				t.Errorf("got %q, want %q", reply.Refusal, c.want)
			}
			if now := look(t, tree, suite); now != before {
				t.Errorf("changed:\n%s", now)
			}
		})
	}
}

// A result is only handed on if it is there and signed.
func TestUploadWantsResult(t *testing.T) {
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := jobIn(t, tree, "sid", spool.Built, func(tk *Ticket) { tk.Result, tk.BinNMU = "", 2 })
	r := &Request{Op: Upload, Who: "alice", Now: testTime}
	reply, err := Ask(tree, f, r)
	if err != nil || !strings.Contains(reply.Refusal, "no result") {
		t.Errorf("without a result: %+v, %v", reply, err)
	}
	r.Result = func(dir string, _ *Ticket) (string, error) {
		if err := os.MkdirAll(dir, 0o775); err != nil {
			return "", err
		}
		return "h.changes", os.WriteFile(filepath.Join(dir, "h.changes"), []byte("x"), 0o664)
	}
	r.Signed = func(path string, tk *Ticket) error {
		if tk.Plus() != "1:2.10-3+b2" || filepath.Base(path) != "h.changes" {
			t.Errorf("signed: %s %s", path, tk.Plus())
		}
		return fmt.Errorf("nobody signed it")
	}
	if reply, err = Ask(tree, f, r); err != nil || reply.Refusal != "nobody signed it" {
		t.Errorf("without a signature: %+v, %v", reply, err)
	}
	r.Signed = nil
	if reply, err = Ask(tree, f, r); err != nil || reply.Refusal != "" || reply.To != spool.In(spool.Uploaded, "sid") {
		t.Errorf("with a result: %+v, %v", reply, err)
	}
}

// The next version's job says why the one before failed, also when that one
// was given back, or retired before anybody looked.
func TestPreviousFailure(t *testing.T) {
	for _, where := range []spool.State{spool.Failed, spool.NeedsBuild, spool.Attic} {
		tree, err := spool.Init(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		f, newer := jobIn(t, tree, "sid", spool.BuildAttempted, nil), spool.Name{Source: "hello", Version: "1:3"}
		reply, err := Ask(tree, f, &Request{Op: Fail, Who: "bob", Message: "gcc says no\n\nbug 4711", Now: testTime})
		if err != nil {
			t.Fatal(err)
		}
		if where == spool.NeedsBuild {
			if _, err := Ask(tree, spool.Found{Place: reply.To, Name: reply.Name},
				&Request{Op: GiveBack, Who: "bob", Override: true, Now: testTime}); err != nil {
				t.Fatal(err)
			}
		}
		if where != spool.Failed { // by a build that ended meanwhile
			if err := Supersede(tree, "sid", newer, "test"); err != nil {
				t.Fatal(err)
			}
		}
		got, err := previous(tree, "sid", newer)
		if err != nil {
			t.Fatal(err)
		}
		if want := "1:2.10-3 failed, says bob:\ngcc says no\n\nbug 4711"; got["amd64"] != want || len(got) != 1 {
			t.Errorf("from %s: %q, want %q", where, got, want)
		}
		tk := Ticket{Source: "hello", Version: "1:3", Suite: "sid", Previous: got["amd64"]}
		back, err := ReadTicket(tk.Stanza())
		if err != nil || back.Previous != tk.Previous {
			t.Errorf("in a ticket: %v, %v", back, err)
		}
		if got, err := previous(tree, "other", newer); err != nil || len(got) != 0 {
			t.Errorf("of another suite: %v, %v", got, err)
		}
	}
}
