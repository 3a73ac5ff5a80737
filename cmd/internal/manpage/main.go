// Command manpage writes the manual pages, as man(7) has it: of the programs,
// whose package comments they are, packmill(1) with the help of each command,
// and packmill(5), the settings, which is doc/settings.md.
//
//	manpage DIR
//
// The pages go to DIR/man1 for packmill, DIR/man8 for the daemons, DIR/man5 for
// the settings. scripts/man calls it.
package main

import (
	"fmt"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"packmill/spool/upload"
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
	put := func(name, section, text string) error {
		d := filepath.Join(dir, "man"+section)
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(d, name+"."+section), []byte(text), 0o644)
	}
	table, err := os.ReadFile("doc/settings.md")
	if err != nil {
		return err
	}
	text, err := settings(string(table))
	if err != nil {
		return fmt.Errorf("doc/settings.md: %w", err)
	}
	if err := put("packmill", "5", text+checks()); err != nil {
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
		if name == "packmill" {
			all, err := exec.Command("go", "run", "./cmd/packmill", "manual").Output()
			if err != nil {
				return fmt.Errorf("packmill manual: %w", err)
			}
			text += commands(string(all))
			if all, err = exec.Command("go", "run", "./cmd/packmill", "manual", "--schema").Output(); err != nil {
				return fmt.Errorf("packmill manual --schema: %w", err)
			}
			text += objects(string(all))
		}
		if err := put(name, section, text); err != nil {
			return err
		}
	}
	return nil
}

// settings turns the page on the settings into packmill(5): paragraphs, and
// tables of field, default and meaning.
func settings(list string) (string, error) {
	_, text, ok := strings.Cut(list, "# Settings\n")
	if !ok {
		return "", fmt.Errorf("it does not begin with the heading Settings")
	}
	var b strings.Builder
	b.WriteString(".TH PACKMILL 5 \"\" Packmill\n.SH NAME\npackmill \\- settings of a Packmill tree\n.SH DESCRIPTION\n")
	plain := strings.NewReplacer("`", "", "|", "").Replace
	for _, block := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if title, ok := strings.CutPrefix(block, "## "); ok {
			fmt.Fprintf(&b, ".SH %s\n", escape(strings.ToUpper(title)))
			continue
		}
		if !strings.HasPrefix(block, "| ") {
			fmt.Fprintf(&b, ".PP\n%s\n", escape(plain(block)))
			continue
		}
		rows := strings.Split(block, "\n")
		if len(rows) < 3 {
			return "", fmt.Errorf("a table without a line: %s", block)
		}
		for _, row := range rows[2:] {
			cells := strings.SplitN(strings.TrimSuffix(strings.TrimPrefix(row, "|"), "|"), "|", 3)
			if len(cells) != 3 {
				return "", fmt.Errorf("not field, default and meaning: %s", row)
			}
			for i, c := range cells {
				cells[i] = escape(strings.TrimSpace(plain(c)))
			}
			fmt.Fprintf(&b, ".TP\n.B %s\n", cells[0])
			if cells[1] != "" {
				fmt.Fprintf(&b, "Default: %s.\n", cells[1])
			}
			if cells[2] != "" {
				fmt.Fprintf(&b, "%s.\n", cells[2])
			}
		}
	}
	return b.String(), nil
}

// checks is the section of packmill(5) that names what an upload is held to.
func checks() string {
	var b strings.Builder
	b.WriteString(".SH CHECKS OF UPLOADS\n.PP\n" +
		"Checks in control/suites gives one another level, as in date-old=off, dsc-key=remark: " +
		"an error refuses the upload, a warning and a remark are told, off says nothing. What is fixed stays as it is.\n")
	for _, c := range upload.Checks() {
		fixed := ""
		if c.Fixed {
			fixed = ", fixed"
		}
		fmt.Fprintf(&b, ".TP\n.B %s\nDefault: %s%s. Says that %s.\n", escape(c.Name), c.Level, fixed, escape(c.About))
	}
	return b.String()
}

// page turns a package comment, "Command NAME does something. ..." with the
// synopsis as its first indented block, into a manual page.
func page(name, section, text string) (string, error) {
	var p comment.Parser
	blocks := p.Parse(text).Content
	if len(blocks) < 2 {
		return "", fmt.Errorf("the package comment is no manual page: a sentence and a synopsis are the least")
	}
	intro, what, err := sentence(name, blocks[0])
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s %s \"\" Packmill\n.SH NAME\n%s \\- %s\n",
		strings.ToUpper(name), section, escape(name), escape(imperative(what)))
	blocks = blocks[1:]
	if code, ok := blocks[0].(*comment.Code); ok {
		b.WriteString(".SH SYNOPSIS\n" + verbatim(code.Text))
		blocks = blocks[1:]
	}
	fmt.Fprintf(&b, ".SH DESCRIPTION\n%s\n", escape(intro))
	for _, block := range blocks {
		b.WriteString(roff(block))
	}
	return b.String(), nil
}

// sentence is the first paragraph of a command's comment, without the word Command,
// and what of it says in short what the command does.
func sentence(name string, block comment.Block) (intro, what string, err error) {
	first, ok := block.(*comment.Paragraph)
	if !ok {
		return "", "", fmt.Errorf("the package comment does not begin with a sentence")
	}
	intro, ok = strings.CutPrefix(flat(first.Text), "Command ")
	what, found := strings.CutPrefix(intro, name+" ")
	if !ok || !found {
		return "", "", fmt.Errorf("the package comment does not begin with %q", "Command "+name)
	}
	what, _, _ = strings.Cut(what, ".")
	what, _, _ = strings.Cut(what, ":")
	return intro, what, nil
}

// roff is a block of a comment, as man(7) has it.
func roff(block comment.Block) string {
	switch x := block.(type) {
	case *comment.Heading:
		return fmt.Sprintf(".SH %s\n", escape(strings.ToUpper(flat(x.Text))))
	case *comment.Paragraph:
		return paragraph(flat(x.Text))
	case *comment.Code:
		return ".PP\n" + verbatim(x.Text)
	case *comment.List:
		return list(x)
	}
	return ""
}

// paragraph is a paragraph, or by man's custom a section of its own.
func paragraph(text string) string {
	if rest, ok := strings.CutPrefix(text, "Exit status: "); ok {
		return fmt.Sprintf(".SH EXIT STATUS\n%s\n", escape(rest))
	}
	if rest, ok := strings.CutPrefix(text, "Settings: "); ok {
		return fmt.Sprintf(".SH FILES\n%s\n", escape(rest))
	}
	return fmt.Sprintf(".PP\n%s\n", escape(text))
}

// list is a list with bullets, or with its numbers.
func list(x *comment.List) string {
	var b strings.Builder
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
	return b.String()
}

// objects turns what commands print with --json into a section.
func objects(schema string) string {
	var b strings.Builder
	b.WriteString(".SH JSON\nWith --json each command prints one object a line. A ? marks a field that may be missing; " +
		"further fields may come.\n")
	for line := range strings.Lines(schema) {
		who, what, _ := strings.Cut(strings.TrimSpace(line), ": ")
		fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", escape(who), escape(what))
	}
	return b.String()
}

// imperative makes "builds packages" "build packages", as the lines of whatis
// have it.
func imperative(what string) string {
	verb, rest, _ := strings.Cut(what, " ")
	return strings.TrimSpace(strings.TrimSuffix(verb, "s") + " " + rest)
}

// commands turns the help of each command into a section, a part for each. The
// flags that all of them have are left out.
func commands(help string) string {
	var b strings.Builder
	b.WriteString(".SH COMMANDS\nEvery command takes --help, --tree=DIR, --json and, if it changes something, " +
		"--dry-run (-n).\n")
	for _, text := range strings.Split("\n"+help, "\nUsage: ")[1:] {
		usage, rest, _ := strings.Cut(text, "\n")
		rest, _, _ = strings.Cut(rest, "\nCommands:\n") // of a group: they follow
		fmt.Fprintf(&b, ".SS %s\n", escape(strings.TrimSuffix(usage, " [flags]")))
		var kept []string
		for line := range strings.Lines(rest) {
			if !common.MatchString(line) {
				kept = append(kept, strings.TrimRight(line, "\n"))
			}
		}
		text := strings.ReplaceAll(strings.TrimSpace(strings.Join(kept, "\n")), "Flags:\n\n", "Flags:\n")
		b.WriteString(verbatim(strings.TrimSpace(strings.TrimSuffix(text, "\nFlags:"))))
	}
	return b.String()
}

var common = regexp.MustCompile(`^ +(-h, --help|--tree=DIR|--json|--version|-n, --dry-run) `)

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
