package terminal

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"packmill/cmd/internal/daemon"
)

// Sure is the flag of commands that ask a person before they take away what
// others may need.
type Sure struct {
	Yes bool `short:"y" help:"Do not ask. Without a terminal nothing is asked anyway."`
}

// Asks reports whether there is somebody to ask.
func (s Sure) Asks() bool { return !s.Yes && term.IsTerminal(int(os.Stdin.Fd())) }

// Ask puts the question, of which no is the answer unless the person says yes,
// and refuses without one. An interrupt is a no.
func (s Sure) Ask(ctx context.Context, question string) error {
	if !s.Asks() {
		return nil
	}
	Print(os.Stderr, "%s [y/N] ", question)
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(os.Stdin).ReadString('\n') // its end is a no
		line <- text
	}()
	select {
	case text := <-line:
		switch strings.ToLower(strings.TrimSpace(text)) {
		case "y", "yes":
			return nil
		}
	case <-ctx.Done():
		fmt.Fprintln(os.Stderr)
	}
	return daemon.Refuse("nothing was changed")
}

// Counted is "1 package" or "3 packages".
func Counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
