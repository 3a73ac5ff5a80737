package runner

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// source is a source package to be made with dpkg-source.
type source struct {
	name    string // empty: hello
	arch    string // of its one binary package; empty: any
	depends string // Build-Depends
	version string // empty: 1.0-1
	build   string // recipe of the build target, one command a line
	more    string // further packages in debian/control
	indep   string // recipe that makes arch:all packages
}

// make writes the source package into the job's source directory and points
// the job at it. Its rules use nothing but make and dpkg.
func (s source) make(t *testing.T, job *Job) {
	t.Helper()
	if s.arch == "" {
		s.arch = "any"
	}
	if s.version == "" {
		s.version = "1.0"
	}
	if s.name == "" {
		s.name = "hello"
	}
	job.Source = s.name
	dir := filepath.Dir(job.Dsc)
	os.Remove(job.Dsc)
	tree := filepath.Join(t.TempDir(), s.name+"-"+s.version)
	for path, text := range map[string]string{
		"debian/control": fmt.Sprintf("Source: hello\nSection: devel\nPriority: optional\n"+
			"Maintainer: A Builder <builder@example.org>\nStandards-Version: 4.6.2\nRules-Requires-Root: no\n"+
			"Build-Depends: %s\n\nPackage: hello\nArchitecture: %s\nDescription: greets\n It greets.\n%s",
			s.depends, s.arch, s.more),
		"debian/changelog": fmt.Sprintf("hello (%s) unstable; urgency=medium\n\n  * First.\n\n"+
			" -- A Builder <builder@example.org>  Sat, 21 Nov 2026 00:00:00 +0000\n", s.version),
		"debian/source/format": "3.0 (native)\n",
		"debian/rules": "#!/usr/bin/make -f\nbuild build-arch build-indep:\n" + recipe(s.build) +
			"clean:\nbinary-indep: build-indep\n" + recipe(s.indep) +
			"binary-arch: build-arch\n\tmkdir -p debian/hello/DEBIAN\n\tdpkg-gencontrol -phello -Pdebian/hello\n" +
			"\tdpkg-deb --root-owner-group -b debian/hello ..\n" +
			"binary: binary-arch binary-indep\n",
	} {
		path = filepath.Join(tree, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		text = strings.ReplaceAll(text, "Build-Depends: \n", "")
		text = strings.ReplaceAll(text, "hello", s.name)
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("dpkg-source", "-b", tree)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("dpkg-source: %v: %s", err, out)
	}
	job.Version = s.version
	job.Dsc = filepath.Join(dir, fmt.Sprintf("%s_%s.dsc", s.name, s.version))
}

func recipe(text string) string {
	var b strings.Builder
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString("\t" + line + "\n")
		}
	}
	return b.String()
}
