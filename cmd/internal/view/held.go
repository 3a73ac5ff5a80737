package view

import (
	"slices"
	"time"

	"packmill/spool"
)

// item is one item in 24 bytes and without a pointer: hundreds of thousands of them
// are nothing to the garbage collector.
type item struct {
	at      int64  // microseconds, of its name's order
	version uint32 // a word
	place   uint32 // a number of a place
	arch    uint32 // a word, 0 if its name ends in none
	class   uint8
}

// holding is all items, those of a source together.
type holding struct {
	sources map[string][]item
	total   int
	counts  []int // of each place, by its number

	places  []spool.Place
	numbers map[spool.Place]uint32

	// Of what has not ended all is found by its place: of a whole distribution it is a small part, and what is
	// asked for. What has ended lies in hundreds of places, of which oldest has the beginnings, unless stale.
	moving map[uint32]map[entry]bool
	oldest map[uint32]int64
	stale  bool

	words []string
	index map[string]uint32

	sorted []string // names of the sources; nil: to be made anew
}

func (h *holding) reset() {
	*h = holding{sources: map[string][]item{}, numbers: map[spool.Place]uint32{}, words: []string{""},
		index: map[string]uint32{"": 0}, moving: map[uint32]map[entry]bool{}, oldest: map[uint32]int64{}}
}

// shrink forgets the words of items that have gone, where they are most.
func (h *holding) shrink() {
	if len(h.words) <= 2*h.total+10_000 {
		return
	}
	old := *h
	h.reset()
	for source, all := range old.sources {
		for _, x := range all {
			f := old.found(source, x)
			h.add(source, h.pack(f.Place, f.Name))
		}
	}
}

func (h *holding) word(s string) uint32 {
	n, ok := h.index[s]
	if !ok {
		n = uint32(len(h.words))
		h.words = append(h.words, s)
		h.index[s] = n
	}
	return n
}

func (h *holding) number(p spool.Place) uint32 {
	n, ok := h.numbers[p]
	if !ok {
		n = uint32(len(h.places))
		h.places = append(h.places, p)
		h.counts = append(h.counts, 0)
		h.numbers[p] = n
	}
	return n
}

// pack is what is kept of a name at a place.
func (h *holding) pack(p spool.Place, n spool.Name) item {
	return item{n.Time.UnixMicro(), h.word(n.Version), h.number(p), h.word(n.Arch), uint8(n.Class)}
}

// found is the inverse of pack.
func (h *holding) found(source string, x item) spool.Found {
	return spool.Found{Place: h.places[x.place], Name: spool.Name{Class: int(x.class), Time: time.UnixMicro(x.at).UTC(),
		Source: source, Version: h.words[x.version], Arch: h.words[x.arch]}}
}

// add adds an item, and reports whether it was not there.
func (h *holding) add(source string, x item) bool {
	all, known := h.sources[source]
	if slices.Contains(all, x) {
		return false
	}
	if !known {
		h.sorted = nil
	}
	h.sources[source] = append(all, x)
	h.total++
	h.counts[x.place]++
	if h.ended(x.place) {
		if old, ok := h.oldest[x.place]; !ok || x.at < old {
			h.oldest[x.place] = x.at
		}
		return true
	}
	if h.moving[x.place] == nil {
		h.moving[x.place] = map[entry]bool{}
	}
	h.moving[x.place][entry{source, x}] = true
	return true
}

// ended reports whether what lies at a place has ended its way.
func (h *holding) ended(place uint32) bool { return h.places[place].Hash != "" }

// begun is when the oldest item of a place was let in.
func (h *holding) begun(place uint32) (oldest int64) {
	if h.ended(place) {
		return h.oldest[place]
	}
	for e := range h.moving[place] {
		if oldest == 0 || e.at < oldest {
			oldest = e.at
		}
	}
	return oldest
}

// freshen finds the oldest items of what has ended anew.
func (h *holding) freshen() {
	h.stale = false
	clear(h.oldest)
	for _, all := range h.sources {
		for _, x := range all {
			if old, ok := h.oldest[x.place]; h.ended(x.place) && (!ok || x.at < old) {
				h.oldest[x.place] = x.at
			}
		}
	}
}

// remove removes an item, and reports whether it was there.
func (h *holding) remove(source string, x item) bool {
	all := h.sources[source]
	i := slices.Index(all, x)
	if i < 0 {
		return false
	}
	all[i] = all[len(all)-1]
	if all = all[:len(all)-1]; len(all) == 0 {
		delete(h.sources, source)
		h.sorted = nil
	} else {
		h.sources[source] = all
	}
	h.total--
	h.counts[x.place]--
	if h.ended(x.place) {
		h.stale = h.stale || h.oldest[x.place] == x.at
	} else {
		delete(h.moving[x.place], entry{source, x})
	}
	return true
}
