package usage

import (
	"testing"
	"time"
)

func TestTimes(t *testing.T) {
	for text, want := range map[string]time.Duration{"90m": 90 * time.Minute, "2w": 14 * 24 * time.Hour, "soon": 0} {
		var span Span
		var since Since
		err, err2 := span.UnmarshalText([]byte(text)), since.UnmarshalText([]byte(text))
		if time.Duration(span) != want || (err == nil) != (want != 0) || (err2 == nil) != (want != 0) {
			t.Errorf("%s: got %v, %v, %v", text, time.Duration(span), err, err2)
		}
		if ago := time.Since(time.Time(since)); want != 0 && (ago < want || ago > want+time.Hour) {
			t.Errorf("%s: %v ago", text, ago)
		}
	}
	var since Since
	if err := since.UnmarshalText([]byte("2026-11-21")); err != nil ||
		!time.Time(since).Equal(time.Date(2026, 11, 21, 0, 0, 0, 0, time.Local)) {
		t.Errorf("a day: got %v, %v", time.Time(since), err)
	}
}
