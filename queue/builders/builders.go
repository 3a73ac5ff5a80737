// Package builders is what the build daemons that run say of themselves: a file
// each in the tree's directory builders, locked as long as the daemon lives,
// and one more of each that is set aside. It tells people why nobody takes a
// job; nobody decides by it.
package builders

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"packmill/internal/deb822"
	"packmill/internal/durable"
)

// Entry is what a daemon says.
type Entry struct {
	Daemon  string   // as in histories: buildd-amd64, or buildd-amd64/big
	Builder string   // its stanza of control/builders
	Archs   []string // that it serves
	PID     int
	Since   time.Time
	Refuses string // why it takes nothing now: set aside, no space. "": it takes jobs
	Trouble string // how its last build ended, if without a verdict on the package
	// Lacks is what the machine lacks to build for an architecture.
	Lacks map[string]string
}

// lacks begins the names of the fields of Lacks.
const lacks = "Lacks-"

func (e *Entry) text() []byte {
	st := &deb822.Stanza{}
	for _, f := range [][2]string{
		{"Daemon", e.Daemon}, {"Builder", e.Builder}, {"Architectures", strings.Join(e.Archs, " ")},
		{"Process", strconv.Itoa(e.PID)},
		{"Since", e.Since.UTC().Format(time.RFC3339)}, {"Refuses", e.Refuses}, {"Trouble", e.Trouble},
	} {
		if v := oneLine(f[1]); v != "" {
			st.Set(f[0], v)
		}
	}
	for _, arch := range slices.Sorted(maps.Keys(e.Lacks)) {
		st.Set(lacks+arch, oneLine(e.Lacks[arch]))
	}
	return st.Append(nil)
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// Post is a daemon's place in the roster.
type Post struct {
	path string

	mu   sync.Mutex
	now  Entry
	lock *os.File
}

// Enter writes a daemon into the roster at dir, and removes what dead ones
// left there.
func Enter(dir string, e Entry) (*Post, error) {
	if files, err := os.ReadDir(dir); err == nil {
		for _, f := range files {
			if path := filepath.Join(dir, f.Name()); !other(f.Name()) && !durable.Locked(path) {
				os.Remove(path)
			}
		}
	}
	e.PID, e.Since = os.Getpid(), time.Now()
	name := fmt.Sprintf("%s.%d", strings.ReplaceAll(e.Daemon, "/", "@"), e.PID)
	p := &Post{path: filepath.Join(dir, name), now: e}
	return p, p.write()
}

// Say changes the entry, if there is something new to say.
func (p *Post) Say(change func(*Entry)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.now.text()
	change(&p.now)
	if slices.Equal(old, p.now.text()) {
		return nil
	}
	return p.write()
}

// write puts a new file in the old one's place: locked before it has the name.
func (p *Post) write() error {
	f, err := os.CreateTemp(filepath.Dir(p.path), durable.NewPrefix+"*")
	if err != nil {
		return err
	}
	_, err = f.Write(p.now.text())
	if err = errors.Join(err, f.Chmod(0o644), durable.LockFile(f)); err == nil {
		err = durable.Replace(f.Name(), p.path)
	}
	if err != nil {
		os.Remove(f.Name())
		f.Close()
		return err
	}
	if p.lock != nil {
		p.lock.Close()
	}
	p.lock = f
	return nil
}

// Leave takes the daemon out of the roster.
func (p *Post) Leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	os.Remove(p.path)
	if p.lock != nil {
		p.lock.Close()
		p.lock = nil
	}
}

// other reports whether a file of the roster's directory is no daemon's entry.
func other(name string) bool {
	return strings.HasPrefix(name, durable.NewPrefix) || strings.HasSuffix(name, asideSuffix) ||
		strings.HasSuffix(name, ".session")
}

// maxEntry bounds what is read of an entry.
const maxEntry = 64 << 10

// Read lists the daemons that run, by name. What cannot be read is left out.
func Read(dir string) ([]Entry, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Entry
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		info, err := f.Info()
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxEntry || other(f.Name()) || !durable.Locked(path) {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		st, err := deb822.ParseOne(f.Name(), data, deb822.Hostile)
		if err != nil {
			continue
		}
		e := Entry{Daemon: st.Get("Daemon"), Builder: st.Get("Builder"), Archs: deb822.Words(st.Get("Architectures")),
			Refuses: st.Get("Refuses"), Trouble: st.Get("Trouble")}
		e.PID, _ = strconv.Atoi(st.Get("Process"))
		e.Since, _ = time.Parse(time.RFC3339, st.Get("Since"))
		for _, f := range st.Fields {
			if arch, ok := strings.CutPrefix(f.Name, lacks); ok {
				if e.Lacks == nil {
					e.Lacks = map[string]string{}
				}
				e.Lacks[arch] = f.Value
			}
		}
		out = append(out, e)
	}
	return out, nil
}
