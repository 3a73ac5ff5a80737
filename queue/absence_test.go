package queue

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/spool"
)

// inMaster makes a source in the master queue, whose one job waits for a builder.
func inMaster(t *testing.T, tree *spool.Tree) (*spool.Item, Suite) {
	t.Helper()
	ticket := &Ticket{Source: "hello", Version: "1", Suite: "sid", Architecture: []string{"any"}}
	name := spool.NewName(spool.NormalClass, time.Now(), "hello", "1")
	it, err := tree.Create(spool.In(spool.Intake), name, spool.Reviewd, "test", "made", func(dir string) error {
		return os.WriteFile(filepath.Join(dir, spool.TicketFile), ticket.Stanza().Append(nil), 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := it.Move(spool.Reviewd, "test", spool.Verdict{To: spool.In(spool.Accepted, "sid")}); err != nil {
		t.Fatal(err)
	}
	suite := Suite{Name: "sid", Architectures: []string{"amd64"}}
	v, err := FanOut(tree, it, suite, "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := it.Move(spool.MasterD, "test", v); err != nil {
		t.Fatal(err)
	}
	return it, suite
}

// byHand moves an item as a person may: by mv.
func byHand(t *testing.T, tree *spool.Tree, from, to spool.Found) {
	t.Helper()
	if err := tree.Ensure(to.Place); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tree.Path(from.Dir()), tree.Path(to.Dir())); err != nil {
		t.Fatal(err)
	}
}

// A job that is on its way from one directory to the next can be missed in
// both. A source whose job is nowhere to be seen waits.
func TestJoinDecidesNothingByAbsence(t *testing.T) {
	tree, err := spool.Init(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	it, suite := inMaster(t, tree)
	defer it.Release()
	name := it.Name
	job := tree.Path(spool.In(spool.NeedsBuild, "sid", "amd64").Dir(), name.String())
	between := tree.Path("tmp", "between")
	for _, move := range []func() error{
		func() error { return nil },
		func() error { return os.Rename(job, between) },
	} {
		if err := move(); err != nil {
			t.Fatal(err)
		}
		v, err := Join(tree, it, suite)
		if err != nil {
			t.Fatal(err)
		}
		if v.To.State != spool.Unborn || !strings.Contains(v.Reason, "amd64") {
			t.Errorf("got %s (%s), want that it stays and waits for amd64", v.To, v.Reason)
		}
	}
	settled := tree.Path(spool.In(spool.BuildAttempted, "sid", "amd64").Dir())
	if err := os.MkdirAll(settled, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(between, filepath.Join(settled, name.String())); err != nil {
		t.Fatal(err)
	}
	if v, err := Join(tree, it, suite); err != nil || v.To.State != spool.Uploaded {
		t.Errorf("with the job settled: got %s, %v; want the archive queue", v.To, err)
	}
}
