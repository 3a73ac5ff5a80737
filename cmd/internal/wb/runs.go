package wb

import (
	"slices"
	"time"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/survey"
	"packmill/queue"
	"packmill/spool"
)

// Runs makes of each order a run for each of its suites. Without one it is the only
// suite, or the only one that a job of the package is in; how says where a person
// names one. All are made at one time: the binNMUs of a transition bear the same.
func Runs(t *spool.Tree, all *control.Settings, how string, orders []*Order) (runs []*Run, err error) {
	now := time.Now().UTC()
	for _, o := range orders {
		names := o.Suites
		if len(names) == 0 {
			names = []string{""}
			if len(o.Packages) == 1 {
				names[0] = theirSuite(t, o.Packages[0], o.Op)
			}
		}
		for _, name := range names {
			s, err := all.TheSuite(name, how)
			if err != nil {
				return nil, daemon.Wrong{Err: err}
			}
			one := *o
			if one.Packages, err = matching(t, &one, s.Name); err != nil {
				return nil, err
			}
			runs = append(runs, &Run{Tree: t, Settings: all, Suite: s, Order: &one, Now: now})
		}
	}
	return runs, nil
}

// theirSuite is the one suite that a job of the package is in, for who names
// none: "" if there are several, or none.
func theirSuite(t *spool.Tree, pattern string, op queue.Op) string {
	found, err := t.Find(pattern, t.Where(jobsFor(op))...)
	if _, err = spool.Closed(err); err != nil || len(found) == 0 {
		return ""
	}
	for _, f := range found {
		if f.Place.Suite != found[0].Place.Suite {
			return ""
		}
	}
	return found[0].Place.Suite
}

// jobsFor is true of the states of jobs in which the operation is legal.
func jobsFor(op queue.Op) func(spool.State) bool {
	return func(s spool.State) bool { return s.Is(spool.Jobs) && queue.May(op, s) }
}

// matching puts the sources that have jobs for the operation in the place of
// words with wildcards.
func matching(t *spool.Tree, o *Order, suite string) (names []string, err error) {
	for _, p := range o.Packages {
		if !spool.IsPattern(p) {
			names = append(names, p)
			continue
		}
		f := &survey.Filter{Verb: string(o.Op), Patterns: []string{p}, Suite: suite, States: jobsFor(o.Op)}
		found, _, err := f.Find(t)
		if err != nil {
			return nil, err
		}
		for _, x := range found {
			if !slices.Contains(names, x.Name.Source) {
				names = append(names, x.Name.Source)
			}
		}
	}
	return names, nil
}
