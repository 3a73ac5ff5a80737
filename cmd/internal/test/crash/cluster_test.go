//go:build linux && amd64

package crash

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// scheduler stands in for Slurm's commands, and is none: it begins a job at once, on this machine, and knows of it
// whether it runs. What Slurm itself does when something dies the system tests of cmd/internal/test/stories see; what
// is swept here is what the two ends write into the shared directory and the tree.
var scheduler = map[string]string{
	"sbatch": `#!/bin/sh
for word; do
	case $word in
	--job-name=*) name=${word#*=} ;;
	--output=*) out=${word#*=} ;;
	esac
done
jobs=${SLURM_CONF%/*}/scheduler
cat >"$jobs/$name.script"
setsid sh "$jobs/$name.script" >>"$out" 2>&1 </dev/null &
echo $! >"$jobs/$name"
echo 1
`,
	"squeue": `#!/bin/sh
for job in "${SLURM_CONF%/*}"/scheduler/*[0-9a-f]; do
	[ -s "$job" ] || continue
	state=COMPLETED
	! kill -0 "$(cat "$job")" 2>/dev/null || state=RUNNING
	echo "${job##*/}|$state|None|here"
done
`,
	"scancel": `#!/bin/sh
for word; do
	case $word in
	--name=*) job=${SLURM_CONF%/*}/scheduler/${word#*=} ;;
	esac
done
[ ! -s "$job" ] || kill -KILL -- "-$(cat "$job")" 2>/dev/null || :
`,
	"sinfo": "#!/bin/sh\necho build\n",
}

var shared = regexp.MustCompile(`(?m)^Shared: .*$`)

// clusterSite is a master with jobs for a cluster, whose shared directory is in outsideDir. A cluster's jobs are never
// root's: all that runs there is another account's.
func clusterSite(t testing.TB) *site {
	t.Helper()
	s := queued(t, "together", "hello", "broken", "waiting")
	bin := filepath.Join(s.bin, "scheduler")
	err := os.MkdirAll(bin, 0o755)
	for name, text := range scheduler {
		err = errors.Join(err, os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	s.write("control/builders", "Name: farm\nArchitectures: amd64 all\nRunner: slurm exec "+
		filepath.Join(s.bin, builderName)+"\nJobs: 3\nShared: here\nSlurm-Ask: 1s\nSlurm: partition=build\n"+
		"Fingerprint: "+builderKey(t)+"\nKey: private/builder.key\n")
	for _, dir := range []string{"jobs", "scheduler"} {
		s.mkdir(filepath.Join(outsideDir, dir))
	}
	s.write(filepath.Join(outsideDir, "slurm.conf"), "")
	account := clusterAccount(t)
	for _, dir := range []string{s.bin, s.dir} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.dress = func(tree string, p *Program) {
		if err := s.clusterAt(tree, p, account); err != nil {
			t.Error(err)
		}
	}
	return s
}

// clusterAccount is who runs it; nil: who runs the tests.
func clusterAccount(t testing.TB) *user.User {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	name := os.Getenv("PACKMILL_BUILD_USER")
	if name == "" {
		t.Skip("a cluster's jobs are never root's, and PACKMILL_BUILD_USER names no other account")
	}
	account, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return account
}

// clusterAt makes a program one of a copy of the site.
func (s *site) clusterAt(tree string, p *Program, account *user.User) error {
	outside := filepath.Join(tree, outsideDir)
	builders := filepath.Join(tree, "control/builders")
	text, err := os.ReadFile(builders)
	if err != nil {
		return err
	}
	if now := shared.ReplaceAll(text, []byte("Shared: "+outside+"/jobs")); string(now) != string(text) {
		if err := os.WriteFile(builders, now, 0o644); err != nil {
			return err
		}
	}
	for i, e := range p.Env {
		if path, ok := strings.CutPrefix(e, "PATH="); ok {
			p.Env[i] = "PATH=" + filepath.Join(s.bin, "scheduler") + ":" + path
		}
		if account != nil && strings.HasPrefix(e, "HOME=") {
			p.Env[i] = "HOME=/nonexistent"
		}
	}
	p.Env = append(p.Env, "SLURM_CONF="+outside+"/slurm.conf")
	if account == nil {
		return nil
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		return err
	}
	p.Args = append([]string{"--reuid=" + account.Uid, "--regid=" + account.Gid, "--clear-groups", p.Path}, p.Args...)
	p.Path = setpriv
	uid, _ := strconv.Atoi(account.Uid)
	gid, _ := strconv.Atoi(account.Gid)
	return filepath.WalkDir(tree, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	})
}
