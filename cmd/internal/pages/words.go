package pages

import (
	"fmt"
	"html/template"
	"io/fs"
	"net/url"
	"strconv"
	"strings"
	"time"

	"packmill/queue/buildlog"
	"packmill/queue/logs"
	"packmill/spool"
)

// words are the functions of the templates.
func (s *Site) words() template.FuncMap {
	return template.FuncMap{
		"state": stateMark, "stateShort": stateShort, "outcome": outcomeMark, "group": groupOf, "when": when, "since": since, "age": age,
		"count": count, "bytes": bytesText, "span": spanText, "seconds": seconds,
		"maintainer": maintainerAt,
		"package":    packageAt, "arch": archAt, "suite": suiteAt, "list": listAt, "build": buildAt, "review": reviewAt,
		"view": viewAt, "feed": feedAt, "badge": badgeAt, "join": strings.Join, "static": staticAt, "short": short,
		"add": func(a, b int) int { return a + b }, "diff": diffLines,
		"grepfor": func(q string) *Grep { return &Grep{Query: q} },
		"named": func(name string, list []string) any {
			return struct {
				Name string
				List []string
			}{name, list}
		},
	}
}

// groups are what colours tell of states, with a sign and a word beside each: nothing
// is told by colour alone.
var groups = map[string]struct{ class, sign string }{
	"installed": {"done", "✔"}, "uploaded": {"done", "✔"}, "built": {"done", "✔"}, "accepted": {"done", "✔"},
	"building": {"work", "▶"}, "intake": {"work", "▶"}, "running": {"work", "▶"}, "master": {"work", "▶"},
	"needs-build": {"wait", "…"}, "dep-wait": {"wait", "…"}, "bd-uninstallable": {"wait", "…"}, "review": {"wait", "…"},
	"incoming": {"wait", "…"},
	"failed":   {"bad", "✘"}, "build-attempted": {"bad", "✘"}, "rejected": {"bad", "✘"}, "full": {"bad", "✘"},
	"stray":      {"bad", "✘"},
	"not-for-us": {"aside", "–"}, "auto-not-for-us": {"aside", "–"}, "attic": {"aside", "–"},
}

func groupOf(state string) string {
	if g, ok := groups[state]; ok {
		return g.class
	}
	return "aside"
}

// mark is a word with the sign and the colour of its group.
func mark(word, group, sign, title string) template.HTML {
	esc := template.HTMLEscapeString
	if title != "" {
		title = ` title="` + esc(title) + `"`
	}
	return template.HTML(`<span class="mark ` + group + `"` + title + `><span aria-hidden="true">` + sign + `</span> ` +
		esc(word) + `</span>`)
}

func stateMark(state string) template.HTML {
	g, ok := groups[state]
	if !ok {
		g.class, g.sign = "aside", "–"
	}
	what := ""
	if s := spool.Standard.Named(state); s != nil {
		what = strings.ReplaceAll(s.What, "`", "")
	}
	return mark(state, g.class, g.sign, what)
}

// stateShort is a state's mark in a table of many: of what is installed, as most is, only the sign is seen.
func stateShort(state string) template.HTML {
	if state != spool.Installed.Name {
		return stateMark(state)
	}
	return `<span class="mark done"><span aria-hidden="true">✔</span><span class="away">installed</span></span>`
}

// outcomeMark is that of a build: in the words of packmill log ls.
func outcomeMark(outcome string) template.HTML {
	switch {
	case outcome == buildlog.Running:
		return mark(outcome, "work", "▶", "it has not ended")
	case logs.EndingOf(outcome) == logs.Built:
		return mark(outcome, "done", "✔", "it was built")
	case logs.EndingOf(outcome) == logs.Failed:
		return mark(outcome, "bad", "✘", "the build failed")
	}
	return mark(outcome, "wait", "…", logs.EndingOf(outcome).String())
}

// age says how long ago a time was, in one unit.
func age(t time.Time) string {
	d := time.Since(t)
	switch {
	case t.IsZero():
		return ""
	case d < 0:
		return "in " + spanText(-d)
	case d < time.Minute:
		return "just now"
	}
	return spanText(d) + " ago"
}

// when is a time as people say it, exactly for who asks, and for programs.
func when(v any) template.HTML { return timeMark(v, "") }

// From these ages on what is not at its end is old, and very old: those that readers of buildd.debian.org know.
const (
	freshFor  = 24 * time.Hour
	oldFrom   = 7 * 24 * time.Hour
	staleFrom = 21 * 24 * time.Hour
)

// since is when something came into a state, in the colour of its age. What has reached its end has none: it may
// lie there for ever.
func since(state string, at time.Time) template.HTML {
	switch d := time.Since(at); {
	case state == spool.Installed.Name || groupOf(state) == "aside" || state == spool.Rejected.Name:
		return timeMark(at, "")
	case d >= staleFrom:
		return timeMark(at, "stale")
	case d >= oldFrom:
		return timeMark(at, "old")
	case d < freshFor:
		return timeMark(at, "fresh")
	}
	return timeMark(at, "")
}

// timeMark is a time, with the class of its age.
func timeMark(v any, class string) template.HTML {
	var t time.Time
	switch x := v.(type) {
	case time.Time:
		t = x
	case *time.Time:
		if x != nil {
			t = *x
		}
	}
	if t.IsZero() {
		return ""
	}
	exact := t.UTC().Format(time.RFC3339)
	if class != "" {
		class = ` class="age ` + class + `"`
	}
	return template.HTML(`<time datetime="` + exact + `" title="` + exact + `"` + class + `>` + age(t) + `</time>`)
}

func spanText(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// seconds is a span of so many seconds: "" of none.
func seconds(s float64) string {
	if s <= 0 {
		return ""
	}
	return buildlog.Span(time.Duration(s * float64(time.Second)))
}

// count is a number with room between thousands.
func count(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func bytesText(n int64) string {
	switch {
	case n <= 0:
		return ""
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

func splitLines(text string) []string { return strings.Split(strings.TrimRight(text, "\n"), "\n") }

// short is the beginning of a long text.
func short(most int, text string) string {
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + " …"
	}
	return text
}

// The addresses of pages.

func packageAt(source string) string { return "/package/" + url.PathEscape(source) }

func suiteAt(suite string) string { return "/suite/" + url.PathEscape(suite) }

func archAt(suite, arch string) string { return suiteAt(suite) + "/" + url.PathEscape(arch) }

func listAt(state, suite, arch string) string {
	q := url.Values{}
	for k, v := range map[string]string{"state": state, "suite": suite, "arch": arch} {
		if v != "" {
			q.Set(k, v)
		}
	}
	return "/list?" + q.Encode()
}

// command is a command as a shell reads it. Words that came with an address are quoted: who copies the command
// must not run what a stranger wrote into a link.
func command(words ...string) string {
	simple := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-+._/:=,", r)
	}
	for i, w := range words {
		if w == "" || strings.ContainsFunc(w, func(r rune) bool { return !simple(r) }) {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// about is the query of /events that asks for changes of these, each with its value.
func about(words ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(words); i += 2 {
		if words[i+1] != "" {
			q.Set(words[i], words[i+1])
		}
	}
	return q.Encode()
}

// startForm names a build in its address.
const startForm = "20060102T150405.000000Z"

func buildAt(b buildlog.Build) string {
	return "/build/" + url.PathEscape(b.Suite) + "/" + url.PathEscape(b.Arch) + "/" + url.PathEscape(b.ID()) + "/" +
		b.Start.UTC().Format(startForm)
}

func feedAt(kind, name string) string { return "/feed/" + kind + "/" + url.PathEscape(name) }

func badgeAt(source string) string { return "/badge/" + url.PathEscape(source) + ".svg" }

func reviewAt(suite, item string) string {
	return "/review/" + url.PathEscape(suite) + "/" + url.PathEscape(item)
}

func viewAt(name string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return "/archive/" + strings.Join(parts, "/")
}

// staticAt is the address of a file of ours, which changes with its content.
func staticAt(name string) (string, error) {
	data, err := fs.ReadFile(files, "static/"+name)
	return "/static/" + name + "?v=" + digest(data), err
}

// diffLine is a line of a unified difference, with its class.
type diffLine struct{ Class, Text string }

func diffLines(text string) (out []diffLine) {
	for _, l := range splitLines(text) {
		d := diffLine{Text: l}
		switch {
		case strings.HasPrefix(l, "+"):
			d.Class = "plus"
		case strings.HasPrefix(l, "-"):
			d.Class = "minus"
		case strings.HasPrefix(l, "@@"), strings.HasPrefix(l, "diff "):
			d.Class = "at"
		}
		out = append(out, d)
	}
	return out
}
