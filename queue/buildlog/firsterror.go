package buildlog

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"

	"packmill/internal/clean"
)

// FirstError is the line of a failed build's log that says what went wrong
// first, with its surroundings. All text is escaped.
type FirstError struct {
	// Kind is one of compiler, linker, cmake, configure, meson, python, go, rust, java, perl, ruby, php, tcl, lua,
	// network, test, missing-file, shlibdeps, symbols, patch, dh, dpkg, space, killed, make, other.
	Kind string `json:"kind"`
	Line int    `json:"line"` // from 1
	// Text is the line, without colours and blanks around it; with the next one where that says what, or where.
	Text   string   `json:"text"`
	Before []string `json:"before,omitempty"` // at most contextBefore lines
	After  []string `json:"after,omitempty"`  // at most contextAfter lines
}

const (
	contextBefore = 4
	contextAfter  = 8
	backLines     = 3   // at most so far before make's line is what it says nothing of
	shownLine     = 400 // bytes of a line that are kept
)

// sign is a shape of error lines. The words are looked for first, all in
// lower case; the pattern decides.
type sign struct {
	kind    string
	rank    int // of two lines in one log the one with the lower rank counts
	words   []string
	pattern *pattern
}

// Ranks: what names its cause counts before what merely reports a failure,
// and that before the programs that pass it on.
const (
	cause = iota
	report
	carrier
	last
	none
)

// pattern is a regular expression that is compiled when it is first asked: most
// programs that link this package never look at a log.
type pattern struct {
	text  string
	ready sync.Once
	form  *regexp.Regexp
}

func re(s string) *pattern { return &pattern{text: s} }

func (p *pattern) Match(line []byte) bool {
	p.ready.Do(func() { p.form = regexp.MustCompile(p.text) })
	return p.form.Match(line)
}

var errorSigns = []sign{
	// The machine first: what follows them is a consequence.
	{"space", cause, []string{"no space left", "disk quota"}, re(`No space left on device|Disk quota exceeded`)},
	{"killed", cause,
		[]string{"killed signal", "internal compiler error", "out of memory", "compiler unexpectedly", "cannot allocate",
			"memory exhausted"},
		re(`Killed signal terminated program|internal compiler error|: out of memory|[Oo]ut of memory allocating|` +
			`the compiler unexpectedly panicked|Cannot allocate memory|virtual memory exhausted`)},
	{"killed", cause, []string{"e: build killed"}, re(`^E: Build killed with signal `)}, // sbuild

	// A build has no network: what asks for it has this cause, whatever comes of it.
	{"network", cause,
		[]string{"could not resolve", "unable to resolve", "temporary failure", "failed to load external",
			"network is unreachable", "name or service not known", "getaddrinfo", "dial tcp", "failed to establish a new",
			"no address associated"},
		re(`Could not resolve host|unable to resolve host address|Temporary failure in name resolution|` +
			`failed to load external entity "?https?:|Network is unreachable|` +
			`Name or service not known|No address associated with hostname|getaddrinfo E[A-Z]+|dial tcp: lookup \S+|` +
			`Failed to establish a new connection`)},
	{"configure", cause, []string{"project error"}, re(`^Project ERROR: `)},
	{"configure", cause,
		[]string{"configure: error", "autoreconf", "automake: error", "error: possibly undefined macro", "aclocal: error"},
		re(`^configure: error: |: error: possibly undefined macro|^(?:auto\w+|aclocal|libtoolize): error: |` +
			`^configure\.ac:\d+: error`)},
	{"configure", cause, []string{".am: error", ".am:"}, re(`^\S+\.am:(?:\d+:)? error: `)},
	{"configure", cause, []string{"package requirements", "no package '"},
		re(`Package requirements \(.*\) were not met|^No package '.*' found`)},
	// Compilers that write file:line: gcc, clang, gfortran's driver, vala, ghc, ocaml.
	{"compiler", cause, []string{"error"}, re(`^[^\s:][^:]*:\d+(?:[:.]\d+(?:-\d+(?:\.\d+)?)?)?:? (?:fatal )?error\b`)},
	// And those that write file(line,column): tsc, mcs, dmd, fpc, nim; Boost's tests do, too.
	{"compiler", cause, []string{"error", "fatal:"},
		re(`^[^\s(][^(]*\(\d+(?:, ?\d+)*\):? (?:(?:[Ff]atal )?[Ee]rror\b|Fatal: )`)},
	{"compiler", cause, []string{"error cs", "error ts"}, re(`^error (?:CS|TS)\d+: `)},
	{"compiler", cause, []string{"  error  "}, re(`^\s+\d+:\d+\s+error\s`)}, // eslint
	{"compiler", cause, []string{"error:"},
		re(`^(?:cc1(?:plus|obj)?|g\+\+|gcc|c\+\+|cc|clang|gfortran|as|valac|ghc|ocaml\w*|javac): (?:fatal )?error:`)},
	{"compiler", cause, []string{"error: "},
		re(`^(?:Fatal )?Error: (?:Unbound|Syntax error|This expression|Symbol|Cannot open module|Type mismatch)`)},
	// makeinfo, flex, msgfmt, erlc and others say no word such as error.
	{"compiler", cause, []string{".texi", ".l:", ".po:", ".erl:", ".pyx:", ".gpr:"},
		re(`^\S+\.(?:texi|texinfo|l|po|erl|pyx|gpr):\d+:(?:\d+:)? `)},
	{"compiler", cause, []string{"! "}, re(`^! [A-Z]`)}, // TeX
	{"compiler", cause, []string{"missing or private"}, re(`Encountered missing or private dependencies:`)},
	{"compiler", cause, []string{".proto"}, re(`^\S+\.proto:(?:\d+:\d+:)? \S`)},
	{"compiler", cause, []string{"error :"}, re(`^\S+:\d+: (?:element \S+: )?(?:[\w-]+ )*error : `)}, // libxml2
	{"compiler", cause, []string{"read error during"}, re(`^\s*READ error during `)},                 // Lisp
	{"compiler", cause, []string{"** ("}, re(`^\*\* \((?:\w+\.)*\w+\) `)},                            // Elixir
	{"linker", cause,
		[]string{"undefined reference", "cannot find -l", "ld returned", "multiple definition", "undefined symbol",
			"relocation r_"},
		re(`undefined reference to|: cannot find -l\S+|ld\.lld: error:|rust-lld: error:|multiple definition of |` +
			`: relocation R_\w+ against .* can ?not be used`)},
	{"linker", report, []string{"/ld:", "-ld:", ".bfd:", ".gold:"}, re(`^/usr/bin/(?:[\w-]+-)?ld(?:\.\w+)?:.*[^:]$`)},
	{"rust", cause, []string{"error["}, re(`^\s*error\[E\d{4}\]:`)},
	{"rust", cause, []string{"error: no matching package", "error: failed to", "error: linker "},
		re(`^error: (?:no matching package|failed to (?:select|get|load|parse|run custom build)|linker \S+ not found)`)},
	{"rust", report, []string{"could not compile"}, re(`^error: could not compile`)},
	{"go", cause, []string{".go:"}, re(`^(?:vet: )?(?:\.{0,2}/)?[\w./@+~-]+\.go:\d+:\d+: \S`)},
	{"go", cause, []string{".go:"},
		re(`^(?:vet: )?(?:\.{0,2}/)?[\w./@+~-]+\.go:\d+(?::\d+)?: (?:undefined|cannot |imported and not used|` +
			`declared and not used|syntax error|too many|not enough|invalid|undeclared|missing|no required module|` +
			`no non-test|type |could not import|assignment mismatch|[\w.]+ (?:redeclared|is not|undefined)|expected |` +
			`unknown |duplicate )`)},
	{"go", cause, []string{"cannot find package", "no required module", "cannot find module", "build constraints exclude",
		"errors parsing", "requires go ", "cannot find main"},
		re(`cannot find package "|no required module provides package|cannot find module providing package|` +
			`build constraints exclude all Go files|^go: (?:cannot find main|errors parsing|.*: (?:cannot|no matching|missing|` +
			`unknown|dial)|.* requires go )`)},
	{"java", cause, []string{".java:", "[error]", "build failed"}, re(`\.java:\d+: error: |^\[ERROR\] `)},
	{"java", report, []string{"build failed"}, re(`^BUILD FAILED$`)},          // ant
	{"java", cause, []string{"what went wrong"}, re(`^\* What went wrong:$`)}, // gradle

	{"cmake", cause, []string{"cmake error", "could not find a package configuration"}, re(`^CMake Error`)},
	{"meson", cause, []string{"meson.build"}, re(`^(?:\S*/)?meson\.build:\d+:\d+: ERROR: `)},
	{"meson", report, []string{"ninja: error"}, re(`^ninja: error: `)},

	{"perl", cause,
		[]string{"can't ", "cannot ", "compilation failed", "syntax error at", "global symbol", "undefined subroutine",
			"bareword"},
		re(`^Can't locate \S+ in @INC|^syntax error at \S+ line \d+|^(?:Can't|Cannot|Global symbol|Undefined subroutine|` +
			`Bareword) .* at \S+ line \d+`)},
	{"perl", cause, []string{"required--"}, re(`^\S+ (?:version )?v?[\d.]+ required--this is only `)},
	{"python", cause, []string{"not found"}, re(`^E\s+fixture '.*' not found`)},
	{"python", cause, []string{"assertionerror"}, re(`^(?:E\s+)?AssertionError$`)},
	{"python", cause, []string{"error: ", "exception: "},
		re(`^(?:\s+|E\s+|INTERNALERROR> )(?:[\w.]+\.)?\w+(?:Error|Exception|NotFound): `)},
	{"python", cause, []string{"error: ", "exception", "exit: "},
		re(`^(?:ModuleNotFoundError|ImportError|SyntaxError|IndentationError|TypeError|NameError|AttributeError|` +
			`ValueError|KeyError|RuntimeError|AssertionError|FileNotFoundError|OSError|PermissionError|ConnectionError|` +
			`UnicodeDecodeError|UnicodeEncodeError|IndexError|ZeroDivisionError|NotImplementedError|DeprecationWarning|` +
			`LookupError|(?:[\w.]+\.)?\w*(?:Error|Exception|NotFound)): `)},
	{"python", cause, []string{"extension error", "theme error", "configuration error"},
		re(`^(?:Extension|Theme|Configuration) error:`)}, // Sphinx
	{"ruby", cause, []string{"error)"},
		re(`\((?:LoadError|NameError|NoMethodError|SyntaxError|ArgumentError|Gem::\w+Error)\)$|` +
			`^\S+\.rb:\d+:in .* \((?:\w+::)*\w+Error\)$`)},
	{"ruby", cause, []string{"error:"}, re(`^\s*(?:\w+::)*[A-Z]\w*Error:$`)}, // RSpec
	{"php", cause, []string{"fatal error", "parse error"}, re(`^(?:PHP )?(?:Fatal|Parse) error: `)},
	{"ruby", cause, []string{"syntax error"}, re(`^\S+\.rb:\d+: syntax error`)},
	{"java", cause, []string{"exception in thread"}, re(`^Exception in thread "`)},
	{"ruby", cause, []string{"rake aborted"}, re(`^rake aborted!`)},
	{"perl", cause, []string{"error:  "}, re(`^#\s+Error:  \S`)}, // Test::More's use_ok
	{"tcl", cause, []string{"can't find package"}, re(`^can't find package \S`)},
	{"lua", cause, []string{"lua"}, re(`^lua(?:jit)?[\d.]*: \S+:\d+: `)},
	{"other", report, []string{"error in "}, re(`^Error in .* ?:`)}, // R
	{"python", report, []string{"traceback (most"}, re(`^Traceback \(most recent call last\):`)},
	{"python", report, []string{"error: ", "error missing", "error backend"},
		re(`^(?:ERROR:?|error:) (?:invalid command|Could not find a version|No matching distribution|Backend|` +
			`Missing dependencies)`)},

	{"other", report, []string{"gzip: "}, re(`^gzip: \S+: `)},
	// A shell that lacks a program may be one that only asks for it, as autoreconf does.
	{"missing-file", report, []string{"not found"},
		re(`^(?:/\S+/)?(?:ba|da|z|k)?sh: (?:\d+: |line \d+: )?\S+: (?:command )?not found`)},
	{"missing-file", cause,
		[]string{"no such file", "cannot stat", "no rule to make", "can't find"},
		re(`^(?:cp|mv|install|ln): .*(?:No such file or directory|cannot stat)|` +
			`^make(?:\[\d+\])?: (?:\*\*\* )?(?:\S+: )?(?:No such file or directory|Command not found)|No rule to make target|` +
			`^Can't find |env: .*: No such file`)},
	{"missing-file", report, []string{"no such file", "cannot "}, // of which a build may think nothing
		re(`^(?:cat|chmod|chrpath|chown|rm|sed|tar|touch|\S+: \S+): .*No such file or directory$|` +
			`^(?:cp|mv|install|ln|mkdir|touch|chmod|chown): .*: (?:Permission denied|Read-only file system|Not a directory)$`)},
	{"make", cause, []string{": *** "}, re(`^\S+:\d+: \*\*\* `)},
	{"missing-file", cause, []string{"missing files", "cannot find (any matches", "dh_missing: "},
		re(`^dh_\w+: (?:error: )?(?:missing files, aborting|Cannot find \(any matches)|` +
			`^dh_\w+: warning: Cannot find \(any matches|^dh_missing: (?:error|warning): .* exists in `)},

	{"shlibdeps", cause, []string{"dpkg-shlibdeps: error"}, re(`^dpkg-shlibdeps: error: `)},
	{"symbols", cause, []string{"dpkg-gensymbols"},
		re(`^dpkg-gensymbols: error: |^dpkg-gensymbols: warning: some symbols or patterns disappeared`)},
	{"patch", cause, []string{"hunk", "patch ", "patch: ****"},
		re(`^can't find file to patch|^patch: \*\*\*\* |^Reversed \(or previously applied\) patch|` +
			`^Hunk #\d+ FAILED|^\d+ out of \d+ hunks? (?:FAILED|failed)|^Patch \S+ does not apply|^dpkg-source: (?:error|` +
			`info): .*patch.*(?:does not apply|fails)|^error: patch failed`)},
	{"patch", cause, []string{"dpkg-source: error"}, re(`^dpkg-source: error: `)},

	{"test", report, []string{"fail"},
		re(`^--- FAIL: |^\s*FAIL(?:[:!]? +\S|ED +\S)|^(?:Test suite |\s+)[^\s\d].*: +FAIL(?:\s|$)|^\S+:\d+:\w+:FAIL:|\[FAIL(?:ED)?\]|` +
			`^test \S+ \.\.\. FAILED|^\s*\d+/\d+ .* (?:FAIL|TIMEOUT)\b|` +
			`^\s*\d+ - .*\((?:Failed|Timeout|SEGFAULT|Subprocess aborted|Not Run)\)|^\s*\d+ - .*\*\*\*(?:Failed|Exception|` +
			`Timeout)|\*\*\*(?:Failed|Timeout|Exception)|^\s*\d+\) .*FAILED|^\[  FAILED  \] \S`)},
	// test-unit, minitest and RSpec.
	{"test", report, []string{"failure:", "error:"}, re(`^Failure: |^\s+\d+\) (?:Failure|Error):`)},
	{"test", report, []string{"failure/error"}, re(`^\s*Failure/Error: `)},
	// node, jest, mocha and busted; PHPUnit, testthat, eunit, Catch, doctest, octave.
	{"test", report, []string{"✖", "✗", "✘", "✕", "●", "→", "── "},
		re(`^\s*[✖✗✘✕●] \S|^(?:Failure|Error) → |^── (?:Failure|Error) `)},
	{"test", report, []string{"failed asserting", "*failed*", "failed:", "failed example:", "!!!!! test failed"},
		re(`^Failed asserting that |\*failed\*$|^\S+:\d+: FAILED:$|^Failed example:$|^!!!!! test failed`)},
	{"test", report, []string{"error "}, re(`^\s*\d+/\d+ .* ERROR +[\d.]+ ?s\b`)}, // meson
	{"test", report, []string{"bail out!"}, re(`^\s*Bail out!`)},
	{"test", report, []string{"assertion '"}, re(`^\S+:\d+:F:\S+: Assertion '`)},                          // libcheck
	{"test", report, []string{"error "}, re(`^ERROR \S+\.py(?:::\S+)?|^error \d+ at \d+ depth lookup: `)}, // pytest, openssl
	{"test", report, []string{"sanitizer: "}, re(`^==\d+==\s*ERROR: \w+Sanitizer: |: runtime error: `)},
	{"test", report, []string{"missing"}, re(`^E: \S+:\S+: [a-z-]+$`)},  // appstreamcli
	{"test", report, []string{"error ["}, re(`^\s*\w*Error \[\w+\]: `)}, // node
	{"test", report, []string{"failed"}, re(`^==== \S+ .*\bFAILED$`)},   // tcltest
	{"test", report, []string{"not ok"}, re(`^\s*not ok \d+`)},
	{"test", carrier, []string{"failed"}, re(`^#?\s*Failed [Tt]est|^Failed \d+/\d+ (?:test programs|subtests)`)}, // prove
	{"test", report, []string{"panicked at", "panic:", "assertion"},
		re(`^thread '.*' (?:\(\d+\) )?panicked at|^panic: |(?:^\s*|[: ])[Aa]ssertion (?:.* )?[Ff]ailed\b|^FATAL: assertion`)},
	{"test", report, []string{"failed"},
		re(`\d+ tests? failed|^# FAIL: +[1-9]`)},

	{"dpkg", cause,
		[]string{"dpkg-gencontrol: error", "dpkg-deb: error", "dpkg-parsechangelog", "dpkg-genchanges: error",
			"dpkg-checkbuilddeps", "dpkg-buildflags: error"},
		re(`^dpkg-(?:gencontrol|deb|genchanges|parsechangelog|buildflags|checkbuilddeps|genbuildinfo|` +
			`architecture): error: `)},
	{"dpkg", cause, []string{"dpkg: error processing"}, re(`^dpkg: error processing (?:package|archive) `)},
	{"dpkg", cause,
		[]string{"unmet dependencies", "but it is not", "unable to", "e: failed", "e: could not", "e: unmet", "e: package",
			"e: version", "e: build-depends", "e: sub-process", "e: please", "e: dh_"},
		re(`^E: (?:Unable to|Failed to|Could not|Unmet|Package|Version|Build-Depends|Sub-process|Please|dh_)|` +
			`^ \S+ : (?:Depends|Conflicts): `)},
	{"dh", report, []string{"dh_", "dh: "}, re(`^(?:dh|dh_\w+): error: `)},
	{"dh", carrier, []string{"e: pybuild"}, re(`^E: pybuild `)},

	// What the C library and that of C++ say before they abort.
	{"killed", report, []string{"detected ***", "double free", "free():", "malloc():", "corrupted ", "terminate called"},
		re(`^\*\*\* .* detected \*\*\*: terminated|^double free or corruption|^(?:free|malloc|realloc)\(\): |` +
			`^corrupted (?:size|double-linked)|^terminate called `)},
	{"killed", report, []string{"*** ", "killed", "illegal instruction", "bus error", "floating point exception"},
		re(`^Killed$|^\S+: line \d+: +\d+ Killed|^(?:Illegal instruction|Bus error|Floating point exception)\b|` +
			`^g?make(?:\[\d+\])?: \*\*\* .*\] (?:Killed|Terminated|Segmentation fault|Aborted|Bus error|Illegal instruction|` +
			`Floating point exception|Trace/breakpoint trap|Hangup)`)},
	{"other", report, []string{"syntax error", "unbound variable", "parameter not set", "bad substitution"}, // of shells
		re(`^\S+: (?:line )?\d+: (?:\S+: )?(?:[Ss]yntax error|unbound variable|parameter not set|[Bb]ad substitution)`)},
	{"other", report, []string{"error in "}, re(`^ERROR in `)}, // webpack
	{"other", report, []string{"error:", "fatal:", "segmentation fault", "core dumped", "aborted"},
		re(`^(?:\[!\] )?(?:[\w./+:-]+: )*(?:fatal|FATAL|Fatal)(?: error)?: |` +
			`^(?:\[!\] )?(?:[\w./+:-]+: )*(?:error|ERROR|Error): |` +
			`Segmentation fault|\(core dumped\)|^Aborted`)},
	{"make", carrier, []string{"***"}, re(`^(?:g?make|ninja|scons|waf)(?:\[\d+\])?: \*\*\* `)},
	{"other", carrier, []string{"npm err"}, re(`^npm (?:ERR!|error) `)},
	{"make", carrier, []string{"build stopped"}, re(`^ninja: build stopped`)},
	{"make", last, []string{"failed:"}, re(`^FAILED: `)}, // ninja's, before the command and what it says
	{"other", last, []string{"dpkg-buildpackage: error", "debian/rules"}, re(`^dpkg-buildpackage: error: `)},
}

// whileExecuting is what Tcl prints under its error, which looks like nothing else.
var whileExecuting = []byte("    while executing")

// place reports whether a line says where rustc found what the line before it
// names.
func place(line []byte) bool { return bytes.HasPrefix(bytes.TrimLeft(line, " "), []byte("--> ")) }

// numbered is ghc's heading of an error.
var numbered = re(`: error: \[GHC-\d+\]$`)

// goesOn reports whether a line belongs to the error in the line before it: what
// cmake says under its heading, and the place of rustc.
func goesOn(e *FirstError, line []byte) bool {
	switch e.Kind {
	case "go":
		return strings.HasSuffix(e.Text, " go.mod:")
	case "compiler", "java":
		return strings.HasSuffix(e.Text, ":") || e.Kind == "compiler" && numbered.Match([]byte(e.Text)) ||
			e.Text == "BUILD FAILED"
	case "other": // R, when the message is long
		return strings.HasPrefix(e.Text, "Error in ") && strings.HasSuffix(e.Text, ":")
	case "cmake":
		return strings.HasSuffix(e.Text, ":") && bytes.HasPrefix(line, []byte("  "))
	case "rust":
		return place(line)
	case "python", "ruby", "test": // Sphinx, rake and minitest say what is wrong in the next line
		return slices.ContainsFunc([]string{" error:", " aborted!", ") Failure:", ") Error:", "Error:", " dependencies:",
			" FAILED:", " example:"}, func(end string) bool {
			return strings.HasSuffix(e.Text, end)
		})
	case "killed":
		return strings.HasPrefix(e.Text, "terminate called ") && bytes.HasPrefix(line, []byte("  what():"))
	case "dpkg":
		return strings.HasPrefix(e.Text, "dpkg: error processing") && strings.HasSuffix(e.Text, ":")
	}
	return false
}

// plain is a line without colours and blanks at its end.
func plain(line []byte) []byte {
	if bytes.IndexByte(line, 0x1b) >= 0 {
		line = clean.Escape(nil, line)
	}
	return bytes.TrimRight(line, " \r\t")
}

// found is the error in line n, after these lines.
func found(kind string, n int, text []byte, before [][]byte) *FirstError {
	e := &FirstError{Kind: kind, Line: n, Text: strings.TrimSpace(show(text))}
	for _, b := range before[max(0, len(before)-contextBefore):] {
		e.Before = append(e.Before, show(b))
	}
	return e
}

// passedOn is the line of a program that says of a command only that it failed.
var passedOn = re(`^(?:g?make|scons)(?:\[\d+\])?: \*\*\* \[|^dh_\w+: error: .* returned exit code \d+$|` +
	`^E: pybuild .* failed with: exit code|^ninja: build stopped|^scons: building terminated`)

// aside are lines between an error and the end of its program: advice, what other commands are
// at work, and debhelper's command that shows a log.
var aside = re("^(?:[Tt]ry|[Uu]sage:|See|For more)[ `']|^\\[\\d+/\\d+\\] |^\\s+(?:cd .* && )?tail -v -n ")

// lastWords steps back from a line which says only that something failed to what was
// printed before it: that of an error in line n.
func lastWords(e *FirstError, n int, line []byte, before [][]byte) *FirstError {
	if e.Kind != "make" && e.Kind != "dh" || !passedOn.Match(line) {
		return e
	}
	if words := stepBack(n, line, before); words != nil {
		return words
	}
	return e
}

// stepBack is what a program said that ended before line n, nil if that is too far.
func stepBack(n int, line []byte, before [][]byte) *FirstError {
	for i := len(before) - 1; i >= max(0, len(before)-backLines); i-- {
		text := plain(before[i])
		if len(bytes.TrimSpace(text)) == 0 || bytes.HasPrefix(text, []byte("make")) || passedOn.Match(text) ||
			aside.Match(text) {
			continue
		}
		e := found("make", n-(len(before)-i), text, before[:i])
		for _, l := range append(slices.Clone(before[i+1:]), line) {
			e.After = append(e.After, show(l))
		}
		return e
	}
	return nil
}

// harmless are lines that look like errors and are not: results of probes,
// makes that were told to go on, tests that fail as they should.
var harmless = re(`(?i)^checking |\(ignored\)|^\s*(?:-- )?(?:Performing Test|Looking for|Check(?:ing)? )|^XFAIL|` +
	`# TODO|# SKIP|: warning:|skipping incompatible |^fatal: (?:not a git repository|No names found|detected dubious)|` +
	`^\[ERROR\] (?:COMPILATION ERROR|\[ERROR\] Some problems)|^ERROR: usage: |-CRITICAL \*\*: |` +
	`^libtool: |^(?:gcc|g\+\+|cc|c\+\+|clang|x86_64-\S+|i686-\S+|aarch64-\S+|` +
	`/usr/bin/\S+) .* -c |\b0 (?:errors|failed|failures)|^dpkg-buildflags|no error|^PASS|` +
	`^ImportError: Failed to import test module: |^` + Before)

// packaging are the tools whose warnings become errors at their end.
var packaging = re(`^(?:dh|dpkg-)[\w-]*: `)

// stems are parts of the words of all signs: a line without one of them is
// looked at no further.
var stems = [][]byte{
	[]byte("err"), []byte("fail"), []byte("***"), []byte("fatal"), []byte("not found"), []byte("no such file"),
	[]byte("cannot"), []byte("can't"),
	[]byte("undefined"), []byte("missing"), []byte(".go:"), []byte("panic"), []byte("assertion"), []byte("not ok"),
	[]byte("exception"), []byte("traceback"),
	[]byte("killed"), []byte("no space"), []byte("disk quota"), []byte("memory"), []byte("unexpectedly"),
	[]byte("multiple def"), []byte("build con"),
	[]byte("requirements"), []byte("no package '"), []byte("autoreconf"), []byte("exit: "), []byte("no rule"),
	[]byte("hunk"), []byte("patch "), []byte("unmet"),
	[]byte("is not"), []byte("unable"), []byte("could not"), []byte("e: "), []byte("segmentation"), []byte("core dumped"),
	[]byte("aborted"), []byte("stopped"), []byte("illegal inst"),
	[]byte("unreachable"), []byte("not known"), []byte("getaddrinfo"), []byte("dial tcp"),
	[]byte("debian/rules"), []byte("dpkg-"), []byte("dh_"), []byte("dh: "), []byte("ld returned"), []byte("compilation"),
	[]byte("compile"), []byte("required"), []byte(".java:"), []byte("meson.build"), []byte("lua"), []byte(".texi"),
	[]byte(".l:"), []byte(".po:"), []byte(".erl:"), []byte("gzip: "), []byte("sanitizer"), []byte(".am:"), []byte(".proto"),
	[]byte("relocation"),
	[]byte("bareword"), []byte("global symbol"), []byte("! "), []byte(".pyx:"), []byte(".gpr:"), []byte("** ("),
	[]byte("/ld:"), []byte("-ld:"), []byte(".bfd:"), []byte(".gold:"), []byte("requires go"), []byte("✖"), []byte("✗"),
	[]byte("✘"), []byte("✕"), []byte("●"), []byte("→"), []byte("── "), []byte("bail out"), []byte("no address"),
	[]byte("went wrong"), []byte("parameter not set"), []byte("bad substitution"),
	[]byte("unbound variable"),
	[]byte("double free"), []byte("free():"), []byte("malloc():"), []byte("corrupted"), []byte("terminate called"),
}

// dump reports whether a part of the log begins in which a failed configure
// run shows its own log: the errors of all its probes.
func dump(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("==> ")) {
		return false
	}
	for _, name := range []string{"config.log <==", "CMakeCache.txt <==", "CMakeError.log <==", "CMakeOutput.log <==",
		"CMakeConfigureLog.yaml <==", "meson-log.txt <=="} {
		if bytes.HasSuffix(line, []byte(name)) {
			return true
		}
	}
	return false
}

// fell reports whether the build has failed at this line: what follows is
// not its cause.
func fell(line []byte) bool {
	for _, begin := range []string{"dpkg-buildpackage: error: ", "make: *** [debian/rules"} {
		if bytes.HasPrefix(line, []byte(begin)) {
			return true
		}
	}
	return false
}

// Find reads the log of a failed build and returns what it names as its
// first error, nil if nothing looks like one. It reads to the end, in one
// pass and with little memory.
func Find(log io.Reader) (*FirstError, error) {
	r := bufio.NewReaderSize(log, 256<<10)
	f := finder{rank: none}
	for n := 1; ; n++ {
		line, err := readLine(r)
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("read log: %w", err)
		}
		if err == io.EOF && len(line) == 0 {
			break
		}
		if f.best != nil && len(f.best.After) < contextAfter {
			f.best.After = append(f.best.After, show(line))
		}
		if !f.done {
			f.look(n, line)
		}
		if f.done && len(f.best.After) >= contextAfter {
			break
		}
		if len(f.before) > contextBefore+backLines {
			first := f.before[0]
			copy(f.before, f.before[1:])
			f.before[len(f.before)-1] = append(first[:0], line...)
		} else {
			f.before = append(f.before, append([]byte(nil), line...))
		}
		if err == io.EOF {
			break
		}
	}
	return f.best, nil
}

// finder is what is known of a log that is read to some line.
type finder struct {
	best          *FirstError
	rank          int         // of best
	warned        *FirstError // the last warning
	before        [][]byte    // the last lines, more than are shown
	lower         []byte
	dumping, done bool
}

// look judges line n.
func (f *finder) look(n int, line []byte) {
	text := plain(line)
	if !f.dumping && dump(text) {
		f.dumping = true
		if f.rank > carrier {
			if e := stepBack(n, line, f.before); e != nil {
				f.best, f.rank = e, carrier
			}
		}
	}
	if f.rank > cause && len(f.before) > 0 {
		last := len(f.before) - 1
		if above := plain(f.before[last]); told(above, text) != "" {
			f.best, f.rank = found(told(above, text), n-1, above, f.before[:last]), cause
			f.best.After = append(f.best.After, show(line))
		}
	}
	if f.rank > cause {
		f.warn(n, text)
	}
	if k, rk := classify(text, &f.lower, f.rank); k != "" && rk < f.rank && (!f.dumping || rk >= carrier) {
		f.best, f.rank = lastWords(found(k, n, text, f.before), n, text, f.before), rk
	} else if f.best != nil && f.best.Line == n-1 && goesOn(f.best, text) {
		f.best.Text += " " + strings.TrimSpace(show(text))
	}
	if f.rank < last && fell(text) {
		f.done = true
	}
}

// told is the kind of error that the line above is, since this one follows it; "" for none.
func told(above, text []byte) string {
	switch {
	case bytes.Equal(text, whileExecuting):
		return "tcl"
	case place(text) && bytes.HasPrefix(above, []byte("error: ")):
		return "rust" // its errors of syntax have no number
	}
	return ""
}

// strict is what tools say at their end that were told to fail of a warning.
var strict = re(`warnings (?:treated as errors|found and -Werror specified)`)

// warn keeps line n if it is a warning; when it says that such are errors, the last one was.
func (f *finder) warn(n int, text []byte) {
	switch {
	case f.warned != nil && bytes.Contains(text, []byte("warnings ")) && strict.Match(text):
		f.best, f.rank = f.warned, cause
		f.best.After = append(f.best.After, show(text))
	case bytes.Contains(text, []byte(": WARNING: ")) || bytes.Contains(text, []byte(": warning: ")):
		f.warned = found("compiler", n, text, f.before)
	}
}

// dhTool begins the lines of debhelper's programs, which call others.
var dhTool = []byte("dh_")

// commandLine is in the command of a compiler, not in what it says.
var commandLine = []byte(" -Werror")

// classify returns the kind and rank of the best sign that the line bears, if
// its rank is below limit.
func classify(line []byte, lower *[]byte, limit int) (kind string, rank int) {
	rank = none
	*lower = appendLower((*lower)[:0], line)
	if !slices.ContainsFunc(stems, func(w []byte) bool {
		return bytes.Contains(*lower, w)
	}) || bytes.Contains(line, commandLine) {
		return "", none
	}
	for i := range errorSigns {
		s := &errorSigns[i]
		if s.rank >= limit || s.rank >= rank {
			continue
		}
		for _, w := range s.words {
			if bytes.Contains(*lower, []byte(w)) {
				if s.pattern.Match(line) && (packaging.Match(line) || !harmless.Match(line)) {
					kind, rank = s.kind, s.rank
				}
				break
			}
		}
	}
	if rank == report && bytes.HasPrefix(line, dhTool) && passedOn.Match(line) {
		return "dh", carrier
	}
	return kind, rank
}

// readLine returns the next line without its newline, of a long one only the
// beginning. The slice is valid until the next call.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err == nil {
		return line[:len(line)-1], nil
	}
	if err != bufio.ErrBufferFull {
		return line, err
	}
	line = append([]byte(nil), line[:shownLine]...)
	for err == bufio.ErrBufferFull {
		_, err = r.ReadSlice('\n')
	}
	if err == io.EOF {
		err = nil // once more, and then nothing
	}
	return line, err
}

// show makes a line fit to be shown.
func show(line []byte) string {
	if len(line) > shownLine {
		line = append(append([]byte(nil), line[:shownLine]...), " ..."...)
	}
	return string(clean.Escape(nil, line))
}
