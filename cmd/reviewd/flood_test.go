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
	"strings"
	"sync"
	"testing"
	"time"

	"packmill/archive"
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
