package main

import (
	"testing"

	"packmill/internal/policy"
	"packmill/queue/installability"
	"packmill/spool"
)

// TestEachScanReadsTheIndex: a scan that a publication brought, however soon behind the last one, does not judge by
// what that one read; else nobody would look at the jobs until the next, a minute later.
func TestEachScanReadsTheIndex(t *testing.T) {
	m := newTestMaster(t)
	at, name := spool.In(spool.BDUninstallable, "sid", "amd64"), "50-20250101T000000.000000Z_app_1"
	lacks, err := policy.ParseRelations("libfoo")
	if err != nil {
		t.Fatal(err)
	}
	none, err := installability.ReadIndex("amd64")
	if err != nil {
		t.Fatal(err)
	}
	waits := map[string]*idler{name: {lacks: lacks, settings: m.Settings.Get()}}
	m.idling[at] = waits
	m.newest, m.newestOf = &index{Index: none, complete: true}, at
	if !m.idle(at, name) {
		t.Fatal("what it lacks is not there, and it is not idle")
	}
	if _, err := m.merge(t.Context()); err != nil {
		t.Fatal(err)
	}
	waits[name] = &idler{lacks: lacks, settings: m.Settings.Get()} // which the merge forgot, for there is no such item
	// There is no Base in this tree, so the index that is read now is not complete.
	if m.idle(at, name) {
		t.Error("it is held against what an earlier scan read")
	}
}
