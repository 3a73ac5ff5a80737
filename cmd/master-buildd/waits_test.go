package main

import (
	"testing"
	"time"
)

// TestIndexRests: the index of a suite that is published again and again is not read each time, and what comes last is
// not forgotten.
func TestIndexRests(t *testing.T) {
	m := newTestMaster(t)
	sid, _ := m.Settings.Get().Suite("sid")
	read := func() *index {
		t.Helper()
		x, err := m.indexOf(t.Context(), sid, "amd64")
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	x := read()
	x.stamp, x.rests = "of another time", time.Now().Add(time.Second)
	for range 3 {
		if read() != x {
			t.Fatal("it was read although it rests")
		}
	}
	<-m.bases.nudge // a scan, when it has rested
	if read() == x {
		t.Error("it was not read after its rest")
	}
}

// TestMergedAgainAfterRest: what was merged by an index that rested is merged again by the newer one, also if nothing is
// published after it: jobs may wait for a builder whose build-dependencies have gone.
func TestMergedAgainAfterRest(t *testing.T) {
	m := newTestMaster(t)
	merge := func() {
		t.Helper()
		if _, err := m.merge(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	merge()
	x := m.indexes["sid/amd64"]
	x.stamp, x.rests = "of another time", time.Now().Add(time.Second)
	m.merged["sid"], m.lastMerge = "of another time", time.Time{} // something is published
	merge()
	if m.indexes["sid/amd64"] != x {
		t.Fatal("it was read although it rests")
	}
	for m.indexes["sid/amd64"] == x {
		<-m.bases.nudge
		merge()
	}
}
