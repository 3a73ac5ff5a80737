package terminal

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"packmill/cmd/internal/daemon"
)

// YesOrNo checks an answer that is one of the two.
func YesOrNo(word string) error {
	if word != "yes" && word != "no" {
		return fmt.Errorf("%q: yes or no?", word)
	}
	return nil
}

// Answer is given, or what a person types at a terminal, or else the proposal.
func Answer(in *bufio.Reader, given, question, proposal string, check func(string) error) (string, error) {
	if given != "" {
		if err := check(given); err != nil {
			return "", daemon.Wrong{Err: err}
		}
		return given, nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		if proposal == "" {
			return "", daemon.Wrong{Err: fmt.Errorf("%s: say it with a flag: packmill setup --help", question)}
		}
		return proposal, check(proposal)
	}
	for {
		Print(os.Stderr, "%s [%s]: ", question, proposal)
		line, err := in.ReadString('\n')
		if err == io.EOF {
			fmt.Fprintln(os.Stderr)
			return "", daemon.Refuse("a question has no answer, and nothing was changed")
		}
		if err != nil {
			return "", err
		}
		word := strings.TrimSpace(line)
		if word == "" {
			word = proposal
		}
		if err := check(word); err != nil {
			Print(os.Stderr, "%s\n", err)
			continue
		}
		return word, nil
	}
}
