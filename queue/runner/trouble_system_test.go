//go:build system

package runner

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"packmill/queue/runner/cage"
)

// A source package that came to harm on the builder is given back, and one that
// cannot be unpacked although it is whole has failed.
func TestUnpack(t *testing.T) {
	t.Parallel()
	c := testChroots(t, "amd64")
	for name, r := range map[string]Runner{"sbuild": &Sbuild{Chroots: c}, "overlay": &Overlay{Chroots: c}} {
		for _, whole := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, whole %v", name, whole), func(t *testing.T) {
				t.Parallel()
				job := newSystemJob(t)
				source{}.make(t, job)
				path := strings.TrimSuffix(job.Dsc, ".dsc") + ".tar.xz"
				old, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				data := bytes.Clone(old)
				data[len(data)/2] ^= 1
				write(t, path, string(data))
				want := GiveBack
				if whole {
					want = Attempted
					dsc, err := os.ReadFile(job.Dsc)
					if err != nil {
						t.Fatal(err)
					}
					write(t, job.Dsc, strings.NewReplacer(fmt.Sprintf("%x", md5.Sum(old)), fmt.Sprintf("%x", md5.Sum(data)),
						fmt.Sprintf("%x", sha1.Sum(old)), fmt.Sprintf("%x", sha1.Sum(data)),
						fmt.Sprintf("%x", sha256.Sum256(old)), fmt.Sprintf("%x", sha256.Sum256(data))).Replace(string(dsc)))
				}
				res := mustRun(t, r, job)
				if log := logText(t, job); res.Outcome != want || res.Stage != "unpack" {
					t.Errorf("got %v, stage %q: %s; want %v, stage unpack; the log ends:\n%s",
						res.Outcome, res.Stage, res.Reason, want, log[max(0, len(log)-5000):])
				}
			})
		}
	}
}

// What sbuild says of trouble that is none of the package's: a chroot that cannot
// be unpacked, and a signal.
func TestSbuildTrouble(t *testing.T) {
	t.Parallel()
	cached := testChroots(t, "amd64")
	for _, c := range []struct {
		name, stage string
		prepare     func(t *testing.T, job *Job, r *Sbuild)
	}{
		{"chroot", "create-session", func(t *testing.T, job *Job, r *Sbuild) {
			source{}.make(t, job)
			ch, err := cached.Lookup("sid", "amd64")
			if err != nil {
				t.Fatal(err)
			}
			dir, err := os.MkdirTemp(filepath.Dir(cached.Dir), "damaged-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			os.Chmod(dir, 0o755)
			r.Chroots = &Chroots{Dir: dir, User: cached.User}
			own := filepath.Join(dir, "sid-amd64", filepath.Base(ch.dir))
			run(t, "mkdir", "-p", own)
			run(t, "cp", "-a", filepath.Join(ch.dir, statusFile), filepath.Join(ch.dir, infoFile), own)
			run(t, "sh", "-c", "head -c 1000000 "+ch.Tarball()+" > "+filepath.Join(own, tarFile))
		}},
		{"signal", "build", func(t *testing.T, job *Job, r *Sbuild) {
			source{version: "92.7", build: "sleep 92.7"}.make(t, job)
			ctx, cancel := context.WithCancel(t.Context())
			t.Cleanup(cancel)
			go func() {
				for len(running("92.7")) == 0 && ctx.Err() == nil {
					time.Sleep(20 * time.Millisecond)
				}
				for _, pid := range running(filepath.Join(cage.ViewRoot, "source", filepath.Base(job.Dsc))) {
					syscall.Kill(pid, syscall.SIGTERM)
				}
			}()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			job := newSystemJob(t)
			r := &Sbuild{Chroots: cached}
			c.prepare(t, job, r)
			res := mustRun(t, r, job)
			log := logText(t, job)
			if res.Outcome != GiveBack || res.Stage != c.stage {
				t.Errorf("got %v, exit %d, status %q, stage %q: %s; want give-back, stage %q; the log ends:\n%s",
					res.Outcome, res.Exit, res.Status, res.Stage, res.Reason, c.stage, log[max(0, len(log)-5000):])
			}
			t.Logf("exit %d, status %q, stage %q", res.Exit, res.Status, res.Stage)
		})
	}
}
