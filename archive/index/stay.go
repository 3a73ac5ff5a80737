package index

import (
	"slices"
	"time"
)

// Superseded is an index under its checksum after a newer one has taken its place.
type Superseded struct {
	Name  string
	Since time.Time
}

// So many superseded indexes stay in a directory for all of their stay, however quickly they follow each other: a suite
// that is published every few seconds, while all of it is built again, would keep a terabyte of them. The others stay
// for as long as a client may take that has just fetched the Release which names them.
const (
	manySuperseded = 100
	surelyStays    = 30 * time.Minute
)

// Outstayed are those of the superseded indexes of one directory that may go: which have been superseded for stay, and of
// more than a hundred the oldest, but none for half an hour. It sorts all.
func Outstayed(all []Superseded, stay time.Duration, now time.Time) (names []string) {
	slices.SortFunc(all, func(a, b Superseded) int { return b.Since.Compare(a.Since) })
	for i, s := range all {
		if age := now.Sub(s.Since); age >= stay || i >= manySuperseded && age >= surelyStays {
			names = append(names, s.Name)
		}
	}
	return names
}
