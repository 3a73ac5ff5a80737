package debtest

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Part is a file that a paper lists.
type Part struct {
	Name string
	Body []byte
}

// Dsc is what a .dsc says.
type Dsc struct {
	Format, Source, Version string
	Arch                    string
	Binary                  []string
	All                     []string // of those, which are for all; the others are for Arch without all
	Maintainer              string
	Section, Priority       string
	Fields                  string // further lines, each ended by "\n"
	Parts                   []Part
}

// Text is the .dsc, unsigned, as dpkg-source writes it.
func (d Dsc) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Format: %s\nSource: %s\nBinary: %s\nArchitecture: %s\nVersion: %s\nMaintainer: %s\n"+
		"Standards-Version: 4.6.2\n%sPackage-List:\n",
		d.Format, d.Source, strings.Join(d.Binary, ", "), d.Arch, d.Version, d.Maintainer, d.Fields)
	for _, name := range d.Binary {
		fmt.Fprintf(&b, " %s deb %s %s arch=%s\n", name, d.Section, d.Priority, strings.ReplaceAll(d.archOf(name), " ", ","))
	}
	return b.String() + sums("", d.Parts)
}

func (d Dsc) archOf(name string) string {
	switch {
	case slices.Contains(d.All, name):
		return "all"
	case d.All != nil:
		return strings.TrimSuffix(d.Arch, " all")
	}
	return d.Arch
}

// Changes is what a .changes says.
type Changes struct {
	Source, Version       string // Source with the version of its source in parentheses, if that is another
	Date                  time.Time
	Binary                []string // none in a source-only upload
	Archs                 []string
	Distribution, Urgency string
	Maintainer, ChangedBy string
	Section, Priority     string
	BinaryOnly            bool
	Closes                []string
	Description           string // of each binary package
	Entry                 string // of the changelog
	Parts                 []Part
}

// Text is the .changes, unsigned, as dpkg-genchanges writes it.
func (c Changes) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Format: 1.8\nDate: %s\nSource: %s\n", c.Date.Format(time.RFC1123Z), c.Source)
	if c.BinaryOnly {
		b.WriteString("Binary-Only: yes\n")
	}
	if len(c.Binary) > 0 {
		fmt.Fprintf(&b, "Binary: %s\n", strings.Join(c.Binary, " "))
	}
	fmt.Fprintf(&b, "Architecture: %s\nVersion: %s\nDistribution: %s\nUrgency: %s\nMaintainer: %s\nChanged-By: %s\n",
		strings.Join(c.Archs, " "), c.Version, c.Distribution, c.Urgency, c.Maintainer, c.ChangedBy)
	if len(c.Binary) > 0 {
		b.WriteString("Description:\n")
	}
	for _, name := range c.Binary {
		fmt.Fprintf(&b, " %s - %s\n", name, c.Description)
	}
	if len(c.Closes) > 0 {
		fmt.Fprintf(&b, "Closes: %s\n", strings.Join(c.Closes, " "))
	}
	source, _, _ := strings.Cut(c.Source, " ")
	fmt.Fprintf(&b, "Changes:\n %s (%s) %s; urgency=%s\n .\n   * %s\n",
		source, c.Version, c.Distribution, c.Urgency, c.Entry)
	return b.String() + sums(c.Section+" "+c.Priority+" ", c.Parts)
}

// sums are the three checksum fields; in a .changes, Files bears the section.
func sums(section string, parts []Part) string {
	var a, b, c strings.Builder
	for _, p := range parts {
		fmt.Fprintf(&a, " %x %d %s\n", sha1.Sum(p.Body), len(p.Body), p.Name)
		fmt.Fprintf(&b, " %x %d %s\n", sha256.Sum256(p.Body), len(p.Body), p.Name)
		fmt.Fprintf(&c, " %x %d %s%s\n", md5.Sum(p.Body), len(p.Body), section, p.Name)
	}
	return "Checksums-Sha1:\n" + a.String() + "Checksums-Sha256:\n" + b.String() + "Files:\n" + c.String()
}
