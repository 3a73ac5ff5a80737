//go:build system

package buildlog

import (
	"bytes"
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
		"broken.c":                   "int main(void) {\n\treturn x;\n}\n",
		"alone.c":                    "int far(void);\nint main(void) { return far(); }\n",
		"lib.c":                      "int far(void) { return 0; }\n",
		"header.c":                   "#include <nowhere.h>\n",
		"rule.mk":                    "all: nowhere\n",
		"false.mk":                   "all:\n\tfalse\n",
		"wrong.py":                   "def f(:\n    pass\n",
		"cases.py":                   "import unittest\nclass T(unittest.TestCase):\n    def test_x(self):\n        self.assertEqual(1, 2)\nunittest.main()\n",
		"t.t":                        "print \"1..2\\nok 1\\nnot ok 2 - beta\\n\";\n",
		"main.go":                    "package main\n\nfunc main() { nowhere() }\n",
		"fix.patch":                  "--- a/lib.c\n+++ b/lib.c\n@@ -1 +1 @@\n-int near;\n+int nearer;\n",
		"debian/control":             "Source: hello\nMaintainer: A <a@example.org>\n\nPackage: hello\nArchitecture: any\nDescription: x\n X.\n",
		"debian/changelog":           "hello (1) sid; urgency=low\n\n  * x\n\n -- A <a@example.org>  Mon, 02 Nov 2026 00:00:00 +0000\n",
		"debian/compat":              "13\n",
		"debian/install":             "usr/lib/nowhere*\n",
		"debian/rules":               "#!/usr/bin/make -f\n%:\n\tdh $@\n",
		"debian/hello/usr/bin/.keep": "",
	}
	for _, c := range []struct{ kind, script, text string }{
		{"compiler", "gcc -c broken.c", "broken.c:2:16: error: 'x' undeclared"},
		{"compiler", "gcc -c header.c", "header.c:1:10: fatal error: nowhere.h: No such file or directory"},
		{"compiler", "gcc -c nowhere.c", "nowhere.c: No such file or directory"},
		{"linker", "gcc alone.c", "undefined reference to `far'"},
		{"linker", "gcc lib.c -lnowhere", "cannot find -lnowhere"},
		{"make", "make -f false.mk", "make: *** [false.mk:2: all] Error 1"},
		{"missing-file", "make -f rule.mk", "No rule to make target 'nowhere', needed by 'all'"},
		{"missing-file", "cp nowhere elsewhere", "cp: cannot stat 'nowhere': No such file or directory"},
		{"missing-file", "nowhere-tool --make", "nowhere-tool: not found"},
		{"space", "cat lib.c > /dev/full", "No space left on device"},
		{"python", "/usr/bin/python3 wrong.py", "SyntaxError: invalid syntax"},
		{"python", "/usr/bin/python3 -c 'import nowhere'", "ModuleNotFoundError: No module named 'nowhere'"},
		{"python", "/usr/bin/python3 cases.py", "AssertionError: 1 != 2"},
		{"perl", "perl -e 'use Nowhere::Module;'", "Can't locate Nowhere/Module.pm in @INC"},
		{"test", "prove -v t.t", "not ok 2 - beta"},
		{"go", "GO111MODULE=off GOFLAGS= go vet main.go", "main.go:3:15: undefined: nowhere"},
		{"patch", "patch -f -p1 < fix.patch", "Hunk #1 FAILED at 1."},
		{"shlibdeps", "gcc -shared -fPIC -o libfar.so -Wl,-soname,libfar.so.1 lib.c && gcc -o debian/hello/usr/bin/x alone.c libfar.so && dh_shlibdeps", "dpkg-shlibdeps: error: cannot find library libfar.so.1 needed by debian/hello/usr/bin/x"},
		{"missing-file", "dh_install", "dh_install: warning: Cannot find (any matches for) \"usr/lib/nowhere*\""},
		{"dpkg", "dpkg-gencontrol -pnowhere", "dpkg-gencontrol: error: package nowhere not in control info"},
		{"dh", "dh build --with nowhere", "dh: error: unable to load addon nowhere"},
	} {
		t.Run(c.script, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for name, text := range files {
				path := filepath.Join(dir, name)
				os.MkdirAll(filepath.Dir(path), 0o755)
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command("sh", "-c", "echo 'dh build'; echo ' debian/rules override_dh_auto_build'; ("+c.script+"); s=$?; echo 'make: *** [debian/rules:3: build] Error 2'; echo 'dpkg-buildpackage: error: debian/rules build subprocess returned exit status 2'; exit $s")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "LC_ALL=C")
			out, err := cmd.CombinedOutput()
			if err == nil || bytes.Contains(out, []byte("make: not found")) {
				t.Fatalf("it does not fail as it should (scripts/lib/packages names what is needed): %v\n%s", err, out)
			}
			got, err := Find(bytes.NewReader(out))
			if err != nil || got == nil || got.Kind != c.kind || !strings.Contains(got.Text, c.text) {
				t.Errorf("found %+v, %v; want %s: %s in\n%s", got, err, c.kind, c.text, out)
			}
		})
	}
}
