package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"packmill/archive"
	"packmill/cmd/internal/daemon"
	"packmill/internal/deb/debtest"
	"packmill/internal/openpgp"
	"packmill/queue"
	"packmill/spool"
	"packmill/spool/upload/corpus"
	"packmill/spool/upload/uploadtest"
)

// elsewhere says why a row of the corpus is not in the flood: its world is not that
// of a tree with settings.
func elsewhere(r corpus.Row, p uploadtest.Package) string {
	switch {
	case r.World != nil:
		return "somebody else's world"
	case p.Distribution == "small":
		return "limits that are no settings"
	case p.Distribution == "taking" && p.Signer == theWorld().Bob:
		return "a second right of one person"
	}
	return map[string]string{
		"binaries allowed":                          "its binaries are none: TestInspect has real ones",
		"levels of a suite":                         "its .dsc does not take the other name",
		"file not listed":                           "in incoming that is a stray: TestStrays",
		"names that differ in case":                 "they are of the first name",
		"key of the keyring that belongs to nobody": "everybody's key is somebody's here",
	}[r.Name]
}

// theWorld has everybody's keys, of today.
var theWorld = sync.OnceValue(func() *corpus.World { return corpus.NewWorld(time.Now().UTC().Truncate(time.Second)) })

// sentences reads what testdata/corpus.txt says of each upload: the errors, by row.
func sentences(t *testing.T) map[string][]string {
	t.Helper()
	data, err := os.ReadFile("../../spool/upload/testdata/corpus.txt")
	if err != nil {
		t.Fatal(err)
	}
	out, row := map[string][]string{}, ""
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		if finding, ok := strings.CutPrefix(line, "    "); !ok {
			row = line
		} else if level, rest, _ := strings.Cut(finding, " "); level == "error" {
			check, text, _ := strings.Cut(rest, ": ")
			out[row] = append(out[row], fmt.Sprintf("error (%s): %s", check, text))
		}
	}
	return out
}

// alike makes sentences comparable that differ in keys, checksums, sizes and
// times, and in which suites there are.
func alike(text string) string {
	for _, r := range []struct{ expr, to string }{
		{`ANN|BOB|CARL|STRANGER|[0-9A-F]{40}`, "KEY"}, {`CHECKSUM|[0-9a-f]{32,64}`, "SUM"}, {`[0-9]+`, "#"}, {`use one of: .*`, "use another"},
		{`\(file-type\)`, "(file)"}, // found already when it is copied
	} {
		text = regexp.MustCompile(r.expr).ReplaceAllString(text, r.to)
	}
	return text
}

// TestFlood: every upload of the corpus comes at once, in any order of uploads
// and of files, from several people to one daemon, over an archive that has
// some of their sources. Each bad one is refused with the sentences of
// testdata/corpus.txt, each good one is in review, and every byte that came in is in the tree.
func TestFlood(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	w := theWorld()
	s := newSite(t)
	suites := func(incomplete string) {
		rest := "Incomplete: " + incomplete + "\nBinaries: %s\n"
		s.write("control/suites",
			fmt.Sprintf("Suite: stable\nAliases: bookworm\nComponents: main contrib\nArchitectures: amd64 i386\n"+
				"Below: oldstable\n"+rest+
				"\nSuite: oldstable\nArchitectures: amd64\n"+rest+"\nSuite: taking\nArchitectures: amd64 i386\n"+rest+
				"\nSuite: dropping\nArchitectures: amd64\n"+rest+"\nSuite: lenient\nArchitectures: amd64\n"+
				"Formats: 3.0 (native)\nChecks: dsc-key=remark\n"+rest, "refuse", "refuse", "allow", "drop", "refuse"))
	}
	suites("1h")
	people := ""
	for _, x := range []struct {
		name, allow string
		key         *openpgp.Signer
	}{
		{"ann", "source, binary=any", w.Ann}, {"bob", "source, suites=stable, components=main, packages=lib*, new=no", w.Bob},
		{"carl", "source, packages=nothing", w.Carl},
	} {
		s.write("control/keys/"+x.name+".asc", string(x.key.Public()))
		people += fmt.Sprintf("Name: %s\nFingerprint: %s\nAllow: %s\n\n", x.name, x.key.Fingerprint(), x.allow)
	}
	s.write("control/uploaders", people)

	want := sentences(t)
	type one struct {
		row  string
		as   string // the source's name here
		was  string // and in the row
		good bool
		dir  string
		from []string
	}
	var all []one
	published := map[string][]archive.Inclusion{}
	counts := map[bool]int{}
	for i, r := range append(slices.Clone(corpus.Good), corpus.Bad...) {
		p := r.Package(w)
		if elsewhere(r, p) != "" {
			continue
		}
		p.As = fmt.Sprintf("%s%03d", p.Source[:len(p.Source)-3], i)
		for _, suite := range []string{"stable", "oldstable", "taking"} {
			if versions := corpus.Published[suite+" "+p.Source]; len(versions) > 0 {
				old := uploadtest.Package{Source: p.As, Version: versions[len(versions)-1], Distribution: suite,
					Date: w.Now.AddDate(0, 0, -1)}
				dir, names := s.make(old)
				published[suite] = append(published[suite], archive.Inclusion{Dir: dir, Changes: names[len(names)-1]})
			}
		}
		o := one{row: r.Name, as: p.As, was: p.Source, good: i < len(corpus.Good), dir: t.TempDir()}
		if _, err := p.Write(o.dir); err != nil {
			t.Fatalf("%s: %v", r.Name, err)
		}
		entries, err := os.ReadDir(o.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			o.from = append(o.from, e.Name())
		}
		counts[o.good]++
		all = append(all, o)
	}
	if counts[true] < 20 || counts[false] < 120 {
		t.Errorf("%d good and %d bad uploads, want 20 and 120", counts[true], counts[false])
	}
	a, err := archive.Open(s.tree.Path("archive"))
	if err != nil {
		t.Fatal(err)
	}
	for suite, batch := range published {
		if rep, err := a.Publish(context.Background(), archive.Suite{Name: suite, Architectures: []string{"amd64"}}, batch,
			time.Now()); err != nil {
			t.Fatalf("publish in %s: %v, %+v", suite, err, rep)
		}
	}
	sent := map[[32]byte]string{}
	for _, o := range all {
		for _, n := range o.from {
			if st, err := os.Lstat(filepath.Join(o.dir, n)); err == nil && st.Mode().IsRegular() {
				data, err := os.ReadFile(filepath.Join(o.dir, n))
				if err != nil {
					t.Fatal(err)
				}
				sent[sha256.Sum256(data)] = o.row + ": " + n
			}
		}
	}

	random := rand.New(rand.NewPCG(rand.Uint64(), 2))
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for i := range all {
		o := &all[i]
		random.Shuffle(len(o.from), func(i, j int) { o.from[i], o.from[j] = o.from[j], o.from[i] })
		if err := os.Mkdir(s.drop(o.as), 0o775); err != nil {
			t.Fatal(err)
		}
	}
	s.start()
	var wg sync.WaitGroup
	const hands = 4
	for h := range hands {
		wg.Go(func() {
			for i := h; i < len(all); i += hands {
				for _, n := range all[i].from {
					if err := os.Rename(filepath.Join(all[i].dir, n), s.drop(all[i].as, n)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	left := func() (n int) {
		for _, o := range all {
			if m, _ := filepath.Glob(s.drop(o.as, "*.changes")); len(m) > 0 {
				n++
			}
		}
		return n
	}
	// All but what is not complete: that is said to wait.
	s.until("all that is complete is judged", func() bool {
		return left() <= strings.Count(s.log.String(), "waits for the rest") && left() < len(all)/10 &&
			len(s.where("", spool.Intake)) == 0
	})
	s.stop()
	suites("1s")
	s.until("the rest is refused", func() bool { s.once(); return left() == 0 })

	items := map[string]spool.Found{} // by drop directory
	for _, state := range []spool.State{spool.Review, spool.Rejected, spool.Attic} {
		for _, f := range s.where("", state) {
			st, err := spool.ReadTicket(s.tree.Path(f.Dir()))
			if err != nil {
				t.Fatal(err)
			}
			if drop := st.Get("Drop"); st.Get("Changes") == "" {
				continue
			} else if was, twice := items[drop]; twice {
				t.Errorf("%s became %v and %v", drop, was, f)
			} else {
				items[drop] = f
			}
		}
	}
	for _, o := range all {
		f := items[o.as]
		reason := ""
		if f.Name.Source != "" {
			reason = strings.ReplaceAll(s.reason(f), o.as, o.was)
		}
		if o.good {
			if f.Place.State != spool.Review {
				t.Errorf("good upload %q is in %v: %s", o.row, f.Place, reason)
			}
			continue
		}
		if f.Place.State != spool.Rejected {
			t.Errorf("bad upload %q is in %v", o.row, f.Place)
			continue
		}
		if len(want[o.row]) == 0 {
			t.Errorf("testdata/corpus.txt says nothing of %q", o.row)
		}
		for _, sentence := range want[o.row] {
			if strings.Contains(sentence, "(not-listed)") {
				continue // what is not listed stays in incoming: a stray
			}
			if strings.Contains(sentence, "(missing)") && strings.Contains(reason, "(file-name)") {
				continue // with a bad name nothing else is looked for
			}
			if !strings.Contains(alike(reason), alike(sentence)) {
				t.Errorf("bad upload %q: no %q in:\n%s", o.row, sentence, reason)
			}
		}
	}
	err = filepath.WalkDir(s.tree.Root(), func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(p)
		delete(sent, sha256.Sum256(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range sent {
		t.Errorf("%s is nowhere in the tree", n)
	}
}

// TestReviewNew: the rule lets through what brings nothing that a person must
// see.
func TestReviewNew(t *testing.T) {
	t.Parallel()
	s := newSite(t, "Review: new")
	date := time.Now().Add(-time.Hour) // one orig tarball for all
	first := hello
	first.Date = date
	dir, names := s.make(first)
	a, err := archive.Open(s.tree.Path("archive"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Publish(context.Background(), archive.Suite{Name: "stable", Architectures: []string{"amd64"}},
		[]archive.Inclusion{{Dir: dir, Changes: names[len(names)-1]}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		p     uploadtest.Package
		state spool.State
		want  string
	}{
		{uploadtest.Package{Source: "hello", Version: "1.0-2"}, spool.Accepted, "accepted by rule: Review: new"},
		{uploadtest.Package{Source: "fresh", Version: "1.0-1"}, spool.Review, "the suite has no version of it"},
		{uploadtest.Package{Source: "hello", Version: "1.0-3", Binary: []string{"hello", "hello-data"}}, spool.Review,
			"binary package hello-data"},
		{uploadtest.Package{Source: "hello", Version: "1.0-4", Debian: func(f map[string]string) {
			f["copyright"] = "Mine.\n"
		}}, spool.Review, "debian/copyright"},
	} {
		x.p.Date = date
		dir, names := s.make(x.p)
		s.put("", dir, names...)
		s.once()
		f := s.await(x.p.Source+"_"+x.p.Version, x.state)
		events, err := spool.ReadHistory(s.tree.Path(f.Dir()))
		if err != nil || !strings.Contains(events[len(events)-1].Reason, x.want) {
			t.Errorf("%s %s: %v, history %+v, want %q", x.p.Source, x.p.Version, err, events, x.want)
		}
	}
}

// TestManyDaemons: however many daemons judge at once, of two uploads of one
// version one is taken, of one upload that came twice one, and the other is
// told; nothing is lost.
func TestManyDaemons(t *testing.T) {
	t.Parallel()
	s := newSite(t, "Review: never")
	const sources, daemons = 12, 3
	type part struct{ from, to string }
	var parts []part
	for i := range sources {
		p := uploadtest.Package{Source: fmt.Sprintf("race%d", i), Version: "1.0-1", Signer: keys().ann}
		dir, names := s.make(p)
		for _, n := range names {
			parts = append(parts, part{filepath.Join(dir, n), s.drop("ann", n)})
		}
		again := t.TempDir()
		if i%2 == 0 { // the very same from somebody else, or another of that version
			for _, n := range names {
				s.copy(filepath.Join(dir, n), filepath.Join(again, n))
			}
		} else {
			p.Signer, p.Script = keys().bob, "echo another\n"
			again, names = s.make(p)
		}
		for _, n := range names {
			parts = append(parts, part{filepath.Join(again, n), s.drop("bob", n)})
		}
	}
	for _, d := range []string{"ann", "bob"} {
		if err := os.Mkdir(s.drop(d), 0o775); err != nil {
			t.Fatal(err)
		}
	}
	for i, p := range parts {
		// The first half is there when they start, the second comes then.
		if n := len(parts) / 2; i >= n && i < n+daemons {
			s.start()
		}
		if err := os.Rename(p.from, p.to); err != nil {
			t.Fatal(err)
		}
	}
	s.until("all are judged", func() bool {
		return len(s.where("", spool.Rejected))+len(s.where("", spool.Accepted)) >= 2*sources &&
			len(s.where("", spool.Intake)) == 0
	})
	s.stop()
	for i := range sources {
		source := fmt.Sprintf("race%d", i)
		if n := len(s.where(source, spool.Accepted)); n != 1 {
			t.Errorf("%s is accepted %d times", source, n)
		}
		refused := s.where(source, spool.Rejected)
		if len(refused) != 1 {
			t.Errorf("%s is refused %d times", source, len(refused))
			continue
		}
		if got := s.reason(refused[0]); !strings.Contains(got, "was here before") &&
			!strings.Contains(got, "in stable already") {
			t.Errorf("%s: REASON: %s", source, got)
		}
		if a, b := s.files(s.where(source, spool.Accepted)[0]), s.files(refused[0]); !slices.Equal(a, b) {
			t.Errorf("%s: files %q and %q", source, a, b)
		}
	}
}

// TestOneJudge: while a process judges an upload of a source, no other judges
// one of the same source, though it may be of another age or name.
func TestOneJudge(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	other := &intake{Env: &daemon.Env{Tree: s.tree}}
	judged, err := s.tree.Create(spool.In(spool.Intake),
		spool.NewName(spool.NormalClass, time.Now().Add(time.Hour), "hello", "2"), spool.Reviewd, "test", "test",
		func(dir string) error {
			return os.WriteFile(filepath.Join(dir, spool.TicketFile),
				(&queue.Ticket{Source: "hello", Version: "2", Suite: "unknown"}).Stanza().Append(nil), 0o664)
		})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.alone(judged); err != nil {
		t.Fatal(err)
	}
	for _, p := range []uploadtest.Package{hello, {Source: "world", Version: "1.0-1"}} {
		dir, names := s.make(p)
		s.put("", dir, names...)
	}
	s.once()
	if len(s.where("hello_1.0-1", spool.Intake)) != 1 || len(s.where("world", spool.Review)) != 1 {
		t.Errorf("while hello is judged: %v", s.where(""))
	}
	judged.Release()
	s.once()
	s.await("hello_1.0-1", spool.Review)
}

// TestTakesOver: a binary package that another source builds in the suite is
// remarked, from the published indexes.
func TestTakesOver(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, err := archive.Open(s.tree.Path("archive"))
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []debtest.Upload{
		{Source: debtest.Source{Name: "tools", Version: "3"},
			Debs: []debtest.Deb{{Name: "tool", Version: "3", Source: "tools"},
				{Name: "tool-doc", Version: "3", Arch: "all", Source: "tools"}}},
		{Source: debtest.Source{Name: "hello", Version: "0.9"}, Debs: []debtest.Deb{{Name: "hello", Version: "0.9"}}},
	} {
		u.Distribution = "stable"
		dir := t.TempDir()
		changes, err := u.Write(dir)
		if err != nil {
			t.Fatal(err)
		}
		rep, err := a.Publish(context.Background(), archive.Suite{Name: "stable", Architectures: []string{"amd64"}},
			[]archive.Inclusion{{Dir: dir, Changes: filepath.Base(changes)}}, time.Now())
		if err != nil {
			t.Fatalf("%v: %+v", err, rep)
		}
	}
	dir, names := s.make(uploadtest.Package{Source: "hello", Version: "1.0-1",
		Binary: []string{"hello", "hello-new", "tool", "tool-doc"}})
	s.put("", dir, names...)
	s.once()
	st, err := spool.ReadTicket(s.tree.Path(s.await("hello", spool.Review).Dir()))
	if err != nil {
		t.Fatal(err)
	}
	got := st.Get("Remarks")
	for _, want := range []string{"the binary package tool is built by the source tools in stable",
		"the binary package tool-doc is built by the source tools in stable"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in the remarks: %s", want, got)
		}
	}
	if strings.Count(got, "is built by") != 2 {
		t.Errorf("remarks: %s", got)
	}
}
