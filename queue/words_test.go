package queue

import "testing"

// Every operation has one word at wb, no door has a word twice, and no word is
// without a sentence.
func TestWords(t *testing.T) {
	at := map[Op]int{}
	for _, w := range WordsAt(AtWb) {
		at[w.Op]++
		if w.Name != string(w.Op) {
			t.Errorf("wb says %s for the operation %s: histories would name another word than was said", w.Name, w.Op)
		}
	}
	for _, op := range Ops {
		if at[op] != 1 {
			t.Errorf("%s: %d words of wb, want 1", op, at[op])
		}
	}
	for _, d := range []Door{AtWb, AtBuild, ByMail, Alone} {
		seen := map[string]bool{}
		for _, w := range WordsAt(d) {
			if seen[w.Name] || w.What == "" {
				t.Errorf("%s: said twice at one door, or without a word of what it does", w.Name)
			}
			seen[w.Name] = true
			if got := WordAt(d, w.Name); got == nil || got.Op != w.Op {
				t.Errorf("WordAt(%d, %s): got %+v", d, w.Name, got)
			}
		}
	}
	if w := WordAt(AtWb, "giveback"); w != nil {
		t.Errorf("giveback at wb: got %+v, want none", w)
	}
	if r := WordAt(ByMail, "giveback").Ask("again"); r.Op != GiveBack || !r.Away || r.Override || r.Message != "again" {
		t.Errorf("giveback asks for %+v", r)
	}
	if r := WordAt(Alone, "requeue").Ask(""); r.Op != GiveBack || r.Away || !r.Override {
		t.Errorf("requeue asks for %+v", r)
	}
}
