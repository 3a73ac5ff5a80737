package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"packmill/spool"
)

// TestBuilderDiedAndArchitectureWent: of a job whose builder died nobody takes care but master-buildd, if the suite has
// lost the architecture since.
func TestBuilderDiedAndArchitectureWent(t *testing.T) {
	m := newTestMaster(t)
	put := func(arch, source string) spool.Found {
		t.Helper()
		f := spool.Found{Place: spool.In(spool.Building, "sid", arch), Name: spool.NewName(spool.NormalClass, time.Now(), source, "1")}
		dir := m.Tree.Path(f.Dir())
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, spool.TicketFile), []byte("Source: "+source+"\nVersion: 1\nDistribution: sid\n"+
				"Architecture: any\nDsc: "+source+"_1.dsc\nBuild-Architecture: "+arch+"\n"), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for _, c := range []struct {
		job   spool.Found
		lease bool
		goes  bool
	}{{put("i386", "went"), false, true}, {put("i386", "leased"), true, false}, {put("amd64", "served"), false, false},
		{put("all", "indep"), false, false}} {
		dir := m.Tree.Path(c.job.Dir())
		if c.lease {
			if err := spool.NewLease("far", time.Hour).Write(dir); err != nil {
				t.Fatal(err)
			}
		}
		m.toAttic(c.job, "the suite is not built for it any more")
		if _, err := os.Lstat(dir); os.IsNotExist(err) != c.goes {
			t.Errorf("%s: %v, want that it goes: %v", c.job.Name, err, c.goes)
		}
	}
}
