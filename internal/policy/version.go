package policy

import (
	"fmt"
	"strings"
)

// CheckVersion checks a version, [epoch:]upstream[-revision], as
// dpkg --validate-version does (Policy 5.6.12, deb-version(7)).
func CheckVersion(v string) error {
	const cure = "write [epoch:]upstream[-revision], for example 1:2.10-3"
	switch {
	case v == "":
		return fmt.Errorf("version is empty; %s", cure)
	case len(v) > MaxVersion:
		return tooLong("version", v, MaxVersion)
	}
	rest := v
	if epoch, after, ok := strings.Cut(v, ":"); ok {
		if epoch == "" {
			return fmt.Errorf("version %q has an empty epoch; %s", v, cure)
		}
		if bad := firstNot(epoch, digit); bad != "" {
			return fmt.Errorf("version %q has %s in its epoch; an epoch is a number; %s", v, bad, cure)
		}
		if n := strings.TrimLeft(epoch, "0"); len(n) > 10 || len(n) == 10 && n > "2147483647" {
			return fmt.Errorf("version %q has an epoch above 2147483647; use a smaller one", v)
		}
		rest = after
	}
	upstream, revision := rest, "0"
	if i := strings.LastIndexByte(rest, '-'); i >= 0 {
		upstream, revision = rest[:i], rest[i+1:]
	}
	switch {
	case upstream == "":
		return fmt.Errorf("version %q has no upstream part; %s", v, cure)
	case revision == "":
		return fmt.Errorf("version %q has an empty revision; remove the '-' at its end, or write a revision after it", v)
	case !digit(upstream[0]):
		return fmt.Errorf("version %q does not begin with a digit; %s", v, cure)
	}
	if bad := firstNot(upstream, func(c byte) bool { return alnum(c) || strings.IndexByte(".-+~:", c) >= 0 }); bad != "" {
		return fmt.Errorf("version %q contains %s; use letters, digits, '.', '-', '+', '~' and ':'", v, bad)
	}
	if bad := firstNot(revision, func(c byte) bool { return alnum(c) || strings.IndexByte(".+~", c) >= 0 }); bad != "" {
		return fmt.Errorf("version %q contains %s in its revision; use letters, digits, '.', '+' and '~'", v, bad)
	}
	return nil
}

// CompareVersions returns -1, 0 or 1 as a sorts before, with or after b in
// dpkg's order (deb-version(7)). Both should have passed CheckVersion; what
// has not is ordered somehow.
func CompareVersions(a, b string) int {
	if a == b {
		return 0
	}
	ea, ua, ra := parts(a)
	eb, ub, rb := parts(b)
	if c := compareNumbers(ea, eb); c != 0 {
		return c
	}
	if c := comparePart(ua, ub); c != 0 {
		return c
	}
	return comparePart(ra, rb)
}

// WithoutEpoch returns the version as it stands in file names.
func WithoutEpoch(v string) string {
	if _, after, ok := strings.Cut(v, ":"); ok {
		return after
	}
	return v
}

func parts(v string) (epoch, upstream, revision string) {
	if i := strings.IndexByte(v, ':'); i >= 0 {
		epoch, v = v[:i], v[i+1:]
	}
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		return epoch, v[:i], v[i+1:]
	}
	return epoch, v, ""
}

// comparePart compares an upstream version or a revision: in turns what is
// not a digit, by weight, and numbers, by value.
func comparePart(a, b string) int {
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		for i < len(a) && !digit(a[i]) || j < len(b) && !digit(b[j]) {
			if wa, wb := weight(a, i), weight(b, j); wa != wb {
				if wa < wb {
					return -1
				}
				return 1
			}
			i++
			j++
		}
		m, n := i, j
		for m < len(a) && digit(a[m]) {
			m++
		}
		for n < len(b) && digit(b[n]) {
			n++
		}
		if c := compareNumbers(a[i:m], b[j:n]); c != 0 {
			return c
		}
		i, j = m, n
	}
	return 0
}

// weight orders characters that are not digits: '~', the end (or a digit),
// letters, the rest.
func weight(s string, i int) int {
	switch {
	case i >= len(s) || digit(s[i]):
		return 0
	case s[i] == '~':
		return -1
	case alnum(s[i]):
		return int(s[i])
	}
	return int(s[i]) + 256
}

// compareNumbers compares decimal numbers of any length; "" is 0.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		if len(a) < len(b) {
			return -1
		}
		return 1
	}
	return strings.Compare(a, b)
}
