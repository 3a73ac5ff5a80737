package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"packmill/archive"
	"packmill/archive/deb/debtest"
	"packmill/cmd/internal/daemon"
	"packmill/queue"
	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// sub replaces the first old in a text that must hold it.
func sub(old, with string) func(string) string {
	return func(text string) string {
		if !strings.Contains(text, old) {
			panic(fmt.Sprintf("no %q in:\n%s", old, text))
		}
		return strings.Replace(text, old, with, 1)
	}
}

// wrongs are the ways in which uploads of the flood are bad, with words of the
// sentence that refuses each.
var wrongs = []struct {
	want string
	bend func(p *uploadtest.Package)
}{
	{"no OpenPGP signature", func(p *uploadtest.Package) {
		p.Signed = func(b []byte) []byte {
			_, rest, _ := bytes.Cut(b, []byte("\n\n"))
			text, _, _ := bytes.Cut(rest, []byte("-----BEGIN PGP SIGNATURE"))
			return text
		}
	}},
	{"key", func(p *uploadtest.Package) { p.Signer, p.DscSigner = keys().stranger, keys().stranger }},
	{"signature", func(p *uploadtest.Package) {
		p.Signed = func(b []byte) []byte { return bytes.Replace(b, []byte("Urgency: medium"), []byte("Urgency: low"), 1) }
	}},
	{"nowhere", func(p *uploadtest.Package) { p.Changes = sub("Distribution: stable", "Distribution: nowhere") }},
	{"SHA", func(p *uploadtest.Package) {
		p.After = func(dir string) error {
			m, _ := filepath.Glob(filepath.Join(dir, "*.debian.tar.gz"))
			data, err := os.ReadFile(m[0])
			if err != nil {
				return err
			}
			data[len(data)/2] ^= 1
			return os.WriteFile(m[0], data, 0o644)
		}
	}},
	{"link", func(p *uploadtest.Package) {
		p.After = func(dir string) error {
			m, _ := filepath.Glob(filepath.Join(dir, "*.debian.tar.gz"))
			if err := os.Remove(m[0]); err != nil {
				return err
			}
			return os.Symlink("/etc/hostname", m[0])
		}
	}},
	{"Version", func(p *uploadtest.Package) { p.Changes = sub("Version: 1.0-1", "Version: 2.0-1") }},
	{"Format", func(p *uploadtest.Package) { p.Changes = sub("Format: 1.8", "Format: 9.9") }},
	{"Date", func(p *uploadtest.Package) {
		p.Changes = func(text string) string {
			var out []string
			for l := range strings.Lines(text) {
				if strings.HasPrefix(l, "Date: ") {
					l = "Date: Mon, 01 Jan 2063 00:00:00 +0000\n"
				}
				out = append(out, l)
			}
			return strings.Join(out, "")
		}
	}},
	{"component", func(p *uploadtest.Package) { p.Section = "non-free/misc" }},
	{"..", func(p *uploadtest.Package) { p.Tree = []uploadtest.Member{uploadtest.Text("../../etc/passwd", "x")} }},
	{"Maintainer", func(p *uploadtest.Package) {
		p.Changes = func(text string) string {
			var out []string
			for l := range strings.Lines(text) {
				if !strings.HasPrefix(l, "Maintainer:") {
					out = append(out, l)
				}
			}
			return strings.Join(out, "")
		}
	}},
}

// TestFlood: 120 bad uploads and 24 good ones, mixed, from several accounts at
// once and in any order of files. Each bad one is refused with its sentence,
// each good one is in review, and every byte that came in is in the tree.
func TestFlood(t *testing.T) {
	t.Parallel()
	s := newSite(t, "Incomplete: 1h")
	type one struct {
		source, want string // want is empty for a good one
		dir          string
		names        []string
	}
	var all []one
	add := func(source, want string, bend func(*uploadtest.Package)) {
		p := uploadtest.Package{Source: source, Version: "1.0-1", Signer: keys().ann}
		if bend != nil {
			bend(&p)
		}
		p.Script = "echo " + source + "\n"
		dir, names := s.make(p)
		all = append(all, one{source, want, dir, names})
	}
	for i := range 10 {
		for j, w := range wrongs {
			add(fmt.Sprintf("bad%d-%d", j, i), w.want, w.bend)
		}
	}
	for i := range 24 {
		add(fmt.Sprintf("good%d", i), "", nil)
	}
	sent := map[[32]byte]string{}
	for _, o := range all {
		for _, n := range o.names {
			if st, err := os.Lstat(filepath.Join(o.dir, n)); err == nil && st.Mode().IsRegular() {
				data, err := os.ReadFile(filepath.Join(o.dir, n))
				if err != nil {
					t.Fatal(err)
				}
				sent[sha256.Sum256(data)] = n
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	s.start()
	var wg sync.WaitGroup
	const accounts = 4
	for a := range accounts {
		drop := []string{"", "ann", "bob", "eve"}[a]
		if err := os.MkdirAll(s.drop(drop), 0o775); err != nil {
			t.Fatal(err)
		}
		var mine []one
		for i := a; i < len(all); i += accounts {
			o := all[i]
			random.Shuffle(len(o.names), func(i, j int) { o.names[i], o.names[j] = o.names[j], o.names[i] })
			mine = append(mine, o)
		}
		wg.Go(func() {
			for _, o := range mine {
				for _, n := range o.names {
					if err := os.Rename(filepath.Join(o.dir, n), s.drop(drop, n)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	s.until("all are judged", func() bool {
		return len(s.where("", spool.Rejected))+len(s.where("", spool.Review)) == len(all)
	})
	s.stop()
	for _, o := range all {
		if o.want == "" {
			if len(s.where(o.source, spool.Review)) != 1 {
				t.Errorf("good upload %s is not in review", o.source)
				for _, f := range s.where(o.source, spool.Rejected) {
					t.Logf("%s", s.reason(f))
				}
			}
			continue
		}
		found := s.where(o.source, spool.Rejected)
		if len(found) != 1 {
			t.Errorf("bad upload %s (%s) is refused %d times", o.source, o.want, len(found))
			continue
		}
		if got := s.reason(found[0]); !strings.Contains(got, o.want) {
			t.Errorf("%s: no %q in:\n%s", o.source, o.want, got)
		}
	}
	err := filepath.WalkDir(s.tree.Root(), func(p string, e fs.DirEntry, err error) error {
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
		{uploadtest.Package{Source: "hello", Version: "1.0-3", Binary: []string{"hello", "hello-data"}}, spool.Review, "binary package hello-data"},
		{uploadtest.Package{Source: "hello", Version: "1.0-4", Debian: func(f map[string]string) { f["copyright"] = "Mine.\n" }}, spool.Review, "debian/copyright"},
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
		return len(s.where("", spool.Rejected))+len(s.where("", spool.Accepted)) >= 2*sources && len(s.where("", spool.Intake)) == 0
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
		if got := s.reason(refused[0]); !strings.Contains(got, "was here before") && !strings.Contains(got, "in stable already") {
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
	judged, err := s.tree.Create(spool.In(spool.Intake), spool.NewName(spool.NormalClass, time.Now().Add(time.Hour), "hello", "2"), spool.Reviewd, "test", "test",
		func(dir string) error {
			return os.WriteFile(filepath.Join(dir, spool.TicketFile), (&queue.Ticket{Source: "hello", Version: "2", Suite: "unknown"}).Stanza().Append(nil), 0o664)
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
		{Source: debtest.Source{Name: "tools", Version: "3"}, Debs: []debtest.Deb{{Name: "tool", Version: "3", Source: "tools"}, {Name: "tool-doc", Version: "3", Arch: "all", Source: "tools"}}},
		{Source: debtest.Source{Name: "hello", Version: "0.9"}, Debs: []debtest.Deb{{Name: "hello", Version: "0.9"}}},
	} {
		u.Distribution = "stable"
		dir := t.TempDir()
		changes, err := u.Write(dir)
		if err != nil {
			t.Fatal(err)
		}
		rep, err := a.Publish(context.Background(), archive.Suite{Name: "stable", Architectures: []string{"amd64"}}, []archive.Inclusion{{Dir: dir, Changes: filepath.Base(changes)}}, time.Now())
		if err != nil {
			t.Fatalf("%v: %+v", err, rep)
		}
	}
	dir, names := s.make(uploadtest.Package{Source: "hello", Version: "1.0-1", Binary: []string{"hello", "hello-new", "tool", "tool-doc"}})
	s.put("", dir, names...)
	s.once()
	st, err := spool.ReadTicket(s.tree.Path(s.await("hello", spool.Review).Dir()))
	if err != nil {
		t.Fatal(err)
	}
	got := st.Get("Remarks")
	for _, want := range []string{"the binary package tool is built by the source tools in stable", "the binary package tool-doc is built by the source tools in stable"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in the remarks: %s", want, got)
		}
	}
	if strings.Count(got, "is built by") != 2 {
		t.Errorf("remarks: %s", got)
	}
}
