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
	fileLines := strings.Repeat(" 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef 123456 "+
		"sample_1.2.3-1.debian.tar.xz\n", 3)
	archs := [...]string{"any", "all", "any all", "linux-any", "amd64 arm64"}
	second := nBinaries - nSources // how many sources have two binaries
	for i := range nSources {
		arch := archs[i%len(archs)]
		version := fmt.Sprintf("%d.2.3-1", i%90+1)
		source := version
		switch {
		case i%7 == 6:
			source = fmt.Sprintf("%d.2.4-1", i%90+1)
		case i%11 == 10:
			version = ""
		}
		names := []string{"a"}
		if i*second/nSources != (i+1)*second/nSources {
			names = append(names, "b")
		}
		var list strings.Builder
		for n, x := range names {
			// Of "any all" the first is any, the second all; a single one is both.
			words := strings.Fields(arch)
			if arch == "any all" && len(names) == 2 {
				words = words[n : n+1]
			}
			fmt.Fprintf(&list, " sample%d-%s deb libs optional arch=%s\n", i, x, strings.Join(words, ","))
			concrete := "amd64"
			if words[0] == "all" {
				concrete = "all"
			}
			if version == "" && i > 20 {
				continue
			}
			depends := ""
			if i > 20 {
				depends = fmt.Sprintf("Depends: sample%d-a (>= 1.2), sample%d-a | sample-none\n", installed(i/3), installed(i/7))
			}
			v := version
			if v == "" {
				v = source
			}
			if _, err := fmt.Fprintf(packages, "Package: sample%d-%s\nSource: sample%d\nVersion: %s\nInstalled-Size: 1234\n"+
				"Maintainer: Sample Team <team+sample%d@example.org>\nArchitecture: %s\n"+
				"%sDescription: sample library with a synopsis - development files\nHomepage: https://sample.example.org/\n"+
				"Description-md5: 0123456789abcdef0123456789abcdef\nTag: devel::library, role::devel-lib, implemented-in::c,\n"+
				" interface::commandline\nSection: libdevel\nPriority: optional\n"+
				"Filename: pool/main/s/sample/sample%d-%s_%s_%s.deb\nSize: 123456\nMD5sum: 0123456789abcdef0123456789abcdef\n"+
				"SHA256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n\n",
				i, x, i, v, i, concrete, depends, i, x, v, concrete); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(sources, "Package: sample%d\nBinary: sample%d-%s\nVersion: %s\n"+
			"Maintainer: Sample Team <team+sample%d@example.org>\n"+
			"Build-Depends: sample0-a, sample%d-a (>= 1), sample%d-a [linux-any] <!nocheck>\nArchitecture: %s\n"+
			"Standards-Version: 4.6.2\nFormat: 3.0 (quilt)\nFiles:\n%sChecksums-Sha256:\n"+
			"%sHomepage: https://sample.example.org/\nVcs-Git: https://git.example.org/sample.git\nPackage-List: \n"+
			"%sDirectory: pool/main/s/sample%d\nPriority: optional\nSection: libs\n\n",
			i, i, strings.Join(names,
				fmt.Sprintf(", sample%d-",
					i)), source, i, installed(i/2), installed(i/5), arch, fileLines, fileLines, list.String(), i); err != nil {
			return err
		}
	}
	return nil
}

// installed returns i, or the next lower number of a source that has binaries.
func installed(i int) int {
	if i > 20 && i%7 != 6 && i%11 == 10 {
		return i - 1
	}
	return i
}
