package runner

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"packmill/internal/deb822"
	"packmill/internal/paper"
	"packmill/internal/pattern"
	"packmill/internal/policy"
	"packmill/queue/runner/cage"
	"packmill/queue/runner/overlay"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

// Sbuild builds with Debian's sbuild.
//
// In unshare mode it unpacks a chroot of Chroots for each build, and
// dpkg-buildpackage has no network unless Job.Network is set. sbuild runs as the
// build user in namespaces of its own of every kind but the network's, where it
// sees the machine read-only and writes to a file system in memory, of the size
// of Limits.Disk, which is gone with it. Users of the build, root too, are
// subordinate ids that no other build has at that time, and see their chroot.
//
// In schroot mode there is nothing of that. It uses the machine's schroot of the name <suite>-<arch>,
// the build user must be in the group sbuild, and the build has the network:
// it is refused unless Job.Network is set. The session of a build that is killed
// is ended after it; where the daemon dies with it and is root, that is before
// the job's next build.
type Sbuild struct {
	Chroots *Chroots
	Schroot bool          // use schroot instead of unshare mode
	Refresh time.Duration // apt-get update first if the chroot is older; 0: 24 h
	Scratch string        // directory where chroots are unpacked; empty: in memory
}

// Ready looks for sbuild, the build user, and what chroots of the architecture
// need.
func (r *Sbuild) Ready(arch string) error {
	if _, err := exec.LookPath("sbuild"); err != nil {
		return fmt.Errorf("sbuild is missing; install sbuild, mmdebstrap and uidmap: %w", ErrSetup)
	}
	if r.Schroot {
		_, err := cage.LookupAccount(r.Chroots.User)
		return errors.Join(err, Runs(arch))
	}
	return r.Chroots.Ready(arch)
}

// sbuildBuild is one build of sbuild.
type sbuildBuild struct {
	*Sbuild
	job     *Job
	program string
	dsc     *dscFile
	on      string // the chroot's architecture
	user    *cage.Account
	own     *ownChroot // nil: schroot
	cage    *cage.Cage
	view    *cage.View // nil: schroot
	close   []func()   // at its end
}

// Run builds the job.
func (r *Sbuild) Run(ctx context.Context, job *Job) (*Result, error) {
	begin := time.Now()
	b := &sbuildBuild{Sbuild: r, job: job, on: job.chrootArch(Machine())}
	defer func() {
		for _, f := range slices.Backward(b.close) {
			f()
		}
	}()
	if err := b.prepare(); err != nil {
		return nil, err
	}
	if err := b.takeChroot(ctx); err != nil {
		if ctx.Err() == nil {
			return nil, err
		}
		res := &Result{Stopped: true}
		res.ended(job, &cage.Exit{Stopped: true})
		return res, nil
	}
	if err := errors.Join(empty(job.Dir), empty(job.Result)); err != nil {
		return nil, err
	}
	o, err := b.describe()
	if err != nil {
		return nil, err
	}
	ready := time.Now()
	x, err := b.cage.Run(ctx, o)
	if err != nil {
		return nil, err
	}
	after := time.Now()
	res, err := b.result(x)
	if err != nil {
		return nil, err
	}
	res.Usage.Overhead = ready.Sub(begin) + time.Since(after)
	return res, nil
}

// prepare looks for what the build needs, and reads the .dsc.
func (b *sbuildBuild) prepare() (err error) {
	if err := b.job.check(); err != nil {
		return err
	}
	if b.program, err = exec.LookPath("sbuild"); err != nil {
		return fmt.Errorf("sbuild is missing; install sbuild, mmdebstrap and uidmap: %w", ErrSetup)
	}
	if b.Schroot && !b.job.Network {
		return fmt.Errorf("sbuild in schroot mode leaves the network on in the build, which the settings do not allow; "+
			"allow it or use unshare mode: %w", ErrSetup)
	}
	if b.user, err = cage.LookupAccount(b.Chroots.User); err != nil {
		return err
	}
	b.dsc, err = readDsc(b.job)
	return err
}

// takeChroot takes the chroot and a range of ids. schroot has its own.
func (b *sbuildBuild) takeChroot(ctx context.Context) (err error) {
	if b.Schroot {
		return endSession(b.job)
	}
	if err := b.Chroots.forJob(ctx, b.job, b.on); err != nil {
		return err
	}
	if b.own, err = b.Chroots.own(ctx, b.job.Suite, b.on, b.job.Log); err != nil {
		return err
	}
	b.close = append(b.close, b.own.release)
	return nil
}

// at is how sbuild sees a file of ours.
func (b *sbuildBuild) at(name string) string {
	if b.view == nil {
		return filepath.Join(b.job.Dir, name)
	}
	return filepath.Join(cage.ViewRoot, name)
}

// describe writes down what runs, and in what.
func (b *sbuildBuild) describe() (*cage.Order, error) {
	b.cage = b.job.cage(b.job.Result)
	o := &cage.Order{Own: os.Getuid() == 0, User: b.user}
	source, result := filepath.Dir(b.job.Dsc), b.job.Result
	var err error
	if b.own == nil {
		err = b.inSchroot(o)
	} else {
		if o, err = b.inView(); err == nil {
			source, result = b.at("source"), b.at("result")
		}
	}
	if err != nil {
		return nil, err
	}
	args, rc, err := b.commandLine()
	if err != nil {
		return nil, err
	}
	if err := b.write("sbuildrc", []byte(rc)); err != nil {
		return nil, err
	}
	for i, repo := range b.job.Repos {
		if err := b.write(keyName(i), dearmor(repo.Key)); err != nil {
			return nil, err
		}
	}
	o.Argv = append(append([]string{b.program}, args...), "--build-dir="+result,
		filepath.Join(source, filepath.Base(b.job.Dsc)))
	o.Linux32 = personalityOf(b.on) != "" && personalityOf(b.on) != personalityOf(Machine())
	o.Dir, o.Nice = result, b.job.Nice
	o.Env = []string{
		"PATH=" + cage.DefaultPath,
		"HOME=" + b.at("home"),
		"TMPDIR=" + b.at("tmp"),
		"SBUILD_CONFIG=" + b.at("sbuildrc"),
		"LANG=C.UTF-8", "LC_ALL=C.UTF-8",
		"USER=" + b.user.Name, "LOGNAME=" + b.user.Name, "SHELL=/bin/sh",
		"DEB_BUILD_OPTIONS=" + b.job.buildOptions(),
	}
	return o, nil
}

// inSchroot makes the directories of a build whose sbuild sees the machine as
// the build user does.
func (b *sbuildBuild) inSchroot(o *cage.Order) error {
	if !o.Own {
		o.User, o.After = nil, endCommand(b.job)
	}
	b.cage.Disk = append(b.cage.Disk, b.job.Dir)
	for _, d := range []string{"tmp", "home"} {
		if err := os.Mkdir(b.at(d), 0o755); err != nil {
			return fmt.Errorf("work directory: %w", err)
		}
	}
	for _, d := range []string{b.job.Dir, b.at("tmp"), b.at("home"), b.job.Result} {
		if err := chown(d, b.user); err != nil {
			return fmt.Errorf("work directory: %w", err)
		}
	}
	return nil
}

// inView makes what sbuild sees of the machine in unshare mode.
func (b *sbuildBuild) inView() (*cage.Order, error) {
	b.view = &cage.View{Size: b.job.Limits.Disk, Dirs: []string{"tmp", "home", "result"}, Text: map[string][]byte{},
		Binds:    map[string]string{},
		Archives: map[string]string{}, Reads: map[string]string{tarFile: b.own.Tarball()}, Chroot: true, Hand: "result"}
	for _, name := range b.dsc.files {
		f, err := os.Open(filepath.Join(filepath.Dir(b.job.Dsc), name))
		if err != nil {
			return nil, fmt.Errorf("read source package: %w", err)
		}
		b.close = append(b.close, func() { f.Close() })
		b.cage.Files = append(b.cage.Files, f)
		b.view.Sources = append(b.view.Sources, "source/"+name)
	}
	b.cage.Lock = append(b.cage.Lock, b.own.locks()...)
	b.cage.Take = cage.TakeIn(b.job.Result)
	if b.Scratch != "" {
		dir, lock, err := scratchDir(b.Scratch, "packmill-sbuild.", b.Chroots.removeDir)
		if err != nil {
			return nil, err
		}
		b.close = append(b.close, func() { lock.Close() }, func() { b.Chroots.removeDir(dir) })
		if err := chown(dir, b.user); err != nil {
			return nil, fmt.Errorf("scratch space for builds: %w", err)
		}
		b.cage.Lock, b.cage.Disk = append(b.cage.Lock, lock), append(b.cage.Disk, dir)
		b.view.Binds["tmp"] = dir
	}
	return b.own.order(cage.AsUser, b.view), nil
}

// write writes a file that sbuild reads.
func (b *sbuildBuild) write(name string, text []byte) error {
	if b.view != nil {
		b.view.Text[name] = text
		return nil
	}
	if err := os.WriteFile(b.at(name), text, 0o644); err != nil {
		return fmt.Errorf("sbuild's settings: %w", err)
	}
	return nil
}

// result judges how the build ended.
func (b *sbuildBuild) result(x *cage.Exit) (*Result, error) {
	res := &Result{Exit: x.Exit, Usage: x.Usage, Limit: x.Limit, Stopped: x.Stopped}
	if b.Schroot {
		if err := errors.Join(endSession(b.job), takeBack(b.job.Result)); err != nil {
			return nil, err
		}
	}
	if !res.ended(b.job, x) {
		res.read(b.job, b.dsc, x)
	}
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

// enterSession is for an sbuild before 0.86, which starts Perl, and a shell with forty
// programs, to enter its chroot for one command, and does so for sixty of each build: here
// chroot(8), which is this program there (see cage.SessionFlag), does all that they did.
const enterSession = `unless (-e '/usr/libexec/sbuild-usernsexec') {
  no warnings 'redefine';
  require Sbuild::ChrootUnshare;
  *Sbuild::ChrootUnshare::_get_exec_argv = sub {
    my ($self, $dir, $user, $cut) = @_;
    my ($users, $groups) = map { join ',', $_->[2], $_->[1], $_->[3] + 0 } @{$self->get('Uid Gid Map')};
    return ('env', 'PATH=' . $self->get_conf('PATH'), 'unshare', '--mount', '--pid', '--uts', '--ipc',
      $cut ? '--net' : (), '--fork', "--map-users=$users", "--map-groups=$groups", '--setuid=0', '--setgid=0',
      '/usr/sbin/chroot', '%s', $cut ? 'yes' : 'no', $self->get('Session ID'), $user, $dir,
      (map { ($_->{directory}, $_->{mountpoint}) } @{$self->get_conf('UNSHARE_BIND_MOUNTS')}), '--');
  };
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
	return fmt.Sprintf("packmill-%.16x", sha256.Sum256([]byte(cmp.Or(job.Key, job.Dir))))
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
	words = append(words, j.Options...)
	if j.Parallel > 0 && !slices.ContainsFunc(j.Options, func(w string) bool {
		return strings.HasPrefix(w, "parallel=")
	}) {
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
		uri = "file://" + overlay.ArchiveMount(i)
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

// PinOf is how apt's preferences name a local archive, by its own Release: a Base that lies in
// files, too, says something else of itself. "" if nobody can read it. Of an archive on another
// machine it is what that said.
func (r *Repo) PinOf() string {
	if r.Dir == "" {
		return r.Pin
	}
	st, err := paper.Read(filepath.Join(r.Dir, "dists", r.Suite), "InRelease")
	if err != nil {
		return ""
	}
	var pin []string
	for _, f := range [][2]string{{"a", "Suite"}, {"n", "Codename"}, {"o", "Origin"}, {"l", "Label"}} {
		if value := st.Get(f[1]); pinned().MatchString(value) {
			pin = append(pin, f[0]+"="+value)
		}
	}
	return strings.Join(pin, ",")
}

// goodPin reports whether a pin is one that PinOf makes.
func goodPin(pin string) bool {
	for word := range strings.SplitSeq(pin, ",") {
		key, value, ok := strings.Cut(word, "=")
		if !ok || len(key) != 1 || !strings.Contains("anol", key) || !pinned().MatchString(value) {
			return false
		}
	}
	return true
}

// pinned are values that apt takes literally, and a shell too.
var pinned = pattern.Lazy(`^[\w.+-]+(?: [\w.+-]+)*$`)

// commandLine returns sbuild's arguments and the text of its settings file.
func (b *sbuildBuild) commandLine() (args []string, rc string, err error) {
	installed, err := b.installed()
	if err != nil {
		return nil, "", err
	}
	set := &perlSettings{}
	set.text.WriteString("# Written for one build.\n")
	b.constant(set, installed)
	if !installed { // else nothing is fetched
		if args, err = b.repositories(set); err != nil {
			return nil, "", err
		}
	}
	set.hash("build_environment", b.job.Env)
	if n := b.job.BinNMU; n != nil {
		set.string("maintainer_name", n.maintainer())
		args = append(args, "--binNMU="+strconv.Itoa(n.Number), "--make-binNMU="+n.Changelog,
			"--binNMU-timestamp="+strconv.FormatInt(n.Time.Unix(), 10))
	}
	args = append(args, b.what()...)
	if b.view != nil {
		fmt.Fprintf(&set.text, enterSession, cage.SessionFlag)
	}
	if b.Schroot {
		fmt.Fprintf(&set.text, nameSession, sessionName(b.job))
	} else if b.job.Network && hasOption(b.program, "--enable-network") {
		args = append(args, "--enable-network")
	} else if b.job.Network {
		set.text.WriteString(enableNetwork)
	}
	set.text.WriteString("1;\n")
	return args, set.text.String(), nil
}

// perlSettings is the text of a settings file.
type perlSettings struct{ text strings.Builder }

func (p *perlSettings) raw(name, value string)    { fmt.Fprintf(&p.text, "$%s = %s;\n", name, value) }
func (p *perlSettings) string(name, value string) { p.raw(name, perl(value)) }

// hash sets a reference to a hash of KEY=VALUE.
func (p *perlSettings) hash(name string, pairs []string) {
	if len(pairs) == 0 {
		return
	}
	fmt.Fprintf(&p.text, "$%s = {\n", name)
	for _, e := range pairs {
		key, value, _ := strings.Cut(e, "=")
		fmt.Fprintf(&p.text, "  %s => %s,\n", perl(key), perl(value))
	}
	p.text.WriteString("};\n")
}

// constant sets what is the same in nearly all builds.
func (b *sbuildBuild) constant(set *perlSettings, installed bool) {
	path := b.job.Path
	if path == "" {
		path = "/build/" + b.job.Source
	}
	set.string("build_path", path) // the same each time: packages may depend on it
	// The log's filter costs a third of the time of a build that prints much;
	// with a constant path there is nothing to filter. Silence is watched from
	// outside, by one clock.
	for _, line := range []string{"nolog = 1", "log_colour = 0", "log_filter = 0", "verbose = 0", "run_lintian = 0",
		"run_piuparts = 0", "run_autopkgtest = 0",
		"bd_uninstallable_explainer = 'none'",
		"purge_build_deps = 'never'", "clean_source = 0", "stalled_pkg_timeout = 1000000", "mailto = ''", "mailfrom = ''"} {
		fmt.Fprintf(&set.text, "$%s;\n", line)
	}
	set.text.WriteString("%mailto = ();\n")
	if b.view != nil {
		// What it unpacked goes with its file system, or is removed here.
		set.string("purge_build_directory", "never")
		set.string("purge_session", "never")
		set.string("unshare_tmpdir_template", b.at("tmp/tmp.sbuild.XXXXXXXXXX"))
	}
	if installed {
		set.string("build_dep_resolver", "null")
	}
}

// repositories returns the arguments for further repositories.
func (b *sbuildBuild) repositories(set *perlSettings) (args []string, err error) {
	var mounts []string
	pin := ""
	for i := range b.job.Repos {
		repo := &b.job.Repos[i]
		line, err := repo.lines(i)
		if err != nil {
			return nil, err
		}
		if repo.Dir != "" {
			if b.view == nil {
				return nil, fmt.Errorf("build repository %s: sbuild in schroot mode needs a URI, not a directory: %w",
					repo.Dir, ErrSetup)
			}
			name := fmt.Sprintf("archive%d", i)
			b.view.Archives[name] = repo.Dir
			mounts = append(mounts,
				fmt.Sprintf("{ directory => %s, mountpoint => %s }", perl(b.at(name)), perl(overlay.ArchiveMount(i))))
		}
		pin = cmp.Or(pin, repo.PinOf())
		args = append(args, "--extra-repository="+line, "--extra-repository-key="+b.at(keyName(i)))
	}
	if len(mounts) > 0 {
		set.raw("unshare_bind_mounts", "[ "+strings.Join(mounts, ", ")+" ]")
	}
	if pin != "" {
		args = append(args, "--chroot-setup-commands="+overlay.PinCommand(pin))
	}
	return args, nil
}

// what returns the arguments that say what is built, and in which chroot.
func (b *sbuildBuild) what() (args []string) {
	job := b.job
	if b.Schroot {
		args = append(args, "--chroot-mode=schroot", "--chroot="+job.Suite+"-"+b.on)
	} else {
		args = append(args, "--chroot-mode=unshare", "--chroot="+b.at(tarFile))
	}
	args = append(args, "--dist="+job.Suite, "--build="+b.on)
	switch {
	case job.Arch == "all":
		args = append(args, "--host="+b.on, "--arch-all", "--no-arch-any")
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
	if b.fresh() {
		return append(args, "--no-apt-update", "--no-apt-upgrade", "--no-apt-distupgrade")
	}
	return append(args, "--apt-update", "--no-apt-upgrade", "--apt-distupgrade")
}

// installed reports whether the chroot has all that the build needs, so that
// nothing must be asked of apt: it takes sbuild a dozen commands in the chroot,
// and apt the reading of all its lists twice, to install an empty package.
func (b *sbuildBuild) installed() (bool, error) {
	if !b.fresh() {
		return false, nil
	}
	deps, conflicts, err := b.dsc.wishes(b.job, b.on)
	if err != nil {
		return false, err
	}
	// What sbuild adds itself ($core_depends).
	for _, name := range []string{"build-essential", "fakeroot"} {
		deps = append(deps, []policy.Relation{{Name: name}})
	}
	return b.own.installed(deps, conflicts)
}

// fresh reports whether the chroot's lists need not be fetched anew. It has no
// lists of an architecture that is crossed to.
func (b *sbuildBuild) fresh() bool {
	if b.own == nil || b.job.CrossFrom != "" {
		return false
	}
	refresh := b.Refresh
	if refresh == 0 {
		refresh = 24 * time.Hour
	}
	return b.own.Stale(nil, refresh, time.Now()) == ""
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
	s, err := paper.Read(filepath.Split(job.Dsc))
	if err != nil {
		return nil, fmt.Errorf("read source package: %w", err)
	}
	files, err := paper.Files(s, paper.Short)
	if err != nil {
		return nil, fmt.Errorf("read source package: %w", err)
	}
	d := &dscFile{stanza: s, files: []string{filepath.Base(job.Dsc)}}
	for _, f := range files {
		d.files = append(d.files, f.Name)
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

var fetchError = pattern.Lazy(`(?m)^(?:Err:\d|E: Failed to fetch |E: Some index files failed to download|` +
	`W: Failed to fetch |W: Some index files failed|E: Unable to fetch some archives|E: Failed to update )|` +
	`Temporary failure resolving|Could not resolve '|Hash Sum mismatch`)

// aborted is what sbuild says when a signal ends it. In the stage of the build
// itself it calls the rest a failed build.
var aborted = pattern.Lazy(`(?m)^E: ABORT: Received \w+ signal`)

// read judges what sbuild said: its exit status first, then the footer's
// Fail-Stage and Status, and text of the log only to tell a dead mirror from
// a missing package.
func (res *Result) read(job *Job, dsc *dscFile, x *cage.Exit) {
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
		res.Reason = fmt.Sprintf("sbuild ended with exit status %d and without a summary in its log: trouble of the builder",
			x.Exit)
		return
	}
	res.Stage, res.Status = foot["Fail-Stage"], foot["Status"]
	if kib, err := strconv.ParseInt(foot["Space"], 10, 64); err == nil {
		res.Usage.Disk = max(res.Usage.Disk, kib<<10)
	}
	trouble := func(format string, args ...any) {
		res.Reason = fmt.Sprintf("sbuild: exit status %d, status %q, stage %q: %s",
			x.Exit, res.Status, res.Stage, fmt.Sprintf(format, args...))
	}
	switch {
	case x.Exit == 0 && res.Status == "successful":
		res.Judge(job)
	case x.Exit == 0 && res.Status == "skipped":
		// The .dsc's Architecture does not have this one.
		res.attempted(job, fmt.Sprintf("sbuild skipped it: the source's Architecture field does not allow %s", job.Arch))
	case x.Exit == 0:
		trouble("exit status and status do not agree")
	case x.Exit == 2 && aborted().Match(sinceSection(tail, "Build")):
		trouble("sbuild was told to end")
	case x.Exit == 2 && res.Status == "attempted":
		res.attempted(job, "the build failed in stage "+res.Stage)
	case x.Exit == 3 && res.Stage == "install-deps":
		if fetchError().Match(sinceSection(tail, "Install package build dependencies")) {
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
var damaged = pattern.Lazy(`(?m)^dpkg-source: error: (?:file .* has (?:checksum|size) |cannot (?:open|read|fstat) )`)

// unpacked judges a source package that cannot be unpacked: it was whole when it
// was uploaded, so damage is the builder's, and the rest its own fault.
func (res *Result) unpacked(job *Job, log []byte) {
	if damaged().Match(sinceSection(log, "Build")) {
		res.Outcome, res.Reason = GiveBack, "the source package is damaged on this builder: "+
			"its files are not those of the .dsc"
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
