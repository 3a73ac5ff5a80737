package terminal

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// watchEvery is how often what is watched is looked at.
const watchEvery = time.Second

// Watch shows what look writes, again and again until the context ends: on a
// terminal in its place, cut to its height, elsewhere once more after each
// change.
func Watch(ctx context.Context, s *Screen, look func(*Screen) error) error {
	last := ""
	for first := true; ; first = false {
		var b bytes.Buffer
		now := *s
		now.Out = &b
		if err := look(&now); err != nil {
			return err
		}
		if text := b.String(); first || text != last {
			last = text
			if s.Terminal() {
				text = "\x1b[H\x1b[2J" + s.height(text)
			}
			if _, err := io.WriteString(s.Out, text); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			if s.Terminal() {
				fmt.Fprintln(os.Stderr)
			}
			return nil
		case <-time.After(watchEvery):
		}
	}
}

// height cuts text to the lines of the terminal.
func (s *Screen) height(text string) string {
	lines := strings.SplitAfter(text, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	if len(lines) < s.Height {
		return text
	}
	more := len(lines) - (s.Height - 2)
	return strings.Join(lines[:s.Height-2], "") + fmt.Sprintf("... and %d more lines\n", more)
}
