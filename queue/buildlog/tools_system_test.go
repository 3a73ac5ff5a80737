//go:build system

package buildlog

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestFindOfTools lets the real programs fail, in the words of their versions
// here, and looks for what they say between what make and debhelper say.
func TestFindOfTools(t *testing.T) {
	files := map[string]string{
		"broken.c": "int main(void) {\n\treturn x;\n}\n",
		"alone.c":  "int far(void);\nint main(void) { return far(); }\n",
		"lib.c":    "int far(void) { return 0; }\n",
		"header.c": "#include <nowhere.h>\n",
		"rule.mk":  "all: nowhere\n",
		"false.mk": "all:\n\tfalse\n",
		"wrong.py": "def f(:\n    pass\n",
		"cases.py": "import unittest\nclass T(unittest.TestCase):\n    def test_x(self):\n" +
			"        self.assertEqual(1, 2)\nunittest.main()\n",
		"t.t":       "print \"1..2\\nok 1\\nnot ok 2 - beta\\n\";\n",
		"main.go":   "package main\n\nfunc main() { nowhere() }\n",
		"fix.patch": "--- a/lib.c\n+++ b/lib.c\n@@ -1 +1 @@\n-int near;\n+int nearer;\n",
		"debian/control": "Source: hello\nMaintainer: A <a@example.org>\n\nPackage: hello\n" +
			"Architecture: any\nDescription: x\n X.\n",
		"debian/changelog": "hello (1) sid; urgency=low\n\n  * x\n\n" +
			" -- A <a@example.org>  Mon, 02 Nov 2026 00:00:00 +0000\n",
		"debian/compat":              "13\n",
		"debian/install":             "usr/lib/nowhere*\n",
		"debian/rules":               "#!/usr/bin/make -f\n%:\n\tdh $@\n",
		"debian/hello/usr/bin/.keep": "",

		"cm1/CMakeLists.txt": "cmake_minimum_required(VERSION 3.10)\nproject(x C)\nfind_package(Nowhere REQUIRED)\n",
		"cm2/CMakeLists.txt": "cmake_minimum_required(VERSION 3.10)\nproject(x C)\nfind_package(PkgConfig REQUIRED)\n" +
			"pkg_check_modules(N REQUIRED nowhere>=3)\n",
		"cm3/CMakeLists.txt": "cmake_minimum_required(VERSION 3.10)\nproject(x C)\nadd_executable(x ../broken.c)\n",
		"me1/meson.build":    "project('x', 'c')\ndependency('nowhere', version: '>=3')\n",
		"me2/meson.build":    "project('x', 'c')\nexecutable('x', 'broken.c')\n",
		"me2/broken.c":       "int main(void) {\n\treturn x;\n}\n",
		"ac1/configure.ac": "AC_INIT([x],[1])\nAC_PROG_CC\n" +
			"AC_CHECK_LIB([nowhere],[f],,[AC_MSG_ERROR([libnowhere is needed])])\nAC_OUTPUT\n",
		"ac2/configure.ac": "AC_INIT([x],[1])\nPKG_CHECK_MODULES([N],[nowhere >= 3])\nAC_OUTPUT\n",
		"ac3/configure.ac": "AC_INIT([x],[1])\nAM_PATH_NOWHERE([2])\nAC_OUTPUT\n",
	}
	for _, c := range []struct{ kind, script, text string }{
		{"compiler", "gcc -c broken.c", "broken.c:2:16: error: 'x' undeclared"},
		{"compiler", "gcc -c header.c", "header.c:1:10: fatal error: nowhere.h: No such file or directory"},
		{"compiler", "gcc -c nowhere.c", "nowhere.c: No such file or directory"},
		{"linker", "gcc alone.c", "undefined reference to `far'"},
		{"linker", "gcc lib.c -lnowhere", "cannot find -lnowhere"},
		{"make", "make -f false.mk", "false"},
		{"missing-file", "make -f rule.mk", "No rule to make target 'nowhere', needed by 'all'"},
		{"missing-file", "cp nowhere elsewhere", "cp: cannot stat 'nowhere': No such file or directory"},
		{"missing-file", "nowhere-tool --make", "nowhere-tool: not found"},
		{"space", "cat lib.c > /dev/full", "No space left on device"},
		{"python", "/usr/bin/python3 wrong.py", "SyntaxError: invalid syntax"},
		{"python", "/usr/bin/python3 -c 'import nowhere'", "ModuleNotFoundError: No module named 'nowhere'"},
		{"python", "/usr/bin/python3 cases.py", "AssertionError: 1 != 2"},
		{"perl", "perl -e 'use Nowhere::Module;'", "Can't locate Nowhere/Module.pm in @INC"},
		{"perl", "dh_autoreconf nowhere", `Can't exec "nowhere": No such file`},
		{"test", "prove -v t.t", "not ok 2 - beta"},
		{"go", "GO111MODULE=off GOFLAGS= go vet main.go", "main.go:3:15: undefined: nowhere"},
		{"patch", "patch -f -p1 < fix.patch", "Hunk #1 FAILED at 1."},
		{"shlibdeps", "gcc -shared -fPIC -o libfar.so -Wl,-soname,libfar.so.1 lib.c && gcc -o debian/hello/usr/bin/x " +
			"alone.c libfar.so && dh_shlibdeps",
			"dpkg-shlibdeps: error: cannot find library libfar.so.1 needed by debian/hello/usr/bin/x"},
		{"missing-file", "dh_install", "dh_install: warning: Cannot find (any matches for) \"usr/lib/nowhere*\""},
		{"dpkg", "dpkg-gencontrol -pnowhere", "dpkg-gencontrol: error: package nowhere not in control info"},
		{"dh", "dh build --with nowhere", "dh: error: unable to load addon nowhere"},
		{"cmake", "dh_auto_configure -D cm1", `CMake Error at CMakeLists.txt:3 (find_package): By not providing "FindNowhere.cmake"`},
		{"cmake", "dh_auto_configure -D cm2", "(message): A required package was not found"},
		{"compiler", "dh_auto_configure -D cm3 && dh_auto_build -D cm3", "broken.c:2:16: error: 'x' undeclared"},
		{"meson", "dh_auto_configure -D me1", `meson.build:2:0: ERROR: Dependency "nowhere" not found`},
		{"compiler", "dh_auto_configure -D me2 && dh_auto_build -D me2", "broken.c:2:16: error: "},
		{"configure", "autoreconf -fi ac1 && dh_auto_configure -D ac1", "configure: error: libnowhere is needed"},
		{"configure", "autoreconf -fi ac2 && dh_auto_configure -D ac2",
			"configure: error: Package requirements (nowhere >= 3) were not met"},
		{"configure", "autoreconf -fi ac3", "configure.ac:2: error: possibly undefined macro: AM_PATH_NOWHERE"},
	} {
		t.Run(c.script, func(t *testing.T) {
			t.Parallel()
			out := fails(t, files, c.script)
			got, err := Find(bytes.NewReader(out))
			if err != nil || got == nil || got.Kind != c.kind || !strings.Contains(got.Text, c.text) {
				t.Errorf("found %+v, %v; want %s: %s in\n%s", got, err, c.kind, c.text, out)
			}
		})
	}
}

// fails runs what must fail, over these files, within what make and debhelper
// print around it, and returns the log.
func fails(t *testing.T, files map[string]string, script string) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sh", "-c",
		"echo 'dh build'; echo ' debian/rules override_dh_auto_build'; ("+script+"); s=$?; echo 'make: *** "+
			"[debian/rules:3: build] Error 2'; echo 'dpkg-buildpackage: error: "+
			"debian/rules build subprocess returned exit status 2'; exit $s")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err == nil || bytes.Contains(out, []byte("make: not found")) {
		t.Fatalf("it does not fail as it should (scripts/lib/packages names what is needed): %v\n%s", err, out)
	}
	return bytes.ReplaceAll(out, []byte(dir), []byte("/build/hello"))
}

var (
	long   = flag.Bool("buildlog.long", false, "let rustc and cargo fail too; scripts/test long installs them")
	update = flag.Bool("update", false, "with -buildlog.long: write testdata/rust-*.log anew, for a person to read")
)

// TestFindOfRust is TestFindOfTools for Debian's rustc and cargo, which have no
// network in a build, and a directory for the registry.
func TestFindOfRust(t *testing.T) {
	if !*long {
		t.Skip("rustc is 300 MB, and what it says is in testdata: scripts/test long")
	}
	toml := "[package]\nname = \"hello\"\nversion = \"1.0.0\"\nedition = \"2021\"\n"
	files := map[string]string{
		"good.rs":               "fn main() {}\n",
		"number.rs":             "fn main() {\n    let _x: u32 = \"a\";\n}\n",
		"syntax.rs":             "fn main() {\n    let _x =\n}\n",
		"package/Cargo.toml":    toml,
		"package/src/main.rs":   "fn main() {\n    nowhere();\n}\n",
		"lacks/Cargo.toml":      toml + "[dependencies]\nnowhere = \"1\"\n",
		"lacks/src/main.rs":     "fn main() {}\n",
		"older/Cargo.toml":      toml + "[dependencies]\nnear = { path = \"near\", version = \"2\" }\n",
		"older/src/main.rs":     "fn main() {}\n",
		"older/near/Cargo.toml": "[package]\nname = \"near\"\nversion = \"1.0.0\"\n",
		"older/near/src/lib.rs": "",
		"script/Cargo.toml":     toml + "build = \"build.rs\"\n",
		"script/build.rs":       "fn main() {\n    panic!(\"libnowhere is needed\");\n}\n",
		"script/src/main.rs":    "fn main() {}\n",
		"tests/Cargo.toml":      toml,
		"tests/src/lib.rs":      "#[test]\nfn sums() {\n    assert_eq!(1 + 1, 3);\n}\n",
		"registry/.keep":        "",
		".cargo/config.toml": "[source.crates-io]\nreplace-with = \"dist\"\n[source.dist]\ndirectory = \"registry\"\n" +
			"[net]\noffline = true\n",
	}
	// Debian's, whatever else the person has.
	t.Setenv("PATH", "/usr/bin:/bin")
	t.Setenv("CARGO_HOME", t.TempDir())
	t.Setenv("RUST_BACKTRACE", "0")
	for _, c := range rust {
		t.Run(c.name, func(t *testing.T) {
			out := fails(t, files, c.script)
			if *update {
				if err := os.WriteFile("testdata/rust-"+c.name+".log", out, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Find(bytes.NewReader(out))
			if err != nil || got == nil || got.Kind != c.kind || !strings.HasPrefix(got.Text, c.text) {
				t.Errorf("found %+v, %v; want %s: %s in\n%s", got, err, c.kind, c.text, out)
			}
		})
	}
}
