//go:build system

package runner

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// The system tests need Debian's sbuild, mmdebstrap, uidmap, fakeroot and
// dpkg-dev and, run by root, a user for builds with subordinate ids whose
// name is in PACKMILL_BUILD_USER (packmill-build if not set). Chroots are
// kept in PACKMILL_TEST_CACHE, or in the user's cache directory, for a day.

func buildUser() string {
	if os.Getuid() != 0 {
		return ""
	}
	if u := os.Getenv("PACKMILL_BUILD_USER"); u != "" {
		return u
	}
	return "packmill-build"
}

// testChroots returns the cached chroots, with a fresh one of this machine's
// own release under the names sid and bookworm alike: the suite of a test is
// sid.
func testChroots(t *testing.T, arch string) *Chroots {
	t.Helper()
	for _, program := range []string{"sbuild", "mmdebstrap", "newuidmap", "dpkg-source", "fakeroot"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%s is missing; install sbuild, mmdebstrap, uidmap, dpkg-dev and fakeroot", program)
		}
	}
	cache := os.Getenv("PACKMILL_TEST_CACHE")
	if cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil || os.Getuid() == 0 {
			dir = "/var/cache"
		}
		cache = filepath.Join(dir, "packmill-test")
	}
	c := &Chroots{Dir: filepath.Join(cache, "chroots"), User: buildUser()}
	base, err := SystemBase()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Fresh(context.Background(), Recipe{"sid", arch, base[:1], os.Stderr}, 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	return c
}

// newSystemJob is newJob in memory, as the chroots' unpacking is.
func newSystemJob(t *testing.T) *Job {
	job := newJob(t)
	job.Control = debControl
	job.Limits = Limits{Wall: 15 * time.Minute, Silence: 10 * time.Minute, Disk: 4 << 30}
	return job
}

// run runs a command that must succeed.
func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
	return string(out)
}
