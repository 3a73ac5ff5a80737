package control

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"packmill/internal/deb822"
	"packmill/queue"
)

// Words is a line that holds for some packages: a pattern, and words for them.
type Words struct {
	Packages string
	Words    []string
}

// perPackage reads lines such as "gcc-* nocheck parallel=4".
func (r *reader) perPackage(field string, check func(string) error) (out []Words) {
	for _, line := range r.lines(field) {
		words := deb822.Words(line)
		r.check(field, words[0], checkPattern)
		if len(words) == 1 {
			r.fail(field, "%q says nothing of %s; write a word after it", line, words[0])
		}
		for _, w := range words[1:] {
			r.check(field, w, check)
		}
		out = append(out, Words{words[0], words[1:]})
	}
	return out
}

// of gives the words of the last line that fits a package, and whether one does.
func of(lines []Words, source string) (words []string, ok bool) {
	for _, l := range lines {
		if (Patterns{l.Packages}).Match(source) {
			words, ok = l.Words, true
		}
	}
	return words, ok
}

// ProfilesOf are the build profiles of a job: what a person said of it, or the
// suite of its package, or of all.
func (s *Suite) ProfilesOf(t *queue.Ticket) []string {
	return chosen(t.BuildProfiles, s.PkgProfiles, s.Profiles, t.Source)
}

// OptionsOf are the words for DEB_BUILD_OPTIONS, in the same way.
func (s *Suite) OptionsOf(t *queue.Ticket) []string {
	return chosen(t.BuildOptions, s.PkgOptions, s.Options, t.Source)
}

// IndepOf is the architecture on which a source's packages for all are built: what
// its Build-Indep-Architecture says, if the suite has that, or Indep-On.
func (s *Suite) IndepOf(t *queue.Ticket) string {
	if slices.Contains(s.Architectures, t.IndepArch) {
		return t.IndepArch
	}
	return s.IndepOn
}

func chosen(job []string, lines []Words, all []string, source string) []string {
	if len(job) > 0 {
		return without(job)
	}
	if words, ok := of(lines, source); ok {
		return without(words)
	}
	return all
}

// without takes the word none away, which says that there are none.
func without(words []string) []string {
	if len(words) == 1 && words[0] == queue.None {
		return nil
	}
	return words
}

// PriorityOf is the build priority that the suite gives a source, for all its
// versions.
func (s *Suite) PriorityOf(source string) int {
	words, _ := of(s.Priority, source)
	if len(words) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(words[0]) // checked when it was read
	return n
}

func checkPoints(word string) error {
	if n, err := strconv.Atoi(word); err != nil || n < -1000 || n > 1000 {
		return fmt.Errorf("%q is no build priority: a number from -1000 to 1000", word)
	}
	return nil
}

func checkProfile(word string) error { return queue.CheckProfile(word) }
func checkOption(word string) error  { return queue.CheckOption(word) }

// weightWords reads Weights: the word wanna-build, which stands for its points,
// and NAME=POINTS of one's own.
func weightWords(value string) (standard bool, points map[string]string) {
	points = map[string]string{}
	for _, w := range strings.FieldsFunc(value, func(c rune) bool {
		return c == ',' || c == ' ' || c == '\n' || c == '\t'
	}) {
		if w == "wanna-build" {
			standard = true
			continue
		}
		name, v, _ := strings.Cut(w, "=")
		points[name] = v
	}
	return standard, points
}
