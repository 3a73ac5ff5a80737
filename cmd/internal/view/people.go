package view

import (
	"context"
	"sync"

	"packmill/queue"
	"packmill/spool"
)

// People are who stands behind a source, as the ticket of its newest item has them.
type People struct {
	Maintainer string // with the address
	Uploader   string // the name of control/uploaders
}

// peopleOf is what was read of tickets: each is read when somebody asks, and once.
type peopleOf struct {
	mu    sync.Mutex // held while tickets are read
	known map[string]person
	words map[string]string // a name once, however many packages have it
}

// person is of the item that was a source's newest when it was read.
type person struct {
	at      int64
	version uint32
	People
}

// People says of every source who stands behind it. A source whose ticket cannot be read now is left out. The first
// who asks waits until the tickets of all sources are read, later ones for what came since.
func (v *View) People(ctx context.Context) (map[string]People, error) {
	p := &v.people
	p.mu.Lock()
	defer p.mu.Unlock()
	unread := p.unread(v)
	for source, found := range unread {
		if err := ctx.Err(); err != nil {
			return nil, err // what was read so far stays
		}
		tk, err := queue.TicketAt(v.tree, found.Found)
		if err != nil {
			continue // it has moved on
		}
		found.People = People{p.word(tk.Maintainer), p.word(tk.Uploader)}
		p.known[source] = found.person
	}
	out := make(map[string]People, len(p.known))
	for source, x := range p.known {
		out[source] = x.People
	}
	return out, nil
}

type unreadItem struct {
	spool.Found
	person
}

// unread are the newest items of which nothing is known, by source. What is known of sources that are no more is
// forgotten.
func (p *peopleOf) unread(v *View) map[string]unreadItem {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if p.known == nil {
		p.known = map[string]person{}
	}
	if p.words == nil || len(p.words) > 4*len(p.known)+1000 { // mostly names of who is no more
		p.words = map[string]string{}
	}
	for source := range p.known {
		if _, ok := v.held.sources[source]; !ok {
			delete(p.known, source)
		}
	}
	out := map[string]unreadItem{}
	for source, all := range v.held.sources {
		newest := all[0]
		for _, x := range all {
			if x.at > newest.at {
				newest = x
			}
		}
		if old, ok := p.known[source]; !ok || old.at != newest.at || old.version != newest.version {
			delete(p.known, source)
			out[source] = unreadItem{v.held.found(source, newest), person{at: newest.at, version: newest.version}}
		}
	}
	return out
}

func (p *peopleOf) word(s string) string {
	if w, ok := p.words[s]; ok {
		return w
	}
	p.words[s] = s
	return s
}
