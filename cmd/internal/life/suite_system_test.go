//go:build system

package life

import "testing"

// A suite of 1,000 packages with chains of 50 comes to be out of nothing: three
// builders, no person, each package built exactly once.
func TestThousandPackages(t *testing.T) {
	chain(t, newMill(t, "Publish: source-first"), 1000, 50)
}
