// Command manpage writes the manual pages of the programs: the package
// comments of cmd/NAME/main.go, as man(7) has it.
//
//	manpage DIR
//
// The pages go to DIR as NAME.1 for packmill and NAME.8 for the daemons.
// scripts/man calls it.
package main

import (
	"fmt"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if len(os.Args) != 2 || strings.HasPrefix(os.Args[1], "-") {
		fmt.Fprintln(os.Stderr, "usage: manpage DIR   (in the project's directory)")
		os.Exit(100)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "manpage: %v\n", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	mains, err := filepath.Glob("cmd/*/main.go")
	if err != nil {
		return err
	}
	if len(mains) == 0 {
		return fmt.Errorf("no cmd/*/main.go here; run it in the project's directory")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, file := range mains {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			return err
		}
		name, section := filepath.Base(filepath.Dir(file)), "8"
		if name == "packmill" {
			section = "1"
		}
		text, err := page(name, section, f.Doc.Text())
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+"."+section), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// page turns a package comment, "Command NAME does something. ..." with the
// synopsis as its first indented block, into a manual page.
func page(name, section, text string) (string, error) {
	var p comment.Parser
	doc := p.Parse(text)
	if len(doc.Content) < 2 {
		return "", fmt.Errorf("the package comment is no manual page: a sentence and a synopsis are the least")
	}
	first, ok := doc.Content[0].(*comment.Paragraph)
	if !ok {
		return "", fmt.Errorf("the package comment does not begin with a sentence")
	}
	intro := flat(first.Text)
	what, found := strings.CutPrefix(intro, "Command "+name+" ")
	if !found {
		return "", fmt.Errorf("the package comment does not begin with %q", "Command "+name)
	}
	what, _, _ = strings.Cut(what, ".")
	if short, _, ok := strings.Cut(what, ":"); ok {
		what = short
	}
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s %s \"\" Packmill\n.SH NAME\n%s \\- %s\n", strings.ToUpper(name), section, escape(name), escape(what))
	blocks := doc.Content[1:]
	if code, ok := blocks[0].(*comment.Code); ok {
		b.WriteString(".SH SYNOPSIS\n" + verbatim(code.Text))
		blocks = blocks[1:]
	}
	b.WriteString(".SH DESCRIPTION\n")
	fmt.Fprintf(&b, "%s\n", escape(intro[len("Command "):]))
	for _, block := range blocks {
		switch x := block.(type) {
		case *comment.Heading:
			fmt.Fprintf(&b, ".SH %s\n", escape(strings.ToUpper(flat(x.Text))))
		case *comment.Paragraph:
			// "Exit status: ..." is a section of its own by man's custom.
			t := flat(x.Text)
			if r, ok := strings.CutPrefix(t, "Exit status: "); ok {
				fmt.Fprintf(&b, ".SH EXIT STATUS\n%s\n", escape(r))
				continue
			}
			if r, ok := strings.CutPrefix(t, "Settings: "); ok {
				fmt.Fprintf(&b, ".SH FILES\n%s\n", escape(r))
				continue
			}
			fmt.Fprintf(&b, ".PP\n%s\n", escape(t))
		case *comment.Code:
			b.WriteString(".PP\n" + verbatim(x.Text))
		case *comment.List:
			for _, it := range x.Items {
				mark := "\\(bu"
				if it.Number != "" {
					mark = it.Number + "."
				}
				fmt.Fprintf(&b, ".IP %s 4\n", mark)
				for _, c := range it.Content {
					if para, ok := c.(*comment.Paragraph); ok {
						fmt.Fprintf(&b, "%s\n", escape(flat(para.Text)))
					}
				}
			}
		}
	}
	return b.String(), nil
}

// flat is the text in one line, without marks.
func flat(text []comment.Text) string {
	var b strings.Builder
	for _, t := range text {
		switch x := t.(type) {
		case comment.Plain:
			b.WriteString(string(x))
		case comment.Italic:
			b.WriteString(string(x))
		case *comment.Link:
			b.WriteString(flat(x.Text))
		case *comment.DocLink:
			b.WriteString(flat(x.Text))
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func verbatim(code string) string {
	return ".nf\n" + escape(strings.TrimRight(code, "\n")) + "\n.fi\n"
}

// escape keeps roff from seeing commands and its own hyphens in the text.
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
