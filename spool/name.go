package spool

import (
	"fmt"
	"path"
	"strings"
	"time"

	"packmill/internal/policy"
)

// OrderTime is the form of the time in an item's name, in UTC. It sorts as
// text.
const OrderTime = "20060102T150405.000000Z"

// Name is an item's name, ORDER_SOURCE_VERSION for life: the order is two
// digits (00 is built first, 99 last) and a time, so that ls shows a queue in
// the order in which it will be served. Where jobs of several architectures
// meet in one directory (the archive queue, the attic) _ARCH follows.
type Name struct {
	Class   int       // 00 to 99
	Time    time.Time // UTC, microseconds
	Source  string
	Version string // with epoch
	Arch    string // or empty
}

// NormalClass is the class of an item that nothing makes more or less urgent.
const NormalClass = 50

// NewName names a new item.
func NewName(class int, at time.Time, source, version string) Name {
	return Name{Class: class, Time: at.UTC().Truncate(time.Microsecond), Source: source, Version: version}
}

// String is the name as it stands in the directory: a colon is written %3a.
func (n Name) String() string {
	s := n.Order() + "_" + n.Source + "_" + strings.ReplaceAll(n.Version, ":", "%3a")
	if n.Arch != "" {
		s += "_" + n.Arch
	}
	return s
}

// Order is the part that decides who is first.
func (n Name) Order() string {
	var buf [len("50-") + len(OrderTime)]byte
	b := append(buf[:0], byte('0'+n.Class/10), byte('0'+n.Class%10), '-')
	return string(n.Time.UTC().AppendFormat(b, OrderTime))
}

// ID is SOURCE_VERSION as people say it, with the epoch's colon.
func (n Name) ID() string { return n.Source + "_" + n.Version }

// ParseName reads an item's name and says what is wrong with one that is not.
func ParseName(s string) (Name, error) {
	parts := strings.Split(s, "_")
	if len(parts) != 3 && len(parts) != 4 {
		return Name{}, fmt.Errorf("item name %q: not ORDER_SOURCE_VERSION", s)
	}
	order, source, version := parts[0], parts[1], strings.ReplaceAll(parts[2], "%3a", ":")
	n := Name{Source: source, Version: version}
	if len(order) != len("50-")+len(OrderTime) || order[2] != '-' || !digit(order[0]) || !digit(order[1]) {
		return Name{}, fmt.Errorf("item name %q: the order is not two digits, a dash and a time like %s", s, OrderTime)
	}
	n.Class = int(order[0]-'0')*10 + int(order[1]-'0')
	t, err := time.Parse(OrderTime, order[3:])
	if err != nil {
		return Name{}, fmt.Errorf("item name %q: %q is not a time like %s", s, order[3:], OrderTime)
	}
	n.Time = t
	if err := policy.CheckSource(source); err != nil {
		return Name{}, fmt.Errorf("item name %q: %w", s, err)
	}
	if err := policy.CheckVersion(version); err != nil {
		return Name{}, fmt.Errorf("item name %q: %w", s, err)
	}
	if len(parts) == 4 {
		n.Arch = parts[3]
		if err := policy.CheckArch(n.Arch); err != nil && n.Arch != SourceArch {
			return Name{}, fmt.Errorf("item name %q: %w", s, err)
		}
	}
	if n.String() != s {
		return Name{}, fmt.Errorf("item name %q: should be %q", s, n.String())
	}
	return n, nil
}

// SourceOf cuts the source out of an item's name, which it does not check.
func SourceOf(name string) string {
	_, rest, _ := strings.Cut(name, "_")
	source, _, _ := strings.Cut(rest, "_")
	return source
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// Matches reports whether a person who says pattern means this item: hello,
// hello_2.10-3 or the whole name, each with the wildcards of path.Match.
func (n Name) Matches(pattern string) bool {
	says := func(name string) bool { return pattern == name }
	if IsPattern(pattern) {
		says = func(name string) bool {
			ok, err := path.Match(pattern, name)
			return ok && err == nil
		}
	}
	return says(n.Source) || says(n.ID()) || says(n.String()) ||
		says(n.Source+"_"+strings.ReplaceAll(n.Version, ":", "%3a"))
}

// IsPattern reports whether a person means by the word whatever fits it: no
// name of a package has these characters.
func IsPattern(word string) bool { return strings.ContainsAny(word, "*?[") }
