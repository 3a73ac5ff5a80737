//go:build system

package archive

import "testing"

func TestClientsNeverFailLong(t *testing.T) {
	t.Parallel()
	loop(t, 200)
}
