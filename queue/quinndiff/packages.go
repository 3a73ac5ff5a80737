package quinndiff

import (
	"bytes"
	"fmt"
	"io"

	"packmill/internal/deb822"
	"packmill/internal/policy"
)

// Packages is what the Packages indexes of ONE architecture say, which list
// the packages for all too. The zero value is empty and ready. It is not safe
// for use by several goroutines while Add runs.
type Packages struct {
	// Refused tells of entries that were left out because a name or a
	// version in them is not valid.
	Refused []error

	list     []installed
	bySource map[string]int32 // first in list
	byName   map[string]int32 // first in list
	words    interned
}

// installed is one binary package of the archive.
type installed struct {
	name    string
	source  string
	version string // of the source
	arch    string
	binNMU  int
	next    int32 // of the same source, -1 at the end
	twin    int32 // of the same name, -1 at the end
}

// Len returns the number of binary packages.
func (p *Packages) Len() int { return len(p.list) }

// Has reports whether the binary package is there, in any version; in nil there is none.
func (p *Packages) Has(name string) bool {
	if p == nil {
		return false
	}
	_, ok := p.byName[name]
	return ok
}

// Add reads a Packages index. An error is one of reading or of the index's
// form; what was read before it stays.
func (p *Packages) Add(r io.Reader) error {
	if p.bySource == nil {
		p.bySource = make(map[string]int32)
		p.byName = make(map[string]int32)
	}
	sc := deb822.NewScanner(r)
	for sc.Next() {
		if err := p.add(sc); err != nil {
			p.Refused = append(p.Refused, &deb822.Error{File: sc.File, Line: sc.Line(), Msg: err.Error()})
		}
	}
	return sc.Err()
}

func (p *Packages) add(sc *deb822.Scanner) error {
	name := string(sc.Get("Package"))
	if err := policy.CheckPackage(name); err != nil {
		return err
	}
	one := installed{name: name, source: name, arch: p.words.add(sc.Get("Architecture"))}
	version := sc.Get("Version")
	if err := policy.CheckVersion(string(version)); err != nil {
		return fmt.Errorf("package %s: %w", name, err)
	}
	// Source: name, or name (version) where the version differs (Policy 5.6.1).
	source, of := sc.Get("Source"), []byte(nil)
	if i := bytes.IndexByte(source, '('); i >= 0 && source[len(source)-1] == ')' {
		source, of = bytes.TrimRight(source[:i], " "), source[i+1:len(source)-1]
	}
	var first, found = int32(0), false
	if len(source) == 0 {
		first, found = p.bySource[name]
	} else if first, found = p.bySource[string(source)]; !found && string(source) != name {
		one.source = string(source)
		if err := policy.CheckSource(one.source); err != nil {
			return fmt.Errorf("package %s: %w", name, err)
		}
	}
	if of == nil {
		of = version
	} else if err := policy.CheckVersion(string(of)); err != nil {
		return fmt.Errorf("package %s: source %w", name, err)
	}
	if found {
		one.source = p.list[first].source
		if before := p.list[first].version; before == string(of) {
			one.version = before // most binaries of a source have one version
		}
	}
	if one.version == "" {
		one.version = string(of)
	}
	if n := binNMU(version); n > 0 && binNMU(of) != n {
		one.binNMU = n
	}
	one.next, one.twin = -1, -1
	if found {
		one.next = first
	}
	if twin, ok := p.byName[name]; ok {
		one.twin = twin
		one.name = p.list[twin].name
	}
	p.list = append(p.list, one)
	p.bySource[one.source] = int32(len(p.list) - 1)
	p.byName[one.name] = int32(len(p.list) - 1)
	return nil
}

// binNMU returns N of a version that ends in +bN, or 0.
func binNMU(version []byte) int {
	i := bytes.LastIndex(version, []byte("+b"))
	if i < 0 || len(version)-i-2 > 6 || i+2 == len(version) {
		return 0
	}
	n := 0
	for _, c := range version[i+2:] {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + int(c-'0')
	}
	return n
}
