package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"packmill/internal/openpgp"
	"packmill/internal/policy"
	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// simulated is the suite of the simulation.
const simulated = "sim"

// mill is a tree with all daemons over it, and what they have done so far.
type mill struct {
	*bench
	*world
	tree    *spool.Tree
	bin     string
	signer  *openpgp.Signer
	archs   []string
	daemons []*process
	begun   time.Time

	journal map[string]int64 // how far each day of it was read
	moves   []move
	landed  int // of those, into installed
	said    time.Time
	asleep  time.Duration // what the builds from nothing take, each by itself
}

// move is a line of the journal.
type move struct {
	Time     time.Time
	From, To string
	Item     string
}

// process is a daemon.
type process struct {
	kind string // the program
	name string
	cmd  *exec.Cmd
	log  *os.File
}

// newMill makes the tree, and starts the daemons over it.
func newMill(b *bench, w *world, dir, bin string, archs []string) (*mill, error) {
	tree, err := spool.Init(filepath.Join(dir, "tree"))
	if err != nil {
		return nil, err
	}
	m := &mill{bench: b, world: w, tree: tree, bin: bin, archs: archs, begun: time.Now(),
		journal: map[string]int64{}}
	m.signer, err = openpgp.Generate("Bench", "bench@example.org", m.begun.AddDate(0, 0, -1))
	if err == nil {
		err = m.settle(dir)
	}
	if err == nil {
		err = output(exec.Command(filepath.Join(bin, "packmill"), "init", "--tree", tree.Root()))
	}
	if err != nil {
		return nil, err
	}
	daemons := [][]string{{"master-buildd"}, {"reviewd"}, {"archived"}}
	for _, a := range archs {
		daemons = append(daemons, []string{"buildd", "--arch", a})
	}
	for _, d := range daemons {
		if err := m.start(dir, d); err != nil {
			return m, err
		}
	}
	return m, m.fetched()
}

// settle writes the settings, the base, and what the instant builder makes of each source.
func (m *mill) settle(dir string) error {
	base := filepath.Join(dir, "base")
	var builders strings.Builder
	for i, a := range m.archs {
		builds := a
		if i == 0 {
			builds += " all"
		}
		fmt.Fprintf(&builders, "Name: %s\nArchitectures: %s\nJobs: %d\nRunner: exec %s\n"+
			"Key: private/key\nFingerprint: %s\n\n", a, builds, jobsOfBuilder, filepath.Join(m.bin, "fakebuilder"), m.signer.Fingerprint())
	}
	files := map[string]string{
		m.tree.Path("control/suites"): fmt.Sprintf("Suite: %s\nArchitectures: %s\nReview: never\nPublish: source-first\n"+
			"Opkg: no\nSign-With: private/key\nIndex-Stay: %[4]s\nBase: deb [signed-by=%[3]s/key.asc] file:%[3]s sim main\n",
			simulated, strings.Join(m.archs, " "), base, indexStay),
		m.tree.Path("control/uploaders"):   "Name: Bench\nFingerprint: " + m.signer.Fingerprint() + "\n",
		m.tree.Path("control/builders"):    builders.String(),
		m.tree.Path("control/keys/key"):    string(m.signer.Public()),
		m.tree.Path("control/private/key"): string(m.signer.Secret()),
		base + "/key.asc":                  string(m.signer.Public()),
	}
	release := "Suite: sim\nCodename: sim\nComponents: main\nDate: " + m.begun.UTC().Format(time.RFC1123) + "\nSHA256:\n"
	for _, a := range m.archs {
		name, text := "main/binary-"+a+"/Packages", index(m.base, a)
		files[base+"/dists/sim/"+name] = string(text)
		release += fmt.Sprintf(" %x %d %s\n", sha256.Sum256(text), len(text), name)
	}
	signed, err := m.signer.Clearsign([]byte(release), m.begun)
	if err != nil {
		return err
	}
	files[base+"/dists/sim/InRelease"] = string(signed)
	for _, s := range m.chosen {
		files[filepath.Join(m.bin, "debs", s.name)] = s.debs()
	}
	m.sleep(files)
	for path, text := range files {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			return err
		}
	}
	return os.Chmod(base+"/key.asc", 0o644)
}

// sleep writes how long the builder takes for the first version of each source: as its files' size in the lists is to the
// others', on average what the bench says, and at most mostTimes that.
func (m *mill) sleep(files map[string]string) {
	var all int64
	for _, s := range m.chosen {
		all += size(s.st.Get("Files"))
	}
	for _, s := range m.chosen {
		share := float64(size(s.st.Get("Files"))) * float64(len(m.chosen)) / max(1, float64(all))
		takes := time.Duration(min(share, mostTimes) * float64(m.buildTime))
		for _, a := range m.builds(s) {
			if takes > 0 {
				name := strings.ReplaceAll(s.name+"_"+s.version+"_"+a, ":", "%3a")
				files[filepath.Join(m.bin, "script", name)] = fmt.Sprintf("sleep %s\n", takes)
			}
			m.asleep += takes
		}
	}
}

// jobsOfBuilder is how many builds each of the builders has at a time, and mostTimes how many times the average one
// takes at most.
const (
	jobsOfBuilder = 2
	mostTimes     = 50
)

// indexStay is Index-Stay of the simulation: with two publications a second, in what a person keeps would be little but
// superseded indexes, and no room in memory for them.
const indexStay = "3m"

// debs is what the instant builder makes of a source: stanzas as in Packages, with Package-List's architectures, and
// with dpkg's words where a package names the version of its own source.
func (s *source) debs() string {
	var out bytes.Buffer
	for _, b := range s.makes {
		fmt.Fprintf(&out, "Package: %s\nArchitecture: %s\n", b.name, strings.Join(b.archs, " "))
		if v := b.st.Get("Version"); v != "" && v != s.version {
			fmt.Fprintf(&out, "Version: %s\nOf: %s\n", v, s.version)
		}
		own := strings.NewReplacer("(= "+b.st.Get("Version")+")", "(= ${binary:Version})",
			"(= "+s.version+")", "(= ${source:Version})")
		for _, f := range []string{"Essential", "Multi-Arch", "Pre-Depends", "Depends", "Recommends", "Suggests", "Breaks",
			"Conflicts", "Replaces", "Provides", "Section", "Priority", "Homepage", "Description"} {
			v := b.st.Get(f)
			if strings.HasSuffix(f, "Depends") {
				v = s.anyVersion(b, v)
			}
			if v != "" {
				fmt.Fprintf(&out, "%s: %s\n", f, own.Replace(v))
			}
		}
		out.WriteByte('\n')
	}
	return out.String()
}

// anyVersion is what a package of the source depends on, without the bounds that debian/rules makes of the source's
// version for the packages beside it: the next version is beyond them. One for all architectures has the source's
// version. What it breaks keeps its versions.
func (s *source) anyVersion(b *binary, field string) string {
	all, err := policy.ParseRelations(field)
	if err != nil {
		return field // no relations
	}
	changed := false
	for _, or := range all {
		for j := range or {
			r := &or[j]
			i := slices.IndexFunc(s.makes, func(o *binary) bool { return o.name == r.Name })
			if i < 0 {
				continue
			}
			ofBuild := r.Version == b.st.Get("Version") || r.Version == s.version
			switch {
			case !ofBuild && slices.Contains([]string{"<<", "<=", "="}, r.Op):
				r.Op, r.Version, changed = "", "", true
			case ofBuild && r.Op == "=" && slices.Equal(s.makes[i].archs, []string{"all"}):
				r.Version, changed = "${source:Version}", true // which a build of an architecture again does not make anew
			}
		}
	}
	if !changed {
		return field
	}
	return all.String()
}

// start runs a daemon, whose log is kept.
func (m *mill) start(dir string, args []string) error {
	p := &process{kind: args[0], name: strings.Replace(strings.Join(args, "-"), "---arch", "", 1)}
	var err error
	if p.log, err = os.Create(filepath.Join(dir, p.name+".log")); err != nil {
		return err
	}
	p.cmd = exec.Command(filepath.Join(m.bin, args[0]), append([]string{"--tree", m.tree.Root()}, args[1:]...)...)
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		return err
	}
	m.daemons = append(m.daemons, p)
	return nil
}

// stop ends the daemons.
func (m *mill) stop() error {
	var errs []error
	for _, p := range m.daemons {
		p.cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, p := range m.daemons {
		if err := p.cmd.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
		}
		errs = append(errs, p.log.Close())
	}
	m.daemons = nil
	return errors.Join(errs...)
}

// fetched waits until master-buildd knows the base of all architectures.
func (m *mill) fetched() error {
	for end := time.Now().Add(5 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		done, err := filepath.Glob(m.tree.Path(spool.BaseDir, simulated, "*/fetched"))
		if err != nil || len(done) == len(m.archs) {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("master-buildd has fetched the base of %d of %d architectures", len(done), len(m.archs))
		}
	}
}

// uploads writes one upload of each source, in a directory beside the tree, and returns a function that brings them, as
// a client does whose files come from elsewhere.
func (m *mill) uploads(sources []*source) (bring func() error, err error) {
	dir, err := os.MkdirTemp(filepath.Dir(m.tree.Root()), "uploads-")
	if err != nil {
		return nil, err
	}
	var all [][]string
	for _, s := range sources {
		own := filepath.Join(dir, s.name)
		if err := os.Mkdir(own, 0o755); err != nil {
			return nil, err
		}
		changes, err := m.upload(s).Write(own)
		if err != nil {
			return nil, fmt.Errorf("upload of %s: %w", s.name, err)
		}
		files, err := filepath.Glob(own + "/*")
		if err != nil {
			return nil, err
		}
		last := filepath.Join(own, changes)
		files = slices.DeleteFunc(files, func(f string) bool { return f == last })
		all = append(all, append(files, last))
	}
	return func() error {
		for _, files := range all {
			if err := drop(m.tree.Path("spool/incoming"), files); err != nil {
				return err
			}
		}
		return os.RemoveAll(dir)
	}, nil
}

// upload is a small source package that says what the real one says.
func (m *mill) upload(s *source) uploadtest.Package {
	fields := ""
	for _, f := range []string{"Build-Depends", "Build-Depends-Arch", "Build-Depends-Indep", "Build-Conflicts",
		"Build-Conflicts-Arch", "Build-Conflicts-Indep", "Homepage"} {
		if v := s.st.Get(f); v != "" {
			fields += f + ": " + strings.Join(strings.Fields(v), " ") + "\n"
		}
	}
	var names []string
	for _, b := range s.makes {
		names = append(names, b.name)
	}
	return uploadtest.Package{
		Source: s.name, Version: s.version, Distribution: simulated, Signer: m.signer, Binary: names,
		Date: m.begun.Add(-time.Minute), Architecture: s.architecture(),
		Dsc: func(text string) string {
			head, rest, _ := strings.Cut(text, "Package-List:\n")
			_, sums, _ := strings.Cut(rest, "Checksums-Sha1:")
			return head + fields + "Package-List:\n " + strings.Join(s.lines, "\n ") + "\nChecksums-Sha1:" + sums
		},
	}
}

// architecture is the field of that name, as dpkg-source makes it of those of the packages.
func (s *source) architecture() string {
	var out []string
	for _, b := range s.makes {
		for _, a := range b.archs {
			if !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return strings.Join(out, " ")
}

// read reads what has come to the journal.
func (m *mill) read() error {
	days, err := filepath.Glob(m.tree.Path("journal/20*"))
	if err != nil {
		return err
	}
	slices.Sort(days)
	for _, day := range days {
		f, err := os.Open(day)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(io.NewSectionReader(f, m.journal[day], 1<<40))
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		data = data[:bytes.LastIndexByte(data, '\n')+1]
		m.journal[day] += int64(len(data))
		for line := range bytes.Lines(data) {
			var v move
			if len(line) == 1 {
				continue // two wrote at once
			}
			if err := json.Unmarshal(line, &v); err != nil {
				return fmt.Errorf("journal: %w", err)
			}
			if strings.HasPrefix(v.To, installed) {
				m.landed++
			}
			m.moves = append(m.moves, v)
		}
	}
	return nil
}

const installed = "archive/installed/"

// census counts the items of the tree outside of what is kept, and the files that reviewd has not taken yet.
func (m *mill) census() (map[string]int, error) {
	out := map[string]int{}
	here := func(s spool.State) bool { return s != spool.Installed && s != spool.Attic }
	places, err := m.tree.Places(m.tree.Where(here)...)
	if err != nil {
		return nil, err
	}
	for _, p := range places {
		names, err := m.tree.List(p)
		if err != nil {
			return nil, err
		}
		out[p.State.Name] += len(names)
	}
	files, err := os.ReadDir(m.tree.Path("spool/incoming"))
	out["incoming"] = len(files)
	return out, err
}

// active are the states in which something is being done, or ought to be.
var active = []*spool.Row{spool.Intake, spool.Accepted, spool.NeedsBuild, spool.Building, spool.Built, spool.Uploaded}

// stuck is how long nothing may move.
const stuck = 10 * time.Minute

// rest waits until all that can be done is done, and until nothing is left of what cannot be: remains names one.
func (m *mill) rest(what string, remains func() (string, error)) error {
	var before usage
	last, moved := time.Now(), 0
	for quiet, enough := 0, 3; quiet < enough; {
		time.Sleep(300 * time.Millisecond)
		now, err := m.census()
		if err == nil {
			err = m.read()
		}
		if err != nil {
			return err
		}
		used, busy, err := m.usage()
		if err != nil {
			return err
		}
		open := now["incoming"]
		for _, s := range active {
			open += now[s.Name]
		}
		left := ""
		if open == 0 && remains != nil {
			if left, err = remains(); err != nil {
				return err
			}
		}
		if enough = 3; now[spool.BDUninstallable.Name] > 0 {
			enough = 10 // what was published last may be what they wait for, and dose is about to say so
		}
		quiet++
		if open > 0 || left != "" || busy || len(m.moves) != moved || used.total()-before.total() > 60*time.Millisecond {
			quiet = 0
		}
		if len(m.moves) != moved {
			last, moved = time.Now(), len(m.moves)
		}
		before = used
		if err := m.wrong(now); err != nil {
			return err
		}
		if time.Since(last) > stuck {
			return fmt.Errorf("%s: nothing has moved for %s: %s; %s%s", what, stuck, said(now), left, m.why())
		}
		if time.Since(m.said) > 5*time.Second {
			m.said = time.Now()
			m.progress("distribution: %s, %s: %s, %d installed, %d moves", what, time.Since(m.begun).Round(time.Second),
				said(now), m.landed, len(m.moves))
		}
	}
	return nil
}

// why is what packmill says of an item in which something ought to be done.
func (m *mill) why() string {
	found, err := m.tree.Find("", active...)
	if err != nil || len(found) == 0 {
		return ""
	}
	said, err := exec.Command(filepath.Join(m.bin, "packmill"), "--tree", m.tree.Root(), "why", found[0].Name.Source,
		"--suite", simulated).CombinedOutput()
	if err != nil {
		return found[0].Name.String() + ": " + err.Error()
	}
	return string(said)
}

// wrong says what nobody should see.
func (m *mill) wrong(now map[string]int) error {
	for _, s := range []*spool.Row{spool.Rejected, spool.BuildAttempted, spool.Failed} {
		if now[s.Name] == 0 {
			continue
		}
		found, err := m.tree.Find("", s)
		if err != nil || len(found) == 0 {
			return err
		}
		return fmt.Errorf("%d are %s, such as %s: %s", len(found), s.Name, found[0].Name,
			spool.ReadReason(m.tree.Path(found[0].Dir())))
	}
	return nil
}

// said is a census in the order of a package's life.
func said(now map[string]int) string {
	var out []string
	if n := now["incoming"]; n > 0 {
		out = append(out, fmt.Sprintf("%d files incoming", n))
	}
	for _, s := range spool.Standard.States {
		if n := now[s.Name]; n > 0 && s != spool.AutoNotForUs {
			out = append(out, fmt.Sprintf("%d %s", n, s.Name))
		}
	}
	return strings.Join(out, ", ")
}

// usage is what the daemons have used since they began.
type usage map[string]*share

// share is one daemon's, or that of all of its kind.
type share struct {
	own, children time.Duration
	peak          int64 // bytes of memory that one process of it had at most
}

func (u usage) total() (sum time.Duration) {
	for _, s := range u {
		sum += s.own + s.children
	}
	return sum
}

// usage asks the kernel; busy says that a daemon waits for a program that it runs.
func (m *mill) usage() (u usage, busy bool, err error) {
	u = usage{}
	for _, p := range m.daemons {
		if u[p.kind] == nil {
			u[p.kind] = &share{}
		}
		s := u[p.kind]
		own, err1 := ticks(p.cmd.Process.Pid, 11, 13)
		children, err2 := ticks(p.cmd.Process.Pid, 13, 15)
		peak, err3 := statusOf(p.cmd.Process.Pid, "VmHWM")
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, false, fmt.Errorf("%s: %w; %s", p.name, err, tailOf(p.log.Name()))
		}
		s.own, s.children, s.peak = s.own+own, s.children+children, max(s.peak, peak)
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.cmd.Process.Pid))
		if err != nil {
			return nil, false, err
		}
		for _, t := range tasks {
			if list, err := os.ReadFile(t); err == nil && len(list) > 0 {
				busy = true
			}
		}
	}
	return u, busy, nil
}

// ticks sums fields of a process' stat, counted from behind its name.
func ticks(pid, from, to int) (sum time.Duration, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	for _, f := range strings.Fields(rest)[from:to] {
		var n int64
		if _, err := fmt.Sscan(f, &n); err != nil {
			return 0, err
		}
		sum += time.Duration(n) * 10 * time.Millisecond
	}
	return sum, nil
}

// statusOf is a line of a process' status that is in kB, in bytes.
func statusOf(pid int, field string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, field+": %d kB", &kb); n == 1 {
			return kb << 10, nil
		}
	}
	if err == nil {
		err = errors.New("it has ended")
	}
	return 0, err
}

func tailOf(path string) string {
	text, _ := os.ReadFile(path)
	return string(text[max(0, len(text)-1500):])
}

// left are the jobs that nothing can be done about, by architecture.
func (m *mill) left() (map[string]int, error) {
	out := map[string]int{}
	found, err := m.tree.Find("", spool.BDUninstallable, spool.DepWait)
	for _, f := range found {
		out[f.Place.Arch]++
	}
	return out, err
}

// leftHere is one job that waits for others on the architecture that all sources were chosen to be built on, and why; or
// nothing.
func (m *mill) leftHere() (string, error) {
	found, err := m.tree.Find("", spool.BDUninstallable, spool.DepWait)
	i := slices.IndexFunc(found, func(f spool.Found) bool { return f.Place.Arch == "amd64" || f.Place.Arch == "all" })
	if i < 0 {
		return "", err
	}
	return found[i].Name.String() + ": " + spool.ReadReason(m.tree.Path(found[i].Dir())), err
}

// packmill runs the person's command.
func (m *mill) packmill(args ...string) error {
	return output(exec.Command(filepath.Join(m.bin, "packmill"), append([]string{"--tree", m.tree.Root()}, args...)...))
}

// jobs is how many builds the sources make.
func (m *mill) jobs() (n int) {
	for _, s := range m.chosen {
		n += len(m.builds(s))
	}
	return n
}

// builds are the architectures for which a source is built.
func (m *mill) builds(s *source) (out []string) {
	archs := strings.Fields(s.architecture())
	for _, a := range append(slices.Clone(m.archs), "all") {
		if policy.BuildsOn(archs, a) {
			out = append(out, a)
		}
	}
	return out
}

// weigh is what lies on the disk below a directory: bytes, and inodes.
func weigh(dir string) (size, inodes int64, err error) {
	seen := map[uint64]bool{}
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if st := info.Sys().(*syscall.Stat_t); !seen[st.Ino] {
			seen[st.Ino] = true
			size += st.Blocks * 512
		}
		return nil
	})
	return size, int64(len(seen)), err
}

// middleAnd are the values below which half and 99 of 100 are.
func middleAnd(all []time.Duration) (p50, p99 time.Duration) {
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)*99/100]
}
