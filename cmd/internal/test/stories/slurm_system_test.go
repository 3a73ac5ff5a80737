//go:build system

package stories

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"packmill/internal/deb/debtest"
	"packmill/queue/buildlog"
	"packmill/queue/runner"
	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// slurm is a real cluster of two nodes on this machine, beside a master that gives it its jobs.
type slurm struct {
	*mill
	dir  string
	env  []string
	node map[string]*exec.Cmd
	log  bytes.Buffer

	kernel bool // it is the kernel that keeps the limits of memory
}

// newSlurm starts munged, slurmctld and two slurmd, in a directory of their own. Jobs are the account's.
func newSlurm(m *mill, account string) *slurm {
	m.Helper()
	s := &slurm{mill: m, dir: filepath.Join(filepath.Dir(m.tree), "slurm"), node: map[string]*exec.Cmd{}}
	s.must(os.Mkdir(s.dir, 0o755))
	s.settings(account)
	at := s.at
	s.background("munge", "munged", "--foreground", "--force", "--socket="+at("munge/socket"),
		"--key-file="+at("munge/key"), "--pid-file="+at("munge/pid"), "--log-file="+at("munge/log"),
		"--seed-file="+at("munge/seed"))
	s.until("munged listens", func() bool { _, err := os.Stat(at("munge/socket")); return err == nil })
	s.background("slurm", "slurmctld", "-D", "-c", "-f", at("slurm.conf"))
	s.startNode("n1")
	s.startNode("n2")
	s.until("two nodes are idle", func() bool {
		return strings.Count(s.slurm("sinfo", "-hN", "-o%N %t"), " idle\n") == 2
	})
	s.Cleanup(func() {
		s.slurm("scancel", "--user="+account)
		s.until("no job runs", func() bool {
			return s.slurm("squeue", "-h", "-tRUNNING,COMPLETING") == "" || s.slurm("sinfo") == ""
		})
	})

	builders, err := os.ReadFile(filepath.Join(s.tree, "control/builders"))
	s.must(err)
	text := strings.Replace(string(builders), "Runner: ", "Runner: slurm ", 1)
	text = strings.Replace(text, "Jobs: 2", "Jobs: 40", 1)
	s.control("builders", strings.TrimSpace(text)+"\nShared: "+at("jobs")+
		"\nSlurm-Ask: 1s\nTimeout: 1h\nSlurm:\n partition=build\n package=glutton memory=128M\nLimits: hog Memory=64M")
	dress := s.accounts
	s.accounts = func(program string, cmd *exec.Cmd) {
		if dress != nil {
			dress(program, cmd)
		}
		cmd.Env = append(cmd.Env, append(s.env, "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "FROM_DAEMON=secret")...)
	}
	return s
}

func (s *slurm) at(name string) string { return filepath.Join(s.dir, name) }

// settings writes what the daemons of the cluster read.
func (s *slurm) settings(account string) {
	s.Helper()
	at := s.at
	for name, who := range map[string]string{"munge": "munge", "state": "slurm", "ctl": "slurm", "jobs": account} {
		s.must(os.Mkdir(at(name), 0o755))
		own(s.T, who, at(name))
	}
	s.must(os.Chmod(at("jobs"), 0o700))
	s.must(os.WriteFile(at("munge/key"), bytes.Repeat([]byte("packmill"), 16), 0o600))
	own(s.T, "munge", at("munge/key"))
	host, err := os.Hostname()
	s.must(err)
	conf := fmt.Sprintf(`ClusterName=packmill
SlurmUser=slurm
SlurmctldHost=%[1]s(127.0.0.1)
SlurmctldPort=%[3]d
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket=%[2]s/munge/socket
StateSaveLocation=%[2]s/state
SlurmdSpoolDir=%[2]s/spool-%%n
SlurmctldPidFile=%[2]s/ctl/pid
SlurmdPidFile=%[2]s/%%n.pid
SlurmctldLogFile=%[2]s/ctl/log
SlurmdLogFile=%[2]s/%%n.log
ProctrackType=proctrack/linuxproc
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
%[6]s
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=3900
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=10
KillWait=2
EnforcePartLimits=ALL
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname=%[1]s NodeAddr=127.0.0.1 Port=%[4]d CPUs=8 RealMemory=32000
NodeName=n2 NodeHostname=%[1]s NodeAddr=127.0.0.1 Port=%[5]d CPUs=8 RealMemory=32000
PartitionName=build Nodes=n1,n2 Default=YES MaxTime=2:00:00 State=UP
`, host, s.dir, freePort(s.T), freePort(s.T), freePort(s.T), s.tasks())
	s.must(os.WriteFile(at("slurm.conf"), []byte(conf), 0o644))
	s.env = []string{"SLURM_CONF=" + at("slurm.conf")}
}

// memoryGroups is where cgroups of version 1 keep limits of memory.
const memoryGroups = "/sys/fs/cgroup/memory"

// tasks is what holds a job to its memory: the kernel's own means where this machine lets Slurm have them.
// Slurm takes those of version 2 from systemd alone.
func (s *slurm) tasks() string {
	if _, err := os.Stat(memoryGroups + "/memory.limit_in_bytes"); err != nil {
		return "TaskPlugin=task/none\nJobAcctGatherParams=OverMemoryKill"
	}
	s.must(os.WriteFile(s.at("cgroup.conf"), []byte("CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n"+
		"ConstrainRAMSpace=yes\nConstrainSwapSpace=yes\n"), 0o644))
	s.kernel = true
	return "TaskPlugin=task/cgroup"
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// background is a daemon of the cluster.
func (s *slurm) background(who, program string, args ...string) *exec.Cmd {
	s.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = "/", append(s.env, "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.Stderr, cmd.Stdout = &s.log, &s.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if who != "root" {
		cmd.SysProcAttr.Credential = credential(s.T, who)
	}
	s.must(cmd.Start())
	s.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if s.Failed() {
			s.Logf("%s", tail(s.log.String()))
		}
	})
	return cmd
}

func (s *slurm) startNode(name string) {
	s.Helper()
	s.node[name] = s.background("root", "slurmd", "-D", "-N", name, "-f", s.at("slurm.conf"))
}

// slurm asks Slurm; "" if it does not answer.
func (s *slurm) slurm(argv ...string) string {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(s.env, "PATH=/usr/bin:/bin")
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	return string(out)
}

// wait makes a build of a source wait for a file, which the function that it returns makes.
func (s *slurm) wait(source string) (release func()) {
	path := filepath.Join(s.home, source+".go")
	s.script(source+"_1_amd64", "wait "+path)
	return func() { s.must(os.WriteFile(path, nil, 0o644)) }
}

// on is the node that a job of the shared directory runs on, by its source.
func (s *slurm) on(source string) (node, dir string) {
	s.Helper()
	all, err := filepath.Glob(filepath.Join(s.dir, "jobs/*/taken"))
	s.must(err)
	for _, path := range all {
		order, err := os.ReadFile(filepath.Join(filepath.Dir(path), "order"))
		s.must(err)
		if !strings.Contains(string(order), `"Source":"`+source+`"`) {
			continue
		}
		var by struct{ Node string }
		text, err := os.ReadFile(path)
		s.must(err)
		s.must(json.Unmarshal(text, &by))
		return by.Node, filepath.Dir(path)
	}
	s.Fatalf("no node has taken %s", source)
	return "", ""
}

// figures says what builds that took no time of their own cost: each from its claim to its verdict.
func (s *slurm) figures(sources []string, took time.Duration) {
	s.Helper()
	var each []float64
	for _, source := range sources {
		made, err := buildlog.BuildsAt(s.item(spool.Uploaded, source))
		s.must(err)
		each = append(each, made[0].Wall)
	}
	slices.Sort(each)
	s.Logf("%d builds in %.1f s; one takes %.1f s, the longest %.1f s", len(each), took.Seconds(), each[len(each)/2],
		each[len(each)-1])
}

// processes are those that have a word in their command line.
func processes(word string) (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		if data, err := os.ReadFile(path); err == nil && bytes.Contains(data, []byte(word)) {
			if pid, err := strconv.Atoi(strings.Split(path, "/")[2]); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// queue makes jobs of packages.
func (s *slurm) queue(a *accounts, sources ...string) {
	s.Helper()
	for _, source := range sources {
		a.drop(uploadtest.Package{Source: source, Version: "1", Distribution: "stable"})
	}
	a.daemon("reviewd")
	a.daemon("master-buildd")
}

// TestSlurm: forty builds on two nodes, one of which dies in the middle, come back; each was built once, but for what
// the dead node had.
func TestSlurm(t *testing.T) {
	a := newAccounts(t)
	s := newSlurm(a.mill, spool.UserBuild)
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf("small%02d", i))
	}
	// Some run when their node dies, whoever gets them.
	held, quick := many[:10], many[10:]
	release := filepath.Join(s.home, "release")
	for _, source := range held {
		s.script(source+"_1_amd64", "wait "+release)
	}
	s.queue(a, many...)
	begun := time.Now()
	s.start("buildd-amd64")
	s.until("all are built that can be", func() bool {
		return len(s.found("", spool.NeedsBuild, spool.Building)) == len(held) && len(s.builds()) == len(many)
	})
	s.figures(quick, time.Since(begun))
	node, _ := s.on(held[0])
	died := map[string]string{} // the directory of a job on that node, by its source
	for _, source := range held {
		if n, dir := s.on(source); n == node {
			died[source] = dir
		}
	}
	s.must(s.node[node].Process.Kill())
	for source, dir := range died {
		s.until(source+" is given back", func() bool {
			return strings.Contains(s.packmill("show", source), "NODE_FAIL")
		})
		s.until("its run, of which Slurm knows nothing, ends itself", func() bool { return len(processes(dir)) == 0 })
	}
	s.must(os.WriteFile(release, nil, 0o644))
	s.until("40 are built", func() bool { return len(s.found("", spool.NeedsBuild, spool.Building)) == 0 })
	t.Logf("%s died with %d builds; all in %.1f s", node, len(died), time.Since(begun).Seconds())
	a.daemon("master-buildd")
	a.daemon("archived")
	builds := s.builds()
	for _, source := range many {
		want := 1
		if died[source] != "" {
			want = 2
		}
		if len(s.found(source, spool.Installed)) != 2 || builds[source+"_1_amd64"] != want {
			t.Errorf("%s was built %d times, want %d: %v", source, builds[source+"_1_amd64"], want, s.found(source))
		}
	}
	if out := s.packmill("log", "small07"); !strings.Contains(out, "building small07_1_amd64 for stable") {
		t.Errorf("packmill log: %s", out)
	}
	s.until("the shared directory is empty", func() bool { return len(s.jobs()) == 0 })
	s.sound()
}

// jobs are the directories of jobs in the shared one.
func (s *slurm) jobs() (names []string) {
	s.Helper()
	left, err := os.ReadDir(s.at("jobs"))
	s.must(err)
	for _, e := range left {
		names = append(names, e.Name())
	}
	return names
}

// TestSlurmEnds: whatever ends a build, or the daemon that waits for it, it comes back once, with the reason.
func TestSlurmEnds(t *testing.T) {
	a := newAccounts(t)
	s := newSlurm(a.mill, spool.UserBuild)
	// The daemon dies while four are built: each goes its way in Slurm, and the next daemon finds it again.
	kept, _ := s.wait("kept"), s.wait("ended")
	s.script("hog_1_amd64", "eat 200")
	s.script("glutton_1_amd64", "eat 400")
	s.slurm("scontrol", "update", "partitionname=build", "state=down")
	s.queue(a, "kept", "ended", "hog", "glutton")
	b := s.start("buildd-amd64")
	s.until("why says what Slurm waits for", func() bool {
		return strings.Contains(s.packmill("why", "kept"), "it does not run yet (Slurm: PENDING (PartitionDown))")
	})
	s.slurm("scontrol", "update", "partitionname=build", "state=up")
	s.until("they are being built", func() bool { return len(s.builds()) == 4 })
	b.kill()
	s.until(
		"the log goes on",
		func() bool { return strings.Contains(s.packmill("log", "kept"), "building kept_1_amd64") },
	)
	kept()
	s.until("kept is built", func() bool { return len(s.found("kept", spool.NeedsBuild, spool.Building)) == 0 })
	if n := s.builds()["kept_1_amd64"]; n != 1 {
		t.Errorf("kept was built %d times", n)
	}
	s.until("hog came to its limit", func() bool {
		return strings.Contains(s.packmill("show", "hog"), "more than 64 MiB of memory")
	})
	// Of glutton's memory only Slurm knows a limit. The kernel ends the build there, and the job lives and says so; without
	// cgroups Slurm ends the job, and calls that by several names.
	said := "given back: Slurm ended the job: "
	if s.kernel {
		said = "suspect (memory): the build was out of memory: the kernel ended it at a limit that others set"
	}
	s.until("glutton came to Slurm's", func() bool { return strings.Contains(s.packmill("show", "glutton"), said) })
	_, dir := s.on("ended")
	runs := processes(dir)
	for _, pid := range runs {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil || bytes.Contains(env, []byte("FROM_DAEMON")) {
			t.Errorf("the job's environment: %q, %v", env, err)
		}
	}
	if len(runs) == 0 {
		t.Errorf("nothing runs in %s", dir)
	}
	s.packmill("cancel", "ended", "amd64", "-m", "enough")
	s.until("ended is put away", func() bool { return len(s.found("ended", spool.Attic)) == 1 })
	if pids := processes(dir); len(pids) > 0 {
		t.Errorf("processes of a cancelled job: %v", pids)
	}
	s.until("the shared directory is empty", func() bool { return len(s.jobs()) == 0 })
	s.sound()
}

// TestSlurmOverlay: a real build on a node, with a package of our own archive. It sees nothing of the cluster.
func TestSlurmOverlay(t *testing.T) {
	account := os.Getenv("PACKMILL_BUILD_USER")
	if os.Getuid() != 0 || account == "" {
		t.Skip("only root can start the cluster's daemons")
	}
	recipe := runner.Recipe{Suite: "sid", Arch: runner.Machine(), Base: []string{base(t)}}
	if _, err := chroots(t).Fresh(t.Context(), recipe,
		24*time.Hour); err != nil {
		t.Fatal(err)
	}
	m := realMill(t, runner.Machine(), "Runner: overlay")
	for _, dir := range []string{filepath.Dir(m.tree), filepath.Dir(filepath.Dir(m.tree)), bin} {
		m.must(os.Chmod(dir, 0o755))
	}
	changes, err := debtest.Upload{Source: debtest.Source{Name: "figlet", Version: "99"},
		Debs: []debtest.Deb{{Name: "figlet", Version: "99", Arch: runner.Machine()}}}.Write(t.TempDir())
	m.must(err)
	m.packmill("archive", "include", "sid", changes)
	m.queued(uploadtest.Package{Source: "app", Version: "1.0", Distribution: "sid", BuildDepends: "figlet (>= 99)",
		Debian: func(files map[string]string) {
			files["rules"] = strings.Replace(files["rules"], "/usr/bin\n", "/usr/bin\n"+
				"\t-env; ls -d "+filepath.Dir(m.tree)+"/* /run/munge; cat /proc/net/unix\n", 1)
		}})
	s := newSlurm(m, account)
	m.must(filepath.WalkDir(m.tree, func(path string, _ os.DirEntry, err error) error {
		own(t, account, path)
		return err
	}))
	m.as = credential(t, account)
	m.once("buildd-" + runner.Machine())
	m.has(m.where(), "uploaded "+runner.Machine()+" app_1.0")
	log := m.packmill("log", "app") + m.packmill("show", "app")
	for _, secret := range []string{"SLURM", "FROM_DAEMON", s.at("jobs") + "\n", "munge/socket", "munge.socket"} {
		if strings.Contains(log, secret) {
			t.Errorf("the build saw %s", secret)
		}
	}
	if !strings.Contains(log, "DEB_BUILD_OPTIONS=") || t.Failed() {
		t.Errorf("the build's own words are missing:\n%s", tail(log))
	}
}
