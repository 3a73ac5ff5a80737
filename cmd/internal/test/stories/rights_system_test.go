//go:build system

package stories

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// TestEachAsEach: every account tries to read and to write in the directory of every
// state, and can what the one table of rights lets it, and nothing else.
func TestEachAsEach(t *testing.T) {
	a := newAccounts(t, "Review: always")
	a.daemon("master-buildd")
	// The directories of one suite, made as the daemons make them.
	var dirs []string
	want := map[string]map[string]string{}
	accounts := []string{spool.UserReview, spool.UserMaster, spool.UserBuild, spool.UserArchive, spool.UserMail,
		spool.UserStatus, "nobody"}
	rights := map[string]spool.Right{}
	for _, r := range spool.Standard.Rights() {
		rights[r.Dir] = r
	}
	places, err := spool.Open(a.tree)
	a.must(err)
	all, err := places.Places()
	a.must(err)
	for _, p := range all {
		top := p.Dir()
		for rights[top].Dir == "" {
			top = filepath.Dir(top)
		}
		r := rights[top]
		in := r
		if top != p.Dir() {
			in = r.Below()
		}
		dirs = append(dirs, p.Dir())
		want[p.Dir()] = map[string]string{}
		for _, name := range accounts {
			enters := a.allows(r, name, 1)
			can := ""
			if enters && a.allows(in, name, 4) {
				can += "r"
			}
			if enters && a.allows(in, name, 2) {
				can += "w"
			}
			want[p.Dir()][name] = can
		}
	}
	if len(dirs) < 10 {
		t.Fatalf("only %q", dirs)
	}
	for _, name := range accounts {
		out, err := a.run(name, "sh", "-c", fmt.Sprintf("cd %s; for d in %s; do c=; ls $d >/dev/null 2>&1 && c=r; (: "+
			">$d/tried-$$) 2>/dev/null && c=${c}w && rm -f $d/tried-$$; echo $d $c; done", a.tree, strings.Join(dirs, " ")))
		a.must(err)
		for line := range strings.Lines(out) {
			dir, can, _ := strings.Cut(strings.TrimSpace(line), " ")
			if can != want[dir][name] {
				t.Errorf("%s in %s: got %q, want %q", name, dir, can, want[dir][name])
			}
		}
	}
}

// TestEachFileAsEach: a source and a job, with every file that they get on their way, lie
// in each state in turn, and every account, a reviewer and one who works on the queues
// try to write in the item and in each of its files. They can where they reach it and
// are of its kind's group (records), or made the file.
func TestEachFileAsEach(t *testing.T) {
	a := newAccounts(t, "Review: always", "Log-Review: manual")
	a.drop(uploadtest.Package{Source: "hello", Version: "1.0"})
	a.daemon("reviewd")
	// As a reviewer says it, who leaves a word in it.
	reviewer := a.somebody(reviewerUID, spool.GroupAll, spool.GroupReview, spool.GroupDesk)
	for _, args := range []string{"hold hello -m wait", "accept hello"} {
		if out, err := a.sh(reviewer, "packmill review "+args); err != nil {
			t.Fatalf("packmill review %s: %v\n%s", args, err, out)
		}
	}
	a.daemon("master-buildd")
	a.daemon("buildd", "--arch", "amd64")
	people := map[string]*syscall.Credential{"a reviewer": reviewer,
		"who works on the queues": a.somebody(secondUID, spool.GroupAll, spool.GroupQueue)}
	for _, name := range []string{spool.UserReview, spool.UserMaster, spool.UserBuild, spool.UserArchive, spool.UserMail,
		spool.UserStatus, "nobody"} {
		people[name] = a.credential(name)
	}
	tree, err := spool.Open(a.tree)
	a.must(err)
	places, err := tree.Places()
	a.must(err)
	tried := map[string]int{}
	for _, kind := range []spool.Trait{spool.Sources, spool.Jobs} {
		at := map[spool.Trait]string{spool.Sources: "queue/stable/master/*_hello_1.0",
			spool.Jobs: "queue/stable/amd64/built/*_hello_1.0"}[kind]
		item := strings.TrimPrefix(a.one(at), a.tree+"/")
		files := a.filesOf(item)
		made := map[spool.Trait]uint32{spool.Sources: people[spool.UserReview].Uid,
			spool.Jobs: people[spool.UserMaster].Uid}[kind]
		names := []string{}
		for _, f := range files {
			if f.name != "." {
				names = append(names, f.name)
			}
			if strings.HasPrefix(f.name, "hello_") && f.uid != made {
				t.Errorf("%s of %s belongs to %d, want %d", f.name, item, f.uid, made)
			}
		}
		for _, p := range places {
			if !p.State.Is(kind) || p.Arch == "all" {
				continue
			}
			dir := filepath.Join(p.Dir(), filepath.Base(item))
			if dir != item {
				a.must(os.Rename(filepath.Join(a.tree, item), filepath.Join(a.tree, dir)))
			}
			item = dir
			for name, who := range people {
				// (true, and not :, whose redirection that fails would end the shell.)
				out, _ := a.sh(who, "exec 2>/dev/null; cd "+item+" || exit 0; if true >tried; then rm tried; echo .; fi; for f in "+strings.Join(names, " ")+"; do if true >>$f; then echo $f; fi; done")
				for _, f := range files {
					want := a.reaches(p, name, who) &&
						(f.uid == who.Uid || f.record &&
							slices.Contains(append(who.Groups, who.Gid), a.group(spool.ItemGroup(kind == spool.Jobs))))
					if got := strings.Contains("\n"+out, "\n"+f.name+"\n"); got != want {
						t.Errorf("%s writes to %s of %s: %t, want %t", name, f.name, item, got, want)
					}
					if want {
						tried[f.name]++
					}
				}
			}
		}
		a.must(os.Rename(filepath.Join(a.tree, item),
			filepath.Join(filepath.Dir(a.one(filepath.Dir(at))), filepath.Base(filepath.Dir(at)), filepath.Base(item))))
	}
	for _, name := range []string{".", "ticket", "statement", "history", "opinions", "plan", "birth", "log", "builds",
		"hello_1.0.dsc", "result/hello_1.0_amd64.changes"} {
		if tried[name] == 0 {
			t.Errorf("nobody could write to %s; tried %v", name, tried)
		}
	}
	a.sound()
}

// file is one of an item's; of a record the item's group writes, too.
type file struct {
	name   string
	uid    uint32
	record bool
}

// filesOf lists the files of an item, and its directory, in which files are made.
func (a *accounts) filesOf(item string) (files []file) {
	a.Helper()
	root := filepath.Join(a.tree, item)
	a.must(filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if name == "." || d.Type().IsRegular() {
			records := []string{".", "history", "opinions", "told", "builds", "birth"}
			files = append(files, file{name, st.Sys().(*syscall.Stat_t).Uid, slices.Contains(records, name)})
		}
		return nil
	}))
	return files
}

// reaches reports whether who may enter the state's directory.
func (a *accounts) reaches(p spool.Place, name string, who *syscall.Credential) bool {
	a.Helper()
	rights := map[string]spool.Right{}
	for _, r := range spool.Standard.Rights() {
		rights[r.Dir] = r
	}
	top := p.Dir()
	for rights[top].Dir == "" {
		top = filepath.Dir(top)
	}
	r := rights[top]
	if top == p.Dir() {
		return a.lets(r, name, who, 1)
	}
	return a.lets(r, name, who, 1) && a.lets(r.Below(), name, who, 1)
}

func (a *accounts) group(name string) uint32 {
	a.Helper()
	g, err := user.LookupGroup(name)
	a.must(err)
	gid, err := strconv.ParseUint(g.Gid, 10, 32)
	a.must(err)
	return uint32(gid)
}

// allows reports whether the mode of a right lets an account (4 read, 2 write, 1 enter),
// as the kernel decides: as its owner, or else by its groups, or else as anybody.
func (a *accounts) allows(r spool.Right, name string, bit uint32) bool {
	a.Helper()
	return a.lets(r, name, a.credential(name), bit)
}

func (a *accounts) lets(r spool.Right, name string, who *syscall.Credential, bit uint32) bool {
	a.Helper()
	mode := uint32(r.Mode.Perm())
	switch {
	case name == r.Owner:
		mode >>= 6
	case slices.Contains(append(who.Groups, who.Gid), a.group(r.Group)):
		mode >>= 3
	case r.Look && slices.Contains(append(who.Groups, who.Gid), a.group(spool.GroupStatus)):
		mode |= 0o5
	}
	return mode&bit != 0
}

// TestRefusedLeavesNoTrace: who may look, and not work on the queues or review, says every
// word; each is refused with a sentence, and nothing in the tree is touched.
func TestRefusedLeavesNoTrace(t *testing.T) {
	a := newAccounts(t, "Review: always")
	a.script("bad_1.0_amd64", "fail it")
	a.drop(uploadtest.Package{Source: "bad", Version: "1.0"})
	a.daemon("reviewd")
	a.packmill("review", "accept", "bad")
	a.daemon("master-buildd")
	a.daemon("buildd", "--arch", "amd64")
	a.drop(uploadtest.Package{Source: "new", Version: "1.0"})
	a.daemon("reviewd")
	looks := a.somebody(secondUID, spool.GroupAll)
	touched := func() string {
		out, err := a.run("root", "sh", "-c", "cd "+a.tree+" && find . -printf '%p %i %m %s %C@\n' | sort")
		a.must(err)
		return out
	}
	before := touched()
	for _, words := range []string{"wb fail bad . amd64 -m no", "wb gb bad . amd64", "wb dw bad . amd64 -m libx",
		"wb nfu bad . amd64 -m no", "wb take bad . amd64 --override", "wb bp 20 bad . amd64",
		"wb extra-depends bad . amd64 -m libx", "wb profiles bad . amd64 -m stage1", "cancel bad amd64 -m no", "requeue bad",
		"build fail bad -a amd64 -m no", "review accept new", "review reject new -m no", "review hold new -m wait"} {
		out, err := a.sh(looks, "packmill "+words)
		if err == nil || strings.Contains(out, "goroutine") || strings.TrimSpace(out) == "" {
			t.Errorf("packmill %s is not refused with a sentence: %v\n%s", words, err, out)
		}
		if now := touched(); now != before {
			t.Fatalf("packmill %s was refused, and changed the tree; it was\n%s\nand is\n%s", words, before, now)
		}
	}
}
