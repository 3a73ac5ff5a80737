//go:build system

package stories

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// TestRestoredElsewhere: a tree that was backed up by ssh to an account that is not root comes
// back on a machine where the accounts have other numbers, two of them each other's. init --users
// gives every file back to whose it was, what is published is whole, and the other packages go
// on where they were.
func TestRestoredElsewhere(t *testing.T) {
	f := newFarm(t, "Review: always")
	a := f.accounts
	// A local user makes a directory of root's name where uploads come: it is nobody's account.
	if out, err := a.run("nobody", "mkdir", filepath.Join(a.tree, "spool/incoming/root")); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	a.packmill("init", "--users")
	a.drop(uploadtest.Package{Source: "done", Version: "1.0"})
	a.drop(uploadtest.Package{Source: "hello", Version: "1.0"})
	a.daemon("reviewd")
	reviewer := a.somebody(reviewerUID, spool.GroupAll, spool.GroupReview, spool.GroupDesk)
	accept := func(name string) {
		t.Helper()
		if out, err := a.sh(reviewer, "packmill review accept "+name); err != nil {
			t.Fatalf("packmill review accept %s: %v\n%s", name, err, out)
		}
		a.daemon("master-buildd")
	}
	accept("done")
	a.daemon("buildd", "--arch", "amd64")
	a.daemon("master-buildd")
	a.daemon("archived")
	a.one("archive/installed/stable/amd64/*/*_done_1.0")
	accept("hello")
	a.drop(uploadtest.Package{Source: "later", Version: "1.0"})
	a.daemon("reviewd")

	a.packmill("init", "--users") // what a reviewer made is a daemon's then
	before := a.owners()
	backup := f.elsewhere()
	a.packmill("backup", backup)
	a.must(os.RemoveAll(a.tree))
	if out, err := exec.Command("rsync", "-aHX", "-M--fake-super", "--numeric-ids", backup+"/",
		a.tree+"/").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for path, is := range a.owners() {
		if was, ok := before[path]; ok && was != is {
			t.Errorf("%s is %s in the backup, and was %s", path, is, was)
		}
	}
	a.toOldNumbers()
	if owners := a.owners(); maps.Equal(owners, before) {
		t.Fatal("the files did not change hands")
	}
	for cut := time.Millisecond; cut < 200*time.Millisecond; cut *= 2 { // wherever it is killed, it goes on from there
		ctx, stop := context.WithTimeout(t.Context(), cut)
		_ = a.command(ctx, "packmill", "init", "--users").Run()
		stop()
	}
	a.packmill("init", "--users")
	after := a.owners()
	for path, was := range before {
		// What is made anew is in no backup.
		remade := path == spool.AccountsFile || strings.HasPrefix(path, "archive/cache/") ||
			strings.HasPrefix(path, spool.NamesDir+"/")
		if after[path] != was && !remade {
			t.Errorf("%s is %s after the restore, and was %s", path, after[path], was)
		}
	}
	if a.packmill("init", "--users"); !maps.Equal(a.owners(), after) {
		t.Error("init --users changed something once more")
	}
	a.packmill("fsck", "--deep")
	a.packmill("archive", "check")
	a.daemon("buildd", "--arch", "amd64")
	a.daemon("archived")
	a.daemon("master-buildd")
	a.daemon("archived")
	a.one("archive/installed/stable/amd64/*/*_hello_1.0")
	a.one("spool/review/stable/*_later_1.0")
	a.sound()
}

// elsewhere is a directory of an account for backups on "another host", which rsync reaches by ssh.
func (f *farm) elsewhere() string {
	f.Helper()
	name, dir, id := fmt.Sprintf("pmbackup%d", os.Getpid()), filepath.Join(f.dir, "backups"), filepath.Join(f.dir, "id")
	out, err := exec.Command("useradd", "--system", "--shell", "/bin/sh", "--password", "*", name).CombinedOutput()
	if err != nil {
		f.Fatalf("useradd: %v\n%s", err, out)
	}
	f.Cleanup(func() { exec.Command("userdel", name).Run() })
	f.keygen(id)
	f.must(os.Rename(id+".pub", filepath.Join(f.dir, "keys")))
	f.must(os.Mkdir(dir, 0o700))
	own(f.T, name, dir)
	f.Setenv("RSYNC_RSH", fmt.Sprintf("ssh -p %d -i %s -o IdentitiesOnly=yes -o StrictHostKeyChecking=no "+
		"-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR", f.port, id))
	return name + "@127.0.0.1:" + filepath.Join(dir, "mill")
}

// owners says of every file under the tree whose it is and with which mode.
func (a *accounts) owners() map[string]string {
	a.Helper()
	list := map[string]string{}
	a.must(filepath.WalkDir(a.tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		st, _ := info.Sys().(*syscall.Stat_t)
		list[strings.TrimPrefix(path, a.tree+"/")] = fmt.Sprintf("%d:%d %s", st.Uid, st.Gid, info.Mode())
		return err
	}))
	return list
}

// toOldNumbers makes the tree one of a machine where reviewd's account had the number that
// buildd's has here, and the other way round, and all others numbers that are nobody's here.
func (a *accounts) toOldNumbers() {
	a.Helper()
	path := filepath.Join(a.tree, spool.AccountsFile)
	data, err := os.ReadFile(path)
	a.must(err)
	ids := map[string]map[int]int{"user": {}, "group": {}}
	text := ""
	swap := map[string]string{spool.UserReview: spool.UserBuild, spool.UserBuild: spool.UserReview}
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n")[1:] {
		var kind, name string
		var id int
		_, err := fmt.Sscan(line, &kind, &name, &id)
		a.must(err)
		old := id + 70000
		if other := swap[name]; other != "" && kind == "user" {
			old = int(credential(a.T, other).Uid)
		}
		ids[kind][id] = old
		text += fmt.Sprintf("%s %s %d\n", kind, name, old)
	}
	given := map[uint64]bool{} // a job's files are names of its source's, too
	a.must(filepath.WalkDir(a.tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		if given[st.Ino] {
			return nil
		}
		given[st.Ino] = true
		uid, gid := int(st.Uid), int(st.Gid)
		if old, ok := ids["user"][uid]; ok {
			uid = old
		}
		if old, ok := ids["group"][gid]; ok {
			gid = old
		}
		return os.Lchown(path, uid, gid)
	}))
	a.must(os.WriteFile(path, []byte(text), 0o644))
}
