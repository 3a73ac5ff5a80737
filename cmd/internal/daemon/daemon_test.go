package daemon

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"

	"packmill/internal/clean"
)

// TestLog: what an uploader chose, and a line of the log has, does nothing.
func TestLog(t *testing.T) {
	const hostile = "\x1b]0;t\x07b\rc\u202ed\u2066e\u009b31mf\x9b\u200b\x7f\x1b[8mj\nlevel=ERROR"
	var b bytes.Buffer
	newLog(&b, slog.LevelInfo).Warn(hostile, "item", hostile, "err", errors.New(hostile), "list", []string{hostile},
		hostile, 1, slog.Group(hostile, "x", errors.New(hostile)))
	if got := clean.Escape(nil, b.Bytes()); !bytes.Equal(got, b.Bytes()) || bytes.Count(got, []byte("\n")) != 1 {
		t.Errorf("got %q", b.Bytes())
	}
}
