package builders

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// refuses lists "daemon: refusal" of those that run.
func refuses(t *testing.T, dir string) map[string]string {
	t.Helper()
	all, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range all {
		out[e.Daemon] = e.Refuses
	}
	return out
}

func TestRoster(t *testing.T) {
	dir := t.TempDir()
	// What a dead daemon left counts for nothing, and goes.
	dead := filepath.Join(dir, "buildd-amd64.1")
	if err := os.WriteFile(dead, []byte("Daemon: buildd-amd64\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := refuses(t, dir); len(got) != 0 {
		t.Errorf("of a dead daemon: %v", got)
	}
	p, err := Enter(dir, Entry{Daemon: "buildd-amd64/big", Builder: "big", Archs: []string{"amd64", "all"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dead); !os.IsNotExist(err) {
		t.Errorf("what a dead daemon left: %v", err)
	}
	all, err := Read(dir)
	if err != nil || len(all) != 1 || all[0].Builder != "big" || len(all[0].Archs) != 2 || all[0].PID != os.Getpid() ||
		all[0].Since.IsZero() {
		t.Fatalf("%+v, %v", all, err)
	}
	if err := p.Say(func(e *Entry) { e.Refuses = "set aside:\nthree  \x1b failures" }); err != nil {
		t.Fatal(err)
	}
	if got := refuses(t, dir)["buildd-amd64/big"]; got == "" {
		t.Error("it does not say why it takes nothing")
	}
	// Nothing new is not written.
	inode := func() uint64 {
		var st unix.Stat_t
		if err := unix.Stat(p.path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	before := inode()
	if err := p.Say(func(e *Entry) {}); err != nil || inode() != before {
		t.Errorf("written anew for nothing: %v", err)
	}
	if err := p.Say(func(e *Entry) { e.Refuses = "" }); err != nil || refuses(t, dir)["buildd-amd64/big"] != "" {
		t.Errorf("it goes on refusing: %v", err)
	}
	p.Leave()
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("left: %v", files)
	}
}
