package queue

import (
	"maps"

	"packmill/spool"
)

// Weights are what counts for and against an early build. The names are
// suite-NAME, priority-NAME, section-NAME, component-NAME, urgency-NAME and
// note-NAME; what has no weight counts nothing.
type Weights map[string]int

// The notes: what quinn-diff would say of the source.
const (
	NoteUncompiled = "uncompiled"  // no binary of it is there
	NoteOutOfDate  = "out-of-date" // an older version's
	NotePartial    = "partial"     // some of this version are there and some are not
)

// DefaultWeights are wanna-build's.
func DefaultWeights() Weights {
	return Weights{
		"suite-stable-security": 400, "suite-testing-security": 300, "suite-stable": 200, "suite-testing": 100,
		"suite-unstable": 0, "suite-sid": 0, "suite-experimental": -100, "suite-stable-backports": -200,
		"priority-required": 50, "priority-important": 40, "priority-standard": 30, "priority-optional": 5,
		"component-contrib": -10, "component-non-free": -20,
		"note-uncompiled": 20, "note-out-of-date": 40, "note-partial": 40,
	}
}

// With returns the weights with others in their place.
func (w Weights) With(other Weights) Weights {
	out := maps.Clone(w)
	maps.Copy(out, other)
	return out
}

// classPoints is how many points of the score make a class.
const classPoints = 10

// Class is the first two digits of a job's name: 00 is built first, 99 last,
// and spool.NormalClass is a score of nothing. It is computed once, when the
// source enters the queues; a person changes it with bp. What the field calls
// days of waiting is the time in the name: first in, first out inside a class.
func (w Weights) Class(t *Ticket, note string) int {
	return ClassOf(w.Score(t, note))
}

// Score is wanna-build's, without what changes by itself.
func (w Weights) Score(t *Ticket, note string) int {
	return w["suite-"+t.Suite] + w["priority-"+t.Priority] + w["section-"+t.Section] +
		w["component-"+t.Component] + w["urgency-"+t.Urgency] + w["note-"+note]
}

// steps is how many classes a build priority moves a job by: ten points are one,
// and no priority moves it by none.
func steps(points int) int {
	n := (abs(points) + classPoints - 1) / classPoints
	if points < 0 {
		return -n
	}
	return n
}

func abs(n int) int { return max(n, -n) }

// sooner is the class of a job whose build priority is so many points.
func sooner(class, points int) int { return min(99, max(0, class-steps(points))) }

// ClassOf turns a score into a class.
func ClassOf(score int) int {
	return min(99, max(0, spool.NormalClass-score/classPoints))
}
