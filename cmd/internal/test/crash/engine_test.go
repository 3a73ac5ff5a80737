//go:build linux && amd64

package crash

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"packmill/queue"
	"packmill/spool"
)

// The engine's own sweeps: small daemons made of spool.Loop, with every kind of
// step that the real ones make, and nothing else.

func init() {
	victims["build"] = engineBuild
	victims["fan out"] = engineFanOut
	victims["take in"] = engineTakeIn
}

var (
	sid       = "sid"
	needs     = spool.In(spool.NeedsBuild, sid, "amd64")
	building  = spool.In(spool.Building, sid, "amd64")
	built     = spool.In(spool.Built, sid, "amd64")
	acceptedP = spool.In(spool.Accepted, sid)
	itemTime  = time.Date(2026, 11, 21, 11, 35, 0, 0, time.UTC)
)

func here() (*spool.Tree, *slog.Logger, error) {
	t, err := spool.Open(".")
	return t, slog.New(slog.NewTextHandler(os.Stderr, nil)), err
}

// engineBuild takes jobs through building to built, as buildd does.
func engineBuild() error {
	t, log, err := here()
	if err != nil {
		return err
	}
	return (&spool.Loop{
		Tree: t, By: spool.Buildd, Log: log, Once: true, Workers: 2,
		Places: func() ([]spool.Place, error) { return []spool.Place{needs}, nil },
		Via:    func(*spool.Item) spool.Verdict { return spool.Verdict{To: building, Reason: "taken"} },
		Before: func(context.Context) (bool, error) { return giveBack(t) },
		Poison: func(*spool.Item) spool.Place { return spool.In(spool.BuildAttempted, sid, "amd64") },
		Handle: func(_ context.Context, it *spool.Item) (spool.Verdict, error) {
			if err := os.RemoveAll(it.Path("result")); err != nil {
				return spool.Verdict{}, err
			}
			if err := os.Mkdir(it.Path("result"), 0o755); err != nil {
				return spool.Verdict{}, err
			}
			if err := os.WriteFile(it.Path("result", "hello.deb"), []byte("binary of "+it.Name.ID()), 0o644); err != nil {
				return spool.Verdict{}, err
			}
			it.Dirty()
			return spool.Verdict{To: built, Reason: "built", Text: "sign the log"}, nil
		},
	}).Run(context.Background())
}

// giveBack moves what lies in building and nobody has to needs-build.
func giveBack(t *spool.Tree) (bool, error) {
	names, err := t.List(building)
	if err != nil {
		return false, err
	}
	moved := false
	for _, n := range names {
		it, err := t.Claim(building, n)
		if errors.Is(err, spool.ErrBusy) || errors.Is(err, spool.ErrGone) {
			continue
		}
		if err != nil {
			return moved, err
		}
		err = it.Move(spool.Buildd, "buildd", spool.Verdict{To: needs, Reason: "its builder is gone"})
		it.Release()
		if err != nil {
			return moved, err
		}
		moved = true
	}
	return moved, nil
}

// engineFanOut gives an accepted source's jobs to the queues, as master-buildd
// does: all of them are written into the item first.
func engineFanOut() error {
	t, log, err := here()
	if err != nil {
		return err
	}
	archs := []string{"amd64", "arm64", "riscv64"}
	return (&spool.Loop{
		Tree: t, By: spool.MasterD, Log: log, Once: true,
		Places: func() ([]spool.Place, error) { return []spool.Place{acceptedP}, nil },
		Handle: func(_ context.Context, it *spool.Item) (spool.Verdict, error) {
			for _, a := range archs {
				where := spool.In(spool.NeedsBuild, sid, a)
				if there, err := t.Find(it.Name.String(), spool.NeedsBuild); err != nil {
					return spool.Verdict{}, err
				} else if slices.ContainsFunc(there, func(f spool.Found) bool { return f.Place.Arch == a }) {
					continue // an earlier run's: nothing takes them here
				}
				if err := errors.Join(os.RemoveAll(it.Path("jobs", a)), os.MkdirAll(it.Path("jobs", a), 0o755)); err != nil {
					return spool.Verdict{}, err
				}
				if err := os.Link(it.Path(spool.TicketFile), it.Path("jobs", a, spool.TicketFile)); err != nil {
					return spool.Verdict{}, err
				}
				if err := it.Hatch("jobs/"+a, where, it.Name, spool.MasterD, "master-buildd", "fan-out"); err != nil {
					return spool.Verdict{}, err
				}
			}
			return spool.Verdict{To: spool.In(spool.Master, sid), Reason: "fan-out"}, nil
		},
	}).Run(context.Background())
}

// engineTakeIn makes items of plain files, and removes a file only after that.
func engineTakeIn() error {
	t, _, err := here()
	if err != nil {
		return err
	}
	files, err := filepath.Glob(t.Path("spool/incoming/*.dsc"))
	if err != nil {
		return err
	}
	for _, f := range files {
		name := spool.NewName(50, itemTime, filepath.Base(f)[:len("hello0")], "1")
		there, err := t.Find(name.String(), spool.Accepted)
		if err != nil {
			return err
		}
		if len(there) == 0 {
			it, err := t.Create(spool.In(spool.Intake), name, spool.Reviewd, "reviewd", "taken", func(dir string) error {
				data, err := os.ReadFile(f)
				if err != nil {
					return err
				}
				ticket := fmt.Sprintf("Source: %s\nVersion: %s\n", name.Source, name.Version)
				return errors.Join(os.WriteFile(filepath.Join(dir, "source.dsc"), data, 0o644),
					os.WriteFile(filepath.Join(dir, spool.TicketFile), []byte(ticket), 0o644))
			})
			if errors.Is(err, fs.ErrExist) {
				it, err = t.Claim(spool.In(spool.Intake), name.String())
			}
			if err != nil {
				return err
			}
			err = it.Move(spool.Reviewd, "reviewd", spool.Verdict{To: acceptedP, Reason: "sound"})
			it.Release()
			if err != nil {
				return err
			}
		}
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	return nil
}

// engineSweep makes a sweep of one of the victims above.
func engineSweep(t *testing.T, name string, n int, at spool.Place) *Sweep {
	dir := scratch(t)
	tree, err := spool.Init(filepath.Join(dir, "tree"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range n {
		source := fmt.Sprintf("hello%d", i)
		id := source + "_1"
		if at.State == spool.Unborn {
			if err := os.WriteFile(tree.Path("spool/incoming", source+".dsc"), []byte("source of "+id), 0o644); err != nil {
				t.Fatal(err)
			}
			want = append(want, acceptedP.Dir()+" "+id)
			continue
		}
		tmp := spool.In(spool.NeedsBuild, sid, "amd64")
		it, err := tree.Create(tmp, spool.NewName(50, itemTime.Add(time.Duration(i)*time.Second), source, "1"), spool.MasterD,
			"test", "made", func(d string) error {
				return os.WriteFile(filepath.Join(d, spool.TicketFile), []byte("Source: "+source+"\nVersion: 1\n"), 0o644)
			})
		if err != nil {
			t.Fatal(err)
		}
		it.Release()
		if at != tmp {
			if err := tree.Ensure(at); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(tree.Path(tmp.Dir(), it.Name.String()), tree.Path(at.Dir(), it.Name.String())); err != nil {
				t.Fatal(err)
			}
			want = append(want, "queue/sid/master "+id)
			for _, a := range []string{"amd64", "arm64", "riscv64"} {
				want = append(want, "queue/sid/"+a+"/needs-build "+id)
			}
		} else {
			want = append(want, built.Dir()+" "+id)
		}
	}
	slices.Sort(want)
	s := &Sweep{
		Name: "engine, " + name, Tree: tree.Root(), Scratch: dir, Seed: 1, Workers: 2, Restarts: true,
		Program: func(tree string) *Program {
			p := victim(t, name, tree)
			p.Limit = 20 * time.Second
			return p
		},
	}
	s.Settle = func(tree string) error {
		for range 3 {
			run, err := Trace(s.Program(tree), nil, nil)
			if err != nil || run.Exit() != 0 {
				return errors.Join(err, fmt.Errorf("restarted: exit status %d: %s", run.Exit(), run.Output))
			}
		}
		return nil
	}
	s.Check = func(tree string, _ bool) []string {
		// No program of ours made these jobs, so no ledger has them.
		broken := promises(tree, queue.Unlisted)
		got, err := places(tree)
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			broken = append(broken, fmt.Sprintf("items: got %q, want %q (%v)", got, want, err))
		}
		files, _ := filepath.Glob(filepath.Join(tree, "queue/sid/amd64/built/*/result/hello.deb"))
		sources, _ := filepath.Glob(filepath.Join(tree, "spool/accepted/sid/*/source.dsc"))
		whole := 0
		for _, f := range append(files, sources...) {
			if b, err := os.ReadFile(f); err == nil && len(b) == len("binary of hello0_1") {
				whole++
			}
		}
		if at.State != spool.Accepted && whole != n {
			broken = append(broken, fmt.Sprintf("got %d whole files, want %d", whole, n))
		}
		return broken
	}
	return s
}

var engineCases = []struct {
	name string
	n    int
	at   spool.Place
}{{"build", 2, needs}, {"fan out", 1, acceptedP}, {"take in", 2, spool.Place{}}}

// TestEngine strikes the engine at some points of chance.
func TestEngine(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	for _, tt := range engineCases {
		s := engineSweep(t, tt.name, tt.n, tt.at)
		tally, err := s.Run(20)
		report(t, s, tally, err)
	}
}
