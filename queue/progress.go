package queue

import (
	"os"

	"packmill/spool"
)

// PublishedDir has a file SUITE/ITEM for each item that the archive has and that
// still lies in the archive queue; it lists the pool's files. It is not in the
// item, where others than archived can write.
const PublishedDir = "archive/published"

// Filing reports whether an item in the archive queue is published already, and is
// about to be in installed.
func Filing(tree *spool.Tree, f spool.Found) bool {
	_, err := os.Lstat(tree.Path(PublishedDir, f.Place.Suite, f.Name.String()))
	return f.Place.State == spool.Uploaded && err == nil
}

// InstalledSource looks for a version of a source among what was published; nil
// says that it was not seen there.
func InstalledSource(tree *spool.Tree, suite string, name spool.Name) (*spool.Found, error) {
	return findJob(tree, []spool.State{spool.Installed}, suite, spool.SourceArch, name)
}

// SourceOf looks for the source of a job: where it was published, or else where it
// waits for its jobs. Nil says that it was in neither.
func SourceOf(tree *spool.Tree, suite string, job spool.Name) (*spool.Found, error) {
	f, err := InstalledSource(tree, suite, job)
	if f == nil && err == nil {
		job.Arch = ""
		f = findNamed(tree, []spool.State{spool.Master}, suite, "", job)
	}
	return f, err
}

// JobsOf finds the jobs of a source, named as its item is, one for each of the
// architectures that has one. One to which a person gave another order is found when
// it has come to an end.
func JobsOf(tree *spool.Tree, suite string, archs []string, name spool.Name) (jobs []spool.Found, err error) {
	name.Arch = ""
	states := tree.Are(spool.Jobs)
	ends := tree.Where(func(s spool.State) bool { // published, or failed
		return s.Is(spool.Jobs|spool.Settled) && (s.Is(spool.Kept) || s.Requeue != nil)
	})
	for _, a := range archs {
		f := findNamed(tree, states, suite, a, name)
		if f == nil {
			if f, err = findJob(tree, ends, suite, a, name); err != nil {
				return nil, err
			}
		}
		if f != nil {
			jobs = append(jobs, *f)
		}
	}
	return jobs, nil
}
