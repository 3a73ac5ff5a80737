package policy

import (
	"fmt"
	"slices"
	"strings"

	"packmill/internal/deb822"
)

// CheckArch checks the name of a concrete architecture, or all. An
// architecture need not be one that dpkg knows. Wildcards (any, linux-any)
// and the words source and master, which name other things, are refused.
func CheckArch(arch string) error {
	if err := checkWord("architecture", arch, MaxArch,
		"use lower-case letters, digits and '-', beginning with a letter or digit", "-"); err != nil {
		return err
	}
	if arch == "source" || arch == "master" {
		return fmt.Errorf("architecture %q is not one to build for; name one such as amd64, or all", arch)
	}
	if isWildcard(arch) {
		return fmt.Errorf("architecture %q is a wildcard; name one such as amd64, or all", arch)
	}
	return nil
}

// maxArchs is more than dpkg knows, architectures and wildcards together.
const maxArchs = 1000

// ArchList splits the Architecture field of a .dsc or a Sources index
// (Policy 5.6.8): concrete architectures, wildcards, all. A word that is there
// twice (some of Debian's are) is returned once.
func ArchList(field string) ([]string, error) {
	words := deb822.Words(field)
	if len(words) == 0 {
		return nil, fmt.Errorf("architecture list is empty; write any, all, or names of architectures")
	}
	if len(words) > maxArchs {
		return nil, fmt.Errorf("architecture list has more than %d words; "+
			"shorten it, perhaps by a wildcard such as linux-any", maxArchs)
	}
	list := words[:0]
	for _, w := range words {
		if err := checkWord("architecture", w, MaxArch,
			"use lower-case letters, digits and '-', beginning with a letter or digit", "-"); err != nil {
			return nil, err
		}
		if w == "source" {
			return nil, fmt.Errorf("architecture list contains %q; write any, all, or names of architectures", w)
		}
		if !slices.Contains(list, w) {
			list = append(list, w)
		}
	}
	return list, nil
}

// BuildsOn reports whether a source with these words in its Architecture
// field is built on the concrete architecture, or has packages for all.
func BuildsOn(field []string, arch string) bool {
	for _, w := range field {
		if archMatches(arch, w) {
			return true
		}
	}
	return false
}

// archMatches reports whether a concrete architecture is the wildcard or is
// matched by it (Policy 11.1.1), as dpkg-architecture --is does. The pseudo
// architecture all is matched by itself only.
func archMatches(arch, wildcard string) bool {
	switch {
	case arch == wildcard:
		return true
	case arch == "all" || wildcard == "all":
		return false
	case wildcard == "any":
		return true
	}
	real, ok := tupleOf(arch)
	if !ok {
		return false
	}
	if !isWildcard(wildcard) {
		// Two names may stand for one architecture: linux-amd64 is amd64.
		other, ok := tupleOf(wildcard)
		return ok && other == real
	}
	// A wildcard gives the last parts of abi-libc-os-cpu; the rest is any.
	part := [4]string{"any", "any", "any", "any"}
	words := strings.SplitN(wildcard, "-", 4)
	if len(words) > 1 {
		copy(part[4-len(words):], words)
	}
	for i, have := range [4]string{real.abi, real.libc, real.os, real.cpu} {
		if part[i] != "any" && part[i] != have {
			return false
		}
	}
	return true
}

func isWildcard(arch string) bool {
	for word := range strings.SplitSeq(arch, "-") {
		if word == "any" {
			return true
		}
	}
	return false
}

// tuple is what dpkg takes an architecture for.
type tuple struct{ abi, libc, os, cpu string }

// tupleOf knows the architectures that dpkg knows: names that stand for
// themselves, and a system's prefix with a processor.
func tupleOf(arch string) (tuple, bool) {
	if rest, ok := strings.CutPrefix(arch, "linux-"); ok {
		arch, _, _ = strings.Cut(rest, "-")
	}
	if t, ok := namedArchs[arch]; ok {
		return t, true
	}
	cpu, t := arch, tuple{"base", "gnu", "linux", ""}
	if i := strings.LastIndexByte(arch, '-'); i >= 0 {
		var ok bool
		if t, ok = systems[arch[:i]]; !ok {
			return tuple{}, false
		}
		cpu = arch[i+1:]
	}
	t.cpu = cpu
	return t, processors[cpu]
}

// processors are the CPU names of dpkg.
var processors = setOf(`alpha amd64 arc arm arm64 armeb avr32 hppa i386 ia64 loong64 m32r m68k
	mips mips64 mips64el mips64r6 mips64r6el mipsel mipsr6 mipsr6el nios2 or1k
	powerpc powerpcel ppc64 ppc64el riscv64 s390 s390x sh3 sh3eb sh4 sh4eb sparc sparc64 tilegx`)

// systems are the prefixes of architectures that are not Linux with glibc.
var systems = map[string]tuple{
	"aix":          {"base", "sysv", "aix", ""},
	"darwin":       {"base", "bsd", "darwin", ""},
	"dragonflybsd": {"base", "bsd", "dragonflybsd", ""},
	"freebsd":      {"base", "bsd", "freebsd", ""},
	"hurd":         {"base", "gnu", "hurd", ""},
	"kfreebsd":     {"base", "gnu", "kfreebsd", ""},
	"knetbsd":      {"base", "gnu", "knetbsd", ""},
	"kopensolaris": {"base", "gnu", "kopensolaris", ""},
	"musl-linux":   {"base", "musl", "linux", ""},
	"netbsd":       {"base", "bsd", "netbsd", ""},
	"openbsd":      {"base", "bsd", "openbsd", ""},
	"solaris":      {"base", "sysv", "solaris", ""},
	"uclibc-linux": {"base", "uclibc", "linux", ""},
	"uclinux":      {"base", "uclibc", "uclinux", ""},
}

// namedArchs are the architectures whose name is not a prefix and a processor,
// or is one with another ABI than the processor's own.
var namedArchs = map[string]tuple{
	"arm64ilp32":         {"ilp32", "gnu", "linux", "arm64"},
	"armel":              {"eabi", "gnu", "linux", "arm"},
	"armhf":              {"eabihf", "gnu", "linux", "arm"},
	"kfreebsd-armhf":     {"eabihf", "gnu", "kfreebsd", "arm"},
	"mint-m68k":          {"base", "tos", "mint", "m68k"},
	"mips64":             {"abi64", "gnu", "linux", "mips64"},
	"mips64el":           {"abi64", "gnu", "linux", "mips64el"},
	"mips64r6":           {"abi64", "gnu", "linux", "mips64r6"},
	"mips64r6el":         {"abi64", "gnu", "linux", "mips64r6el"},
	"mipsn32":            {"abin32", "gnu", "linux", "mips64"},
	"mipsn32el":          {"abin32", "gnu", "linux", "mips64el"},
	"mipsn32r6":          {"abin32", "gnu", "linux", "mips64r6"},
	"mipsn32r6el":        {"abin32", "gnu", "linux", "mips64r6el"},
	"musl-linux-armhf":   {"eabihf", "musl", "linux", "arm"},
	"powerpcspe":         {"spe", "gnu", "linux", "powerpc"},
	"uclibc-linux-armel": {"eabi", "uclibc", "linux", "arm"},
	"uclinux-armel":      {"eabi", "uclibc", "uclinux", "arm"},
	"x32":                {"x32", "gnu", "linux", "amd64"},
}

func setOf(words string) map[string]bool {
	set := make(map[string]bool)
	for _, w := range deb822.Words(words) {
		set[w] = true
	}
	return set
}
