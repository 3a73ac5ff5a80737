// Package wb does what a person asks for in the words of Debian's wb: it reads
// the command line, finds the jobs, asks package queue, and says of each what
// became of it.
package wb

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"packmill/cmd/internal/control"
	"packmill/internal/policy"
	"packmill/queue"
)

// Order is what is to be done, as a command line in wb's grammar says it:
//
//	CMD PKG[_VERSION]... . ARCH... [. SUITE...] [. -m TEXT] [--extra-depends LIST] [--override] [--changes FILE] [--dry-run] [--json]
type Order struct {
	Op       queue.Op
	Number   int  // of nmu and bp
	Given    bool // a number
	Packages []string
	Archs    []string // also ANY, ALL and -ARCH
	Suites   []string // none: the only one
	Message  string
	Override bool
	Extra    *string // --extra-depends: further build-dependencies, with any operation
	Changes  string  // file of a result that was built elsewhere
	Dry      bool
	JSON     bool
}

// Parse reads wb's grammar. Its errors are for people.
func Parse(words []string) (*Order, error) {
	o := &Order{}
	if len(words) == 0 {
		return nil, errors.New("what is to be done? packmill wb --help shows the grammar")
	}
	word := queue.WordAt(queue.AtWb, words[0])
	if word == nil {
		return nil, fmt.Errorf("%q is not an operation; there are: %s", words[0], queue.Names(queue.WordsAt(queue.AtWb)))
	}
	o.Op = word.Op
	words = words[1:]
	part := 0 // 0 packages, 1 architectures, 2 suite
	for len(words) > 0 {
		n, err := o.option(words)
		if n == 0 && err == nil {
			n, err = 1, o.word(words[0], &part)
		}
		if err != nil {
			return nil, err
		}
		words = words[n:]
	}
	switch {
	case len(o.Packages) == 0:
		return nil, errors.New("which package? packmill wb CMD PKG[_VERSION] . ARCH...")
	case len(o.Archs) == 0:
		return nil, errors.New("for which architecture? write it after a point: packmill wb CMD PKG . amd64, or . ANY")
	case o.Op == queue.Priority && !o.Given:
		return nil, errors.New("bp wants a number: packmill wb bp 20 PKG . ARCH")
	}
	return o, nil
}

// option takes the option at the beginning of words, and says how many of them it is;
// 0: the first is no option.
func (o *Order) option(words []string) (n int, err error) {
	var value string
	switch words[0] {
	case "--override":
		o.Override = true
		return 1, nil
	case "--dry-run", "-n":
		o.Dry = true
		return 1, nil
	case "--json":
		o.JSON = true
		return 1, nil
	case "-m", "--message", "--changes", "--extra-depends":
		if len(words) == 1 {
			return 0, fmt.Errorf("%s wants a value", words[0])
		}
		value = words[1]
	default:
		return 0, nil
	}
	switch words[0] {
	case "--changes":
		o.Changes = value
	case "--extra-depends":
		_, err = policy.ParseRelations(value)
		o.Extra = &value
	default:
		o.Message = value
	}
	return 2, err
}

// word takes a word that is no option that wb knows, in the part of the line where it stands.
func (o *Order) word(w string, part *int) (err error) {
	counts := o.Op == queue.BinNMU || o.Op == queue.Priority
	switch {
	case w == ".":
		*part++
	case *part == 0 && len(o.Packages) == 0 && !o.Given && counts && isNumber(w):
		o.Number, err = strconv.Atoi(w)
		o.Given = true
	case strings.HasPrefix(w, "--") || strings.HasPrefix(w, "-") && *part != 1:
		err = fmt.Errorf("%q is not an option; packmill wb --help shows them", w)
	case *part == 0:
		o.Packages = append(o.Packages, w)
	case *part == 1:
		o.Archs = append(o.Archs, w)
	case *part == 2:
		o.Suites = append(o.Suites, w)
	default:
		err = fmt.Errorf("%q stands too far behind: PKG... . ARCH... . SUITE", w)
	}
	return err
}

// ReadFile reads the orders of a file, the first of the words; - is standard input. The other words
// are added to each.
func ReadFile(words []string) ([]*Order, error) {
	if len(words) == 0 {
		return nil, errors.New("--file wants a file: a line an order; - is standard input")
	}
	in := os.Stdin
	if words[0] != "-" {
		f, err := os.Open(words[0])
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	return ParseLines(words[0], in, words[1:])
}

// ParseLines reads orders, a line each, in which quotation marks hold words
// together; # begins a comment. more is added to each. Its errors name the line.
func ParseLines(name string, r io.Reader, more []string) ([]*Order, error) {
	var out []*Order
	sc := bufio.NewScanner(r)
	for n := 1; sc.Scan(); n++ {
		words, err := split(sc.Text())
		if err == nil && len(words) == 0 {
			continue
		}
		if len(words) > 0 && words[0] == "wb" {
			words = words[1:]
		}
		var o *Order
		if err == nil {
			o, err = Parse(append(words, more...))
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		out = append(out, o)
	}
	return out, sc.Err()
}

// split splits a line at blanks outside of quotation marks.
func split(line string) (words []string, err error) {
	var word strings.Builder
	var quote rune
	in := false
	end := func() {
		if in {
			words = append(words, word.String())
			word.Reset()
			in = false
		}
	}
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '"' || c == '\'':
			quote, in = c, true
		case c == ' ' || c == '\t':
			end()
		case c == '#' && !in:
			return words, nil
		default:
			word.WriteRune(c)
			in = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quotation mark %c is never closed", quote)
	}
	end()
	return words, nil
}

func isNumber(s string) bool {
	_, err := strconv.Atoi(s)
	return err == nil
}

// Concrete resolves ANY, ALL and -ARCH in a suite; asked are those that were
// named.
func (o *Order) Concrete(s *control.Suite) (archs, asked []string, err error) {
	add := func(list ...string) {
		for _, a := range list {
			if !slices.Contains(archs, a) {
				archs = append(archs, a)
			}
		}
	}
	known := append(slices.Clone(s.Architectures), "all")
	for _, a := range o.Archs {
		name := strings.TrimPrefix(a, "-")
		switch {
		case a == "ANY":
			add(s.Architectures...)
		case a == "ALL":
			add(known...)
		case !slices.Contains(known, name):
			return nil, nil, fmt.Errorf("the suite %s is not built for %q; it has %s", s.Name, name, strings.Join(known, " "))
		case a != name:
			if len(archs) == 0 {
				archs = slices.Clone(s.Architectures) // -i386 alone: all but that one
			}
			archs = slices.DeleteFunc(archs, func(x string) bool { return x == name })
		default:
			add(a)
			asked = append(asked, a)
		}
	}
	return archs, asked, nil
}
