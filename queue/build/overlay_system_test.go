//go:build system

package build

import "testing"

func TestOverlayRows(t *testing.T) {
	testRows(t, &Overlay{Chroots: testChroots(t, "amd64")})
}

func TestOverlayStop(t *testing.T) {
	testStop(t, &Overlay{Chroots: testChroots(t, "amd64")})
}

func TestOverlayOwnArchive(t *testing.T) {
	testOwnArchive(t, &Overlay{Chroots: testChroots(t, "amd64")})
}
