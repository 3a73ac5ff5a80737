package spool

import (
	"maps"
	"testing"
)

// TestSpares: numbers that change hands among accounts go by way of numbers that are nobody's; others do not.
func TestSpares(t *testing.T) {
	taken := map[int]bool{60001: true}
	got := spares(map[int]int{990: 988, 988: 990, 7: 8, 60000: 9}, func(id int) bool { return !taken[id] })
	if want := map[int]int{988: 60002, 990: 60003}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := spares(map[int]int{1: 2, 3: 4}, func(int) bool { return true }); len(got) != 0 {
		t.Errorf("nobody's number changes hands: got %v", got)
	}
}
