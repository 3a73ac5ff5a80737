//go:build system

package archive

import "testing"

func TestClientsNeverFailLong(t *testing.T) { loop(t, 500) }
