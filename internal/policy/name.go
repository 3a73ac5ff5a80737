// Package policy holds the little grammars of Debian Policy: names, versions,
// architectures, relations between packages, and names of files. What it
// accepts is what dpkg accepts, or less: everything is taken from strangers.
//
// The Check functions return nil or an error that names the thing, says what
// is wrong with it and what is allowed.
package policy

import (
	"fmt"
	"strings"
)

// Longest names, in bytes. They fit together in one file name of 255 bytes,
// as an item of the tree (order, source, version) and as a package file
// (name, version, architecture, suffix). Debian's longest are far below.
const (
	MaxName    = 100
	MaxVersion = 100
	MaxArch    = 40
	MaxFile    = 240
)

// CheckSource checks the name of a source package (Policy 5.6.1).
func CheckSource(name string) error { return checkName("source package name", name) }

// CheckPackage checks the name of a binary package (Policy 5.6.7).
func CheckPackage(name string) error { return checkName("package name", name) }

func checkName(what, name string) error {
	const cure = "use at least two lower-case letters, digits, '+', '-' and '.', beginning with a letter or digit"
	switch {
	case name == "":
		return fmt.Errorf("%s is empty; %s", what, cure)
	case len(name) > MaxName:
		return tooLong(what, name, MaxName)
	case len(name) < 2:
		return fmt.Errorf("%s %q is only one character; %s", what, name, cure)
	case !lowerAlnum(name[0]):
		return fmt.Errorf("%s %q begins with %s; %s", what, name, first(name), cure)
	}
	if bad := firstNot(name, func(c byte) bool { return lowerAlnum(c) || c == '+' || c == '-' || c == '.' }); bad != "" {
		return fmt.Errorf("%s %q contains %s; %s", what, name, bad, cure)
	}
	return nil
}

// CheckSuite checks the name of a suite or codename: it is a directory's name
// in the tree and a word in Distribution fields (Policy 5.6.14).
func CheckSuite(name string) error {
	return checkWord("suite", name, 64,
		"use lower-case letters, digits, '+', '-' and '.', beginning with a letter or digit", "+-.")
}

// CheckComponent checks the name of a component (Policy 2.2), such as main.
func CheckComponent(name string) error {
	return checkWord("component", name, 64, "use lower-case letters, digits and '-', beginning with a letter or digit",
		"-")
}

func checkWord(what, name string, most int, cure, also string) error {
	switch {
	case name == "":
		return fmt.Errorf("%s is empty; %s", what, cure)
	case len(name) > most:
		return tooLong(what, name, most)
	case !lowerAlnum(name[0]):
		return fmt.Errorf("%s %q begins with %s; %s", what, name, first(name), cure)
	}
	if bad := firstNot(name, func(c byte) bool { return lowerAlnum(c) || strings.IndexByte(also, c) >= 0 }); bad != "" {
		return fmt.Errorf("%s %q contains %s; %s", what, name, bad, cure)
	}
	return nil
}

// CheckFile checks the name of a file of an upload: one that is safe in any
// directory and on any command line, and that no file of ours bears. It has an
// underscore, as all of them have (Policy 5.6.21, dpkg-source(1): hello_2.10-3.dsc).
func CheckFile(name string) error {
	const cure = "name it like hello_2.10-3.dsc: letters, digits, '+', '-', '.', '~' and '_', " +
		"beginning with a letter or digit"
	switch {
	case name == "":
		return fmt.Errorf("file name is empty; %s", cure)
	case len(name) > MaxFile:
		return tooLong("file name", name, MaxFile)
	case !alnum(name[0]):
		return fmt.Errorf("file name %q begins with %s; %s", name, first(name), cure)
	}
	if bad := firstNot(name, func(c byte) bool { return alnum(c) || strings.IndexByte("+-.~_", c) >= 0 }); bad != "" {
		return fmt.Errorf("file name %q contains %s; %s", name, bad, cure)
	}
	if strings.IndexByte(name, '_') < 0 {
		return fmt.Errorf("file name %q has no underscore; %s", name, cure)
	}
	return nil
}

func tooLong(what, name string, most int) error {
	return fmt.Errorf("%s %q... is %d bytes long; at most %d are allowed",
		what, name[:min(40, len(name))], len(name), most)
}

// first describes the first character of a name that is not empty.
func first(name string) string { return firstNot(name, func(byte) bool { return false }) }

// firstNot describes the first character that is not ok, or returns "".
func firstNot(name string, ok func(byte) bool) string {
	for i := 0; i < len(name); i++ {
		if ok(name[i]) {
			continue
		}
		for _, r := range name[i:] {
			switch r {
			case '/':
				return "a slash"
			case ' ':
				return "a blank"
			case '\'':
				return `"'"`
			}
			return fmt.Sprintf("%+q", r)
		}
	}
	return ""
}

func lowerAlnum(c byte) bool { return 'a' <= c && c <= 'z' || digit(c) }

func alnum(c byte) bool { return lowerAlnum(c) || 'A' <= c && c <= 'Z' }

func digit(c byte) bool { return '0' <= c && c <= '9' }

// PoolPrefix is the directory in which a source's own lies in the pool: its first
// letter, or the first four of a lib. The name must have been checked.
func PoolPrefix(source string) string {
	if strings.HasPrefix(source, "lib") && len(source) > 3 {
		return source[:4]
	}
	return source[:1]
}
