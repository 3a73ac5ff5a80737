package main

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestHealth(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	h := &health{now: func() time.Time { return now }}
	bad := func(source string, elsewhere, want bool) {
		t.Helper()
		if got := h.failed(source, elsewhere); got != want || (h.aside() != nil) != want {
			t.Errorf("%s, elsewhere %v: got %v, %v, want %v", source, elsewhere, got, h.aside(), want)
		}
	}
	// One package, again and again, is its own fault.
	for range 5 {
		bad("a", false, false)
	}
	bad("b", false, false)
	bad("c", true, false) // it failed elsewhere too
	h.worked()
	bad("a", false, false)
	bad("b", false, false)
	bad("d", false, true)
	if err := h.aside(); !strings.Contains(err.Error(), "a, b, d") {
		t.Error(err)
	}
	// After the time one package is tried, and a failure is enough.
	now = now.Add(asideFor + time.Second)
	if err := h.aside(); err != nil {
		t.Error(err)
	}
	bad("e", false, true)
	h.worked()
	if err := h.aside(); err != nil {
		t.Error(err)
	}
	// A full disk is nobody's fault, and soon tried again.
	h.lacks(unix.ENOSPC)
	if err := h.aside(); err == nil || !strings.Contains(err.Error(), "no space left on device; the next is tried in 10s") {
		t.Errorf("with a full disk: %v", err)
	}
	now = now.Add(lackRest)
	bad("a", false, false)
}
