package setup

import (
	"bufio"
	"errors"
	"reflect"
	"strings"
	"testing"

	"packmill/cmd/internal/daemon"
)

// What is given is not asked for, and checked as an answer would be.
func TestGiven(t *testing.T) {
	t.Setenv("PATH", "") // what apt of this machine has is not asked for
	const line = "deb http://mirror.invalid/debian trixie main"
	all := Given{Suite: "stable", Base: []string{line, "noble"}, Archs: []string{"amd64", "i386"}, From: "-", Opkg: "yes",
		Pages: "yes"}
	ask := func(g Given) (*Answers, error) { return g.Ask(bufio.NewReader(strings.NewReader(""))) }
	got, err := ask(all)
	if err != nil {
		t.Fatal(err)
	}
	want := &Answers{Suite: "stable", Archs: all.Archs, Base: append([]string{line}, releases["noble"]...), Opkg: true,
		Pages: true}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	mail := all
	mail.From, mail.Opkg, mail.Pages = "A <a@packmill.invalid>", "no", "no"
	if got, err := ask(mail); err != nil || got.From != mail.From || got.Opkg || got.Pages {
		t.Errorf("with mail: got %+v, %v", got, err)
	}
	for name, spoil := range map[string]func(*Given){
		"suite": func(g *Given) { g.Suite = "a/b" }, "base": func(g *Given) { g.Base = []string{"nosuch"} },
		"archs": func(g *Given) { g.Archs = []string{"amd64", "A B"} }, "opkg": func(g *Given) { g.Opkg = "perhaps" },
		"pages":     func(g *Given) { g.Pages = "perhaps" },
		"apt line":  func(g *Given) { g.Base = []string{"deb http://mirror.invalid/debian"} },
		"two lines": func(g *Given) { g.Base = []string{line + "\nReview: never"} },
		"all":       func(g *Given) { g.Archs = []string{"all"} }, "twice": func(g *Given) { g.Archs = []string{"i386", "i386"} },
		"no arch": func(g *Given) { g.Archs = []string{"", ""} }, "sender": func(g *Given) { g.From = "nobody" },
	} {
		g := all
		spoil(&g)
		var wrong daemon.Wrong
		if got, err := ask(g); !errors.As(err, &wrong) {
			t.Errorf("%s: got %+v, %v, want a refusal", name, got, err)
		}
	}
}
