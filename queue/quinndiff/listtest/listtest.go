// Package listtest makes Sources and Packages indexes for tests and
// measurements: of Debian's size and shape, and consistent, so that every
// build-dependency can be installed.
package listtest

import (
	"fmt"
	"io"
	"strings"
)

// Debian's main of 2026, rounded up.
const (
	Sources  = 38_000
	Binaries = 63_000
)

// Write writes a Sources and a Packages index of amd64. Every seventh source
// is newer than its binaries, every eleventh has none; the rest is up to date.
// Binaries depend on ones of a lower number, so there are no cycles.
func Write(sources, packages io.Writer, nSources, nBinaries int) error {
	second := nBinaries - nSources // how many sources have two binaries
	for i := range nSources {
		x := &sample{number: i, names: []string{"a"}}
		if i*second/nSources != (i+1)*second/nSources {
			x.names = append(x.names, "b")
		}
		if x.published() {
			for n := range x.names {
				if err := x.binary(packages, n); err != nil {
					return err
				}
			}
		}
		if err := x.source(sources); err != nil {
			return err
		}
	}
	return nil
}

// sample is one source package.
type sample struct {
	number int
	names  []string // of its binaries, behind its own
}

// arch is the source's Architecture.
func (x *sample) arch() string {
	archs := [...]string{"any", "all", "any all", "linux-any", "amd64 arm64"}
	return archs[x.number%len(archs)]
}

// archs are the words that say for what the binary is built: of "any all" the first
// is any, the second all; a single one is both.
func (x *sample) archs(n int) []string {
	words := strings.Fields(x.arch())
	if x.arch() == "any all" && len(x.names) == 2 {
		return words[n : n+1]
	}
	return words
}

// published reports whether there are binaries; the first sources have them, since
// all others depend on those.
func (x *sample) published() bool { return x.number%7 == 6 || x.number%11 != 10 || x.number <= 20 }

// versions are those of the source and of its binaries.
func (x *sample) versions() (source, binary string) {
	major := x.number%90 + 1
	binary = fmt.Sprintf("%d.2.3-1", major)
	if x.number%7 == 6 {
		return fmt.Sprintf("%d.2.4-1", major), binary
	}
	return binary, binary
}

// binary writes the stanza of a binary.
func (x *sample) binary(w io.Writer, n int) error {
	i, name, depends, concrete := x.number, x.names[n], "", "amd64"
	if x.archs(n)[0] == "all" {
		concrete = "all"
	}
	if i > 20 {
		depends = fmt.Sprintf("Depends: sample%d-a (>= 1.2), sample%d-a | sample-none\n", installed(i/3), installed(i/7))
	}
	_, version := x.versions()
	_, err := fmt.Fprintf(w, "Package: sample%d-%s\nSource: sample%d\nVersion: %s\nInstalled-Size: 1234\n"+
		"Maintainer: Sample Team <team+sample%d@example.org>\nArchitecture: %s\n"+
		"%sDescription: sample library with a synopsis - development files\nHomepage: https://sample.example.org/\n"+
		"Description-md5: 0123456789abcdef0123456789abcdef\nTag: devel::library, role::devel-lib, implemented-in::c,\n"+
		" interface::commandline\nSection: libdevel\nPriority: optional\n"+
		"Filename: pool/main/s/sample/sample%d-%s_%s_%s.deb\nSize: 123456\nMD5sum: 0123456789abcdef0123456789abcdef\n"+
		"SHA256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n\n",
		i, name, i, version, i, concrete, depends, i, name, version, concrete)
	return err
}

// fileLines are the three files of a source.
var fileLines = strings.Repeat(" 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef 123456 "+
	"sample_1.2.3-1.debian.tar.xz\n", 3)

// source writes the stanza of the source.
func (x *sample) source(w io.Writer) error {
	i := x.number
	var list strings.Builder
	for n, name := range x.names {
		fmt.Fprintf(&list, " sample%d-%s deb libs optional arch=%s\n", i, name, strings.Join(x.archs(n), ","))
	}
	binaries := strings.Join(x.names, fmt.Sprintf(", sample%d-", i))
	version, _ := x.versions()
	_, err := fmt.Fprintf(w, "Package: sample%d\nBinary: sample%d-%s\nVersion: %s\n"+
		"Maintainer: Sample Team <team+sample%d@example.org>\n"+
		"Build-Depends: sample0-a, sample%d-a (>= 1), sample%d-a [linux-any] <!nocheck>\nArchitecture: %s\n"+
		"Standards-Version: 4.6.2\nFormat: 3.0 (quilt)\nFiles:\n%sChecksums-Sha256:\n"+
		"%sHomepage: https://sample.example.org/\nVcs-Git: https://git.example.org/sample.git\nPackage-List: \n"+
		"%sDirectory: pool/main/s/sample%d\nPriority: optional\nSection: libs\n\n",
		i, i, binaries, version, i, installed(i/2), installed(i/5), x.arch(), fileLines, fileLines, list.String(), i)
	return err
}

// installed returns i, or the next lower number of a source that has binaries.
func installed(i int) int {
	if i > 20 && i%7 != 6 && i%11 == 10 {
		return i - 1
	}
	return i
}
