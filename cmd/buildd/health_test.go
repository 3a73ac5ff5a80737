package main

import (
	"errors"
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
		if got := h.failed(source, now, elsewhere, 0); got != want || (h.aside() != nil) != want {
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
	if err := h.aside(); err == nil ||
		!strings.Contains(err.Error(), "no space left on device; the next is tried in 10s") {
		t.Errorf("with a full disk: %v", err)
	}
	now = now.Add(lackRest)
	bad("a", false, false)
}

// Builds that fall in the same moment are one trouble: after it the builder rests, and
// tries again; only what lasts sets it aside.
func TestPause(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	h := &health{now: func() time.Time { return now }}
	begun := now
	now = now.Add(time.Second)
	for _, source := range []string{"a", "b", "c", "d"} {
		if h.failed(source, begun, false, 10*time.Second) {
			t.Errorf("set aside by %s, in one moment", source)
		}
	}
	rests := func(span time.Duration) {
		t.Helper()
		if err := h.aside(); err == nil || errors.Is(err, errAside) ||
			!strings.Contains(err.Error(), "ended without a verdict") {
			t.Errorf("no pause: %v", err)
		}
		now = now.Add(span)
		if err := h.aside(); err != nil {
			t.Errorf("after %s: %v", span, err)
		}
	}
	rests(10 * time.Second)
	if h.failed("b", now, false, 10*time.Second) {
		t.Error("set aside by the second")
	}
	rests(time.Minute)
	if !h.failed("c", now, false, 10*time.Second) || !errors.Is(h.aside(), errAside) {
		t.Errorf("the third did not set it aside: %v", h.aside())
	}
	h.worked()
	if err := h.aside(); err != nil {
		t.Errorf("after a verdict: %v", err)
	}
}
