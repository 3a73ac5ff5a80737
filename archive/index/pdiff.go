package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"packmill/internal/deb822"
	"packmill/internal/durable"
)

// Patches of an index, as apt fetches them (dak's pdiffs): NAME.diff beside the index has an ed script for each of the
// last publications, packed by gzip, and Index, which lists them. Release names Index; whoever has one of the texts
// that it lists fetches the scripts from there on, and applies them all.
const (
	patchDir   = ".diff"
	PatchIndex = patchDir + "/Index" // what follows the index's name in Release

	mostPatches = 60
)

// patch leads from one text to that of the next patch, the last to the current text.
type patch struct {
	name              string // of the file, without .gz
	from, text, bytes Sum    // of the text that it is for, of the script, and of the file
}

// patches is what an Index says.
type patches struct {
	current Sum
	list    []patch
}

// bytes are the text of the Index.
func (p *patches) bytes() []byte {
	var b bytes.Buffer
	section := func(name, suffix string, sum func(*patch) Sum) {
		fmt.Fprintf(&b, "%s:\n", name)
		for i := range p.list {
			s := sum(&p.list[i])
			fmt.Fprintf(&b, " %s %d %s%s\n", s.SHA256, s.Size, p.list[i].name, suffix)
		}
	}
	fmt.Fprintf(&b, "SHA256-Current: %s %d\n", p.current.SHA256, p.current.Size)
	section("SHA256-History", "", func(x *patch) Sum { return x.from })
	section("SHA256-Patches", "", func(x *patch) Sum { return x.text })
	section("SHA256-Download", ".gz", func(x *patch) Sum { return x.bytes })
	return b.Bytes()
}

// parsePatches reads an Index of ours.
func parsePatches(file string, text []byte) (*patches, error) {
	st, err := deb822.ParseOne(file, text, deb822.Settings)
	if err != nil {
		return nil, err
	}
	damaged := func(field string) (*patches, error) {
		return nil, fmt.Errorf("%w: %w", st.Errorf(field, "no such list"), ErrDamaged)
	}
	var p patches
	var ok bool
	if words := deb822.Words(st.Get("SHA256-Current")); len(words) != 2 {
		return damaged("SHA256-Current")
	} else if p.current, ok = sumOf(words[0], words[1]); !ok {
		return damaged("SHA256-Current")
	}
	for n, field := range []string{"SHA256-History", "SHA256-Patches", "SHA256-Download"} {
		words := deb822.Words(st.Get(field))
		if n == 0 {
			p.list = make([]patch, len(words)/3)
		}
		if len(words) != 3*len(p.list) {
			return damaged(field)
		}
		for i := range p.list {
			x := &p.list[i]
			sum, ok := sumOf(words[3*i], words[3*i+1])
			name := words[3*i+2]
			switch n {
			case 0:
				x.from, x.name = sum, name
				ok = ok && name == filepath.Base(name) && name[0] != '.'
			case 1:
				x.text = sum
			case 2:
				x.bytes, name = sum, strings.TrimSuffix(name, ".gz")
			}
			if !ok || name != x.name {
				return damaged(field)
			}
		}
	}
	return &p, nil
}

func sumOf(hash, size string) (Sum, bool) {
	n, err := strconv.ParseInt(size, 10, 64)
	return Sum{hash, n}, err == nil && n >= 0 && len(hash) == 2*sha256.Size
}

// diff is the directory of the patches.
func (p Place) diff(elem ...string) string {
	return filepath.Join(append([]string{p.Dir, p.Name + patchDir}, elem...)...)
}

// patches reads the Index with that sum. One that is not there, or does not lead to the text, has no patches.
func (p Place) patches(state State) *patches {
	none := &patches{current: state.Text}
	if state.Patches.SHA256 == "" {
		return none
	}
	path := p.diff("by-hash", "SHA256", state.Patches.SHA256)
	text, err := os.ReadFile(path)
	if err != nil || sumBytes(text) != state.Patches {
		return none
	}
	old, err := parsePatches(path, text)
	if err != nil || old.current != state.Text {
		return none
	}
	return old
}

func sumBytes(data []byte) Sum {
	sum := sha256.Sum256(data)
	return Sum{hex.EncodeToString(sum[:]), int64(len(data))}
}

// Patch publishes the script that leads from one state of the index to the next, beside those that lead to the first,
// and returns the sum of their Index. A script that is nil, or with which all of them are larger than half of the index,
// packed, ends the row: then the sum is the zero Sum, and there is no Index. All that it made is synced.
func (p Place) Patch(from, to State, script []byte, now time.Time) (Sum, error) {
	if script == nil || from.Text.SHA256 == "" {
		return Sum{}, nil
	}
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return Sum{}, err
	}
	if _, err := z.Write(script); err != nil {
		return Sum{}, err
	}
	if err := z.Close(); err != nil {
		return Sum{}, err
	}
	row := p.patches(from)
	row.current = to.Text
	row.list = append(row.list, patch{from: from.Text, text: sumBytes(script), bytes: sumBytes(packed.Bytes()),
		name: now.UTC().Format("2006-01-02-1504.05") + "." + to.Text.SHA256[:8]})
	row.trim(smallest(to) / 2)
	if len(row.list) == 0 {
		return Sum{}, nil
	}
	hashed := p.diff("by-hash", "SHA256")
	if err := durable.MkdirAll(hashed, 0o755); err != nil {
		return Sum{}, err
	}
	if err := durable.WriteFile(p.diff(row.list[len(row.list)-1].name+".gz"), packed.Bytes(), 0o644); err != nil {
		return Sum{}, err
	}
	text := row.bytes()
	sum := sumBytes(text)
	return sum, durable.WriteFile(filepath.Join(hashed, sum.SHA256), text, 0o644)
}

// trim takes the oldest away, until all together have so many bytes at most.
func (p *patches) trim(most int64) {
	var sum int64
	for i := len(p.list) - 1; i >= 0; i-- {
		if sum += p.list[i].bytes.Size; sum > most || len(p.list)-i > mostPatches {
			p.list = p.list[i+1:]
			return
		}
	}
}

// smallest is how many bytes a client fetches who has nothing.
func smallest(st State) int64 {
	n := st.Text.Size
	for _, sum := range st.Forms {
		n = min(n, sum.Size)
	}
	return n
}

// PatchFiles are the names of the files that the Index of a state lists, below the index's directory.
func (p Place) PatchFiles(state State) (names []string) {
	for _, x := range p.patches(state).list {
		names = append(names, filepath.Join(p.Name+patchDir, x.name+".gz"))
	}
	return names
}

// CheckPatches reads the patches of a state to their ends. The error says which is not as the Index has it.
func (p Place) CheckPatches(state State) error {
	for _, x := range p.patches(state).list {
		data, err := os.ReadFile(p.diff(x.name + ".gz"))
		if err != nil {
			return err
		}
		if sumBytes(data) != x.bytes {
			return fmt.Errorf("%s: %w", p.diff(x.name+".gz"), ErrDamaged)
		}
	}
	return nil
}

// SweepPatches removes what an Index of a state does not list, and older ones, after their stay.
func (p Place) SweepPatches(state State, stay time.Duration, now time.Time) error {
	keep := map[string]bool{state.Patches.SHA256: true}
	for _, name := range p.PatchFiles(state) {
		keep[filepath.Base(name)] = true
	}
	for _, dir := range []string{p.diff("by-hash", "SHA256"), p.diff()} {
		list, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		var old []Superseded
		for _, e := range list {
			if info, err := e.Info(); err == nil && e.Type().IsRegular() && e.Name() != "Index" && !keep[e.Name()] {
				old = append(old, Superseded{e.Name(), info.ModTime()})
			}
		}
		for _, name := range Outstayed(old, stay, now) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
