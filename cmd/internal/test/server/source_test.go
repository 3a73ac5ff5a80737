//go:build system

package server

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// uploader is a person with an OpenPGP key, a home directory and dput.
type uploader struct {
	s           *site
	home        string
	name, email string
	fingerprint string
}

// newUploader makes a person with a key of gpg's, whose public part is
// control/keys/NAME.asc.
func (s *site) newUploader(name string) *uploader {
	s.t.Helper()
	u := &uploader{s: s, home: s.mkdir("home-" + name), name: name, email: name + "@packmill.example"}
	for _, d := range []string{"gnupg", ".ssh"} {
		if err := os.Chmod(s.mkdir(filepath.Join("home-"+name, d)), 0o700); err != nil {
			s.t.Fatal(err)
		}
	}
	u.must("gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", u.id(), "ed25519", "sign", "never")
	for line := range strings.Lines(u.must("gpg", "--batch", "--with-colons", "--list-secret-keys")) {
		if f := strings.Split(line, ":"); f[0] == "fpr" && u.fingerprint == "" {
			u.fingerprint = f[9]
		}
	}
	s.write("tree/control/keys/"+name+".asc", u.must("gpg", "--batch", "--armor", "--export", u.fingerprint), 0o644)
	s.t.Cleanup(func() { u.run("gpgconf", "--kill", "all") })
	return u
}

func (u *uploader) id() string { return fmt.Sprintf("E2e %s <%s>", u.name, u.email) }

// stanza is the person's in control/uploaders.
func (u *uploader) stanza(allow string) string {
	return fmt.Sprintf("Name: %s\nFingerprint: %s\nEmail: %s\nAllow: %s\n\n", u.name, u.fingerprint, u.email, allow)
}

func (u *uploader) run(name string, args ...string) (string, error) {
	return u.in("/", name, args...)
}

func (u *uploader) in(dir, name string, args ...string) (string, error) {
	cmd := who.command([]string{"GNUPGHOME=" + filepath.Join(u.home, "gnupg")}, name, args...)
	cmd.Env = append(cmd.Env, "HOME="+u.home)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), err
}

func (u *uploader) must(name string, args ...string) string {
	u.s.t.Helper()
	out, err := u.run(name, args...)
	if err != nil {
		u.s.t.Fatal(err)
	}
	return out
}

// source is a small source package that is to be made. Its packages each
// hold one program of their own name that prints the name and the version.
type source struct {
	name, version string
	suite         string
	any, all      []string // binary packages by Architecture
	archField     string   // instead of any
	needs         string   // Build-Depends
	fails         bool     // debian/rules ends with an error
	slow          int      // seconds of the build
	noise         string   // a further line of debian/rules in the build
	unsigned      bool
}

const rules = `#!/usr/bin/make -f
VERSION := $(shell dpkg-parsechangelog -S Version)
ARCH := $(shell dpkg-architecture -qDEB_HOST_ARCH)
build build-arch build-indep:
	@echo building NAME $(VERSION) on $(ARCH)
	BODY
clean:
	rm -rf debian/stage debian/files
pack-%:
	mkdir -p debian/stage/$*/DEBIAN debian/stage/$*/usr/bin
	printf '#!/bin/sh\necho $* $(VERSION)\n' >debian/stage/$*/usr/bin/$*
	chmod 755 debian/stage/$*/usr/bin/$*
	dpkg-gencontrol -p$* -Pdebian/stage/$*
	dpkg-deb --root-owner-group --build debian/stage/$* ..
binary-arch: build-arch ANY
binary-indep: build-indep ALL
binary: binary-arch binary-indep
.PHONY: build build-arch build-indep clean binary binary-arch binary-indep
`

// make builds the source package with dpkg-buildpackage and signs it. It
// gives the path of the .changes.
func (u *uploader) make(src source) string {
	u.s.t.Helper()
	dir := u.s.mkdir(fmt.Sprintf("src-%s/%s-%s", u.name, src.name, strings.ReplaceAll(src.version, ":", "%3a")))
	u.s.own(filepath.Dir(dir))
	tree := filepath.Join(dir, "tree")
	var control strings.Builder
	fmt.Fprintf(&control,
		"Source: %s\nSection: misc\nPriority: optional\nMaintainer: %s\nStandards-Version: 4.6.2\nRules-Requires-Root: no\n",
		src.name, u.id())
	if src.needs != "" {
		fmt.Fprintf(&control, "Build-Depends: %s\n", src.needs)
	}
	arch := src.archField
	if arch == "" {
		arch = "any"
	}
	binaries := func(names []string, arch string) (targets string) {
		for _, n := range names {
			fmt.Fprintf(&control,
				"\nPackage: %s\nArchitecture: %s\nDescription: package %s of a test\n It prints its name and version.\n",
				n, arch, n)
			targets += " pack-" + n
		}
		return targets
	}
	body := "@true"
	if src.slow > 0 {
		body = fmt.Sprintf("sleep %d", src.slow)
	}
	if src.noise != "" {
		body += "\n\t" + src.noise
	}
	if src.fails {
		body += "\n\t@echo this package fails on purpose; exit 1"
	}
	text := strings.NewReplacer("NAME", src.name, "BODY", body, "ANY", strings.TrimSpace(binaries(src.any, arch)), "ALL",
		strings.TrimSpace(binaries(src.all, "all"))).Replace(rules)
	changelog := fmt.Sprintf("%s (%s) %s; urgency=medium\n\n  * A version for a test.\n\n -- %s  %s\n",
		src.name, src.version, src.suite, u.id(), time.Now().UTC().Format(time.RFC1123Z))
	for name, f := range map[string]struct {
		text string
		mode os.FileMode
	}{
		"control": {control.String(), 0o644}, "rules": {text, 0o755}, "changelog": {changelog, 0o644},
		"source/format": {"3.0 (native)\n", 0o644},
	} {
		p := filepath.Join(tree, "debian", name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			u.s.t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(f.text), f.mode); err != nil {
			u.s.t.Fatal(err)
		}
	}
	err := filepath.WalkDir(tree, func(path string, _ fs.DirEntry, err error) error {
		u.s.own(path)
		return err
	})
	if err != nil {
		u.s.t.Fatal(err)
	}
	sign := []string{"--sign-key=" + u.fingerprint}
	if src.unsigned {
		sign = []string{"-us", "-uc"}
	}
	if out, err := u.in(tree, "dpkg-buildpackage", append([]string{"-S", "-d", "-nc"}, sign...)...); err != nil {
		u.s.t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, fmt.Sprintf("%s_%s_source.changes", src.name, withoutEpoch(src.version)))
}

func withoutEpoch(v string) string {
	if _, rest, ok := strings.Cut(v, ":"); ok {
		return rest
	}
	return v
}

// listed are the files of an upload, the .changes last, as paths.
func listed(t *testing.T, changes string) []string {
	t.Helper()
	data, err := os.ReadFile(changes)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	on := false
	for line := range strings.Lines(string(data)) {
		switch {
		case strings.HasPrefix(line, "Files:"):
			on = true
		case on && strings.HasPrefix(line, " "):
			f := strings.Fields(line)
			files = append(files, filepath.Join(filepath.Dir(changes), f[len(f)-1]))
		default:
			on = false
		}
	}
	return append(files, changes)
}
