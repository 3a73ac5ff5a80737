package pages

import (
	"bytes"
	_ "embed"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"text/template"
	"time"
	"unicode/utf8"

	debian "packmill/internal/policy"
	"packmill/spool"
)

// badges are small pictures for other people's pages: /badge/NAME.svg, with ?suite= and ?arch=
// to say less.
func (s *Site) badges() {
	s.Handle("GET /badge/{name}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.ready(w, r) {
			return
		}
		source, q := strings.TrimSuffix(r.PathValue("name"), ".svg"), r.URL.Query()
		says := s.badgeOf(source, q.Get("suite"), q.Get("arch"))
		says.Name = source
		if suite := q.Get("suite"); suite != "" {
			says.Name += " in " + suite
		}
		body, err := says.draw()
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "image/svg+xml")
		h.Set("Cache-Control", "max-age=60")
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
		h.Set("ETag", `"`+digest(body)+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}))
}

// badge is what a picture says: the name, and a word with its sign and colour.
type badge struct {
	Name         string
	Sign, Word   string
	Colour       string
	NameW, WordW int // widths
	Left, Right  int // with margins
	Whole, WordX int
}

// worst are the groups of states, the one that matters most first, with their colours: white text
// on them has a contrast of more than 6.
var worst = []struct{ group, colour string }{
	{"bad", "#a3340a"}, {"work", "#6b4c00"}, {"wait", "#595959"}, {"done", "#005a8c"}, {"aside", "#7a3e77"},
}

// badgeOf says of the newest version what is the worst of it.
func (s *Site) badgeOf(source, suite, arch string) badge {
	newest := ""
	states := map[string][]string{}
	for _, f := range s.view.Package(source) {
		if suite != "" && f.Place.Suite != suite || arch != "" && f.Arch() != arch ||
			f.Place.State == spool.Attic || f.Place.State == spool.Master {
			continue
		}
		if newest == "" || debian.CompareVersions(f.Name.Version, newest) > 0 {
			newest, states = f.Name.Version, map[string][]string{}
		}
		if f.Name.Version == newest {
			name := f.Place.State.Name
			states[name] = append(states[name], f.Arch())
		}
	}
	for _, w := range worst {
		for _, name := range slices.Sorted(maps.Keys(states)) {
			if g := groups[name]; g.class == w.group {
				return badge{Sign: g.sign, Colour: w.colour, Word: newest + " " + name + on(states[name])}
			}
		}
	}
	return badge{Sign: "–", Colour: "#595959", Word: "not here"}
}

// on names the architectures, where there are few.
func on(archs []string) string {
	archs = slices.DeleteFunc(archs, func(a string) bool { return a == "" || a == spool.SourceArch })
	slices.Sort(archs)
	switch archs = slices.Compact(archs); {
	case len(archs) == 0:
		return ""
	case len(archs) <= 3:
		return " on " + strings.Join(archs, ", ")
	}
	return fmt.Sprintf(" on %d architectures", len(archs))
}

// letter is how wide a letter is drawn, whatever the font would have: textLength says it.
const letter, margin = 7, 8

//go:embed badge.svg
var badgeText string

var badgeSVG = template.Must(template.New("badge").Parse(badgeText))

func (b badge) draw() ([]byte, error) {
	b.Name, b.Word = visible(b.Name), visible(b.Sign+" "+b.Word)
	b.NameW, b.WordW = utf8.RuneCountInString(b.Name)*letter, utf8.RuneCountInString(b.Word)*letter
	b.Left, b.Right = b.NameW+2*margin, b.WordW+2*margin
	b.Whole, b.WordX = b.Left+b.Right, b.Left+margin
	var out bytes.Buffer
	err := badgeSVG.Execute(&out, b)
	return out.Bytes(), err
}
