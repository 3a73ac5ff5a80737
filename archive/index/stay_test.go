package index

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestOutstayed(t *testing.T) {
	now := time.Unix(1800000000, 0)
	// every gives n indexes, of which each was superseded so long before the one before it.
	every := func(n int, gap time.Duration) (all []Superseded) {
		for i := range n {
			all = append(all, Superseded{fmt.Sprint(i), now.Add(-time.Duration(i) * gap)})
		}
		return all
	}
	for what, c := range map[string]struct {
		all    []Superseded
		stay   time.Duration
		oldest int // that stays
	}{
		"few":                     {every(50, time.Hour), 72 * time.Hour, 49},
		"few, and old":            {every(100, time.Hour), 72 * time.Hour, 71},
		"many in some hours":      {every(400, time.Minute), 72 * time.Hour, 99},
		"many in half an hour":    {every(1000, time.Second), 72 * time.Hour, 999},
		"more than that":          {every(4000, time.Second), 72 * time.Hour, 1799},
		"a stay of some minutes":  {every(400, time.Second), 2 * time.Minute, 119},
		"nothing was superseded":  {nil, time.Hour, -1},
		"it was in the future":    {every(3, -time.Hour), time.Minute, 2},
		"all of them at one time": {every(300, 0), time.Minute, 299},
	} {
		names := Outstayed(slices.Clone(c.all), c.stay, now)
		for i, s := range c.all {
			if gone := slices.Contains(names, s.Name); gone != (i > c.oldest) {
				t.Errorf("%s: %d goes: %v", what, i, gone)
				break
			}
		}
	}
}
