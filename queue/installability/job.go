package installability

import (
	"fmt"
	"slices"

	"packmill/internal/policy"
)

// Job is a source to be built on an architecture. Its fields are those of
// the .dsc (Policy 7.7), "" where it has none.
type Job struct {
	ID              string // the caller's, for errors; not looked at
	Source, Version string
	Arch            string // the index's, or all: then the index is of the architecture that builds all
	Profiles        []string

	BuildDepends, BuildDependsArch, BuildDependsIndep       string
	BuildConflicts, BuildConflictsArch, BuildConflictsIndep string

	ExtraDepends, ExtraConflicts string // of wanna-build: as if the source had them too
	Waits                        string // what the job waits for in Dep-Wait; "" if in another state
}

// Answer is what a judge says of a job.
type Answer struct {
	// Why says why the build-dependencies cannot be installed, a line for
	// each reason; "" if they can. It names no architecture, so that the same
	// trouble on several has the same text.
	Why string
	// Wait says in the same way why the relations of Job.Waits are not yet
	// fulfilled; "" if they are, or if there are none.
	Wait string
	// Missing names the packages that are not there, or not in the version
	// asked for, that Why and Wait tell of: of the build-dependencies or deeper.
	// In order, each once. Conflicts name none.
	Missing []string
	// Lacks are the relations, of the build-dependencies themselves and of Job.Waits, that no package satisfies: as
	// long as none does, the answer stays what it is. Direct finds them.
	Lacks policy.Relations
}

// Installable reports whether a build can start, whatever was waited for.
func (a Answer) Installable() bool { return a.Why == "" }

// WaitOver reports whether nothing that the job waits for is missing.
func (a Answer) WaitOver() bool { return a.Wait == "" }

// Relations returns what the build needs and what must not be there, reduced
// to native, its profiles and first alternatives. native is the architecture
// that the build runs on. An error is a sentence that names the field.
func (j *Job) Relations(native string) (depends, conflicts policy.Relations, err error) {
	collect := func(name, field string, into *policy.Relations) {
		if err != nil || field == "" {
			return
		}
		var r policy.Relations
		if r, err = policy.ParseRelations(field); err != nil {
			err = fmt.Errorf("%s: %w", name, err)
			return
		}
		*into = append(*into, r.For(native, j.Profiles)...)
	}
	collect("Build-Depends", j.BuildDepends, &depends)
	collect("Build-Conflicts", j.BuildConflicts, &conflicts)
	if j.Arch == "all" {
		collect("Build-Depends-Indep", j.BuildDependsIndep, &depends)
		collect("Build-Conflicts-Indep", j.BuildConflictsIndep, &conflicts)
	} else {
		collect("Build-Depends-Arch", j.BuildDependsArch, &depends)
		collect("Build-Conflicts-Arch", j.BuildConflictsArch, &conflicts)
	}
	collect("extra-depends", j.ExtraDepends, &depends)
	collect("extra-conflicts", j.ExtraConflicts, &conflicts)
	return FirstAlternatives(depends), conflicts, err
}

// waits returns the relations of Job.Waits.
func (j *Job) waits() (policy.Relations, error) {
	r, err := policy.ParseRelations(j.Waits)
	if err != nil {
		return nil, fmt.Errorf("dep-wait: %w", err)
	}
	return r, nil
}

// fits is an error if the job cannot be judged with the index: the caller's
// mistake, not the source's.
func (x *Index) fits(j *Job) error {
	if j.Arch != x.Arch && j.Arch != "all" {
		return fmt.Errorf("judge %s %s on %s: the index is of %s", j.Source, j.Version, j.Arch, x.Arch)
	}
	return nil
}

// Direct judges by the build-dependencies themselves: each must be there, in
// the version asked for. What they depend on, and conflicts, are not looked at.
// The answers are in the order of the jobs.
func Direct(x *Index, jobs []Job) ([]Answer, error) {
	answers := make([]Answer, len(jobs))
	for i := range jobs {
		j, a := &jobs[i], &answers[i]
		if err := x.fits(j); err != nil {
			return nil, err
		}
		if depends, _, err := j.Relations(x.Arch); err != nil {
			a.Why = err.Error()
		} else {
			missing := x.Unsatisfied(depends)
			a.Why = sayMissing("build-depends on", missing)
			a.miss(missing)
			a.Lacks = append(a.Lacks, missing...)
		}
		if waits, err := j.waits(); err != nil {
			a.Wait = err.Error()
		} else {
			missing := x.Unsatisfied(waits)
			a.Wait = sayMissing("waits for", missing)
			a.miss(missing)
			a.Lacks = append(a.Lacks, missing...)
		}
	}
	return answers, nil
}

// miss adds the packages' names to those that are missing.
func (a *Answer) miss(relations policy.Relations) {
	for _, or := range relations {
		for i := range or {
			if !slices.Contains(a.Missing, or[i].Name) {
				a.Missing = append(a.Missing, or[i].Name)
			}
		}
	}
	slices.Sort(a.Missing)
}

func sayMissing(verb string, missing policy.Relations) string {
	text := ""
	for _, or := range missing {
		if text != "" {
			text += "\n"
		}
		text += verb + " missing " + policy.Relations{or}.String()
	}
	return text
}
