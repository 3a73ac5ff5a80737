package main

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"packmill/spool"
	"packmill/spool/statement"
	"packmill/spool/upload/uploadtest"
)

// The steps of intake, in their order.
var steps = []string{
	"complete", "born", "claimed", "copied the .changes", "knows whose files", "took the files away",
	"copied", "judged", "settles", "stated", "moves",
}

// atStep and inTree tell the daemon of a test at which step somebody strikes.
const (
	atStep = "PACKMILL_TEST_STEP"
	inTree = "PACKMILL_TEST_TREE"
)

const victims = "spool/incoming/victim"

// dropOf is where the upload of a source lies: those whose strike is at the whole
// directory have one of their own.
func dropOf(source string) string {
	if strings.HasPrefix(source, "drops-") {
		return "spool/incoming/robot/DELAYED/0-day"
	}
	return "spool/incoming/robot"
}

// strikes are what an uploader can do to a file of his: to the name where he dropped
// it, and by a handle that he kept, wherever it lies now. victim is a file of another's
// of the same name and size, other a content of that size.
var strikes = map[string]func(path, victim string, held []string, other []byte) error{
	"link": func(path, victim string, _ []string, _ []byte) error {
		os.Remove(path)
		return os.Symlink(victim, path)
	},
	"hard": func(path, victim string, _ []string, _ []byte) error {
		os.Remove(path)
		return os.Link(victim, path)
	},
	"swap": func(path, _ string, _ []string, other []byte) error {
		os.Remove(path)
		return os.WriteFile(path, other, 0o644)
	},
	"none":  func(string, string, []string, []byte) error { return nil },
	"gone":  func(path, _ string, _ []string, _ []byte) error { os.Remove(path); return nil },
	"fifo":  func(path, _ string, _ []string, _ []byte) error { os.Remove(path); return unix.Mkfifo(path, 0o644) },
	"grow":  func(path, _ string, held []string, _ []byte) error { return write(held, os.O_APPEND, []byte("more\n")) },
	"write": func(path, _ string, held []string, other []byte) error { return write(held, 0, other) },
	"trunc": func(path, _ string, held []string, _ []byte) error { return write(held, os.O_TRUNC, nil) },
	"drops": func(path, victim string, _ []string, _ []byte) error {
		dir, link := filepath.Dir(path), filepath.Dir(path)+".link"
		os.Symlink(filepath.Dir(victim), link)
		return unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
	},
}

func write(paths []string, flag int, data []byte) error {
	for _, p := range paths {
		f, err := os.OpenFile(p, os.O_WRONLY|flag, 0)
		if err != nil {
			return err
		}
		f.Write(data)
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// striker is the hook of a daemon: the source's name says which strike, and at which of its
// files, as link-1.
func striker(at, tree string) func(step, changes string) {
	var once sync.Map
	return func(step, changes string) {
		source, _, _ := strings.Cut(changes, "_")
		if step != at {
			return
		}
		if _, was := once.LoadOrStore(source, true); was {
			return
		}
		strike, end, _ := strings.Cut(source, "-")
		name := changes
		if end != "changes" {
			name = source + "_1.0." + strings.ReplaceAll(end, "tar", "tar.gz")
		}
		path := filepath.Join(tree, dropOf(source), name)
		victim := filepath.Join(tree, victims, name)
		other, _ := os.ReadFile(filepath.Join(tree, "other", name))
		var held []string
		intake := filepath.Join(tree, "spool/intake/*")
		for _, dir := range []string{filepath.Dir(path), filepath.Join(intake, "upload"), filepath.Join(intake, ".taken")} {
			found, _ := filepath.Glob(filepath.Join(dir, name))
			held = append(held, found...)
		}
		if err := strikes[strike](path, victim, held, other); err != nil {
			fmt.Fprintf(os.Stderr, "strike %s at %s: %v\n", source, step, err)
		}
	}
}

// TestEachStep: at each step of intake, between what is checked and what is done with it, an
// uploader strikes at each kind of file that he sent. No file of another's is moved, changed or
// let in, and what is let in is what he sent and what the statement says.
func TestEachStep(t *testing.T) {
	t.Parallel()
	for i, at := range steps {
		t.Run(at, func(t *testing.T) {
			if testing.Short() && i%3 != 1 {
				t.Skip("the others are long together")
			}
			t.Parallel()
			s := newSite(t)
			sent := map[string][]byte{}
			theirs := map[string][]byte{}
			for strike := range strikes {
				for _, end := range []string{"dsc", "tar", "changes"} {
					s.bait(strike+"-"+end, sent, theirs)
				}
			}
			cmd := s.command("--once")
			cmd.Env = append(cmd.Env, atStep+"="+at, inTree+"="+s.tree.Root())
			if err := cmd.Run(); err != nil {
				t.Logf("the daemon: %v", err)
			}
			s.once() // what was left is taken up as after a crash
			for name, want := range theirs {
				if got, err := os.ReadFile(s.tree.Path(victims, name)); err != nil || !bytes.Equal(got, want) {
					t.Errorf("the victim's %s: %q, %v", name, got, err)
				}
			}
			s.nothingOf(theirs)
			s.asSent(sent)
			if n := len(s.where("*", spool.Review)); n == 0 {
				t.Error("nothing was let in, also not what came whole")
			}
		})
	}
}

// bait drops an upload of that source in robot's directory, beside files of the victim's of
// the same names and sizes.
func (s *site) bait(source string, sent, theirs map[string][]byte) {
	s.t.Helper()
	dir := s.t.TempDir()
	changes, err := uploadtest.Package{Source: source, Version: "1.0"}.Write(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, changes))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			s.t.Fatal(err)
		}
		sent[e.Name()] = data
		secret := bytes.Repeat([]byte("S"), len(data))
		other := bytes.Repeat([]byte("o"), len(data))
		if e.Name() != changes {
			// The other .changes lists the victim's file.
			for _, sum := range []func([]byte) string{
				func(b []byte) string { return fmt.Sprintf("%x", md5.Sum(b)) },
				func(b []byte) string { return fmt.Sprintf("%x", sha1.Sum(b)) },
				func(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) },
			} {
				text = bytes.ReplaceAll(text, []byte(sum(data)), []byte(sum(secret)))
			}
		}
		theirs[e.Name()] = secret
		s.write(filepath.Join(victims, e.Name()), string(secret))
		s.write(filepath.Join("other", e.Name()), string(other))
	}
	s.write(filepath.Join("other", changes), string(text))
	for _, e := range entries {
		if e.Name() != changes {
			s.write(filepath.Join(dropOf(source), e.Name()), string(sent[e.Name()]))
		}
	}
	s.write(filepath.Join(dropOf(source), changes), string(sent[changes]))
}

// nothingOf says that no item has a content of the victim's.
func (s *site) nothingOf(theirs map[string][]byte) {
	s.t.Helper()
	for _, top := range []string{"spool/intake", "spool/review", "spool/accepted", "spool/rejected", "attic", "tmp"} {
		filepath.WalkDir(s.tree.Path(top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil
			}
			// A second name that the uploader himself made is in what is refused.
			info, err := d.Info()
			victim, verr := os.Lstat(s.tree.Path(victims, d.Name()))
			if err == nil && verr == nil && top == "spool/rejected" && os.SameFile(info, victim) {
				return nil
			}
			data, err := os.ReadFile(path)
			if err == nil && len(data) > 0 && bytes.Equal(data, theirs[d.Name()]) {
				s.t.Errorf("%s is the victim's", path)
			}
			return nil
		})
	}
}

// asSent says that what waits for review is what its uploader sent, and stated.
func (s *site) asSent(sent map[string][]byte) {
	s.t.Helper()
	ring, err := statement.OpenRing(s.tree.Root())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range s.where("*", spool.Review, spool.Accepted) {
		dir := s.tree.Path(f.Dir())
		said, err := ring.Of(dir, f.Name.Source, f.Name.Version, "stable")
		if err == nil {
			err = said.Verify(dir)
		}
		if err != nil {
			s.t.Errorf("%s: %v", f.Name, err)
			continue
		}
		for _, file := range said.Files {
			if data, err := os.ReadFile(filepath.Join(dir, file.Name)); err != nil || !bytes.Equal(data, sent[file.Name]) {
				s.t.Errorf("%s of %s is not what was sent: %v", file.Name, f.Name, err)
			}
		}
		if want := slices.Sorted(maps.Keys(sent)); !slices.Contains(want, said.Changes) {
			s.t.Errorf("%s has the .changes %s", f.Name, said.Changes)
		}
	}
}
