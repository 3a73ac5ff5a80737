package overlay

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"packmill/queue/runner/cage"

	"golang.org/x/sys/unix"
)

const (
	extraList = "/etc/apt/sources.list.d/packmill.list"
	pins      = "/etc/apt/preferences.d/packmill"
)

// Preferences are apt's for a build: the suite that it is for, which is pinned by what its
// Release says of it, counts as any other of which packages are installed by themselves, also
// where its Release tells clients otherwise (NotAutomatic). Else builds for such a suite got
// everything from its Base. installability reads lists by the same rule.
func Preferences(pin string) string {
	return "Package: *\nPin: release " + pin + "\nPin-Priority: 500\n"
}

// PinCommand writes the preferences, in a chroot.
func PinCommand(pin string) string {
	return "printf '" + strings.ReplaceAll(Preferences(pin), "\n", `\n`) + "' >" + pins
}

// populate adds the build user, and the further repositories.
func (b *build) populate() error {
	if b.Make == nil && !b.Ask {
		user := fmt.Sprintf("packmill:x:%d:%d:build:/nonexistent:/bin/sh\n", BuildUID, BuildUID)
		group := fmt.Sprintf("packmill:x:%d:\n", BuildUID)
		if err := errors.Join(b.append("etc/passwd", user), b.append("etc/group", group)); err != nil {
			return fmt.Errorf("build user: %w", err)
		}
	}
	if b.List == "" {
		return nil
	}
	for _, dir := range []string{"etc/apt/keyrings", "etc/apt/preferences.d"} {
		if err := b.root.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("repositories: %w", err)
		}
	}
	for path, key := range b.Keys {
		if err := b.root.WriteFile(path[1:], []byte(key), 0o644); err != nil {
			return fmt.Errorf("repositories: %w", err)
		}
	}
	files := map[string]string{extraList: b.List}
	if b.Pin != "" {
		files[pins] = Preferences(b.Pin)
	}
	for path, text := range files {
		if err := b.root.WriteFile(path[1:], []byte(text), 0o644); err != nil {
			return fmt.Errorf("repositories: %w", err)
		}
	}
	return nil
}

func (b *build) append(name, text string) error {
	f, err := b.root.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// command runs a program as root of the build; out is its standard output, nil
// the log.
func (b *build) command(out *os.File, argv ...string) (bool, error) {
	c := &cage.Command{Argv: argv, Dir: "/", Out: out, Attr: b.w.Ranges[0].Inside(0),
		Env: []string{"PATH=" + cage.DefaultPath, "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "HOME=/root",
			"DEBIAN_FRONTEND=noninteractive"}}
	code, signal, err := c.Run()
	if err != nil {
		return false, err
	}
	r := b.report
	if code != 0 {
		r.Exit, r.Signal, r.Stage, r.Status = code, signal, "install-deps", "given-back"
	}
	return code == 0, nil
}

// fetch runs a program that fetches; that it fails is no verdict on a package.
func (b *build) fetch(argv ...string) (bool, error) {
	ok, err := b.command(nil, argv...)
	b.report.Fetch = err == nil && !ok
	return ok, err
}

// install installs the build-dependencies; false: that failed, and the report
// says how, or they are there. Maintainer scripts have no network.
func (b *build) install() (bool, error) {
	defer cage.KillOthers()
	if ok, err := b.update(); err != nil || !ok {
		return false, err
	}
	const wish = "/build/packmill-build-deps.dsc"
	if err := b.writeWish(wish); err != nil {
		return false, fmt.Errorf("build dependencies: %w", err)
	}
	defer b.root.Remove(wish[1:])
	what := []string{"build-dep", wish}
	if m := b.Make; m != nil && m.Exactly {
		what = append([]string{"install"}, versions(m.Packages)...)
	}
	apt := func(options ...string) []string { return slices.Concat([]string{"apt-get", "-q"}, options, what) }
	if ok, err := b.resolve(apt); err != nil || !ok || b.Ask {
		return ok, err
	}
	if m := b.Make; m != nil && !(slices.Equal(m.Packages, b.report.Packages) && slices.Equal(m.Files, b.report.Files)) {
		b.report.Layer = "" // on other layers apt decides otherwise
		return true, nil
	}
	if ok, err := b.fetch(apt("--download-only")...); err != nil || !ok {
		return ok, err
	}
	if err := b.cutNetwork(); err != nil {
		return false, err
	}
	return b.command(nil, apt()...)
}

// versions are words for apt-get install, of the lines of a simulation.
func versions(packages []string) (words []string) {
	for _, line := range packages {
		f := strings.Fields(line)
		for _, w := range f[2:] {
			if v, ok := strings.CutPrefix(w, "("); ok {
				words = append(words, f[1]+"="+v)
				break
			}
		}
	}
	return words
}

// update has apt read what is new.
func (b *build) update() (bool, error) {
	update := []string{"apt-get", "update"}
	if !b.Update {
		update = append(update, "-o", "Dir::Etc::sourcelist="+extraList, "-o", "Dir::Etc::sourceparts=/nonexistent",
			"--no-list-cleanup")
	}
	if !b.Update && b.List == "" {
		return true, nil
	}
	// apt-get update warns of a dead mirror and goes on.
	return b.fetch(append(update, "-o", "APT::Update::Error-Mode=any")...)
}

// writeWish writes a .dsc with the build-dependencies.
func (b *build) writeWish(path string) error {
	text := "Format: 3.0 (native)\nSource: packmill-build-deps\nBinary: packmill-build-deps\nArchitecture: any\n" +
		"Version: 1\nMaintainer: nobody <nobody@localhost>\n"
	if b.Depends != "" {
		text += "Build-Depends: " + b.Depends + "\n"
	}
	if b.Conflict != "" {
		text += "Build-Conflicts: " + b.Conflict + "\n"
	}
	return errors.Join(b.root.MkdirAll("build", 0o755), b.root.WriteFile(path[1:], []byte(text), 0o644))
}

// resolve asks apt what it would install.
func (b *build) resolve(apt func(options ...string) []string) (bool, error) {
	text, ok, err := b.ask(apt("--simulate")...)
	if err != nil || !ok {
		os.Stdout.Write(text)
		return false, err
	}
	b.report.Packages = resolved(string(text))
	uris, ok, err := b.ask(apt("--print-uris")...)
	if err != nil || !ok {
		os.Stdout.Write(uris)
		return false, err
	}
	b.report.Files = files(string(uris))
	b.report.Layer = LayerKey(b.report.Packages, b.report.Files)
	return true, nil
}

// ask runs a program as root of the build, and returns what it says.
func (b *build) ask(argv ...string) (text []byte, ok bool, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, false, fmt.Errorf("build dependencies: %w", err)
	}
	defer r.Close()
	said := make(chan []byte)
	go func() {
		text, _ := io.ReadAll(io.LimitReader(r, 64<<20))
		io.Copy(io.Discard, r)
		said <- text
	}()
	ok, err = b.command(w, argv...)
	w.Close()
	return <-said, ok, err
}

// LayerKey is the name of the layer with these packages, as apt's simulation
// lists what it would install and remove, of these files: two archives may have
// the same name and version.
func LayerKey(packages, files []string) string {
	sum := sha256.Sum256([]byte(strings.Join(packages, "\n") + "\n\n" + strings.Join(files, "\n")))
	return hex.EncodeToString(sum[:])
}

// files returns name, size and checksum of the files that apt would fetch, of its
// lines "'URI' NAME SIZE CHECKSUM".
func files(uris string) (files []string) {
	for _, line := range strings.Split(uris, "\n") {
		if uri, file, ok := strings.Cut(line, "' "); ok && strings.HasPrefix(uri, "'") {
			files = append(files, file)
		}
	}
	slices.Sort(files)
	return files
}

// resolved returns the lines of apt's simulation that say what changes:
// "Inst NAME [OLD] (VERSION ORIGIN [ARCH])" and "Remv NAME [OLD]".
func resolved(simulation string) (packages []string) {
	for _, line := range strings.Split(simulation, "\n") {
		if strings.HasPrefix(line, "Inst ") || strings.HasPrefix(line, "Remv ") {
			packages = append(packages, strings.TrimSpace(line))
		}
	}
	slices.Sort(packages)
	return packages
}

// tidy takes away what the making of a layer left and no build needs.
func (b *build) tidy() error {
	junk := []string{"build", extraList[1:], pins[1:], "var/cache/apt/pkgcache.bin", "var/cache/apt/srcpkgcache.bin"}
	for path := range b.Keys {
		junk = append(junk, path[1:])
	}
	for _, pattern := range []string{"tmp/*", "var/cache/apt/archives/*.deb", "var/lib/apt/lists/*packmill-archive*"} {
		found, err := fs.Glob(b.root.FS(), pattern)
		if err != nil {
			return err
		}
		junk = append(junk, found...)
	}
	for _, path := range junk {
		if err := b.root.RemoveAll(path); err != nil {
			return fmt.Errorf("layer: %w", err)
		}
	}
	return nil
}

// cutNetwork takes the network from this thread and what it starts. It is
// never given back.
func (b *build) cutNetwork() error {
	if b.Network || b.cut {
		return nil
	}
	b.cut = true
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("switch the network off: %w", err)
	}
	if err := cage.LoopbackUp(); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	b.root.Remove("etc/resolv.conf")
	if err := b.root.WriteFile("etc/resolv.conf", nil, 0o644); err != nil {
		return fmt.Errorf("switch the network off: %w", err)
	}
	return nil
}
