package setup

import (
	"bufio"
	"errors"
	"fmt"
	"slices"
	"strings"

	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/mail"
	"packmill/cmd/internal/terminal"
	"packmill/internal/policy"
	"packmill/queue/runner"
)

// Given is what the command line says of a server; a terminal is asked for the rest.
type Given struct {
	Suite string
	Base  []string // names of releases, or apt lines
	Archs []string
	From  string // of mail: - sends none
	Opkg  string // yes or no
	Pages string // yes or no
}

// Ask makes answers of what is given, with questions for what it leaves open.
func (g *Given) Ask(in *bufio.Reader) (*Answers, error) {
	codename, mirrors := Machine()
	suite, err := terminal.Answer(in, g.Suite, "Name of the suite", "stable", policy.CheckSuite)
	if err != nil {
		return nil, err
	}
	base, err := g.base(in, codename, mirrors)
	if err != nil {
		return nil, err
	}
	archs, err := terminal.Answer(in, strings.Join(g.Archs, " "), "Architectures to build", runner.Machine(), areArchs)
	if err != nil {
		return nil, err
	}
	from, err := terminal.Answer(in, g.From, "Address that mail comes from (- for no mail)", "-", isSender)
	if err != nil {
		return nil, err
	}
	feeds, err := terminal.Answer(in, g.Opkg, "Feeds for opkg beside apt's indexes; each package is there once more,\n"+
		"about one and a half times as large (yes, no)", "no", terminal.YesOrNo)
	if err != nil {
		return nil, err
	}
	pages, err := terminal.Answer(in, g.Pages, "Status pages at http://"+PagesAddress+", which show everything but\n"+
		"keys and letters to who reaches that (yes, no)", "yes", terminal.YesOrNo)
	if err != nil {
		return nil, err
	}
	a := &Answers{Suite: suite, Archs: strings.Fields(archs), Opkg: feeds == "yes", Pages: pages == "yes"}
	if from != "-" {
		a.From = from
	}
	for _, word := range base {
		lines, err := Base(word, mirrors)
		if err != nil {
			return nil, daemon.Wrong{Err: err}
		}
		a.Base = append(a.Base, lines...)
	}
	return a, nil
}

// base is what builds stand on, as a person says it.
func (g *Given) base(in *bufio.Reader, codename string, mirrors Mirrors) ([]string, error) {
	if len(g.Base) > 0 {
		return g.Base, nil
	}
	question := "What builds stand on (" + strings.Join(Releases(), ", ") + ", or an apt line)"
	word, err := terminal.Answer(in, "", question, codename,
		func(w string) error { _, err := Base(w, mirrors); return err })
	return []string{word}, err
}

// areArchs checks a line of architectures to build on.
func areArchs(line string) error {
	archs := strings.Fields(line)
	for i, a := range archs {
		switch err := policy.CheckArch(a); {
		case err != nil:
			return err
		case a == "all":
			return errors.New("all is built anyway, on the first of them; name those to build on, such as amd64")
		case slices.Contains(archs[:i], a):
			return fmt.Errorf("%s is there twice", a)
		}
	}
	if len(archs) == 0 {
		return errors.New("no architecture; name those to build on, such as amd64")
	}
	return nil
}

// isSender checks the address that mail comes from.
func isSender(word string) error {
	if word == "-" {
		return nil
	}
	if _, err := mail.Address(word); err != nil {
		return fmt.Errorf("%w; write one such as Archive <archive@example.org>, or - for no mail", err)
	}
	return nil
}
