package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"packmill/internal/deb/debtest"
)

// patient is a context that is done after it was asked so often.
type patient struct {
	context.Context
	left atomic.Int64
}

func (p *patient) Err() error {
	if p.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// A publication that is aborted wherever it looks leaves nothing visible, and
// done again it is whole.
func TestAborted(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.suite.Contents, f.suite.Opkg = true, &Opkg{}
	f.accepted(f.upload(hello("1")))
	seen := func() []byte {
		var all []byte
		for _, name := range []string{"dists/unstable/InRelease", "opkg/unstable/amd64/Packages",
			"opkg/unstable/i386/Packages"} {
			data, err := os.ReadFile(f.a.path(name))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, data...)
		}
		return all
	}
	batch, before := []Inclusion{f.upload(hello("2"))}, seen()
	for _, u := range debtest.Corpus(8, "1") {
		batch = append(batch, f.upload(u))
	}
	aborted, visible := 0, false
	for n := int64(0); ; n++ {
		c := &patient{Context: ctx}
		c.left.Store(n)
		was := seen()
		rep, err := f.a.Publish(c, f.suite, batch, f.now)
		if err == nil {
			break
		}
		aborted++
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("aborted at %d: %v", n, err)
		}
		if rep == nil != bytes.Equal(seen(), was) {
			t.Errorf("aborted at %d: report %+v, visible: %t", n, rep, rep != nil)
		}
		if visible = visible || rep != nil; !visible {
			f.wantList("unstable", "hello_1_amd64 hello_1_source hello-doc_1_all")
		}
		f.sound()
	}
	if aborted < 5 || bytes.Equal(seen(), before) {
		t.Errorf("aborted %d times only, or nothing is published", aborted)
	}
	f.wantHave("main/binary-i386/Packages", "hello-doc 2")
	f.sound()
}

// Who publishes while another does waits for it, and both have what they brought.
func TestPublishersMeet(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.accepted()
	const each = 3
	want := ""
	var wg sync.WaitGroup
	for i := range 4 {
		a, err := Open(f.a.Root()) // as another process has it
		if err != nil {
			t.Fatal(err)
		}
		for j := range each {
			name := fmt.Sprintf("p%d%d", i, j)
			want += fmt.Sprintf(" %s_1_amd64 %[1]s_1_source", name)
			in := f.upload(debtest.Upload{Source: debtest.Source{Name: name, Version: "1"},
				Debs: []debtest.Deb{{Name: name, Version: "1"}}})
			wg.Go(func() {
				rep, err := a.Publish(ctx, f.suite, []Inclusion{in}, f.now)
				if err != nil || rep.Results[0].Outcome != Published {
					t.Errorf("%s: %+v, %v", name, rep, err)
				}
			})
		}
	}
	wg.Wait()
	f.wantList("unstable", want[1:])
	f.sound()
}

// A suite's publication waits for no other suite's, and for what is done with the whole archive.
func TestSuitesPublishSideBySide(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	other, in := f.stable(), f.upload(hello("1"))
	unlock, err := f.a.lockSuite(ctx, f.suite.Name) // as by an import that takes an hour
	if err != nil {
		t.Fatal(err)
	}
	if !f.a.Busy(f.suite.Name) || f.a.Busy(other.Name) {
		t.Errorf("busy are %s: %v, %s: %v; want the first alone", f.suite.Name, f.a.Busy(f.suite.Name), other.Name,
			f.a.Busy(other.Name))
	}
	if _, err := f.a.Publish(ctx, other, []Inclusion{in}, f.now); err != nil {
		t.Error(err)
	}
	soon, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := f.a.Publish(soon, f.suite, nil, f.now); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the same suite beside it: got %v, want that it waits", err)
	}
	if _, err := f.a.Collect(soon, CollectOptions{Attic: f.TempDir(), Now: f.now}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the whole archive beside it: got %v, want that it waits", err)
	}
	unlock()
	if unlock, err = f.a.lock(ctx); err != nil {
		t.Fatal(err)
	}
	if !f.a.Busy(other.Name) {
		t.Error("the whole archive is locked, and a suite of it is not busy")
	}
	unlock()
	f.wantList("stable", "hello_1_amd64 hello_1_source hello-doc_1_all")
	f.sound()
}

// Several suites take the same packages, and packages of the same directories, at the same time.
func TestSuitesShareThePool(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const suites, each = 4, 5
	uploads := func(i int) (out []Inclusion) {
		for j := range each {
			name := fmt.Sprintf("p%d", j)
			all := debtest.Upload{Source: debtest.Source{Name: name, Version: "1"}, Debs: []debtest.Deb{{Name: name, Version: "1"}}}
			own := all
			own.Source.Version, own.Debs = fmt.Sprint(i+2), []debtest.Deb{{Name: name, Version: fmt.Sprint(i + 2)}}
			out = append(out, f.upload(all), f.upload(own))
		}
		return out
	}
	var wg sync.WaitGroup
	for i := range suites {
		s := f.suite
		s.Name, s.Codename, s.Aliases = fmt.Sprintf("s%d", i), "", nil
		ins := uploads(i)
		wg.Go(func() {
			for _, in := range ins {
				rep, err := f.a.Publish(ctx, s, []Inclusion{in}, f.now)
				if err != nil || rep.Results[0].Outcome != Published {
					t.Errorf("%s: %+v, %v", s.Name, rep, err)
				}
			}
		})
	}
	wg.Wait()
	for i := range suites {
		want := ""
		for j := range each {
			want += fmt.Sprintf(" p%d_%d_amd64 p%[1]d_%[2]d_source", j, i+2)
		}
		f.wantList(fmt.Sprintf("s%d", i), want[1:])
	}
	f.sound()
}

// In a batch sources go before binaries, whatever its order.
func TestBatchHasSourcesFirst(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	binary, source := f.upload(hello("1")), f.upload(hello("1"))
	binary.Kind, source.Kind = Binary, Source
	f.accepted(binary, source)
	f.wantList("unstable", "hello_1_amd64 hello_1_source hello-doc_1_all")
}

// TestClockBack publishes after the clock was set back: apt must take each Release.
func TestClockBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.accepted(f.upload(hello("1")))
	c := newClient(t, f.source(), f.key, "amd64")
	c.run("apt-get", "update")
	if err := f.a.Snapshot(ctx, f.suite, "before", f.now); err != nil {
		t.Fatal(err)
	}
	f.now = f.now.Add(-3 * time.Hour)
	rep := f.accepted(f.upload(hello("2")))
	if len(rep.Warnings) != 1 ||
		!strings.HasPrefix(rep.Warnings[0], "the clock is 2h59m0s behind the last Release of unstable") {
		t.Errorf("warnings: got %q", rep.Warnings)
	}
	c.run("apt-get", "update")
	if got := c.run("apt-cache", "policy", "hello"); !strings.Contains(got, "Candidate: 2") {
		t.Errorf("after the clock was set back: got %s", got)
	}
	if err := f.a.Rollback(ctx, f.suite, "before", f.now); err != nil {
		t.Fatal(err)
	}
	c.run("apt-get", "update")
	if got := c.run("apt-cache", "policy", "hello"); !strings.Contains(got, "Candidate: 1") {
		t.Errorf("after a rollback: got %s", got)
	}
	if rep := f.accepted(); rep.Changed || len(rep.Warnings) > 0 {
		t.Errorf("nothing to publish: got %+v", rep)
	}
}
