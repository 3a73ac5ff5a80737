package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// sure is the flag of commands that ask a person before they take away what
// others may need.
type sure struct {
	Yes bool `short:"y" help:"Do not ask. Without a terminal nothing is asked anyway."`
}

// asks reports whether there is somebody to ask.
func (s sure) asks() bool { return !s.Yes && term.IsTerminal(int(os.Stdin.Fd())) }

// ask puts the question, of which no is the answer unless the person says yes,
// and refuses without one. An interrupt is a no.
func (s sure) ask(ctx context.Context, question string) error {
	if !s.asks() {
		return nil
	}
	fmt.Fprintf(os.Stderr, "%s [y/N] ", question)
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
	return fmt.Errorf("%w: nothing was changed", errRefused)
}

// counted is "1 package" or "3 packages".
func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
