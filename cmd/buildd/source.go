package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"packmill/archive"
	"packmill/internal/deb822"
	"packmill/internal/policy"
	"packmill/queue/runner"
	"packmill/spool"
	"packmill/spool/statement"
)

// source copies the job's source, as it was let in, into the new directory to, where
// nobody else writes: what the runner gets is what was verified. What vouches for it is
// reviewd's statement; for a job that quinn-diff made of the archive, where no
// statement came with the source, the archive's own signed index.
func (b *builder) source(ctx context.Context, it *spool.Item, to string) (*statement.Statement, error) {
	s, err := b.Vouched(it)
	if _, serr := os.Lstat(it.At(statement.File)); os.IsNotExist(serr) {
		s, err = b.published(ctx, it)
	}
	if err != nil {
		return nil, err
	}
	return s, s.CopySource(it.At(), to)
}

// published is what the suite's signed index says of the job's source, in the
// form of a statement.
func (b *builder) published(ctx context.Context, it *spool.Item) (*statement.Statement, error) {
	a, err := archive.Open(b.Tree.Path("archive"))
	if err != nil {
		return nil, err
	}
	st, component, err := a.SignedSource(ctx, it.Place.Suite, it.Name.Source, it.Name.Version)
	if err != nil {
		return nil, err
	}
	if st == nil {
		return nil, &statement.Refusal{Text: fmt.Sprintf("there is no statement of reviewd with it, and %s is not "+
			"published in %s", it.Name.ID(), it.Place.Suite)}
	}
	s := &statement.Statement{Source: it.Name.Source, Version: it.Name.Version, Component: component,
		Packages: archive.NamesOf(st)}
	w := deb822.Words(st.Get("Checksums-Sha256"))
	for ; len(w) >= 3; w = w[3:] {
		size, err := strconv.ParseInt(w[1], 10, 64)
		if err == nil {
			err = policy.CheckFile(w[2])
		}
		if err != nil {
			return nil, st.Errorf("Checksums-Sha256", "%v", err)
		}
		s.Files = append(s.Files, statement.Sum{Name: w[2], Size: size, SHA256: w[0]})
		if strings.HasSuffix(w[2], ".dsc") {
			s.Dsc = w[2]
		}
	}
	return s, nil
}

// notLetIn is the result of a job whose source is not what was let in: a person
// looks at it, and nothing was run.
func (b *builder) notLetIn(log *os.File, why string) (*runner.Result, error) {
	reason := "the source is not what was let in: " + why
	if _, err := fmt.Fprintln(log, reason); err != nil {
		return nil, err
	}
	return &runner.Result{Outcome: runner.Quarantined, Reason: reason}, nil
}
