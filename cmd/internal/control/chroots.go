package control

import (
	"os"
	"os/user"
	"path/filepath"
	"slices"

	"packmill/queue/runner"
)

// ChrootDir is where a builder's chroots lie if its stanza does not say:
// /var/cache/packmill/chroots for root, and below the user's cache directory
// for others. PACKMILL_CHROOTS goes before both.
func ChrootDir() string {
	if dir := os.Getenv("PACKMILL_CHROOTS"); dir != "" {
		return dir
	}
	if os.Getuid() != 0 {
		if dir, err := os.UserCacheDir(); err == nil {
			return filepath.Join(dir, ofCache)
		}
	}
	return "/var/cache/packmill/chroots"
}

// ofCache is below a user's cache directory.
const ofCache = "packmill/chroots"

// ChrootDirOf is ChrootDir of another user, who has no environment of their own
// that says otherwise.
func ChrootDirOf(u *user.User) string { return filepath.Join(u.HomeDir, ".cache", ofCache) }

// ChrootStore is the builder's directory of chroots. The build user counts
// only where the process is root: others build as themselves.
func (b *Builder) ChrootStore() *runner.Chroots {
	c := &runner.Chroots{Dir: b.Chroots, MaxAge: b.ChrootAge}
	if c.Dir == "" {
		c.Dir = ChrootDir()
	}
	if os.Getuid() == 0 {
		c.User = b.User
	}
	return c
}

// Chrooted reports whether the builder builds in chroots; a program of exec has
// its own ways.
func (b *Builder) Chrooted() bool { return b.Runner != "exec" && b.Within != "exec" }

// OwnChroots reports whether its chroots are of its ChrootStore, and not schroot's or on another machine.
func (b *Builder) OwnChroots() bool { return b.Chrooted() && b.Mode != "schroot" && !b.Away() }

// On is the architecture of the chroot in which the builder builds for one. A
// program of exec has none.
func (b *Builder) On(s *Suite, arch string) string {
	switch {
	case !b.Chrooted():
		return arch
	case arch == "all" && b.Away():
		return s.IndepOn
	case arch == "all" && slices.Contains(b.Architectures, s.IndepOn):
		return s.IndepOn
	case arch == "all":
		return runner.Machine()
	case b.CrossFrom != "":
		return b.CrossFrom
	}
	return arch
}

// ChrootsOf are the architectures of the chroots that the builder needs to
// build for a suite.
func (b *Builder) ChrootsOf(s *Suite) (archs []string) {
	if !b.OwnChroots() || len(b.Suites) > 0 && !slices.Contains(b.Suites, s.Name) {
		return nil
	}
	for _, arch := range b.Architectures {
		if on := b.On(s, arch); (arch == "all" || slices.Contains(s.Architectures, arch)) && !slices.Contains(archs, on) {
			archs = append(archs, on)
		}
	}
	return archs
}

// Elsewhere reports whether the builder's host is another machine, which calls.
func (b *Builder) Elsewhere() bool { return b.Runner == "remote" }
