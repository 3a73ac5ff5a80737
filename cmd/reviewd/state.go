package main

import (
	"fmt"
	"slices"
	"strings"

	"packmill/queue"
	"packmill/spool/statement"
	"packmill/spool/upload"
)

// state signs what is let in: the statement that everybody downstream verifies. The sums
// are those of the bytes that were judged.
func (in *intake) state(t *queue.Ticket, u *upload.Upload) ([]byte, error) {
	s := statement.Statement{
		Source: t.Source, Version: t.Version, Suite: t.Suite, Suites: u.Suites, Component: t.Component, Dsc: t.Dsc,
		Changes:  t.Changes,
		Received: t.Received, Has: t.Has, Uploader: t.Uploader, Fingerprint: t.Fingerprint, Rights: u.Right.String(),
		TakesOver: u.TakesOver,
	}
	if t.Fingerprint == "" {
		s.Account = t.Account
	}
	if u.Dsc != nil {
		s.Packages = u.Dsc.Packages
	}
	s.Files = append(s.Files, statement.Sum{Name: t.Changes, Size: u.Read.Size, SHA256: u.Read.SHA256})
	for _, f := range u.Changes.Files {
		sum, ok := u.Sums[f.Name]
		if !ok {
			continue // in the pool
		}
		s.Files = append(s.Files, statement.Sum{Name: f.Name, Size: sum.Size, SHA256: sum.SHA256})
	}
	for _, f := range u.Pool {
		if _, ok := u.Sums[f.Name]; !ok {
			s.Files = append(s.Files, statement.Sum{Name: f.Name, Size: f.Size, SHA256: f.SHA256})
		}
	}
	return s.Sign(in.key)
}

// foreign says which names an upload would take from sources for which its
// uploader has no right: whatever the suite's rule, a reviewer must see them.
func foreign(u *upload.Upload) string {
	var out []string
	for _, x := range u.Foreign {
		name, source, _ := strings.Cut(x, "=")
		out = append(out, fmt.Sprintf("the binary package %s, which the source %s builds in %s", name, source, u.Suite.Name))
	}
	return strings.Join(slices.Compact(out), "; ")
}
