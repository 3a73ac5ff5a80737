package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"packmill/archive"
	"packmill/archive/release"
	"packmill/cmd/internal/daemon"
	"packmill/internal/openpgp"
	"packmill/spool"
)

// Nothing arrives, and yet no Release expires: the loop looks often enough, each
// time before Valid-Until is over, and publishes no more often than it must. A
// suite whose key is gone stands in nobody's way.
func TestValidUntilIsRenewed(t *testing.T) {
	for _, lives := range []time.Duration{2 * time.Hour, 40 * time.Second} {
		for _, before := range []string{"", "Suite: broken\nArchitectures: amd64\nSign-With: private/gone.key\n\n"} {
			dir := filepath.Join(t.TempDir(), "tree")
			tree, err := spool.Init(dir)
			if err != nil {
				t.Fatal(err)
			}
			at := time.Now()
			key, err := openpgp.Generate("archive", "archive@example.org", at.Add(-time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			for name, text := range map[string]string{
				"private/archive.key": string(key.Secret()),
				"suites": fmt.Sprintf("%sSuite: stable\nArchitectures: amd64\nSign-With: private/archive.key\n"+
					"Valid-For: %ds\n", before, lives/time.Second),
			} {
				name = tree.Path("control", name)
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			env, err := (&daemon.Flags{Tree: dir}).Start("archived")
			if err != nil {
				t.Fatal(err)
			}
			a, err := archive.Open(tree.Path("archive"))
			if err != nil {
				t.Fatal(err)
			}
			loop := (&publisher{Env: env, archive: a, now: func() time.Time { return at }}).loop()
			tick := func() time.Duration { return cmp.Or(loop.Tick, time.Minute) }
			dates := map[time.Time]bool{}
			for end := at.Add(4 * lives); at.Before(end); at = at.Add(tick()) {
				if _, err := loop.Before(context.Background()); (err != nil) != (before != "") {
					t.Fatal(err)
				}
				rel, err := release.Read(tree.Path("archive/dists/stable"))
				if err != nil || rel == nil {
					t.Fatalf("stable: %v, %v", rel, err)
				}
				if next := at.Add(tick()); !rel.Until.After(next) {
					t.Fatalf("Valid-For %v: at the next look, %v, Valid-Until is over: %v", lives, next, rel.Until)
				}
				dates[rel.Date] = true
			}
			if n := len(dates); n < 5 || n > 16 {
				t.Errorf("Valid-For %v: %d publications in 4 times that, want 5 to 16", lives, n)
			}
		}
	}
}
