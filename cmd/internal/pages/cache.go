package pages

import (
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// Bounds of the pages that are kept.
const (
	keptFor  = 5 * time.Second
	maxKept  = 16 << 20 // bytes
	largest  = 2 << 20  // of one page
	maxPages = 2000
)

// cache keeps pages for as long as they are true: many who hear of one change ask for
// the same page at once, and it is made for them once.
type cache struct {
	mu     sync.Mutex
	pages  map[string]*answer
	bytes  int
	flight singleflight.Group
}

// get gives the page of a key as of a change of the view, or makes it.
func (c *cache) get(number uint64, key string, make func() (*answer, error)) (*answer, error) {
	c.mu.Lock()
	a := c.pages[key]
	c.mu.Unlock()
	if a != nil && a.number == number && time.Since(a.at) < keptFor {
		return a, nil
	}
	v, err, _ := c.flight.Do(key, func() (any, error) {
		fresh, err := make()
		if err != nil {
			return nil, err
		}
		if a != nil && a.etag == fresh.etag {
			fresh.changed = a.changed
		}
		c.put(key, fresh)
		return fresh, nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*answer), nil
}

// put keeps a page. A full cache is emptied: what is asked for fills it again.
func (c *cache) put(key string, a *answer) {
	if a.room() > largest {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.pages[key]; old != nil {
		c.bytes -= old.room()
	}
	if c.pages == nil || c.bytes+a.room() > maxKept || len(c.pages) >= maxPages {
		c.pages, c.bytes = map[string]*answer{}, 0
	}
	c.pages[key] = a
	c.bytes += a.room()
}
