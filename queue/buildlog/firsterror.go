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

	// A build has no network: what asks for it has this cause, whatever comes of it.
	{"network", cause,
		[]string{"could not resolve", "unable to resolve", "temporary failure", "failed to load external",
			"network is unreachable", "name or service not known", "getaddrinfo", "dial tcp", "failed to establish a new"},
		re(`Could not resolve host|unable to resolve host address|: Temporary failure in name resolution|` +
			`failed to load external entity "?https?:|: Network is unreachable|: Name or service not known|` +
			`getaddrinfo E[A-Z]+|dial tcp: lookup \S+|Failed to establish a new connection`)},
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
	{"compiler", cause, []string{"error:"},
		re(`^(?:cc1(?:plus|obj)?|g\+\+|gcc|c\+\+|cc|clang|gfortran|as|valac|ghc|ocaml\w*|javac): (?:fatal )?error:`)},
	{"compiler", cause, []string{"error: "},
		re(`^(?:Fatal )?Error: (?:Unbound|Syntax error|This expression|Symbol|Cannot open module|Type mismatch)`)},
	// makeinfo, flex, msgfmt and erlc say no word such as error.
	{"compiler", cause, []string{".texi", ".l:", ".po:", ".erl:"}, re(`^\S+\.(?:texi|texinfo|l|po|erl):\d+:(?:\d+:)? `)},
	{"compiler", cause, []string{".proto"}, re(`^\S+\.proto:(?:\d+:\d+:)? \S`)},
	{"compiler", cause, []string{"error :"}, re(`^\S+:\d+: (?:element \S+: )?(?:[\w-]+ )*error : `)}, // libxml2
	{"compiler", cause, []string{"read error during"}, re(`^\s*READ error during `)},                 // Lisp
	{"compiler", cause, []string{"error)"}, re(`^\*\* \(\w+Error\) `)},                               // Elixir
	{"linker", cause,
		[]string{"undefined reference", "cannot find -l", "ld returned", "multiple definition", "undefined symbol",
			"relocation r_"},
		re(`undefined reference to|: cannot find -l\S+|ld\.lld: error:|rust-lld: error:|multiple definition of |` +
			`: relocation R_\w+ against .* can ?not be used`)},
	{"rust", cause, []string{"error["}, re(`^\s*error\[E\d{4}\]:`)},
	{"rust", cause, []string{"error: no matching package", "error: failed to", "error: linker "},
		re(`^error: (?:no matching package|failed to (?:select|get|load|parse|run custom build)|linker \S+ not found)`)},
	{"rust", report, []string{"could not compile"}, re(`^error: could not compile`)},
	{"go", cause, []string{".go:"},
		re(`^(?:vet: )?(?:\.{0,2}/)?[\w./@+~-]+\.go:\d+(?::\d+)?: (?:undefined|cannot |imported and not used|` +
			`declared and not used|syntax error|too many|not enough|invalid|undeclared|missing|no required module|` +
			`no non-test|type |could not import|assignment mismatch|[\w.]+ (?:redeclared|is not|undefined)|expected |` +
			`unknown |duplicate )`)},
	{"go", cause, []string{"cannot find package", "no required module", "cannot find module", "build constraints exclude"},
		re(`cannot find package "|no required module provides package|cannot find module providing package|` +
			`build constraints exclude all Go files|^go: .*: (?:cannot|no matching|missing|unknown|dial)`)},
	{"java", cause, []string{".java:", "[error]", "build failed"}, re(`\.java:\d+: error: |^\[ERROR\] `)},

	{"cmake", cause, []string{"cmake error", "could not find a package configuration"}, re(`^CMake Error`)},
	{"meson", cause, []string{"meson.build"}, re(`^(?:\S*/)?meson\.build:\d+:\d+: ERROR: `)},
	{"meson", report, []string{"ninja: error"}, re(`^ninja: error: `)},

	{"perl", cause,
		[]string{"can't locate", "can't open", "can't exec", "can't load", "compilation failed", "syntax error at"},
		re(`^Can't locate \S+ in @INC|^syntax error at \S+ line \d+|^Can't (?:open|exec|load) .* at \S+ line \d+`)},
	{"perl", cause, []string{"required--"}, re(`^\S+ (?:version )?v?[\d.]+ required--this is only `)},
	{"python", cause, []string{"not found"}, re(`^E\s+fixture '.*' not found`)},
	{"python", cause, []string{"error: ", "exception", "exit: "},
		re(`^(?:E\s+)?(?:ModuleNotFoundError|ImportError|SyntaxError|IndentationError|TypeError|NameError|AttributeError|` +
			`ValueError|KeyError|RuntimeError|AssertionError|FileNotFoundError|OSError|PermissionError|ConnectionError|` +
			`UnicodeDecodeError|UnicodeEncodeError|IndexError|ZeroDivisionError|NotImplementedError|DeprecationWarning|` +
			`LookupError|(?:[\w.]+\.)?\w*(?:Error|Exception|NotFound)): `)},
	{"python", cause, []string{"extension error", "theme error", "configuration error"},
		re(`^(?:Extension|Theme|Configuration) error:`)}, // Sphinx
	{"ruby", cause, []string{"error)"},
		re(`\((?:LoadError|NameError|NoMethodError|SyntaxError|ArgumentError|Gem::\w+Error)\)$`)},
	{"php", cause, []string{"php fatal error", "php parse error"}, re(`^PHP (?:Fatal|Parse) error: `)},
	{"ruby", cause, []string{"syntax error"}, re(`^\S+\.rb:\d+: syntax error`)},
	{"java", cause, []string{"exception in thread"}, re(`^Exception in thread "`)},
	{"ruby", cause, []string{"rake aborted"}, re(`^rake aborted!`)},
	{"perl", cause, []string{"error:  "}, re(`^#\s+Error:  \S`)}, // Test::More's use_ok
	{"tcl", cause, []string{"can't find package"}, re(`^can't find package \S`)},
	{"lua", cause, []string{"lua"}, re(`^lua(?:jit)?[\d.]*: \S+:\d+: `)},
	{"python", report, []string{"traceback (most"}, re(`^Traceback \(most recent call last\):`)},
	{"python", report, []string{"error: "},
		re(`^(?:ERROR|error): (?:invalid command|Could not find a version|No matching distribution|Backend|` +
			`Missing dependencies)`)},

	{"other", report, []string{"gzip: "}, re(`^gzip: \S+: `)},
	// A shell that lacks a program may be one that only asks for it, as autoreconf does.
	{"missing-file", report, []string{"not found"},
		re(`^(?:/\S+/)?(?:ba|da|z|k)?sh: (?:\d+: |line \d+: )?\S+: (?:command )?not found`)},
	{"missing-file", cause,
		[]string{"no such file", "cannot stat", "missing separator", "no rule to make", "can't find"},
		re(`^(?:cp|mv|install|ln|cat|chmod|chrpath|rm|sed|tar|touch): .*(?:No such file or directory|cannot stat)|` +
			`^make(?:\[\d+\])?: (?:\*\*\* )?(?:\S+: )?(?:No such file or directory|Command not found)|No rule to make target|` +
			`^\S+:\d+: \*\*\* missing separator|^Can't find |env: .*: No such file|^\S+: \S+: No such file or directory`)},
	{"missing-file", cause, []string{"missing files", "cannot find (any matches", "dh_missing: "},
		re(`^dh_\w+: (?:error: )?(?:missing files, aborting|Cannot find \(any matches)|` +
			`^dh_\w+: warning: Cannot find \(any matches|^dh_missing: (?:error|warning): .* exists in `)},

	{"shlibdeps", cause, []string{"dpkg-shlibdeps: error"}, re(`^dpkg-shlibdeps: error: `)},
	{"symbols", cause, []string{"dpkg-gensymbols"},
		re(`^dpkg-gensymbols: error: |^dpkg-gensymbols: warning: some symbols or patterns disappeared`)},
	{"patch", cause, []string{"hunk", "patch "},
		re(`^Hunk #\d+ FAILED|^\d+ out of \d+ hunks? (?:FAILED|failed)|^Patch \S+ does not apply|^dpkg-source: (?:error|` +
			`info): .*patch.*(?:does not apply|fails)|^error: patch failed`)},
	{"patch", cause, []string{"dpkg-source: error"}, re(`^dpkg-source: error: `)},

	{"test", report, []string{"fail"},
		re(`^--- FAIL: |^FAIL(?:ED)?:? \S|^FAILED \S+::|^test \S+ \.\.\. FAILED|^\s*\d+/\d+ .* (?:FAIL|TIMEOUT)\b|` +
			`^\s*\d+ - .*\((?:Failed|Timeout|SEGFAULT|Subprocess aborted|Not Run)\)|^\s*\d+ - .*\*\*\*(?:Failed|Exception|` +
			`Timeout)|\*\*\*(?:Failed|Timeout|Exception)|^\s*\d+\) .*FAILED|^\[  FAILED  \] \S`)},
	// test-unit, minitest and RSpec.
	{"test", report, []string{"failure:", "error:"}, re(`^Failure: |^\s+\d+\) (?:Failure|Error):`)},
	{"test", report, []string{"failure/error"}, re(`^\s+Failure/Error: `)},
	{"test", report, []string{"assertion '"}, re(`^\S+:\d+:F:\S+: Assertion '`)},                          // libcheck
	{"test", report, []string{"error "}, re(`^ERROR \S+\.py(?:::\S+)?|^error \d+ at \d+ depth lookup: `)}, // pytest, openssl
	{"test", report, []string{"sanitizer: "}, re(`^==\d+==\s*ERROR: \w+Sanitizer: |: runtime error: `)},
	{"test", report, []string{"missing"}, re(`^E: \S+:\S+: [a-z-]+$`)},  // appstreamcli
	{"test", report, []string{"error ["}, re(`^\s*\w*Error \[\w+\]: `)}, // node
	{"test", report, []string{"failed"}, re(`^==== \S+ .*\bFAILED$`)},   // tcltest
	{"test", report, []string{"not ok"}, re(`^\s*not ok \d+`)},
	{"test", report, []string{"panicked at", "panic:", "assertion"},
		re(`^thread '.*' (?:\(\d+\) )?panicked at|^panic: |: Assertion .* failed\.|^FATAL: assertion`)},
	{"test", report, []string{"failed"},
		re(`^\s*Failed [Tt]est|^Failed \d+/\d+ (?:test programs|subtests)|\d+ tests? failed|^# FAIL: +[1-9]`)},

	{"dpkg", cause,
		[]string{"dpkg-gencontrol: error", "dpkg-deb: error", "dpkg-parsechangelog", "dpkg-genchanges: error",
			"dpkg-checkbuilddeps", "dpkg-buildflags: error"},
		re(`^dpkg-(?:gencontrol|deb|genchanges|parsechangelog|buildflags|checkbuilddeps|genbuildinfo|` +
			`architecture): error: `)},
	{"dpkg", cause, []string{"dpkg: error processing"}, re(`^dpkg: error processing (?:package|archive) `)},
	{"dpkg", cause,
		[]string{"unmet dependencies", "but it is not", "unable to", "e: failed", "e: could not", "e: unmet", "e: package",
			"e: version", "e: build-depends", "e: sub-process", "e: please"},
		re(`^E: (?:Unable to|Failed to|Could not|Unmet|Package|Version|Build-Depends|Sub-process|Please)|` +
			`^ \S+ : (?:Depends|Conflicts): `)},
	{"dh", report, []string{"dh_", "dh: "}, re(`^(?:dh|dh_\w+): error: `)},

	// What the C library and that of C++ say before they abort.
	{"killed", report, []string{"detected ***", "double free", "free():", "malloc():", "corrupted ", "terminate called"},
		re(`^\*\*\* .* detected \*\*\*: terminated|^double free or corruption|^(?:free|malloc|realloc)\(\): |` +
			`^corrupted (?:size|double-linked)|^terminate called `)},
	{"killed", report, []string{"*** ", "killed", "illegal instruction", "bus error", "floating point exception"},
		re(`^Killed$|^\S+: line \d+: +\d+ Killed|^(?:Illegal instruction|Bus error|Floating point exception)\b|` +
			`^g?make(?:\[\d+\])?: \*\*\* .*\] (?:Killed|Terminated|Segmentation fault|Aborted|Bus error|Illegal instruction|` +
			`Floating point exception|Trace/breakpoint trap|Hangup)`)},
	{"other", report, []string{"error:", "fatal:", "segmentation fault", "core dumped", "aborted"},
		re(`^(?:[\w./+-]+: )*(?:fatal|FATAL|Fatal)(?: error)?: |^(?:[\w./+-]+: )*(?:error|ERROR|Error): |` +
			`Segmentation fault|\(core dumped\)|^Aborted`)},
	{"make", carrier, []string{"***"}, re(`^(?:g?make|ninja|scons|waf)(?:\[\d+\])?: \*\*\* `)},
	{"make", carrier, []string{"failed:", "build stopped"}, re(`^FAILED: |^ninja: build stopped`)},
	{"other", last, []string{"dpkg-buildpackage: error", "debian/rules"}, re(`^dpkg-buildpackage: error: `)},
}

// whileExecuting is what Tcl prints under its error, which looks like nothing else.
var whileExecuting = []byte("    while executing")

// place reports whether a line says where rustc found what the line before it
// names.
func place(line []byte) bool { return bytes.HasPrefix(bytes.TrimLeft(line, " "), []byte("--> ")) }

// goesOn reports whether a line belongs to the error in the line before it: what
// cmake says under its heading, and the place of rustc.
func goesOn(e *FirstError, line []byte) bool {
	switch e.Kind {
	case "cmake":
		return strings.HasSuffix(e.Text, ":") && bytes.HasPrefix(line, []byte("  "))
	case "rust":
		return place(line)
	case "python", "ruby", "test": // Sphinx, rake and minitest say what is wrong in the next line
		return slices.ContainsFunc([]string{" error:", " aborted!", ") Failure:", ") Error:"}, func(end string) bool {
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

// passedOn is make's line of a command that failed, or debhelper's.
var passedOn = re(`^g?make(?:\[\d+\])?: \*\*\* |^dh_auto_\w+: error: .* returned exit code \d+$`)

// lastWords steps back from a line which says only that something failed to what was
// printed before it: that of an error in line n.
func lastWords(e *FirstError, n int, line []byte, before [][]byte) *FirstError {
	if e.Kind != "make" && e.Kind != "dh" || !passedOn.Match(line) {
		return e
	}
	for i := len(before) - 1; i >= max(0, len(before)-backLines); i-- {
		text := plain(before[i])
		if len(bytes.TrimSpace(text)) == 0 || bytes.HasPrefix(text, []byte("make")) || passedOn.Match(text) {
			continue
		}
		e = found("make", n-(len(before)-i), text, before[:i])
		for _, l := range append(slices.Clone(before[i+1:]), line) {
			e.After = append(e.After, show(l))
		}
		break
	}
	return e
}

// harmless are lines that look like errors and are not: results of probes,
// makes that were told to go on, tests that fail as they should.
var harmless = re(`(?i)^checking |\(ignored\)|^\s*(?:-- )?(?:Performing Test|Looking for|Check(?:ing)? )|^XFAIL|` +
	`# TODO|# SKIP|: warning:|^libtool: |^(?:gcc|g\+\+|cc|c\+\+|clang|x86_64-\S+|i686-\S+|aarch64-\S+|` +
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
	[]byte(".l:"), []byte(".po:"), []byte(".erl:"), []byte("gzip: "), []byte("sanitizer"), []byte(".am:"), []byte(".proto"), []byte("relocation"),
	[]byte("double free"), []byte("free():"), []byte("malloc():"), []byte("corrupted"), []byte("terminate called"),
}

// dump reports whether a part of the log begins in which a failed configure
// run shows its own log: the errors of all its probes.
func dump(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("==> ")) {
		return false
	}
	for _, name := range []string{"config.log <==", "CMakeError.log <==", "CMakeOutput.log <==",
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
	best := (*FirstError)(nil)
	rank := none
	var before [][]byte // the last lines, one more than is shown
	var lower []byte
	n, dumping, done := 0, false, false
	for {
		line, err := readLine(r)
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("read log: %w", err)
		}
		if err == io.EOF && len(line) == 0 {
			break
		}
		n++
		if best != nil && len(best.After) < contextAfter && n > best.Line {
			best.After = append(best.After, show(line))
		}
		if !done {
			text := plain(line)
			if dump(text) {
				dumping = true
			}
			if rank > cause && len(before) > 0 && bytes.Equal(text, whileExecuting) {
				best, rank = found("tcl", n-1, plain(before[len(before)-1]), before[:len(before)-1]), cause
				best.After = append(best.After, show(line))
			}
			if rank > cause && len(before) > 0 && place(text) {
				// rustc's errors of syntax have no number: the place tells.
				if above := plain(before[len(before)-1]); bytes.HasPrefix(above, []byte("error: ")) {
					best, rank = found("rust", n-1, above, before[:len(before)-1]), cause
					best.After = append(best.After, show(line))
				}
			}
			if k, rk := classify(text, &lower, rank); k != "" && rk < rank && (!dumping || rk >= carrier) {
				best, rank = lastWords(found(k, n, text, before), n, text, before), rk
			} else if best != nil && best.Line == n-1 && goesOn(best, text) {
				best.Text += " " + strings.TrimSpace(show(text))
			}
			if rank < last && fell(text) {
				done = true
			}
		}
		if done && len(best.After) >= contextAfter {
			break
		}
		if len(before) > contextBefore+backLines {
			first := before[0]
			copy(before, before[1:])
			before[len(before)-1] = append(first[:0], line...)
		} else {
			before = append(before, append([]byte(nil), line...))
		}
		if err == io.EOF {
			break
		}
	}
	return best, nil
}

// autoTool begins the lines of debhelper's programs that call others.
var autoTool = []byte("dh_auto_")

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
	if rank == report && bytes.HasPrefix(line, autoTool) && passedOn.Match(line) {
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
