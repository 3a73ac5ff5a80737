package buildlog

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"packmill/internal/clean"
)

// Each fragment is what the real program prints, within what debhelper and
// make print around it. The line to be found is marked with "> ", and one that
// goes on with it with ">+ ".
var fragments = []struct{ name, kind, log string }{
	{"gcc", "compiler", `
checking for error_at_line... no
gcc -DHAVE_CONFIG_H -I. -Wdate-time -g -O2 -Werror=format-security -c -o hello.o hello.c
hello.c: In function 'main':
hello.c:12:5: warning: implicit declaration of function 'error' [-Wimplicit-function-declaration]
> hello.c:14:18: error: expected ';' before 'return'
   14 |   printf ("hi\n")
      |                  ^
make[2]: *** [Makefile:1523: hello.o] Error 1
make[1]: *** [Makefile:1288: all-recursive] Error 1
dh_auto_build: error: make -j2 returned exit code 2
make: *** [debian/rules:11: binary] Error 25
dpkg-buildpackage: error: debian/rules binary subprocess returned exit status 2`},
	{"gcc with colours, in parallel", "compiler", `
make[2]: Entering directory '/build/x'
gcc -c -o b.o b.c
` + "> \x1b[01m\x1b[Ka.c:3:10:\x1b[m\x1b[K \x1b[01;31m\x1b[Kfatal error: \x1b[m\x1b[Kfoo.h: No such file or directory" + `
compilation terminated.
gcc -c -o c.o c.c
make[2]: *** [Makefile:3: a.o] Error 1
make[2]: *** Waiting for unfinished jobs....`},
	{"curl", "network", `
cd src && curl -fO https://example.org/x.tar.gz
> curl: (6) Could not resolve host: example.org
make[1]: *** [debian/rules:8: override_dh_auto_build] Error 6
make: *** [debian/rules:4: binary] Error 2`},
	{"wget", "network", `
--2026-11-29 03:07:53--  https://example.org/x
> Resolving example.org (example.org)... failed: Temporary failure in name resolution.
wget: unable to resolve host address 'example.org'
make[1]: *** [debian/rules:8: override_dh_auto_build] Error 4`},
	{"xsltproc", "network", `
> warning: failed to load external entity "http://docbook.sourceforge.net/release/xsl/current/manpages/docbook.xsl"
cannot parse http://docbook.sourceforge.net/release/xsl/current/manpages/docbook.xsl
make[1]: *** [Makefile:3: x.1] Error 4`},
	{"unittest that cannot import", "python", `
E
======================================================================
ERROR: test_x (unittest.loader._FailedTest.test_x)
----------------------------------------------------------------------
ImportError: Failed to import test module: test_x
Traceback (most recent call last):
  File "/usr/lib/python3.11/unittest/loader.py", line 419, in _find_test_path
    module = self._get_module_from_name(name)
             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/build/x/test_x.py", line 1, in <module>
    import yaml
> ModuleNotFoundError: No module named 'yaml'
FAILED (errors=1)
make[1]: *** [debian/rules:8: override_dh_auto_test] Error 1`},
	{"tcl", "tcl", `
> can't find package nosuch
    while executing
"package require nosuch"
    (file "t.tcl" line 1)
make[1]: *** [Makefile:2: all] Error 1`},
	{"a maintainer script", "dpkg", `
Setting up breaks (1) ...
/var/lib/dpkg/info/breaks.postinst: 3: nosuch: not found
> dpkg: error processing package breaks (--configure):
>+  installed breaks package post-installation script subprocess returned error exit status 127
Errors were encountered while processing:
 breaks
E: Sub-process /usr/bin/dpkg returned an error code (1)`},
	{"g++ template", "compiler", `
In file included from /usr/include/c++/12/vector:64,
                 from src/x.cpp:1:
> /usr/include/c++/12/bits/stl_vector.h:987:3: error: static assertion failed: bool is not allowed
make[1]: *** [Makefile:5: x.o] Error 1`},
	{"gcc -Werror", "compiler", `
gcc -Wall -Werror -c -o x.o x.c
> x.c:3:9: error: unused variable 'x' [-Werror=unused-variable]
cc1: all warnings being treated as errors
make[1]: *** [Makefile:3: x.o] Error 1`},
	{"cc1 killed", "killed", `
c++ -O2 -c big.cc
> c++: fatal error: Killed signal terminated program cc1plus
compilation terminated.
make[3]: *** [CMakeFiles/big.dir/build.make:76: CMakeFiles/big.dir/big.cc.o] Error 1`},
	{"internal compiler error", "killed", `
during RTL pass: expand
> x.c:7:1: internal compiler error: in expand_expr_real_1, at expr.c:10070
Please submit a full bug report, with preprocessed source (by using -freport-bug).`},
	{"linker", "linker", `
libtool: link: gcc -o hello hello.o
> /usr/bin/ld: hello.o: in function 'main': hello.c:9: undefined reference to 'foo_init'
collect2: error: ld returned 1 exit status
make[2]: *** [Makefile:400: hello] Error 1`},
	{"library missing", "linker", `
> /usr/bin/ld: cannot find -lfoo: No such file or directory
collect2: error: ld returned 1 exit status`},
	{"disk full", "space", `
> /tmp/ccAbCdEf.s: fatal error: error writing to /tmp/ccAbCdEf.s: No space left on device
compilation terminated.
x.c:1:1: error: something that follows
make: *** [Makefile:2: all] Error 1`},
	{"no rule", "missing-file", `
make[1]: Entering directory '/build/x'
> make[1]: *** No rule to make target 'doc/manual.txt', needed by 'all'.  Stop.
dh_auto_build: error: make -j2 returned exit code 2`},
	{"command not found", "missing-file", `
	help2man --output=hello.1 ./hello
> /bin/sh: 1: help2man: not found
make[2]: *** [Makefile:33: hello.1] Error 127`},
	{"cp", "missing-file", `
   debian/rules override_dh_install
> cp: cannot stat 'build/out/*.so': No such file or directory
make[1]: *** [debian/rules:20: override_dh_install] Error 1`},
	{"make separator", "make", `
> debian/rules:9: *** missing separator.  Stop.
dpkg-buildpackage: error: debian/rules clean subprocess returned exit status 2`},
	{"dh_install", "missing-file", `
   dh_install -a
> dh_install: warning: Cannot find (any matches for) "usr/lib/*/libfoo.so.*" (tried in ., debian/tmp)

dh_install: warning: libfoo1 missing files: usr/lib/*/libfoo.so.*
dh_install: error: missing files, aborting
make: *** [debian/rules:6: binary] Error 25`},
	{"dh_missing", "missing-file", `
> dh_missing: warning: usr/share/man/man1/x.1 exists in debian/tmp but is not installed to anywhere
dh_missing: error: missing files, aborting`},
	{"dh compat", "dh", `
 debian/rules clean
> dh: error: Compatibility levels before 7 are no longer supported (level 5 requested)
make: *** [debian/rules:4: clean] Error 25`},
	{"dpkg-shlibdeps", "shlibdeps", `
   dh_shlibdeps -a
> dpkg-shlibdeps: error: cannot find library libfoo.so.1 needed by debian/x/usr/bin/x (ELF format: 'elf64-x86-64' abi: '0201003e00000000'; RPATH: '')
dpkg-shlibdeps: error: cannot continue due to the error above
dh_shlibdeps: error: dpkg-shlibdeps -Tdebian/x.substvars debian/x/usr/bin/x returned exit code 25`},
	{"dpkg-gensymbols", "symbols", `
   dh_makeshlibs -a
> dpkg-gensymbols: warning: some symbols or patterns disappeared in the symbols file: see diff output below
dpkg-gensymbols: warning: debian/libx1/DEBIAN/symbols doesn't match completely debian/libx1.symbols
--- debian/libx1.symbols (libx1_1.0_amd64)
dh_makeshlibs: error: failing due to earlier errors`},
	{"dpkg-source patch", "patch", `
dpkg-source: info: applying fix.patch
patching file src/main.c
> Hunk #1 FAILED at 20.
1 out of 1 hunk FAILED
dpkg-source: info: the patch has fuzz which is not allowed, or is malformed`},
	{"quilt", "patch", `
Applying patch fix.patch
patching file a.c
Hunk #2 succeeded at 99 (offset 3 lines).
> 1 out of 2 hunks FAILED -- rejects in file a.c
Patch fix.patch does not apply (enforce with -f)`},
	{"cmake", "cmake", `
-- Looking for pthread_create in pthreads - not found
-- Performing Test HAVE_X - Failed
> CMake Error at /usr/share/cmake-3.25/Modules/FindPackageHandleStandardArgs.cmake:230 (message):
>+   Could NOT find ZLIB (missing: ZLIB_LIBRARY ZLIB_INCLUDE_DIR)
Call Stack (most recent call first):
-- Configuring incomplete, errors occurred!
	cd obj-x86_64-linux-gnu && tail -v -n \+0 CMakeCache.txt
==> CMakeFiles/CMakeError.log <==
/build/x.c:1:10: fatal error: sys/nothing.h: No such file or directory
dh_auto_configure: error: cd obj-x86_64-linux-gnu && cmake .. returned exit code 1`},
	{"ctest", "test", `
      Start  1: alpha
 1/2 Test  #1: alpha ............................   Passed    0.01 sec
      Start  2: beta
>  2/2 Test  #2: beta .............................***Failed    0.02 sec

50% tests passed, 1 tests failed out of 2
The following tests FAILED:
	  2 - beta (Failed)
Errors while running CTest
make[1]: *** [Makefile:71: test] Error 8`},
	{"configure", "configure", `
checking for gcc... gcc
checking for library containing error... none required
checking for ncurses.h... no
> configure: error: ncurses is needed; see README
	tail -v -n \+0 config.log
==> config.log <==
conftest.c:11:10: fatal error: ac_nonexistent.h: No such file or directory
configure: failed program was:
dh_auto_configure: error: ./configure --build=x86_64-linux-gnu returned exit code 1`},
	{"pkg-config", "configure", `
checking for glib... no
> configure: error: Package requirements (glib-2.0 >= 2.90) were not met:

Requested 'glib-2.0 >= 2.90' but version of GLib is 2.74.6`},
	{"autoreconf", "configure", `
   dh_autoreconf
> configure.ac:14: error: possibly undefined macro: AM_PATH_GTK
      If this token and others are legitimate, please use m4_pattern_allow.
autoreconf: error: /usr/bin/autoconf failed with exit status: 1`},
	{"meson", "meson", `
Run-time dependency foo found: NO (tried pkgconfig and cmake)

> ../meson.build:42:0: ERROR: Dependency "foo" not found, tried pkgconfig and cmake

A full log can be found at /build/x/obj/meson-logs/meson-log.txt
==> meson-logs/meson-log.txt <==
/build/x/probe.c:1:10: error: no`},
	{"ninja compile", "compiler", `
[12/40] Compiling C object libx.a.p/x.c.o
FAILED: libx.a.p/x.c.o
cc -Ilibx.a.p -o libx.a.p/x.c.o -c ../x.c
> ../x.c:3:1: error: unknown type name 'intt'
ninja: build stopped: subcommand failed.`},
	{"python import", "python", `
dh_auto_test: warning: something
Traceback (most recent call last):
  File "/build/x/setup.py", line 3, in <module>
    import setuptools_scm
> ModuleNotFoundError: No module named 'setuptools_scm'
E: pybuild pybuild:388: clean: plugin distutils failed with: exit code=1`},
	{"pytest", "python", `
tests/test_x.py .F                                                       [100%]
=================================== FAILURES ===================================
    def test_add():
>       assert add(1, 1) == 3
> E       AssertionError: assert 2 == 3
FAILED tests/test_x.py::test_add - assert 2 == 3
E: pybuild pybuild:388: test: plugin distutils failed with: exit code=1`},
	{"unittest", "python", `
FAIL: test_x (tests.T)
Traceback (most recent call last):
  File "tests.py", line 5, in test_x
> AssertionError: 1 != 2
Ran 3 tests in 0.001s
FAILED (failures=1)`},
	{"go compile", "go", `
	cd _build && go install -trimpath -v -p 2 example.org/x
example.org/y
# example.org/x
> src/example.org/x/main.go:10:2: undefined: fmt.Printl
dh_auto_build: error: cd _build && go install returned exit code 1`},
	{"go package", "go", `
> src/example.org/x/x.go:4:2: cannot find package "github.com/y/z" in any of:
	/usr/lib/go-1.19/src/github.com/y/z (from $GOROOT)`},
	{"go test", "test", `
=== RUN   TestX
    x_test.go:9: got 1, want 2
> --- FAIL: TestX (0.00s)
FAIL
FAIL	example.org/x	0.002s`},
	{"rust", "rust", `
   Compiling x v0.1.0 (/build/x)
warning: unused variable: 'a'
> error[E0425]: cannot find value 'b' in this scope
>+  --> src/main.rs:3:5
error: could not compile 'x' due to previous error`},
	{"rust syntax, after a probe", "rust", `
fatal: not a git repository (or any of the parent directories): .git
   Compiling x v0.1.0 (/build/x)
> error: expected one of '.', ';' or '}', found '?'
>+  --> src/main.rs:4:1
  |
error: could not compile 'x' due to previous error
error: failed to load nothing`},
	{"cargo alone", "rust", `
   Compiling x v0.1.0 (/build/x)
> error: could not compile 'x' due to previous error
error: build failed`},
	{"rust test", "test", `
running 2 tests
test tests::good ... ok
> test tests::bad ... FAILED
thread 'tests::bad' panicked at src/lib.rs:9:9:
test result: FAILED. 1 passed; 1 failed; 0 ignored`},
	{"cargo", "rust", `
> error: no matching package named 'serde' found
location searched: directory source '/usr/share/cargo/registry'`},
	{"javac", "compiler", `
[javac] Compiling 3 source files
> src/A.java:3: error: cannot find symbol
  symbol:   class B`},
	{"maven", "java", `
[INFO] BUILD FAILURE
> [ERROR] Failed to execute goal org.apache.maven.plugins:maven-compiler-plugin:3.10.1:compile (default-compile)`},
	{"automake tests", "test", `
PASS: t/one.sh
XFAIL: t/two.sh
> FAIL: t/three.sh
# TOTAL: 3
# FAIL:  1
make[4]: *** [Makefile:900: test-suite.log] Error 1`},
	{"TAP", "test", `
ok 1 - alpha
not ok 2 - beta # TODO later
> not ok 3 - gamma
1..3`},
	{"perl", "perl", `
	perl Makefile.PL INSTALLDIRS=vendor
> Can't locate Module/Install.pm in @INC (you may need to install the Module::Install module) at Makefile.PL line 1.
BEGIN failed--compilation aborted at Makefile.PL line 1.`},
	{"apt", "dpkg", `
The following packages have unmet dependencies:
>  builddeps:x.dsc : Depends: nowhere-dev (>= 3) but it is not installable
E: Unable to correct problems, you have held broken packages.`},
	{"dpkg-gencontrol", "dpkg", `
> dpkg-gencontrol: error: package x not in control info
dh_gencontrol: error: dpkg-gencontrol -px returned exit code 255`},
	{"only make", "make", `
./list --all
the list is not sorted
> that was entry 7

make[1]: *** [debian/rules:5: build] Error 1
make: *** [debian/rules:3: binary] Error 2
dpkg-buildpackage: error: debian/rules binary subprocess returned exit status 2`},
	{"ignored before", "compiler", `
make[1]: [Makefile:3: probe] Error 1 (ignored)
0 errors, 0 warnings
> y.c:2:2: error: no
make: *** [Makefile:9: y.o] Error 1`},
	{"only make, which says nothing of its own", "make", `
> make[1]: *** [debian/rules:5: build] Error 1
make: *** [debian/rules:3: binary] Error 2`},
	{"a signal", "killed", `
./generate > table.c
> make[1]: *** [Makefile:4: table.c] Terminated
make: *** [debian/rules:3: binary] Error 2`},
	{"killed", "killed", `
./generate > table.c
> Killed
make[1]: *** [Makefile:4: table.c] Error 137`},
	{"go without network", "network", `
> go: example.org/x@v1.0.0: Get "https://goproxy.example.org/x": dial tcp: lookup goproxy.example.org: no such host
make: *** [debian/rules:3: binary] Error 2`},
	{"pip without network", "network", `
> WARNING: Retrying after connection broken by 'NewConnectionError': Failed to establish a new connection: [Errno -3] Temporary failure in name resolution'
ERROR: Could not find a version that satisfies the requirement yaml (from versions: none)`},
	{"segmentation fault", "other", `
./generate > table.c
> Segmentation fault (core dumped)
make[1]: *** [Makefile:4: table.c] Error 139`},
	{"a command of ninja's", "make", `
[1/3] gcc -c -o a.o ../a.c
FAILED: gen.h
/usr/bin/python3 ../gen.py gen.h
> ../table: row 3 has no name
[2/3] gcc -c -o b.o ../b.c
ninja: build stopped: subcommand failed.
dh_auto_build: error: cd obj-x86_64-linux-gnu && LC_ALL=C.UTF-8 ninja -j2 returned exit code 1
make: *** [debian/rules:3: binary] Error 25`},
	{"a configure that shows its log", "make", `
checking for gcc... gcc
> frob-config: libfrob is older than 3
	cd . && tail -v -n \+0 config.log
==> config.log <==
configure:1: error: in a probe
## ---------------- ##
configure: exit 1
dh_auto_configure: error: ./configure --prefix=/usr returned exit code 1
make: *** [debian/rules:3: binary] Error 25`},
	{"make without a makefile", "make", `
   dh_auto_install
	make -j2 install DESTDIR=/build/x/debian/x AM_UPDATE_INFO_DIR=no
> make[1]: *** No targets specified and no makefile found.  Stop.
dh_auto_install: error: make -j2 install DESTDIR=/build/x/debian/x AM_UPDATE_INFO_DIR=no returned exit code 2`},
	{"LaTeX", "compiler", `
(/usr/share/texlive/texmf-dist/tex/latex/base/size10.clo)
LaTeX Warning: Reference 'x' on page 1 undefined on input line 3.
> ! LaTeX Error: File 'nosuch.sty' not found.
Type X to quit or <RETURN> to proceed,
make[1]: *** [Makefile:3: x.pdf] Error 1`},
	{"Sphinx that is strict", "compiler", `
a.c:3:1: warning: unused variable 'x' [-Wunused-variable]
> /build/x/doc/index.rst:4: WARNING: undefined label: 'nosuch' [ref.ref]
writing output... [100%] index
build finished with problems, 1 warning (with warnings treated as errors).
make[1]: *** [Makefile:20: html] Error 1`},
	{"RSpec that cannot load", "ruby", `
An error occurred while loading ./spec/x_spec.rb.
Failure/Error: require 'nosuch'

> LoadError:
>+  cannot load such file -- nosuch
# ./spec/x_spec.rb:1:in '<top (required)>'
No examples found.`},
	{"R", "other", `
** testing if installed package can be loaded from temporary location
> Error in library(nosuch) : there is no package called 'nosuch'
Execution halted`},
	{"maven that compiles", "java", `
[ERROR] COMPILATION ERROR : 
[INFO] -------------------------------------------------------------
> [ERROR] /build/x/A.java:[3,10] cannot find symbol`},
	{"a version of git's that nobody has", "test", `
fatal: not a git repository (or any of the parent directories): .git
gcc -o t t.c
> FAIL: adds.sh
# FAIL:  1`},
	{"hostile", "compiler", `
> a.c:1:1: error: ` + "\x1b]0;owned\x07\u202e<script>" + `
make: *** [x] Error 1`},
}

func TestFind(t *testing.T) {
	for _, c := range fragments {
		t.Run(c.name, func(t *testing.T) {
			var log strings.Builder
			wantLine, wantText, n := 0, "", 0
			for _, line := range strings.Split(strings.TrimPrefix(c.log, "\n"), "\n") {
				n++
				// pytest marks lines with '>' itself, followed by more blanks.
				if rest, ok := strings.CutPrefix(line, "> "); ok && !strings.HasPrefix(rest, "      assert") {
					line, wantLine = rest, n
					wantText = strings.TrimSpace(string(clean.Escape(nil, []byte(line))))
				}
				if rest, ok := strings.CutPrefix(line, ">+ "); ok {
					line, wantText = rest, wantText+" "+strings.TrimSpace(rest)
				}
				log.WriteString(line + "\n")
			}
			got, err := Find(strings.NewReader(log.String()))
			if err != nil {
				t.Fatal(err)
			}
			if got == nil {
				t.Fatalf("nothing found in\n%s", log.String())
			}
			if got.Kind != c.kind || got.Line != wantLine || got.Text != wantText {
				t.Errorf("got %s, line %d: %q\nwant %s, line %d: %q", got.Kind, got.Line, got.Text, c.kind, wantLine, wantText)
			}
			if len(got.Before) > contextBefore || len(got.After) > contextAfter ||
				len(got.Before) != min(wantLine-1, contextBefore) {
				t.Errorf("%d lines before, %d after", len(got.Before), len(got.After))
			}
			for _, l := range append(got.Before, got.After...) {
				if strings.ContainsAny(l, "\x1b\x07\u202e") {
					t.Errorf("not escaped: %q", l)
				}
			}
		})
	}
}

// rust are sources that rustc and cargo refuse. What Debian's say is kept in
// testdata, since they are large; TestFindOfRust makes it again.
var rust = []struct{ name, kind, script, text string }{
	{"number", "rust", "rustc number.rs", "error[E0308]: mismatched types --> number.rs:2:19"},
	{"syntax", "rust", "rustc syntax.rs", "error: expected expression, found `}` --> syntax.rs:3:1"},
	{"linker", "rust", "rustc -C linker=nowhere-cc good.rs", "error: linker `nowhere-cc` not found"},
	{"build", "rust", "cd package && cargo build", "error[E0425]: cannot find function `nowhere` in this scope --> src/main.rs:2:5"},
	{"registry", "rust", "cd lacks && cargo build", "error: no matching package named `nowhere` found"},
	{"version", "rust", "cd older && cargo build", "error: failed to select a version for the requirement `near = \"^2\"`"},
	{"script", "rust", "cd script && cargo build", "error: failed to run custom build command for `hello v1.0.0"},
	{"test", "test", "cd tests && cargo test", "test sums ... FAILED"},
}

func TestFindInRust(t *testing.T) {
	for _, c := range rust {
		log, err := os.Open("testdata/rust-" + c.name + ".log")
		if err != nil {
			t.Fatal(err)
		}
		got, err := Find(log)
		log.Close()
		if err != nil || got == nil || got.Kind != c.kind || !strings.HasPrefix(got.Text, c.text) {
			t.Errorf("%s: found %+v, %v; want %s: %s", c.name, got, err, c.kind, c.text)
		}
	}
}

func TestFindNothing(t *testing.T) {
	for _, log := range []string{"", "all is well\n",
		"checking for strerror... yes\nlibtool: compile: gcc -Werror -c x.c\n"} {
		if got, err := Find(strings.NewReader(log)); got != nil || err != nil {
			t.Errorf("%q: got %+v, %v", log, got, err)
		}
	}
}

// A long log with lines of any length is read in bounded memory and time.
func TestFindLong(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(buildLog(4<<20, 1)[:4<<20])
	b.WriteString("\n" + strings.Repeat("error:", 1<<20) + "\n")
	b.WriteString("real.c:1:1: error: here\nmake: *** [x] Error 1\n")
	start := time.Now()
	got, err := Find(&b)
	if err != nil || got == nil || got.Text != "real.c:1:1: error: here" {
		t.Errorf("got %+v, %v", got, err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	for _, l := range got.Before {
		if len(l) > shownLine+10 {
			t.Errorf("line of %d bytes kept", len(l))
		}
	}
}

func BenchmarkFind(b *testing.B) {
	text := strings.ReplaceAll(buildLog(16<<20, 1), "Error: expected Declaration", "warning: nothing")
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if got, err := Find(strings.NewReader(text)); err != nil || got != nil {
			b.Fatal(fmt.Sprintf("%+v", got), err)
		}
	}
}

func TestStems(t *testing.T) {
	for _, s := range errorSigns {
		for _, w := range s.words {
			if w != strings.ToLower(w) {
				t.Errorf("%s: word %q is not in lower case", s.kind, w)
			}
			found := false
			for _, stem := range stems {
				found = found || strings.Contains(w, string(stem))
			}
			if !found {
				t.Errorf("%s: no stem is in the word %q", s.kind, w)
			}
		}
	}
}

func FuzzFind(f *testing.F) {
	for _, c := range fragments {
		f.Add([]byte(c.log))
	}
	f.Fuzz(func(t *testing.T, log []byte) {
		got, err := Find(bytes.NewReader(log))
		if err != nil {
			t.Fatal(err)
		}
		if got != nil && (got.Kind == "" || got.Line < 1 || got.Line > bytes.Count(log, []byte("\n"))+1) {
			t.Errorf("%q: %+v", log, got)
		}
	})
}
