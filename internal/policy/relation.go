package policy

import (
	"errors"
	"fmt"
	"strings"
)

// Relation is one alternative of a relation (Policy 7.1), such as
//
//	gcc:native (>= 12) [linux-any !amd64] <!nocheck> <cross>
type Relation struct {
	Name      string
	Qualifier string     // after the colon: any, native or an architecture; "" if absent
	Op        string     // << <= = >= >>; "" if any version will do
	Version   string     // with Op
	Archs     []string   // in [], each maybe with '!'; nil if absent
	Profiles  [][]string // each <> is a conjunction, one of them must hold; nil if absent
}

// Relations is a field's value: all of the outer, one of each inner.
type Relations [][]Relation

// Bounds of what ParseRelations takes.
const (
	maxRelations    = 20_000
	maxRestrictions = 500
)

// ParseRelations parses the value of Depends, Build-Depends, Conflicts and
// their like, on one line or many, as dpkg does: empty items between commas
// are skipped, < and > are the obsolete <= and >=. Substitution variables are
// refused, as are versions and names that dpkg refuses.
func ParseRelations(field string) (Relations, error) {
	p := parser{s: field}
	var all Relations
	for {
		for p.blank(); p.take(','); p.blank() {
		}
		if p.i == len(p.s) {
			return all, nil
		}
		begin := p.i
		var or []Relation
		for {
			r, err := p.relation()
			if err != nil {
				return nil, fmt.Errorf("relation %s: %w", p.quote(begin), err)
			}
			if p.count++; p.count > maxRelations {
				return nil, fmt.Errorf("more than %d relations in one field; remove some", maxRelations)
			}
			or = append(or, r)
			if !p.take('|') {
				break
			}
		}
		if p.i < len(p.s) && p.s[p.i] != ',' {
			return nil, fmt.Errorf("relation %s: %s after its end; separate relations with a comma",
				p.quote(begin), first(p.s[p.i:]))
		}
		all = append(all, or)
	}
}

var errSubstitution = errors.New("a substitution variable has no place here; " +
	"build the source package again so that dpkg replaces it")

// parser reads relations; i never goes back.
type parser struct {
	s     string
	i     int
	count int
}

func (p *parser) blank() {
	for p.i < len(p.s) && isBlank(p.s[p.i]) {
		p.i++
	}
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' }

func (p *parser) take(c byte) bool {
	if p.i < len(p.s) && p.s[p.i] == c {
		p.i++
		return true
	}
	return false
}

// word takes characters that are ok.
func (p *parser) word(ok func(byte) bool) string {
	begin := p.i
	for p.i < len(p.s) && ok(p.s[p.i]) {
		p.i++
	}
	return p.s[begin:p.i]
}

// quote shows the relation that begins at begin, shortened.
func (p *parser) quote(begin int) string {
	s := p.s[begin:]
	if i := strings.IndexByte(s, ','); i >= 0 {
		s = s[:i]
	}
	if len(s) > 80 {
		return fmt.Sprintf("%q...", s[:80])
	}
	return fmt.Sprintf("%q", strings.Trim(s, " \t\n"))
}

// relation reads one alternative and the blanks after it.
func (p *parser) relation() (r Relation, err error) {
	p.blank()
	if p.i == len(p.s) || p.s[p.i] == ',' || p.s[p.i] == '|' {
		return r, fmt.Errorf("an alternative is missing beside '|'; write a package name or remove the '|'")
	}
	if p.s[p.i] == '$' {
		return r, errSubstitution
	}
	r.Name = p.word(func(c byte) bool { return alnum(c) || c == '+' || c == '-' || c == '.' })
	if r.Name == "" || !alnum(r.Name[0]) {
		return r, fmt.Errorf("no package name; begin with letters, digits, '+', '-' and '.'")
	}
	if len(r.Name) > MaxName {
		return r, tooLong("package name", r.Name, MaxName)
	}
	if p.take(':') {
		r.Qualifier = p.word(func(c byte) bool { return alnum(c) || c == '-' })
		if r.Qualifier == "" || r.Qualifier[0] == '-' {
			return r, fmt.Errorf("no architecture after ':'; write :any, :native or an architecture")
		}
	}
	p.blank()
	if p.take('(') {
		if err := p.version(&r); err != nil {
			return r, err
		}
	}
	if p.take('[') {
		if r.Archs, err = p.words(']', "architecture"); err != nil {
			return r, err
		}
	}
	for p.take('<') {
		conj, err := p.words('>', "build profile")
		if err != nil {
			return r, err
		}
		if r.Profiles = append(r.Profiles, conj); len(r.Profiles) > maxRestrictions {
			return r, fmt.Errorf("more than %d build profile lists; remove some", maxRestrictions)
		}
		p.blank()
	}
	return r, nil
}

// version reads the inside of (), and the blanks after it.
func (p *parser) version(r *Relation) error {
	p.blank()
	switch op := p.word(func(c byte) bool { return c == '<' || c == '>' || c == '=' }); op {
	case "<<", "<=", "=", ">=", ">>":
		r.Op = op
	case "<", ">":
		r.Op = op + "="
	default:
		return fmt.Errorf("no such comparison: %q; write <<, <=, =, >= or >>", op)
	}
	p.blank()
	r.Version = p.word(func(c byte) bool { return !isBlank(c) && c != ')' })
	if strings.HasPrefix(r.Version, "$") {
		return errSubstitution
	}
	if err := CheckVersion(r.Version); err != nil {
		return err
	}
	p.blank()
	if !p.take(')') {
		return fmt.Errorf("no ')' after the version; write (%s %s)", r.Op, r.Version)
	}
	p.blank()
	return nil
}

// words reads the inside of [] or <>, and the blanks after it.
func (p *parser) words(end byte, what string) ([]string, error) {
	var list []string
	for {
		p.blank()
		if p.take(end) {
			break
		}
		begin := p.i
		p.take('!')
		name := p.word(func(c byte) bool { return alnum(c) || c == '-' || what != "architecture" && (c == '.' || c == '+') })
		switch {
		case p.i == len(p.s):
			return nil, fmt.Errorf("no %q after the %s list; add it", end, what)
		case name == "" && p.s[p.i] == end:
			return nil, fmt.Errorf("no %s after '!'; add its name", what)
		case name == "":
			return nil, fmt.Errorf("%s in the %s list; write names, each with a '!' before it or not", first(p.s[p.i:]), what)
		case !alnum(name[0]):
			return nil, fmt.Errorf("%s %q begins with %s; begin it with a letter or digit", what, name, first(name))
		case len(name) > 2*MaxName: // pkg.SOURCE.ANYTHING
			return nil, tooLong(what, name, 2*MaxName)
		}
		if list = append(list, p.s[begin:p.i]); len(list) > maxRestrictions {
			return nil, fmt.Errorf("more than %d words in the %s list; remove some", maxRestrictions, what)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("the %s list is empty; remove it, or name one", what)
	}
	p.blank()
	return list, nil
}

// buildRelations are the fields of a source package that hold relations (Debian Policy 7.7).
var buildRelations = []string{
	"Build-Depends", "Build-Depends-Indep", "Build-Depends-Arch", "Build-Conflicts", "Build-Conflicts-Indep",
	"Build-Conflicts-Arch",
}

// CheckBuildRelations says which of a source package's relations cannot be read,
// each in an error that begins with its field.
func CheckBuildRelations(get func(field string) string) (all []error) {
	for _, field := range buildRelations {
		if _, err := ParseRelations(get(field)); err != nil {
			all = append(all, fmt.Errorf("%s: %w", field, err))
		}
	}
	return all
}

// For returns the relations that hold on the concrete architecture under the
// build profiles, without their lists of those. An alternative that does not
// hold is left out; so is an item of which no alternative is left.
func (r Relations) For(arch string, profiles []string) Relations {
	out := make(Relations, 0, len(r))
	for _, or := range r {
		var kept []Relation
		for _, rel := range or {
			if rel.appliesTo(arch) && rel.appliesUnder(profiles) {
				rel.Archs, rel.Profiles = nil, nil
				kept = append(kept, rel)
			}
		}
		if kept != nil {
			out = append(out, kept)
		}
	}
	return out
}

func (r *Relation) appliesTo(arch string) bool {
	return r.Archs == nil || Concerns(r.Archs, arch)
}

// Concerns reports whether a list of architectures and wildcards, each with
// '!' before it or not, takes in the concrete architecture (Policy 7.1). It
// reads as dpkg does: the first word that matches decides; if none does, the
// list must have a word with '!'.
func Concerns(list []string, arch string) bool {
	applies := false
	for _, word := range list {
		word = strings.ToLower(word)
		if not, ok := strings.CutPrefix(word, "!"); ok {
			if archMatches(arch, not) {
				return false
			}
			applies = true
		} else if archMatches(arch, word) {
			return true
		}
	}
	return applies
}

func (r *Relation) appliesUnder(profiles []string) bool {
	if r.Profiles == nil {
		return true
	}
	for _, conj := range r.Profiles {
		if holds(conj, profiles) {
			return true
		}
	}
	return false
}

func holds(conj, profiles []string) bool {
	for _, word := range conj {
		name, not := strings.CutPrefix(word, "!")
		active := false
		for _, p := range profiles {
			active = active || p == name
		}
		if active == not {
			return false
		}
	}
	return true
}

// SatisfiedBy reports whether a package of this version, and of the right name
// and architecture, satisfies the relation.
func (r Relation) SatisfiedBy(version string) bool {
	if r.Op == "" {
		return true
	}
	c := CompareVersions(version, r.Version)
	switch r.Op {
	case "<<":
		return c < 0
	case "<=":
		return c <= 0
	case "=":
		return c == 0
	case ">=":
		return c >= 0
	case ">>":
		return c > 0
	}
	return false
}

// String returns the relations on one line, in dpkg's form.
func (r Relations) String() string {
	var b strings.Builder
	for i, or := range r {
		if i > 0 {
			b.WriteString(", ")
		}
		for j, rel := range or {
			if j > 0 {
				b.WriteString(" | ")
			}
			rel.write(&b)
		}
	}
	return b.String()
}

// String returns the relation in dpkg's form.
func (r Relation) String() string {
	var b strings.Builder
	r.write(&b)
	return b.String()
}

func (r *Relation) write(b *strings.Builder) {
	b.WriteString(r.Name)
	if r.Qualifier != "" {
		b.WriteString(":" + r.Qualifier)
	}
	if r.Op != "" {
		b.WriteString(" (" + r.Op + " " + r.Version + ")")
	}
	if r.Archs != nil {
		b.WriteString(" [" + strings.Join(r.Archs, " ") + "]")
	}
	for _, conj := range r.Profiles {
		b.WriteString(" <" + strings.Join(conj, " ") + ">")
	}
}
