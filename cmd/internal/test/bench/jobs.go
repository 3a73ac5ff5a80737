package main

import (
	"os"
	"path/filepath"
	"time"

	"packmill/queue"
	"packmill/spool"
)

// acceptedSource makes a source item that waits for its fan-out.
func acceptedSource(tree *spool.Tree, source, version string) (*spool.Item, error) {
	t := &queue.Ticket{
		Source: source, Version: version, Suite: "sid", Architecture: []string{"any"},
		Dsc: source + "_" + version + ".dsc",
	}
	name := spool.NewName(spool.NormalClass, time.Now(), t.Source, t.Version)
	it, err := tree.Create(spool.In(spool.Intake), name, spool.Reviewd, "bench", "made", func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, t.Dsc), []byte("Source: "+t.Source+"\n"), 0o644); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, spool.TicketFile), t.Stanza().Append(nil), 0o644)
	})
	if err != nil {
		return nil, err
	}
	return it, it.Move(spool.Reviewd, "bench", spool.Verdict{To: spool.In(spool.Accepted, "sid")})
}
