package usage

import (
	"time"

	"packmill/cmd/internal/control"
)

// Span is a span of time, as people say it: 90m, 12h, 7d, 2w.
type Span time.Duration

// UnmarshalText reads a span (control.Span).
func (s *Span) UnmarshalText(text []byte) error {
	d, err := control.Span(string(text))
	*s = Span(d)
	return err
}

// Since is a time in the past, as people say it: so long ago, or a day.
type Since time.Time

// UnmarshalText reads a span (control.Span) before now, or a day.
func (s *Since) UnmarshalText(text []byte) error {
	if day, err := time.ParseInLocation(time.DateOnly, string(text), time.Local); err == nil {
		*s = Since(day)
		return nil
	}
	d, err := control.Span(string(text))
	if err == nil {
		*s = Since(time.Now().Add(-d))
	}
	return err
}
