package spool

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"sort"
	"time"

	"packmill/internal/trouble"
)

// schedule says which item a Loop looks at next, and when: each that it knows
// is ready, being handled, or waits for a time or for something to happen. It
// belongs to the loop's goroutine.
type schedule struct {
	ready []entry             // in the order in which they are served
	busy  map[entry]bool      // a worker has it
	later map[entry]time.Time // not before then; zero: when something happens
	past  map[entry]past
	due   dueHeap // the times of later; what is not in later any more does not count

	stayed map[string][]entry // by source; what has not stayed any more does not count

	same func(entry) bool // of what stayed: it would stay again
}

// Timing of the schedule.
const (
	busyRetry = 100 * time.Millisecond
	onceBusy  = 20 // looks at a busy item before Once leaves it to its holder
)

// retry is between handlings that failed.
var retry = trouble.Backoff{First: time.Second, Last: time.Hour}

type entry struct {
	place Place
	name  string
}

// before orders entries as a queue is served: the name begins with the order.
func (e entry) before(o entry) bool {
	if e.name != o.name {
		return e.name < o.name
	}
	return e.place.Dir() < o.place.Dir()
}

// past is what is remembered of an entry's last handling.
type past struct {
	by     time.Duration // the delay after the last error
	err    string
	busy   int       // looks in a row that met a lock
	stay   bool      // the handler said that nothing can be done yet
	at     time.Time // when it said so
	scarce bool      // the error was of a machine that has too little of something, see Scarce
}

type dueItem struct {
	at time.Time
	e  entry
}
type dueHeap []dueItem

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(dueItem)) }
func (h *dueHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

func newSchedule() *schedule {
	return &schedule{busy: map[entry]bool{}, later: map[entry]time.Time{}, past: map[entry]past{},
		stayed: map[string][]entry{}}
}

// clear begins a scan: nothing is ready but what is found again.
func (s *schedule) clear() { s.ready = s.ready[:0] }

// found makes ready what a scan found, if nobody has it in hand and its time has
// come. Of one place it comes in order; sort sees to that of several.
func (s *schedule) found(e entry, now time.Time) {
	if s.busy[e] || s.later[e].After(now) {
		return
	}
	delete(s.later, e)
	s.ready = append(s.ready, e)
}

// sameRest is how long what would stay again is not looked at.
const sameRest = 10 * time.Minute

// idle reports whether an entry stayed a while ago, waits for something to happen, and would stay again.
func (s *schedule) idle(e entry, now time.Time) bool {
	p, at := s.past[e], s.later[e]
	return s.same != nil && p.stay && at.IsZero() && now.Sub(p.at) < sameRest && !s.busy[e] && s.same(e)
}

func (s *schedule) sort() {
	sort.Slice(s.ready, func(i, j int) bool { return s.ready[i].before(s.ready[j]) })
}

// find is the place of an entry in the order, and whether it is there. (A set
// beside the order would be most of the memory of a daemon with a long queue.)
func (s *schedule) find(e entry) (int, bool) {
	i := sort.Search(len(s.ready), func(i int) bool { return !s.ready[i].before(e) })
	return i, i < len(s.ready) && s.ready[i] == e
}

// put adds an entry at its place in the order, if it is not there, not being
// worked on and not delayed. An item that stayed and is named again has
// changed.
func (s *schedule) put(e entry) {
	i, known := s.find(e)
	if known || s.busy[e] {
		return
	}
	if _, wait := s.later[e]; wait && !s.past[e].stay {
		return
	}
	delete(s.later, e)
	s.ready = append(s.ready, entry{})
	copy(s.ready[i+1:], s.ready[i:])
	s.ready[i] = e
}

// next takes the first entry of a place that is not taken.
func (s *schedule) next(taken map[Place]bool) (entry, bool) {
	i := slices.IndexFunc(s.ready, func(e entry) bool { return !taken[e.place] })
	if i < 0 {
		return entry{}, false
	}
	e := s.ready[i]
	if i == 0 { // as nearly always: nothing is shifted
		s.ready = s.ready[1:]
	} else {
		s.ready = slices.Delete(s.ready, i, i+1)
	}
	return e, true
}

// together takes the other entries of e's place too, at most maxBatch in all, in
// order; also those that stayed: what one of them waited for may be e.
func (s *schedule) together(e entry) []entry {
	for o := range s.later {
		if o.place == e.place && s.past[o].stay && !s.idle(o, time.Now()) {
			s.put(o)
		}
	}
	batch, rest := []entry{e}, s.ready[:0]
	for _, o := range s.ready {
		if o.place == e.place && len(batch) < maxBatch {
			batch = append(batch, o)
			s.busy[o] = true
			continue
		}
		rest = append(rest, o)
	}
	s.ready = rest
	sort.Slice(batch, func(i, j int) bool { return batch[i].before(batch[j]) })
	return batch
}

const maxBatch = 1000

// fallDue makes ready what was delayed and whose time has come, and returns it.
func (s *schedule) fallDue(now time.Time) (fell []entry) {
	for len(s.due) > 0 && !s.due[0].at.After(now) {
		x := heap.Pop(&s.due).(dueItem)
		if at, ok := s.later[x.e]; ok && at.Equal(x.at) {
			delete(s.later, x.e)
			s.put(x.e)
			fell = append(fell, x.e)
		}
	}
	return fell
}

// until is when something falls due, at most end.
func (s *schedule) until(end time.Time) time.Time {
	if len(s.due) > 0 && s.due[0].at.Before(end) {
		return s.due[0].at
	}
	return end
}

// soon reports whether Once should wait for a busy item, whose holder may be
// about to let go.
func (s *schedule) soon() bool {
	for e := range s.later {
		if n := s.past[e].busy; n > 0 && n < onceBusy {
			return true
		}
	}
	return false
}

// again makes the entries ready whose last handling was so.
func (s *schedule) again(which func(entry, past) bool) {
	for e, p := range s.past {
		if which(e, p) {
			delete(s.later, e)
			s.put(e)
		}
	}
}

// stir makes the items ready that stayed and are of the named item's source.
func (s *schedule) stir(name string) {
	for _, e := range s.stayed[SourceOf(name)] {
		if s.past[e].stay {
			delete(s.later, e)
			s.put(e)
		}
	}
}

// delay notes that an entry is not looked at before its time; 0 is "when
// something happens".
func (s *schedule) delay(e entry, by time.Duration) {
	if by == 0 {
		s.later[e] = time.Time{}
		return
	}
	at := time.Now().Add(by)
	s.later[e] = at
	heap.Push(&s.due, dueItem{at, e})
}

// locked notes that somebody else has the item in hand.
func (s *schedule) locked(e entry) {
	p := s.past[e]
	p.busy++
	by := busyRetry
	if p.busy >= onceBusy {
		// Its holder works on it, and its move will be an event.
		by = time.Second + rand.N(2*time.Second)
	}
	s.past[e] = p
	s.delay(e, by)
}

// failed notes that the handling came to an error: when it is tried again, and
// whether that is another error than the last.
func (s *schedule) failed(e entry, err error) (by time.Duration, fresh bool) {
	old, scarce := s.past[e], Scarce(err)
	by = retry.After(old.by)
	if scarce {
		by = min(by, hinderedRetry)
	}
	s.past[e] = past{by: by, err: err.Error(), scarce: scarce}
	s.delay(e, by)
	return by, !trouble.Alike(old.err, err.Error())
}

// stays notes that nothing can be done with the item yet.
func (s *schedule) stays(e entry, again time.Duration) {
	if source := SourceOf(e.name); !slices.Contains(s.stayed[source], e) {
		s.stayed[source] = append(s.stayed[source], e)
	}
	s.past[e] = past{stay: true, at: time.Now()}
	s.delay(e, again)
}

// forget drops the memory of entries that are not ready, not busy and not there.
func (s *schedule) forget(there func(entry) bool) {
	for e := range s.past {
		if _, known := s.find(e); !known && !s.busy[e] && !there(e) {
			delete(s.past, e)
			delete(s.later, e)
		}
	}
	for source, list := range s.stayed {
		list = slices.DeleteFunc(list, func(e entry) bool { return !s.past[e].stay })
		if s.stayed[source] = list; len(list) == 0 {
			delete(s.stayed, source)
		}
	}
}
