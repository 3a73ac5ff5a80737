package main

import (
	"fmt"
	"strings"
	"time"

	"packmill/queue/build/buildlog"
	"packmill/spool"
)

// coldStore is the tree's store of logs.
func coldStore(t *spool.Tree) buildlog.Store {
	return buildlog.Store{Dir: t.Path(spool.LogsDir)}
}

// numbers says in words what a build took.
func numbers(b *buildlog.Build) string {
	out := []string{b.Outcome}
	seconds := func(what string, s float64) {
		if s > 0 {
			out = append(out, what+" "+(time.Duration(s*1000)*time.Millisecond).Round(100*time.Millisecond).String())
		}
	}
	bytes := func(what string, n int64) {
		if n > 0 {
			out = append(out, fmt.Sprintf("%s %.1f MiB", what, float64(n)/(1<<20)))
		}
	}
	seconds("wall", b.Wall)
	seconds("cpu", b.CPU)
	bytes("memory", b.Memory)
	bytes("disk", b.Disk)
	bytes("log", b.Size)
	seconds("waited", b.Wait)
	return strings.Join(out, ", ")
}
