package policy

import (
	"cmp"
	"fmt"
	"strings"

	"pault.ag/go/debian/version"
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
	return cmp.Compare(version.Compare(VersionOf(a), VersionOf(b)), 0)
}

// VersionOf takes a version apart that has passed CheckVersion.
func VersionOf(v string) version.Version {
	parts, _ := version.Parse(v) // which refuses less than CheckVersion
	return parts
}

// WithoutEpoch returns the version as it stands in file names.
func WithoutEpoch(v string) string {
	if _, after, ok := strings.Cut(v, ":"); ok {
		return after
	}
	return v
}
