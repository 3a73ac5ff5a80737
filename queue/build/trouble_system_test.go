//go:build system

package build

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What sbuild says of trouble that is none of the package's: a source that is
// not the .dsc's, a chroot that cannot be unpacked, and a signal.
func TestSbuildTrouble(t *testing.T) {
	t.Parallel()
	cached := testChroots(t, "amd64")
	for _, c := range []struct {
		name, stage string
		prepare     func(t *testing.T, job *Job, r *Sbuild)
	}{
		{"source", "unpack", func(t *testing.T, job *Job, r *Sbuild) {
			source{}.make(t, job)
			path := strings.TrimSuffix(job.Dsc, ".dsc") + ".tar.xz"
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			data[len(data)/2] ^= 1
			write(t, path, string(data))
		}},
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
			run(t, "mkdir", "-p", filepath.Join(own, rootDir, "var/lib/dpkg"))
			run(t, "cp", filepath.Join(ch.dir, rootDir, "var/lib/dpkg/status"), filepath.Join(own, rootDir, "var/lib/dpkg"))
			run(t, "cp", "-a", filepath.Join(ch.dir, infoFile), own)
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
				for _, dsc := range []string{job.Dsc, filepath.Join(viewRoot, "source", filepath.Base(job.Dsc))} {
					for _, pid := range running(dsc) {
						syscall.Kill(pid, syscall.SIGTERM)
					}
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
				t.Errorf("got %v, exit %d, status %q, stage %q: %s; want give-back, stage %q; the log ends:\n%s", res.Outcome, res.Exit, res.Status, res.Stage, res.Reason, c.stage, log[max(0, len(log)-5000):])
			}
			t.Logf("exit %d, status %q, stage %q", res.Exit, res.Status, res.Stage)
		})
	}
}
