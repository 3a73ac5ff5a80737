package index

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"packmill/internal/compression"
	"packmill/internal/durable"
)

var ctx = context.Background()

// world is a model of an index: its records by key.
type world map[string]string

func (w world) text() []byte {
	keys := make([]string, 0, len(w))
	for k := range w {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var b bytes.Buffer
	for _, k := range keys {
		b.WriteString(w[k])
	}
	return b.Bytes()
}

func stanza(r *rand.Rand, key string) string {
	var b strings.Builder
	for range 1 + r.IntN(8)/7 { // sometimes two versions
		fmt.Fprintf(&b, "Package: %s\nVersion: %d\nDescription: %s\n\n",
			key, r.IntN(1000), strings.Repeat("word ", r.IntN(600)))
	}
	return b.String()
}

func line(r *rand.Rand, key string) string {
	return key + "\t" + strings.Repeat("misc/package,", r.IntN(80)) + "misc/last\n"
}

func open(t testing.TB, dir string, f Format, st State) *File {
	t.Helper()
	x, err := Open(ctx, Place{Format: f, Cache: filepath.Join(dir, "cache", "main", "Index"),
		Dir: filepath.Join(dir, "main"), Name: "Index"}, st)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

func write(t testing.TB, x *File, forms []compression.Kind) State {
	t.Helper()
	st, err := x.Write(ctx, forms)
	if err != nil {
		t.Fatalf("write: %v", err)
	}
	if err := x.Save(); err != nil {
		t.Fatalf("save: %v", err)
	}
	return st
}

// Whatever the history of an index, its files are byte for byte those of an
// index that was made from nothing, and hold exactly its records.
func TestChangesGiveWhatAFullBuildGives(t *testing.T) {
	for _, tc := range []struct {
		name   string
		format Format
		record func(*rand.Rand, string) string
		keys   int
		forms  []compression.Kind
		rounds int
	}{
		{"stanzas", Stanzas, stanza, 1300, []compression.Kind{compression.Plain, compression.Gzip, compression.Zstd}, 10},
		{"lines", Lines, line, 6000, []compression.Kind{compression.Gzip}, 10},
		{"xz", Stanzas, stanza, 900, []compression.Kind{compression.Xz}, 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, uint64(tc.keys)))
			dir := t.TempDir()
			w := world{}
			var st State
			if testing.Short() {
				tc.rounds = min(tc.rounds, 5) // each kind of edit once
			}
			for round := range tc.rounds {
				edits := map[string][]byte{}
				n := []int{tc.keys, 1, 3, 30, 300}[min(round, 4)]
				if round > 5 {
					n = r.IntN(40)
				}
				for range n {
					key := fmt.Sprintf("p%05d", r.IntN(tc.keys))
					if r.IntN(4) == 0 && round > 0 {
						delete(w, key)
						edits[key] = nil
						continue
					}
					w[key] = tc.record(r, key)
					edits[key] = []byte(w[key])
				}
				if round == 8 { // the cache is lost
					if err := os.RemoveAll(filepath.Join(dir, "cache")); err != nil {
						t.Fatal(err)
					}
				}
				x := open(t, dir, tc.format, st)
				if err := x.Edit(edits); err != nil {
					t.Fatalf("round %d: edit: %v", round, err)
				}
				st = write(t, x, tc.forms)

				whole := map[string][]byte{}
				for k, v := range w {
					whole[k] = []byte(v)
				}
				y := open(t, t.TempDir(), tc.format, State{})
				if err := y.Edit(whole); err != nil {
					t.Fatal(err)
				}
				want := write(t, y, tc.forms)
				if fmt.Sprint(st) != fmt.Sprint(want) {
					t.Fatalf("round %d, %d blocks: got %v, want as from nothing %v", round, len(x.blocks), st, want)
				}
				text := w.text()
				if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != st.Text.SHA256 {
					t.Fatalf("round %d: the text is not that of the records", round)
				}
				for c, sum := range st.Forms {
					checkForm(t, x.place, c, sum, text)
				}
				for range 50 {
					key := fmt.Sprintf("p%05d", r.IntN(tc.keys))
					got, err := x.Get(key)
					if err != nil || string(got) != w[key] {
						t.Fatalf("round %d: get %s: got %.40q, %v, want %.40q", round, key, got, err, w[key])
					}
				}
			}
			if n := len(open(t, dir, tc.format, st).blocks); n < 3 {
				t.Errorf("blocks: got %d, the test needs some", n)
			}
		})
	}
}

// checkForm reads a published form with the program that is its reference.
func checkForm(t *testing.T, p Place, c compression.Kind, sum Sum, text []byte) {
	t.Helper()
	path := p.ByHash(sum.SHA256)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if s := sha256.Sum256(data); hex.EncodeToString(s[:]) != sum.SHA256 || int64(len(data)) != sum.Size {
		t.Fatalf("%s: content is not what its name says", path)
	}
	got := data
	if tool := map[compression.Kind]string{compression.Gzip: "gzip", compression.Xz: "xz",
		compression.Zstd: "zstd"}[c]; tool != "" {
		cmd := exec.Command(tool, "-dc")
		cmd.Stdin = bytes.NewReader(data)
		if got, err = cmd.Output(); err != nil {
			t.Fatalf("%s -dc %s: %v", tool, path, err)
		}
		r, err := c.Reader(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if ours, err := io.ReadAll(r); err != nil || !bytes.Equal(ours, got) {
			t.Fatalf("our reader of %s differs from %s: %v", c, tool, err)
		}
	}
	if !bytes.Equal(got, text) {
		t.Fatalf("%s holds %d bytes that are not the %d of the records", path, len(got), len(text))
	}
}

// One small change compresses few blocks, and the file of the others is read,
// not made.
func TestFewBlocksChange(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(7, 7))
	edits := map[string][]byte{}
	for i := range 8000 {
		k := fmt.Sprintf("p%05d", i)
		edits[k] = []byte(stanza(r, k))
	}
	x := open(t, dir, Stanzas, State{})
	if err := x.Edit(edits); err != nil {
		t.Fatal(err)
	}
	st := write(t, x, []compression.Kind{compression.Gzip})
	total := len(x.blocks)
	for i := range 200 {
		x = open(t, dir, Stanzas, st)
		k := fmt.Sprintf("p%05d", r.IntN(8000))
		e := map[string][]byte{k: []byte(stanza(r, k))}
		if i%3 == 0 {
			e[k] = nil
		}
		if err := x.Edit(e); err != nil {
			t.Fatal(err)
		}
		fresh := 0
		for _, b := range x.blocks {
			if b.old < 0 {
				fresh++
			}
		}
		if fresh > 4 {
			t.Errorf("change of %s: got %d of %d blocks made again, want at most 4", k, fresh, total)
		}
	}
}

func TestEmptyIndexIsReadable(t *testing.T) {
	x := open(t, t.TempDir(), Stanzas, State{})
	st := write(t, x, Forms())
	for c, sum := range st.Forms {
		checkForm(t, x.place, c, sum, nil)
	}
}

func TestNoChangeIsNoChange(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dir, Stanzas, State{})
	a := []byte("Package: a\nVersion: 1\n\n")
	if err := x.Edit(map[string][]byte{"a": a}); err != nil {
		t.Fatal(err)
	}
	st := write(t, x, []compression.Kind{compression.Gzip})
	x = open(t, dir, Stanzas, st)
	if err := x.Edit(map[string][]byte{"a": a, "b": nil}); err != nil {
		t.Fatal(err)
	}
	if x.Changed() {
		t.Error("after edits that say what is there: got a change, want none")
	}
}

// A cache or a published file that lies is noticed, not published again.
func TestDamageIsNoticed(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	build := func(t *testing.T) (string, State) {
		dir := t.TempDir()
		edits := map[string][]byte{}
		for i := range 2000 {
			k := fmt.Sprintf("p%05d", i)
			edits[k] = []byte(stanza(r, k))
		}
		x := open(t, dir, Stanzas, State{})
		if err := x.Edit(edits); err != nil {
			t.Fatal(err)
		}
		return dir, write(t, x, []compression.Kind{compression.Gzip})
	}
	flip := func(t *testing.T, path string, at int64) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if at < 0 {
			at += int64(len(data))
		}
		data[at] ^= 0x40
		if err := durable.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	change := func(dir string, st State) error {
		x, err := Open(ctx, Place{Format: Stanzas, Cache: filepath.Join(dir, "cache", "main", "Index"),
			Dir: filepath.Join(dir, "main"), Name: "Index"}, st)
		if err != nil {
			return err
		}
		defer x.Close()
		if err := x.Edit(map[string][]byte{"p00000": []byte("Package: p00000\nVersion: 0\n\n")}); err != nil {
			return err
		}
		_, err = x.Write(ctx, []compression.Kind{compression.Gzip})
		return err
	}
	t.Run("text in the cache", func(t *testing.T) {
		dir, st := build(t)
		stores, _ := filepath.Glob(filepath.Join(dir, "cache/main/Index.text-*"))
		flip(t, stores[0], -1000)
		if err := change(dir, st); err == nil || !strings.Contains(err.Error(), "checksum differs") {
			t.Errorf("got %v, want that a checksum differs", err)
		}
	})
	t.Run("directory in the cache", func(t *testing.T) {
		dir, st := build(t)
		flip(t, filepath.Join(dir, "cache/main/Index.blocks"), 100)
		if err := change(dir, st); err != nil {
			t.Errorf("got %v, want that it is made again", err)
		}
	})
	t.Run("published file", func(t *testing.T) {
		dir, st := build(t)
		flip(t, filepath.Join(dir, "main/by-hash/SHA256", st.Forms[compression.Gzip].SHA256), -1000)
		if err := change(dir, st); !errors.Is(err, ErrDamaged) {
			t.Errorf("got %v, want %v", err, ErrDamaged)
		}
		os.RemoveAll(filepath.Join(dir, "cache"))
		if err := change(dir, st); err == nil {
			t.Error("without the cache: got no error")
		}
	})
}

// Where a block ends depends on the first key of the next: without it, it is
// decided again.
func TestRemovalOfABlocksFirstKey(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 11))
	dir := t.TempDir()
	whole := map[string][]byte{}
	for i := range 1500 {
		k := fmt.Sprintf("p%05d", i)
		whole[k] = []byte(stanza(r, k))
	}
	x := open(t, dir, Stanzas, State{})
	if err := x.Edit(whole); err != nil {
		t.Fatal(err)
	}
	st := write(t, x, []compression.Kind{compression.Gzip})
	var firsts []string
	for _, b := range x.blocks {
		firsts = append(firsts, b.first)
	}
	for _, k := range firsts {
		x = open(t, dir, Stanzas, st)
		if err := x.Edit(map[string][]byte{k: nil}); err != nil {
			t.Fatal(err)
		}
		delete(whole, k)
		st = write(t, x, []compression.Kind{compression.Gzip})
		y := open(t, t.TempDir(), Stanzas, State{})
		if err := y.Edit(whole); err != nil {
			t.Fatal(err)
		}
		if want := write(t, y, []compression.Kind{compression.Gzip}); fmt.Sprint(st) != fmt.Sprint(want) {
			t.Fatalf("without %s: got %v, want as from nothing %v", k, st, want)
		}
	}
}

// A reader that may not write finds what it looks for, with the cache and
// without it, and leaves nothing behind.
func TestReadersNeedNotWrite(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dir, Stanzas, State{})
	if err := x.Edit(map[string][]byte{"aa": []byte("Package: aa\nVersion: 1\n\n")}); err != nil {
		t.Fatal(err)
	}
	st := write(t, x, []compression.Kind{compression.Gzip})
	read := func(when string) {
		t.Helper()
		y, err := Open(ctx, x.place, st)
		if err != nil {
			t.Errorf("%s: %v", when, err)
			return
		}
		got, err := y.Get("aa")
		if err != nil || !strings.Contains(string(got), "Version: 1") {
			t.Errorf("%s: got %q, %v", when, got, err)
		}
		if err := y.Close(); err != nil {
			t.Errorf("%s: close: %v", when, err)
		}
	}
	read("with the cache")
	cache := filepath.Dir(x.place.Cache)
	if err := os.RemoveAll(cache); err != nil {
		t.Fatal(err)
	}
	read("without the cache")
	if left, _ := os.ReadDir(cache); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := os.RemoveAll(cache); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		if err := os.MkdirAll(cache, 0o555); err != nil {
			t.Fatal(err)
		}
		read("with a cache that is not ours")
	}
}

// BenchmarkMerge changes some records of an index of 20,000: in place, all over it.
func BenchmarkMerge(b *testing.B) {
	for _, n := range []int{1, 100, 20_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			edits := map[string][]byte{}
			var keys []string
			for i := range 20_000 {
				key := fmt.Sprintf("p%05d", i)
				edits[key] = []byte(stanza(r, key))
				if i%(20_000/n) == 0 {
					keys = append(keys, key)
				}
			}
			x := open(b, b.TempDir(), Stanzas, State{})
			if err := x.Edit(edits); err != nil {
				b.Fatal(err)
			}
			for round := 0; b.Loop(); round++ {
				err := x.Merge(keys, func(key string, old []byte) []byte {
					return fmt.Appendf(nil, "Package: %s\nRound: %d\n\n", key, round)
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
