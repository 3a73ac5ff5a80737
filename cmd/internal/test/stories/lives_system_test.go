//go:build system

package stories

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

var lifeTime = flag.Duration("stories.lives", 0, "of TestLongLives: live for so long, by chance")

// TestLongLives: what TestLives does, for longer; then lives of 2,000 steps, each of another
// seed, until the time is over (scripts/test long: an hour).
func TestLongLives(t *testing.T) {
	if *long {
		*lifeTime = max(*lifeTime, time.Hour)
	}
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(13+seed), func(t *testing.T) {
			t.Parallel()
			liveOne(t, 13+seed, 120)
		})
	}
	for begun := time.Now(); time.Since(begun) < *lifeTime && !t.Failed(); {
		seed := rand.Uint64N(1e9)
		fmt.Fprintln(os.Stderr, "a life begins: -stories.steps 2000 -stories.seed", seed) // however it ends
		t.Run(fmt.Sprint(seed), func(t *testing.T) { liveOne(t, seed, 2000) })
	}
}
