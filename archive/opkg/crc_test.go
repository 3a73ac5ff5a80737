package opkg

import (
	"hash/crc32"
	"strings"
	"testing"
)

func TestJoinCRC(t *testing.T) {
	t.Parallel()
	text := []byte(strings.Repeat("Package: hello\n", 20_000))
	for _, cut := range []int{0, 1, 255, 256, 257, 99_999, len(text)} {
		a, b := crc32.ChecksumIEEE(text[:cut]), crc32.ChecksumIEEE(text[cut:])
		if got, want := joinCRC(a, b, int64(len(text)-cut)), crc32.ChecksumIEEE(text); got != want {
			t.Errorf("cut at %d: got %08x, want %08x", cut, got, want)
		}
	}
}
