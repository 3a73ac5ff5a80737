package runner

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"packmill/internal/deb822"
	"packmill/internal/policy"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

// Sbuild builds with Debian's sbuild.
//
// In unshare mode it unpacks a chroot of Chroots for each build, and
// dpkg-buildpackage has no network unless Job.Network is set. Where the process
// is root, sbuild runs as Chroots.User in a pid and a mount namespace of its
// own, on a file system in memory that only it sees and that is gone with it, of
// the size of Limits.Disk. Elsewhere it unpacks below Scratch.
//
// In schroot mode it uses the machine's schroot of the name <suite>-<arch>,
// the build user must be in the group sbuild, and the build has the network:
// it is refused unless Job.Network is set. The session of a build that is killed
// is ended after it; where the daemon dies with it and is root, that is before
// the job's next build.
type Sbuild struct {
	Chroots *Chroots
	Schroot bool          // use schroot instead of unshare mode
	Refresh time.Duration // apt-get update first if the chroot is older; 0: 24 h
	Scratch string        // not root: where chroots are unpacked; empty: /dev/shm
}

// Ready looks for sbuild, the build user, and what chroots of the architecture
// need.
func (r *Sbuild) Ready(arch string) error {
	if _, err := exec.LookPath("sbuild"); err != nil {
		return fmt.Errorf("sbuild is missing; install sbuild, mmdebstrap and uidmap: %w", ErrSetup)
	}
	if r.Schroot {
		_, err := lookupAccount(r.Chroots.User)
		return errors.Join(err, Runs(arch))
	}
	return r.Chroots.Ready(arch)
}

// Run builds the job.
func (r *Sbuild) Run(ctx context.Context, job *Job) (*Result, error) {
	begin := time.Now()
	if err := job.check(); err != nil {
		return nil, err
	}
	program, err := exec.LookPath("sbuild")
	if err != nil {
		return nil, fmt.Errorf("sbuild is missing; install sbuild, mmdebstrap and uidmap: %w", ErrSetup)
	}
	user, err := lookupAccount(r.Chroots.User)
	if err != nil {
		return nil, err
	}
	dsc, err := readDsc(job)
	if err != nil {
		return nil, err
	}
	root := os.Getuid() == 0
	var ids *idmap
	var chroot *Chroot
	on := job.chrootArch(Machine())
	if r.Schroot {
		if !job.Network {
			return nil, fmt.Errorf("sbuild in schroot mode leaves the network on in the build, which the settings do not allow; allow it or use unshare mode: %w", ErrSetup)
		}
		if err := endSession(job); err != nil {
			return nil, err
		}
	} else {
		if ids, err = user.subordinates(); err != nil {
			return nil, err
		}
		if err := r.Chroots.forJob(ctx, job, on); err != nil {
			return nil, err
		}
		if chroot, err = r.Chroots.use(job.Suite, on); err != nil {
			return nil, err
		}
		defer chroot.release()
	}
	if err := errors.Join(empty(job.Dir), empty(job.Result)); err != nil {
		return nil, err
	}

	// at is how the build sees a file of ours.
	at := func(name string) string { return filepath.Join(job.Dir, name) }
	o := &order{Verb: "run", Nice: job.Nice}
	if r.Schroot && !root {
		o.After = endCommand(job)
	}
	c := &cage{log: job.Log, lock: job.Lock, limits: job.Limits}
	tarball, result, source, scratch := "", job.Result, filepath.Dir(job.Dsc), r.Scratch
	if scratch == "" {
		scratch = "/dev/shm"
	}
	if chroot != nil {
		tarball = filepath.Join(chroot.dir, tarFile)
		c.hold = append(c.hold, chroot.lock)
	}
	binds := map[string]string{}
	if root {
		at = func(name string) string { return filepath.Join(viewRoot, name) }
		o.Init, o.User = true, user
		copies := map[string]string{"sbuildrc": filepath.Join(job.Dir, "sbuildrc")}
		for _, f := range dsc.files {
			copies["source/"+f] = filepath.Join(source, f)
		}
		for i := range job.Repos {
			copies[keyName(i)] = filepath.Join(job.Dir, keyName(i))
		}
		binds["result"] = job.Result
		if chroot != nil {
			binds[tarFile] = tarball
			tarball = at(tarFile)
		}
		o.View = &view{Size: job.Limits.Disk, Dirs: []string{"tmp", "home"}, Copy: copies, Binds: binds}
		result, source, scratch = at("result"), at("source"), at("tmp")
		if err := os.Chown(job.Result, user.UID, user.GID); err != nil {
			return nil, fmt.Errorf("result directory: %w", err)
		}
		c.disk = []string{job.Result}
	} else {
		for _, d := range []string{"tmp", "home"} {
			if err := os.Mkdir(filepath.Join(job.Dir, d), 0o755); err != nil {
				return nil, fmt.Errorf("work directory: %w", err)
			}
		}
		dir, lock, err := scratchDir(scratch, "packmill-sbuild.", func(dir string) error { return r.Chroots.removeDir(dir, ids) })
		if err != nil {
			return nil, err
		}
		defer lock.Close()
		defer r.Chroots.removeDir(dir, ids)
		scratch = dir
		c.hold = append(c.hold, lock)
		c.disk = []string{scratch, job.Result}
	}

	args, rc, err := r.commandLine(job, dsc, chroot, at, binds, scratch, on)
	if err != nil {
		return nil, err
	}
	if job.Network && !r.Schroot {
		if hasOption(program, "--enable-network") {
			args = append(args, "--enable-network")
		} else {
			rc += enableNetwork
		}
	}
	if r.Schroot {
		rc += fmt.Sprintf(nameSession, sessionName(job))
	}
	rc += "1;\n"
	if err := os.WriteFile(filepath.Join(job.Dir, "sbuildrc"), []byte(rc), 0o644); err != nil {
		return nil, fmt.Errorf("sbuild's settings: %w", err)
	}
	for i, repo := range job.Repos {
		if err := os.WriteFile(filepath.Join(job.Dir, keyName(i)), dearmor(repo.Key), 0o644); err != nil {
			return nil, fmt.Errorf("repository key: %w", err)
		}
	}
	if chroot != nil {
		args = append(args, "--chroot="+tarball)
	}
	args = append(args, "--build-dir="+result, filepath.Join(source, filepath.Base(job.Dsc)))
	o.Argv = append([]string{program}, args...)
	if personality := personalityOf(on); personality != "" && personality != personalityOf(Machine()) {
		o.Argv = append([]string{"setarch", personality, "--"}, o.Argv...)
	}
	o.Dir = result
	o.Env = []string{
		"PATH=" + defaultPath,
		"HOME=" + at("home"),
		"TMPDIR=" + at("tmp"),
		"SBUILD_CONFIG=" + at("sbuildrc"),
		"LANG=C.UTF-8", "LC_ALL=C.UTF-8",
		"USER=" + user.Name, "LOGNAME=" + user.Name, "SHELL=/bin/sh",
		"DEB_BUILD_OPTIONS=" + job.buildOptions(),
	}
	ready := time.Now()
	x, err := c.run(ctx, o, nil)
	if err != nil {
		return nil, err
	}
	after := time.Now()
	if r.Schroot {
		if err := endSession(job); err != nil {
			return nil, err
		}
	}
	res := &Result{Exit: x.Exit, Usage: x.Usage, Limit: x.Limit, Stopped: x.Stopped}
	defer func() { res.Usage.Overhead = ready.Sub(begin) + time.Since(after) }()
	if err := takeBack(job.Result); err != nil {
		return nil, err
	}
	if res.ended(job, x) {
		return res, nil
	}
	res.read(job, dsc, x)
	return res, nil
}

// enableNetwork is for an sbuild before 0.86, which has no --enable-network and
// switches the network off in unshare mode whatever is asked: its settings are a
// program in it, and take the wish away where it makes its command lines.
const enableNetwork = `{
  no warnings 'redefine';
  require Sbuild::ChrootUnshare;
  my $command = \&Sbuild::ChrootUnshare::get_command_internal;
  *Sbuild::ChrootUnshare::get_command_internal = sub { $_[1]->{'DISABLE_NETWORK'} = 0; &$command };
}
`

// nameSession gives the session of a schroot a name by which it is found.
const nameSession = `{
  no warnings 'redefine';
  require Sbuild::ChrootSchroot;
  my $begin = \&Sbuild::ChrootSchroot::begin_session;
  *Sbuild::ChrootSchroot::begin_session = sub {
    my $self = shift;
    my $chroot = $self->get('Chroot ID');
    $self->set('Chroot ID', "$chroot --session-name=%s");
    my $ok = $self->$begin(@_);
    $self->set('Chroot ID', $chroot);
    return $ok;
  };
}
`

// sessionsDir has a file for each session of schroot(1).
const sessionsDir = "/var/lib/schroot/session"

// sessionName is the same for each build of a job here: only one of them is at
// a time, who has the item's lock.
func sessionName(job *Job) string {
	return fmt.Sprintf("packmill-%.16x", sha256.Sum256([]byte(job.Dir)))
}

func endCommand(job *Job) []string {
	return []string{"schroot", "--quiet", "--end-session", "--chroot=session:" + sessionName(job)}
}

// endSession ends the session that a build of the job has left: its mounts and
// what was unpacked for it.
func endSession(job *Job) error {
	if !exists(filepath.Join(sessionsDir, sessionName(job))) {
		return nil
	}
	argv := endCommand(job)
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// hasOption asks sbuild whether it knows an option.
func hasOption(program, option string) bool {
	out, err := exec.Command(program, option, "--version").CombinedOutput()
	return err == nil && !bytes.Contains(out, []byte("Unknown option"))
}

func keyName(i int) string { return fmt.Sprintf("repo%d.gpg", i) }

// dearmor returns the key in binary form, which sbuild copies as it is.
func dearmor(key []byte) []byte {
	block, err := armor.Decode(bytes.NewReader(key))
	if err != nil {
		return key
	}
	data, err := io.ReadAll(block.Body)
	if err != nil {
		return key
	}
	return data
}

// personalityOf is what uname -m says on an architecture that this machine
// runs in 32-bit mode; setarch(8) sets it.
func personalityOf(arch string) string {
	switch arch {
	case "i386", "armhf", "armel", "mipsel", "powerpc":
		return "linux32"
	}
	return ""
}

// buildOptions is the value of DEB_BUILD_OPTIONS (Policy 4.9.1).
func (j *Job) buildOptions() string {
	var words []string
	if j.Parallel > 0 {
		words = append(words, fmt.Sprintf("parallel=%d", j.Parallel))
	}
	// nocheck and nodoc are both profile and option; a build that sets the
	// profile must set the option too.
	for _, p := range j.Profiles {
		if p == "nocheck" || p == "nodoc" {
			words = append(words, p)
		}
	}
	return strings.Join(words, " ")
}

// lines are the apt lines of a repository, as the build sees it.
func (r *Repo) lines(i int) (string, error) {
	uri := r.URI
	if r.Dir != "" {
		uri = "file://" + repoMount(i)
	}
	words := append([]string{"deb", uri, r.Suite}, r.Components...)
	for _, w := range words {
		if w == "" || strings.ContainsAny(w, " \t\n\r\x00[]#") {
			return "", fmt.Errorf("build repository: %q cannot stand in an apt line", w)
		}
	}
	if len(r.Key) == 0 {
		return "", errors.New("build repository: a key is needed; apt refuses unsigned ones")
	}
	return strings.Join(words, " "), nil
}

// repoMount is where a local archive is seen in the chroot.
func repoMount(i int) string { return fmt.Sprintf("/packmill-archive%d", i) }

// commandLine returns sbuild's arguments and the text of its settings file.
func (r *Sbuild) commandLine(job *Job, dsc *dscFile, chroot *Chroot, at func(string) string, binds map[string]string, scratch, on string) (args []string, rc string, err error) {
	installed, err := r.installed(job, dsc, chroot, on)
	if err != nil {
		return nil, "", err
	}
	var b strings.Builder
	set := func(name, value string) { fmt.Fprintf(&b, "$%s = %s;\n", name, perl(value)) }
	b.WriteString("# Written for one build.\n")
	path := job.Path
	if path == "" {
		path = "/build/" + job.Source
	}
	set("build_path", path) // the same each time: packages may depend on it
	// The log's filter costs a third of the time of a build that prints much;
	// with a constant path there is nothing to filter.
	fmt.Fprintf(&b, "$nolog = 1;\n$log_colour = 0;\n$log_filter = 0;\n$verbose = 0;\n$run_lintian = 0;\n$run_piuparts = 0;\n$run_autopkgtest = 0;\n")
	fmt.Fprintf(&b, "$bd_uninstallable_explainer = 'none';\n$purge_build_deps = 'never';\n$clean_source = 0;\n")
	if chroot != nil {
		// What it unpacked goes with its file system, or is removed here.
		fmt.Fprintf(&b, "$purge_build_directory = 'never';\n$purge_session = 'never';\n")
	}
	if installed {
		fmt.Fprintf(&b, "$build_dep_resolver = 'null';\n")
	}
	// Silence is watched from outside, by one clock.
	fmt.Fprintf(&b, "$stalled_pkg_timeout = 1000000;\n$mailto = '';\n%%mailto = ();\n$mailfrom = '';\n")
	if chroot != nil {
		set("unshare_tmpdir_template", filepath.Join(scratch, "tmp.sbuild.XXXXXXXXXX"))
	}
	var mounts []string
	repos := job.Repos
	if installed {
		repos = nil // nothing is fetched
	}
	for i := range repos {
		repo := &repos[i]
		line, err := repo.lines(i)
		if err != nil {
			return nil, "", err
		}
		if repo.Dir != "" {
			if chroot == nil {
				return nil, "", fmt.Errorf("build repository %s: sbuild in schroot mode needs a URI, not a directory: %w", repo.Dir, ErrSetup)
			}
			from := repo.Dir
			if os.Getuid() == 0 {
				name := fmt.Sprintf("archive%d", i)
				binds[name] = repo.Dir
				from = at(name)
			}
			mounts = append(mounts, fmt.Sprintf("{ directory => %s, mountpoint => %s }", perl(from), perl(repoMount(i))))
		}
		args = append(args, "--extra-repository="+line, "--extra-repository-key="+at(keyName(i)))
	}
	if len(mounts) > 0 {
		fmt.Fprintf(&b, "$unshare_bind_mounts = [ %s ];\n", strings.Join(mounts, ", "))
	}
	if len(job.Env) > 0 {
		b.WriteString("$build_environment = {\n")
		for _, e := range job.Env {
			key, value, _ := strings.Cut(e, "=")
			fmt.Fprintf(&b, "  %s => %s,\n", perl(key), perl(value))
		}
		b.WriteString("};\n")
	}
	if n := job.BinNMU; n != nil {
		maintainer := n.Maintainer
		if maintainer == "" {
			maintainer = "Build daemon <nobody@localhost>"
		}
		set("maintainer_name", maintainer)
		args = append(args, "--binNMU="+strconv.Itoa(n.Number), "--make-binNMU="+n.Changelog, "--binNMU-timestamp="+strconv.FormatInt(n.Time.Unix(), 10))
	}

	mode := "unshare"
	if chroot == nil {
		mode = "schroot"
		args = append(args, "--chroot="+job.Suite+"-"+on)
	}
	args = append(args, "--chroot-mode="+mode, "--dist="+job.Suite, "--build="+on)
	switch {
	case job.Arch == "all":
		args = append(args, "--host="+on, "--arch-all", "--no-arch-any")
	case job.Indep:
		args = append(args, "--host="+job.Arch, "--arch-all", "--arch-any")
	default:
		args = append(args, "--host="+job.Arch, "--no-arch-all", "--arch-any")
	}
	if job.ExtraDepends != "" {
		args = append(args, "--add-depends="+job.ExtraDepends)
	}
	if job.ExtraConflicts != "" {
		args = append(args, "--add-conflicts="+job.ExtraConflicts)
	}
	if len(job.Profiles) > 0 {
		args = append(args, "--profiles="+strings.Join(job.Profiles, ","))
	}
	// The chroot has no lists of the architecture that is crossed to.
	if chroot != nil && job.CrossFrom == "" && r.fresh(chroot) {
		args = append(args, "--no-apt-update", "--no-apt-upgrade", "--no-apt-distupgrade")
	} else {
		args = append(args, "--apt-update", "--no-apt-upgrade", "--apt-distupgrade")
	}
	return args, b.String(), nil
}

// installed reports whether the chroot has all that the build needs, so that
// nothing must be asked of apt: it takes sbuild a dozen commands in the chroot,
// and apt the reading of all its lists twice, to install an empty package.
func (r *Sbuild) installed(job *Job, dsc *dscFile, chroot *Chroot, on string) (bool, error) {
	if chroot == nil || job.CrossFrom != "" || !r.fresh(chroot) {
		return false, nil
	}
	deps, conflicts, err := dsc.wishes(job, on)
	if err != nil {
		return false, err
	}
	// What sbuild adds itself ($core_depends).
	for _, name := range []string{"build-essential", "fakeroot"} {
		deps = append(deps, []policy.Relation{{Name: name}})
	}
	return chroot.installed(deps, conflicts)
}

// fresh reports whether the chroot's lists need not be fetched anew.
func (r *Sbuild) fresh(chroot *Chroot) bool {
	refresh := r.Refresh
	if refresh == 0 {
		refresh = 24 * time.Hour
	}
	return chroot.Stale(nil, refresh, time.Now()) == ""
}

// perl quotes a string for a file in Perl.
func perl(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// dscFile is what a runner needs of a .dsc.
type dscFile struct {
	stanza *deb822.Stanza
	files  []string // names beside it that make the source package, itself too
}

// readDsc reads the job's .dsc, which was checked at upload. A signature
// around it is skipped, not verified.
func readDsc(job *Job) (*dscFile, error) {
	text, err := readPlainLinked(job.Dsc, deb822.Hostile.Size)
	if err != nil {
		return nil, fmt.Errorf("read source package: %w", err)
	}
	if rest, ok := bytes.CutPrefix(text, []byte("-----BEGIN PGP SIGNED MESSAGE-----\n")); ok {
		if _, rest, ok = bytes.Cut(rest, []byte("\n\n")); ok {
			text, _, _ = bytes.Cut(rest, []byte("\n-----BEGIN PGP SIGNATURE-----"))
			text = bytes.ReplaceAll(append([]byte("\n"), text...), []byte("\n- "), []byte("\n"))[1:]
			text = append(bytes.TrimRight(text, "\n"), '\n')
		}
	}
	s, err := deb822.ParseOne(filepath.Base(job.Dsc), text, deb822.Hostile)
	if err != nil {
		return nil, fmt.Errorf("read source package: %w", err)
	}
	d := &dscFile{stanza: s, files: []string{filepath.Base(job.Dsc)}}
	for _, line := range strings.Split(s.Get("Files"), "\n") {
		w := deb822.Words(line)
		if len(w) != 3 {
			continue
		}
		if err := policy.CheckFile(w[2]); err != nil {
			return nil, fmt.Errorf("read source package: %w", s.Errorf("Files", "%v", err))
		}
		if !slices.Contains(d.files, w[2]) {
			d.files = append(d.files, w[2])
		}
	}
	return d, nil
}

// buildDeps returns the direct build-dependencies that hold for the job, its
// extra ones too, the first alternative of each, as sbuild resolves them.
func (d *dscFile) buildDeps(job *Job, on string) (policy.Relations, error) {
	fields := []string{"Build-Depends"}
	if job.Arch != "all" {
		fields = append(fields, "Build-Depends-Arch")
	}
	if job.Arch == "all" || job.Indep {
		fields = append(fields, "Build-Depends-Indep")
	}
	return d.relations(fields, job.ExtraDepends, job, on)
}

// wishes returns the build-dependencies and the build-conflicts of the job.
func (d *dscFile) wishes(job *Job, on string) (deps, conflicts policy.Relations, err error) {
	if deps, err = d.buildDeps(job, on); err != nil {
		return nil, nil, err
	}
	fields := []string{"Build-Conflicts"}
	if job.Arch != "all" {
		fields = append(fields, "Build-Conflicts-Arch")
	}
	if job.Arch == "all" || job.Indep {
		fields = append(fields, "Build-Conflicts-Indep")
	}
	conflicts, err = d.relations(fields, job.ExtraConflicts, job, on)
	return deps, conflicts, err
}

// relations reads fields of the .dsc, and further relations.
func (d *dscFile) relations(fields []string, extra string, job *Job, on string) (policy.Relations, error) {
	arch := job.Arch
	if arch == "all" {
		arch = on
	}
	var all policy.Relations
	for _, field := range fields {
		rel, err := policy.ParseRelations(d.stanza.Get(field))
		if err != nil {
			return nil, d.stanza.Errorf(field, "%v", err)
		}
		for _, or := range rel.For(arch, job.Profiles) {
			all = append(all, or[:1])
		}
	}
	rel, err := policy.ParseRelations(extra)
	if err != nil {
		return nil, fmt.Errorf("extra relations: %w", err)
	}
	for _, or := range rel.For(arch, job.Profiles) {
		all = append(all, or[:1])
	}
	return all, nil
}

var fetchError = regexp.MustCompile(`(?m)^(?:Err:\d|E: Failed to fetch |E: Some index files failed to download|W: Failed to fetch |W: Some index files failed|E: Unable to fetch some archives|E: Failed to update )|Temporary failure resolving|Could not resolve '|Hash Sum mismatch`)

// aborted is what sbuild says when a signal ends it. In the stage of the build
// itself it calls the rest a failed build.
var aborted = regexp.MustCompile(`(?m)^E: ABORT: Received \w+ signal`)

// read judges what sbuild said: its exit status first, then the footer's
// Fail-Stage and Status, and text of the log only to tell a dead mirror from
// a missing package.
func (res *Result) read(job *Job, dsc *dscFile, x *exit) {
	tail, err := tailOf(job.Log, 4<<20)
	if err != nil {
		res.Reason = fmt.Sprintf("the log cannot be read: %v", err)
		return
	}
	if x.Signal != 0 {
		res.Exit = -1
		res.Reason = fmt.Sprintf("sbuild was ended by signal %d (%s)", x.Signal, syscall.Signal(x.Signal))
		return
	}
	foot, ok := parseFooter(tail)
	if !ok {
		res.Reason = fmt.Sprintf("sbuild ended with exit status %d and without a summary in its log: trouble of the builder", x.Exit)
		return
	}
	res.Stage, res.Status = foot["Fail-Stage"], foot["Status"]
	if kib, err := strconv.ParseInt(foot["Space"], 10, 64); err == nil {
		res.Usage.Disk = max(res.Usage.Disk, kib<<10)
	}
	trouble := func(format string, args ...any) {
		res.Reason = fmt.Sprintf("sbuild: exit status %d, status %q, stage %q: %s", x.Exit, res.Status, res.Stage, fmt.Sprintf(format, args...))
	}
	switch {
	case x.Exit == 0 && res.Status == "successful":
		res.judge(job)
	case x.Exit == 0 && res.Status == "skipped":
		// The .dsc's Architecture does not have this one.
		res.attempted(job, fmt.Sprintf("sbuild skipped it: the source's Architecture field does not allow %s", job.Arch))
	case x.Exit == 0:
		trouble("exit status and status do not agree")
	case x.Exit == 2 && aborted.Match(sinceSection(tail, "Build")):
		trouble("sbuild was told to end")
	case x.Exit == 2 && res.Status == "attempted":
		res.attempted(job, "the build failed in stage "+res.Stage)
	case x.Exit == 3 && res.Stage == "install-deps":
		if fetchError.Match(sinceSection(tail, "Install package build dependencies")) {
			trouble("build-dependencies could not be fetched")
			return
		}
		res.dependencies(job, dsc)
	case x.Exit == 3 && res.Stage == "unpack":
		res.unpacked(job, tail)
	case x.Exit == 3:
		trouble("trouble before the build began")
	default:
		trouble("trouble of the builder")
	}
}

// damaged is what dpkg-source says of files that are not those of the .dsc.
var damaged = regexp.MustCompile(`(?m)^dpkg-source: error: (?:file .* has (?:checksum|size) |cannot (?:open|read|fstat) )`)

// unpacked judges a source package that cannot be unpacked: it was whole when it
// was uploaded, so damage is the builder's, and the rest its own fault.
func (res *Result) unpacked(job *Job, log []byte) {
	if damaged.Match(sinceSection(log, "Build")) {
		res.Outcome, res.Reason = GiveBack, "the source package is damaged on this builder: its files are not those of the .dsc"
		return
	}
	res.attempted(job, "the build failed in stage unpack")
}

// sinceSection returns the part of sbuild's log that begins with a section's
// box.
func sinceSection(log []byte, name string) []byte {
	if i := bytes.LastIndex(log, []byte("\n| "+name+" ")); i >= 0 {
		return log[i:]
	}
	return log
}

// dependencies decides between Dep-Wait and BD-Uninstallable by the direct
// build-dependencies and the caller's index.
func (res *Result) dependencies(job *Job, dsc *dscFile) {
	res.Outcome, res.Reason = Uninstallable, "build-dependencies cannot be installed; the log says which"
	if job.Missing == nil {
		return
	}
	deps, err := dsc.buildDeps(job, job.chrootArch(Machine()))
	if err != nil {
		res.Reason += fmt.Sprintf(" (%v)", err)
		return
	}
	missing, err := job.Missing(deps)
	if err != nil {
		res.Reason += fmt.Sprintf(" (the index cannot be asked: %v)", err)
		return
	}
	if len(missing) == 0 {
		return
	}
	res.Outcome = DepWait
	for _, or := range missing {
		res.DepWait = append(res.DepWait, policy.Relations{or}.String())
	}
	res.Reason = "waits for " + strings.Join(res.DepWait, ", ")
}
