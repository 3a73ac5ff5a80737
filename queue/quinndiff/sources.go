package quinndiff

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"packmill/internal/deb822"
	"packmill/internal/policy"
)

// Sources is what Sources indexes say: of each source package the newest
// version. The zero value is empty and ready. It is not safe for use by
// several goroutines while Add runs.
type Sources struct {
	// Profiles, if set, are the build profiles with which a source is built: of its
	// packages only those count that are made with them. It is set before Add.
	Profiles func(source string) []string

	// Refused tells of entries that were left out because a name, a version
	// or an architecture in them is not valid.
	Refused []error

	list   []source
	byName map[string]int32
	archs  archLists
	words  interned
}

type source struct {
	name, version     string
	section, priority string
	archs             int32 // in archLists
	complete          bool  // binaries come from Package-List: types and architectures are known
	binaries          []binary
}

type binary struct {
	name      string
	component string // main, or what is before the slash of its section
	archs     int32  // in archLists; of no meaning without Package-List
	udeb      bool
}

// archLists keeps each Architecture list once, so that a wildcard is matched
// once for all sources that have it.
type archLists struct {
	lists [][]string
	index map[string]int32
}

func (a *archLists) add(words []byte) (int32, error) {
	if i, ok := a.index[string(words)]; ok {
		return i, nil
	}
	list, err := policy.ArchList(string(words))
	if err != nil {
		return 0, err
	}
	if a.index == nil {
		a.index = make(map[string]int32)
	}
	i := int32(len(a.lists))
	a.lists = append(a.lists, list)
	a.index[string(words)] = i
	return i, nil
}

// interned keeps words that come again and again once.
type interned map[string]string

func (in *interned) add(b []byte) string {
	if s, ok := (*in)[string(b)]; ok {
		return s
	}
	if *in == nil {
		*in = make(map[string]string)
	}
	s := string(b)
	(*in)[s] = s
	return s
}

// Len returns the number of source packages.
func (s *Sources) Len() int { return len(s.list) }

// Add reads a Sources index. Of one source in several versions the newest
// counts, whatever the order; entries that are Extra-Source-Only (kept only
// because a binary was built with them) do not count at all. An error is one
// of reading or of the index's form; what was read before it stays.
func (s *Sources) Add(r io.Reader) error {
	if s.byName == nil {
		s.byName = make(map[string]int32)
	}
	sc := deb822.NewScanner(r)
	for sc.Next() {
		if string(sc.Get("Extra-Source-Only")) == "yes" {
			continue
		}
		src, err := s.read(sc)
		if err != nil {
			s.Refused = append(s.Refused, &deb822.Error{File: sc.File, Line: sc.Line(), Msg: err.Error()})
			continue
		}
		if i, ok := s.byName[src.name]; !ok {
			s.byName[src.name] = int32(len(s.list))
			s.list = append(s.list, src)
		} else if policy.CompareVersions(src.version, s.list[i].version) > 0 {
			s.list[i] = src
		}
	}
	return sc.Err()
}

func (s *Sources) read(sc *deb822.Scanner) (src source, err error) {
	name := sc.Get("Package")
	if name == nil {
		name = sc.Get("Source") // as in a .dsc
	}
	src.name, src.version = string(name), string(sc.Get("Version"))
	if err := policy.CheckSource(src.name); err != nil {
		return src, err
	}
	if err := policy.CheckVersion(src.version); err != nil {
		return src, fmt.Errorf("source %s: %w", src.name, err)
	}
	if src.archs, err = s.archs.add(sc.Get("Architecture")); err != nil {
		return src, fmt.Errorf("source %s: %w", src.name, err)
	}
	if src.section, err = s.word(sc, "Section"); err != nil {
		return src, err
	}
	if src.priority, err = s.word(sc, "Priority"); err != nil {
		return src, err
	}
	if list := sc.Get("Package-List"); list != nil {
		src.complete = true
		if err := s.packageList(&src, list); err != nil {
			return src, fmt.Errorf("source %s: Package-List: %w", src.name, err)
		}
		return src, nil
	}
	rest := string(sc.Get("Binary"))
	for rest != "" {
		var one string
		one, rest, _ = strings.Cut(rest, ",")
		if one = strings.Trim(one, " \t\n"); one == "" {
			continue
		}
		if err := policy.CheckPackage(one); err != nil {
			return src, fmt.Errorf("source %s: Binary: %w", src.name, err)
		}
		src.binaries = append(src.binaries, binary{name: one})
	}
	return src, nil
}

// word returns a field that is one word or absent; it stands in lines and
// file names.
func (s *Sources) word(sc *deb822.Scanner, field string) (string, error) {
	value := sc.Get(field)
	for _, c := range value {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("+-./_", c) >= 0) {
			return "", fmt.Errorf("source %s: %s %.40q is not one word of letters, digits, '+', '-', '.', '/' and '_'",
				sc.Get("Package"), field, value)
		}
	}
	return s.words.add(value), nil
}

// packageList reads lines of name, type, section, priority and key=value
// pairs (Policy 5.6.27, deb-src-control(5)). A line of a package that only a
// build profile makes is left out.
func (s *Sources) packageList(src *source, list []byte) error {
	text := string(list) // the names are parts of it
	best := len(priorities)
	src.binaries = make([]binary, 0, strings.Count(text, "\n")+1)
	for rest := text; rest != ""; {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		words, n, arch, always := s.listed(line, src.name)
		if n == 0 || !always {
			continue
		}
		if n < len(words) {
			return fmt.Errorf("line of %s has %d words, not a name, type, section and priority", words[0], n)
		}
		if words[1] != "deb" && words[1] != "udeb" {
			continue
		}
		if err := policy.CheckPackage(words[0]); err != nil {
			return err
		}
		b := binary{name: words[0], component: "main", udeb: words[1] == "udeb"}
		if component, _, ok := strings.Cut(words[2], "/"); ok {
			b.component = component
		}
		if arch == "" {
			// Written before dpkg 1.17.7: the source's own list is all that is known.
			src.complete = false
		} else {
			var err error
			if b.archs, err = s.archs.add(bytes.ReplaceAll([]byte(arch), []byte(","), []byte(" "))); err != nil {
				return fmt.Errorf("line of %s: %w", words[0], err)
			}
		}
		src.binaries = append(src.binaries, b)
		if i := slices.Index(priorities[:best], words[3]); i >= 0 {
			best = i
		}
	}
	// Sources indexes say "source" for the priority of most entries.
	if (src.priority == "" || src.priority == "source") && best < len(priorities) {
		src.priority = priorities[best]
	}
	return nil
}

// listed takes a line apart: its first four words and how many of them there are, the
// architectures, and whether the package is made with the source's profiles.
func (s *Sources) listed(line, source string) (words [4]string, n int, arch string, always bool) {
	always = true
	for line != "" {
		var word string
		word, line, _ = strings.Cut(line, " ")
		switch {
		case word == "":
		case n < len(words):
			words[n] = word
			n++
		case strings.HasPrefix(word, "arch="):
			arch = word[len("arch="):]
		case strings.HasPrefix(word, "profile="):
			always = holds(word[len("profile="):], s.profilesOf(source))
		}
	}
	return words, n, arch, always
}

// priorities of Policy 2.5, most urgent first.
var priorities = []string{"required", "important", "standard", "optional", "extra"}

func (s *Sources) profilesOf(source string) []string {
	if s.Profiles == nil {
		return nil
	}
	return s.Profiles(source)
}

// holds reports whether a profile= value holds with these profiles: one of the
// conjunctions, which '+' joins, must have active words and negated ones that are
// not. Words are joined with ','.
func holds(value string, active []string) bool {
	for conj := range strings.SplitSeq(value, "+") {
		holds := true
		for word := range strings.SplitSeq(conj, ",") {
			name, not := strings.CutPrefix(word, "!")
			holds = holds && slices.Contains(active, name) != not
		}
		if holds {
			return true
		}
	}
	return false
}
