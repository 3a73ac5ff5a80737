package upload

import (
	"fmt"
	"slices"
	"strings"

	"packmill/internal/compression"
	"packmill/internal/deb822"
	"packmill/internal/paper"
	"packmill/internal/policy"
)

// File is one file that a .changes or a .dsc lists.
type File = paper.File

// Changes is a .changes file (Debian Policy 5.5). What is optional and missing is empty.
type Changes struct {
	Stanza        deb822.Stanza
	Format        string
	Source        string // the name alone
	SourceVersion string // what stands in brackets after the name (binNMUs), else Version
	Version       string
	Distribution  string
	Architectures []string
	Binary        []string
	BinaryOnly    bool
	Urgency       string // the word alone, lower case
	Maintainer    string
	ChangedBy     string
	Date          string
	Closes        []string
	Files         []File
}

// Dsc is a Debian source control file (Debian Policy 5.4).
type Dsc struct {
	Stanza        deb822.Stanza
	Format        string
	Source        string
	Version       string
	Binary        []string
	Packages      []string // the names in Package-List and in Binary, each once
	Architectures []string
	Maintainer    string
	Uploaders     string
	Section       string // of the first entry of Package-List
	Priority      string
	Files         []File
}

// problems collects what is wrong with a file's text.
type problems []string

func (p *problems) addf(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }

func (p *problems) check(err error) {
	if err != nil {
		*p = append(*p, err.Error())
	}
}

// ParseChanges reads the text of a .changes: the signed part, without the
// signature. name is its file name, for errors. The file lists must agree with each other.
func ParseChanges(name string, text []byte) (*Changes, error) {
	c, bad, err := parseChanges(name, text)
	if err != nil {
		return nil, err
	}
	if len(bad) > 0 {
		return nil, fmt.Errorf("%s", strings.Join(bad, "; "))
	}
	return c, nil
}

// ParseDsc reads the text of a .dsc, as ParseChanges does.
func ParseDsc(name string, text []byte) (*Dsc, error) {
	d, bad, err := parseDsc(name, text)
	if err != nil {
		return nil, err
	}
	if len(bad) > 0 {
		return nil, fmt.Errorf("%s", strings.Join(bad, "; "))
	}
	return d, nil
}

// few bounds the words of a field that is a list: all that follow would be looked
// at more than once.
func (p *problems) few(owner, field string, words []string) []string {
	limit := DefaultLimits.Words
	if field == "Architecture" {
		limit = maxArchs
	}
	if len(words) <= limit {
		return words
	}
	p.addf("%s: %s has more than %d words; split the upload", show(owner), field, limit)
	return words[:limit]
}

// maxArchs is the number of words that Architecture may have: dpkg knows 600.
const maxArchs = 1000

// parseChanges returns an error if the text is no stanza at all, and otherwise
// all that is wrong with it at once.
func parseChanges(name string, text []byte) (*Changes, problems, error) {
	st, err := deb822.ParseOne(show(name), text, deb822.Hostile)
	if err != nil {
		return nil, nil, err
	}
	var bad problems
	c := &Changes{
		Stanza:        *st,
		Format:        st.Get("Format"),
		Version:       st.Get("Version"),
		Distribution:  st.Get("Distribution"),
		Architectures: bad.few(name, "Architecture", deb822.Words(st.Get("Architecture"))),
		Binary:        bad.few(name, "Binary", deb822.Words(st.Get("Binary"))),
		BinaryOnly:    strings.EqualFold(st.Get("Binary-Only"), "yes"),
		Maintainer:    st.Get("Maintainer"),
		ChangedBy:     st.Get("Changed-By"),
		Date:          st.Get("Date"),
		Closes:        bad.few(name, "Closes", deb822.Words(st.Get("Closes"))),
	}
	for _, f := range []string{"Format", "Date", "Source", "Architecture", "Version", "Distribution", "Maintainer",
		"Changes", "Files", "Checksums-Sha256"} {
		if st.Get(f) == "" {
			bad.addf("%s: field %s is missing or empty; dpkg-genchanges writes it", show(name), f)
		}
	}
	if words := deb822.Words(st.Get("Urgency")); len(words) > 0 {
		c.Urgency = strings.ToLower(words[0])
	}
	c.Source, c.SourceVersion = c.Stanza.Get("Source"), c.Version
	if src, rest, ok := strings.Cut(c.Source, " ("); ok {
		v, closed := strings.CutSuffix(rest, ")")
		c.Source, c.SourceVersion = src, v
		if !closed {
			bad.addf("%s: Source is %s; write the name, or the name and the version in brackets",
				show(name), quote(st.Get("Source")))
		} else if policy.CheckVersion(v) != nil {
			bad.addf("%s: the version in brackets in Source, %s, is not valid; dpkg-genchanges writes it", show(name), quote(v))
		}
	}
	if c.Source != "" {
		bad.check(policy.CheckSource(c.Source))
	}
	if c.Version != "" {
		bad.check(policy.CheckVersion(c.Version))
	}
	c.Files = parseFiles(st, name, paper.Long, &bad)
	return c, bad, nil
}

func parseDsc(name string, text []byte) (*Dsc, problems, error) {
	st, err := deb822.ParseOne(show(name), text, deb822.Hostile)
	if err != nil {
		return nil, nil, err
	}
	var bad problems
	d := &Dsc{
		Stanza:        *st,
		Format:        st.Get("Format"),
		Source:        st.Get("Source"),
		Version:       st.Get("Version"),
		Architectures: bad.few(name, "Architecture", deb822.Words(st.Get("Architecture"))),
		Maintainer:    st.Get("Maintainer"),
		Uploaders:     st.Get("Uploaders"),
	}
	for b := range strings.SplitSeq(st.Get("Binary"), ",") {
		d.Binary = append(d.Binary, deb822.Words(b)...)
	}
	d.Binary = bad.few(name, "Binary", d.Binary)
	for _, f := range []string{"Format", "Source", "Version", "Maintainer", "Architecture", "Files", "Checksums-Sha256"} {
		if st.Get(f) == "" {
			bad.addf("%s: field %s is missing or empty; dpkg-source writes it", show(name), f)
		}
	}
	if d.Source != "" {
		bad.check(policy.CheckSource(d.Source))
	}
	if d.Version != "" {
		bad.check(policy.CheckVersion(d.Version))
	}
	for line := range strings.SplitSeq(st.Get("Package-List"), "\n") {
		w := deb822.Words(line)
		if len(w) >= 4 && d.Section == "" {
			d.Section, d.Priority = w[2], w[3]
		}
		if len(w) > 0 {
			d.Packages = append(d.Packages, w[0])
		}
	}
	d.Packages = append(d.Packages, d.Binary...)
	slices.Sort(d.Packages)
	d.Packages = slices.Compact(d.Packages)
	d.Files = parseFiles(st, name, paper.Short, &bad)
	return d, bad, nil
}

// parseFiles reads the file lists of a paper.
func parseFiles(st *deb822.Stanza, owner string, form paper.Form, bad *problems) []File {
	files, wrong := paper.Lists(st, form)
	for _, w := range wrong {
		bad.addf("%s: %s", show(owner), w.Text)
	}
	return files
}

// Lists reports whether the .changes lists a file of this name.
func (c *Changes) Lists(name string) bool {
	return slices.ContainsFunc(c.Files, func(f File) bool { return f.Name == name })
}

// HasSource reports whether the upload says that it brings a source package.
func (c *Changes) HasSource() bool { return slices.Contains(c.Architectures, "source") }

// File returns the file of this name, or nil.
func (d *Dsc) File(name string) *File {
	for i := range d.Files {
		if d.Files[i].Name == name {
			return &d.Files[i]
		}
	}
	return nil
}

// component splits a Section into component and section: contrib/libs (Policy 2.4).
func component(section string) (comp, rest string) {
	if i := strings.LastIndexByte(section, '/'); i >= 0 {
		return section[:i], section[i+1:]
	}
	return "main", section
}

// kind is what a file of an upload is, by its name.
type kind string

const (
	kindDsc       kind = "dsc"
	kindTar       kind = "tar"
	kindDiff      kind = "diff"
	kindAsc       kind = "asc"
	kindDeb       kind = "deb"
	kindUdeb      kind = "udeb"
	kindBuildinfo kind = "buildinfo"
	kindOther     kind = "other"
)

func kindOf(name string) kind {
	switch {
	case strings.HasSuffix(name, ".dsc"):
		return kindDsc
	case strings.HasSuffix(name, ".diff.gz"):
		return kindDiff
	case strings.HasSuffix(name, ".asc"):
		return kindAsc
	case strings.HasSuffix(name, ".deb"), strings.HasSuffix(name, ".ddeb"):
		return kindDeb
	case strings.HasSuffix(name, ".udeb"):
		return kindUdeb
	case strings.HasSuffix(name, ".buildinfo"):
		return kindBuildinfo
	}
	if rest, _ := compression.Cut(name); strings.HasSuffix(rest, ".tar") {
		return kindTar
	}
	return kindOther
}
