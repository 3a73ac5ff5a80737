package spool

import (
	"os"
	"path/filepath"
	"testing"
)

// TestSwappedItem: somebody who may write in a state puts a symbolic link, or a directory
// of his, in a claimed item's place, or in the state's: whatever the engine does with
// the item goes into the item, and nothing into what the name means now.
func TestSwappedItem(t *testing.T) {
	for _, way := range []string{"link", "directory", "state"} {
		for what, use := range map[string]func(it *Item) error{
			"Note":      func(it *Item) error { return it.Note("who", "text") },
			"WriteFile": func(it *Item) error { return it.WriteFile(ReasonFile, []byte("x")) },
			"SetTicket": func(it *Item) error {
				st, err := it.Ticket()
				if err != nil {
					return err
				}
				return it.SetTicket(st)
			},
			"Move": func(it *Item) error { return it.Move(Reviewd, "who", Verdict{To: In(Rejected), Text: "text"}) },
		} {
			tree, err := Init(filepath.Join(t.TempDir(), "tree"))
			if err != nil {
				t.Fatal(err)
			}
			made, err := tree.Create(In(Intake), NewName(NormalClass, tree.now(), "hello", "1.0"), Reviewd, "who", "why",
				func(dir string) error {
					return os.WriteFile(filepath.Join(dir, TicketFile), []byte("Source: hello\n"), 0o664)
				})
			if err != nil {
				t.Fatal(err)
			}
			name := made.Name.String()
			made.Release()
			it, err := tree.Claim(In(Intake), name)
			if err != nil {
				t.Fatal(err)
			}
			victim, at := t.TempDir(), it.Path()
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			switch way {
			case "link":
				must(os.Rename(at, at+".was"))
				must(os.Symlink(victim, at))
			case "directory":
				must(os.Rename(at, at+".was"))
				must(os.Mkdir(at, 0o755))
				victim = at
			case "state":
				must(os.Mkdir(filepath.Join(victim, name), 0o755))
				must(os.Rename(filepath.Dir(at), filepath.Dir(at)+".was"))
				must(os.Symlink(victim, filepath.Dir(at)))
			}
			err = use(it)
			if what == "Move" && err == nil {
				t.Errorf("%s, %s: it was moved", way, what)
			}
			if what != "Move" && err != nil {
				t.Errorf("%s, %s: %v", way, what, err)
			}
			it.Release()
			filepath.WalkDir(victim, func(path string, d os.DirEntry, err error) error {
				if err == nil && d.Type().IsRegular() {
					t.Errorf("%s, %s: %s was written", way, what, path)
				}
				return nil
			})
			if way == "state" {
				if _, err := tree.Claim(In(Intake), name); err == nil {
					t.Errorf("%s, %s: an item was claimed through the link", way, what)
				}
			}
		}
	}
}
