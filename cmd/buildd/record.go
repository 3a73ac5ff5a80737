package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"packmill/internal/durable"
	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/queue/runner"
	"packmill/spool"
)

// record keeps what a build came to, while its item still lies in building:
// of a failure the first error, in the item; the log, compressed, in the cold
// store; the numbers in both. The plain log stays in the item. It returns the
// first error, or nil. What cannot be kept is logged and holds nobody up.
func (b *builder) record(it *spool.Item, t *queue.Ticket, outcome, reason string, u runner.Usage) *buildlog.FirstError {
	warn := func(what string, err error) {
		if err != nil {
			b.Log.Warn(what, "item", it.Name.String(), "err", err)
		}
	}
	begun, wait := b.claimed(it)
	r := &buildlog.Build{
		Source: t.Source, Version: t.Plus(), Suite: it.Place.Suite, Arch: it.Place.Arch, Builder: t.Builder,
		Start: begun, Outcome: outcome, Reason: spool.OneLine(reason),
		Wait: wait.Seconds(), Wall: time.Since(begun).Seconds(), CPU: u.CPU.Seconds(), Memory: u.Memory, Disk: u.Disk,
		Size: u.Log, CacheHits: u.CacheHits, CacheMisses: u.CacheMisses,
	}
	if !u.End.IsZero() {
		r.Overhead = (u.Start.Sub(begun) + time.Since(u.End)).Seconds()
	}
	if !slices.Contains([]string{buildlog.Good, buildlog.Lost, buildlog.Cancelled}, outcome) {
		first, err := buildlog.FindIn(it.At(buildlog.LogFile))
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		warn("first error", err)
		if r.Error = first; first != nil {
			warn("first error", os.WriteFile(it.At(buildlog.FirstErrorFile), []byte(first.Lines()), 0o644))
		}
	}
	warn("keep log", b.logs().Keep(it.At(buildlog.LogFile), r))
	warn("record of the build", r.AddTo(it.At()))
	it.Dirty()
	return r.Error
}

// logs is the cold store.
func (b *builder) logs() buildlog.Store {
	return buildlog.Store{Dir: b.Tree.Path(spool.LogsDir)}
}

// claimed is when the build of a claimed job began, and how long the job had
// waited by then.
func (b *builder) claimed(it *spool.Item) (at time.Time, waited time.Duration) {
	if at, waited = queue.Claimed(b.Tree, it.Path()); at.IsZero() {
		at = time.Now().UTC().Truncate(time.Microsecond) // somebody took its history away
	}
	return at, waited
}

// why is the reason of a failed build in one line: with its first error.
func why(res *runner.Result, first *buildlog.FirstError) string {
	if first == nil {
		return res.Reason
	}
	text := []rune(first.Text)
	if len(text) > maxErrorLine {
		text = append(text[:maxErrorLine], []rune(" ...")...)
	}
	if hint := first.Hint(); hint != "" {
		return fmt.Sprintf("%s, and %s: %s", res.Reason, hint, string(text))
	}
	return fmt.Sprintf("%s: %s", res.Reason, string(text))
}

// maxErrorLine is how much of the first error stands in a line of history.
const maxErrorLine = 160

// explain is the first error for a REASON.
func explain(first *buildlog.FirstError) string {
	if first == nil {
		return ""
	}
	return "\n" + first.Lines() + "\n"
}

// forgetAttempt removes what an earlier attempt said of itself, and puts its
// log aside. A lease of it, whose job a person moved by hand, would give this attempt to that builder.
func forgetAttempt(it *spool.Item, tries int) error {
	for _, name := range []string{spool.LeaseFile, buildlog.FirstErrorFile} {
		if err := durable.Remove(it.At(name)); err != nil {
			return err
		}
	}
	if err := forgetResult(it); err != nil {
		return err
	}
	err := durable.Replace(it.At(buildlog.LogFile), it.At(fmt.Sprintf("%s.%d", buildlog.LogFile, tries-1)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// forgetResult removes a result, and what else earlier attempts left in directories.
func forgetResult(it *spool.Item) error {
	var errs []error
	for _, dir := range append([]string{sourceDir}, brought...) {
		errs = append(errs, durable.RemoveAll(it.At(dir)))
	}
	return errors.Join(errs...)
}
