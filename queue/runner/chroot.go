package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/internal/deb822"
	"packmill/internal/durable"
	"packmill/internal/policy"
	"packmill/queue/runner/cage"

	"golang.org/x/sys/unix"
)

// Chroots is a directory of chroots for builds, made by mmdebstrap:
//
//	<Dir>/<suite>-<arch>/<time of making>/
//	    info         deb822: Suite, Architecture, Made, Base; written last
//	    chroot.tar   what sbuild unpacks for each build
//	    status       dpkg's, out of it
//	    <uid>/       for the overlay runner, and entered by nobody else:
//	        root/    the same, unpacked; it belongs to the range of ids that
//	                 begins with that uid, and so to one build at a time
//	        layers/  see layer.go
//
// A chroot is never changed: a new one is made beside it. The newest with an
// info is in force. A build holds a shared flock on its chroot's directory;
// an old one is removed by whoever gets the exclusive lock.
//
// Dir must be a directory that the build user can enter.
type Chroots struct {
	Dir    string
	User   string        // the build user; empty unless the process is root
	MaxAge time.Duration // a build makes older ones anew first; 0: never for their age
}

// Chroot is one chroot in force.
type Chroot struct {
	Suite, Arch string
	Base        []string // apt lines it was made from
	Made        time.Time
	Size        int64 // bytes of its tarball
	Builds      bool  // a build holds it, or another program that looks at it
	dir         string
	lock        *os.File
}

// Name is how people call the chroot.
func (c *Chroot) Name() string { return c.Suite + "-" + c.Arch }

// Tarball is the path of the chroot's tar file, for other programs.
func (c *Chroot) Tarball() string { return filepath.Join(c.dir, tarFile) }

// Errors of chroots.
var ErrNoChroot = errors.New("no such chroot")

const (
	infoFile    = "info"
	tarFile     = "chroot.tar"
	statusFile  = "status"
	rootDir     = "root"
	stampLayout = "20060102T150405.000000Z"
)

// Stale says why the chroot should be made anew: its Base differs from these
// apt lines, or it is older than max (if that is not zero). Empty: it is
// fresh.
func (c *Chroot) Stale(base []string, max time.Duration, now time.Time) string {
	if len(base) > 0 && !slices.Equal(base, c.Base) {
		return "the suite's Base has changed"
	}
	if age := now.Sub(c.Made); max > 0 && age > max {
		return fmt.Sprintf("it is %v old", age.Round(time.Minute))
	}
	return ""
}

func checkName(suite, arch string) error {
	if err := policy.CheckSuite(suite); err != nil {
		return err
	}
	if err := policy.CheckArch(arch); err != nil {
		return err
	}
	if arch == "all" {
		return errors.New("a chroot is for a concrete architecture, not for all")
	}
	return nil
}

// A Recipe says for what a chroot is made, and of what.
type Recipe struct {
	Suite, Arch string
	Base        []string // apt lines
	Log         *os.File // of what mmdebstrap says; nil: not kept
}

// Create makes a chroot, which may take a minute. It is in force when Create
// returns without an error; builds that run go on in the old one.
func (c *Chroots) Create(ctx context.Context, r Recipe) error {
	if err := checkName(r.Suite, r.Arch); err != nil {
		return fmt.Errorf("make chroot: %w", err)
	}
	if len(r.Base) == 0 {
		return fmt.Errorf("make chroot %s-%s: no Base: apt lines to make it from are needed: %w", r.Suite, r.Arch, ErrSetup)
	}
	first, err := suiteOf(r.Base[0])
	if err == nil {
		err = c.Ready(r.Arch)
	}
	if err == nil {
		err = c.create(ctx, r, first)
	}
	if err != nil {
		return fmt.Errorf("make chroot %s-%s: %w", r.Suite, r.Arch, err)
	}
	c.sweep(r.Suite + "-" + r.Arch)
	return nil
}

// create makes a generation of a chroot, whose packages are of the suite first.
func (c *Chroots) create(ctx context.Context, r Recipe, first string) (err error) {
	user, err := cage.LookupAccount(c.User)
	if err != nil {
		return err
	}
	ids, held, err := takeIDs(ctx, user, r.Log)
	if err != nil {
		return err
	}
	defer held.Close()
	ch := &Chroot{Suite: r.Suite, Arch: r.Arch, Base: r.Base, Made: time.Now().UTC()}
	ch.dir = filepath.Join(c.Dir, ch.Name(), ch.Made.Format(stampLayout))
	if err := os.MkdirAll(ch.dir, 0o755); err != nil {
		return err
	}
	if ch.lock, err = lockDir(ch.dir, durable.LockFile); err != nil {
		return err
	}
	defer ch.lock.Close()
	defer func() {
		if err != nil {
			c.discard(ch.dir)
		}
	}()
	if err := chown(ch.dir, user); err != nil {
		return err
	}
	own := &ownChroot{Chroot: ch, store: c, user: user, ids: ids, held: held}
	if err := own.mmdebstrap(ctx, first, r.Log); err != nil {
		return err
	}
	if err := own.unpack(ctx, r.Log); err != nil {
		return err
	}
	return ch.writeInfo()
}

// takeIDs takes a range of the user's ids, and says so where it must wait.
func takeIDs(ctx context.Context, user *cage.Account, log *os.File) (cage.Range, *os.File, error) {
	return user.Take(ctx, func(ranges int) {
		if log != nil {
			fmt.Fprintf(log, "Waiting for one of the %d ranges of subordinate ids that /etc/subuid and /etc/subgid give %s: "+
				"each build at a time needs one of 65536.\n", ranges, user.Name)
		}
	})
}

// writeInfo puts a chroot in force.
func (c *Chroot) writeInfo() error {
	info := &deb822.Stanza{}
	info.Set("Suite", c.Suite)
	info.Set("Architecture", c.Arch)
	info.Set("Made", c.Made.Format(time.RFC3339Nano))
	info.Set("Base", "\n"+strings.Join(c.Base, "\n"))
	// All of it is on the disk before the name that makes it valid.
	if err := durable.SyncFS(c.dir); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(c.dir, infoFile), info.Append(nil), 0o644)
}

// forJob sees to it that the job's chroot is there, made from the job's Base
// and not older than MaxAge. An old one that cannot be made anew serves on, and
// the log says so.
func (c *Chroots) forJob(ctx context.Context, job *Job, arch string) error {
	if len(job.Base) == 0 {
		return nil
	}
	why, usable := "there is none yet", false
	ch, err := c.Lookup(job.Suite, arch)
	if err != nil && !errors.Is(err, ErrNoChroot) {
		return err
	}
	if err == nil {
		if why = ch.Stale(job.Base, c.MaxAge, time.Now()); why == "" {
			return nil
		}
		usable = ch.Stale(job.Base, 0, time.Now()) == ""
	}
	fmt.Fprintf(job.Log, "The chroot %s-%s is made anew: %s.\n", job.Suite, arch, why)
	if _, err := c.Fresh(ctx, Recipe{job.Suite, arch, job.Base, job.Log}, c.MaxAge); err != nil {
		if !usable || ctx.Err() != nil {
			return err
		}
		fmt.Fprintf(job.Log, "W: %v; the old one serves on\n", err)
	}
	return nil
}

// suiteOf returns the suite of an apt line (sources.list(5), one-line style).
func suiteOf(line string) (string, error) {
	if strings.ContainsAny(line, "\n\r\x00") {
		return "", fmt.Errorf("apt line %q: it must be one line", line)
	}
	rest := strings.TrimSpace(line)
	word, rest, _ := strings.Cut(rest, " ")
	if word != "deb" {
		return "", fmt.Errorf("apt line %q: it must be like: deb http://mirror/debian suite main", line)
	}
	rest = strings.TrimSpace(rest)
	if strings.HasPrefix(rest, "[") {
		var ok bool
		if _, rest, ok = strings.Cut(rest, "]"); !ok {
			return "", fmt.Errorf("apt line %q: the [ is not closed", line)
		}
	}
	f := deb822.Words(rest)
	if len(f) < 2 {
		return "", fmt.Errorf("apt line %q: it must be like: deb http://mirror/debian suite main", line)
	}
	return f[1], nil
}

// proxyOptions is this machine's proxy for apt, for the chroot's apt.
func proxyOptions() []string {
	var opts []string
	for _, key := range []string{"Acquire::http::Proxy", "Acquire::https::Proxy"} {
		out, err := exec.Command("apt-config", "shell", "x", key).Output()
		if err != nil {
			continue
		}
		if _, v, ok := strings.Cut(strings.TrimSpace(string(out)), "="); ok {
			if v = strings.Trim(v, "'"); v != "" && !strings.ContainsAny(v, "\"'\n") {
				opts = append(opts, key+` "`+v+`"`)
			}
		}
	}
	return opts
}

// removeDir removes a directory in which the build user's subordinates may
// own files.
func (c *Chroots) removeDir(dir string) error {
	if os.Getuid() != 0 && exists(dir) {
		user, err := cage.LookupAccount(c.User)
		if err != nil {
			return err
		}
		ids, err := user.Ranges()
		if err != nil {
			return err
		}
		o := &cage.Order{Own: true, User: user, Ranges: ids, As: cage.AsKeeper, Dir: "/",
			Env:  []string{"PATH=" + cage.DefaultPath},
			Argv: []string{"find", dir, "-xdev", "-mindepth", "1", "-delete"}}
		if err := runOrder(context.Background(), o, nil); err != nil {
			return fmt.Errorf("empty %s: %w", dir, err)
		}
	}
	return durable.RemoveAll(dir)
}

// runOrder runs a command that must succeed. What it says goes to log.
func runOrder(ctx context.Context, o *cage.Order, log *os.File, held ...*os.File) error {
	x, err := (&cage.Cage{Log: log, Lock: held}).Run(ctx, o)
	if err != nil {
		return err
	}
	if x.Stopped {
		return context.Cause(ctx)
	}
	if x.Killed || x.Exit != 0 {
		return fmt.Errorf("%s ended with exit status %d; its output says why", o.Argv[0], x.Exit)
	}
	return nil
}

// discard removes a chroot's directory, which nobody uses and whose lock the
// caller holds. Its info goes first: what is left of it is not a chroot.
func (c *Chroots) discard(dir string) error {
	if err := durable.Remove(filepath.Join(dir, infoFile)); err != nil {
		return err
	}
	return c.removeDir(dir)
}

// lockDir opens a directory and locks it, by durable.LockFile or ShareFile;
// durable.ErrLocked says that somebody else holds it.
func lockDir(dir string, lock func(*os.File) error) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), dir)
	if err := lock(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// generations lists the directories of one chroot, the newest first.
func (c *Chroots) generations(name string) []string {
	entries, err := os.ReadDir(filepath.Join(c.Dir, name))
	if err != nil {
		return nil
	}
	var all []string
	for _, e := range entries {
		if _, err := time.Parse(stampLayout, e.Name()); err == nil && e.IsDir() {
			all = append(all, filepath.Join(c.Dir, name, e.Name()))
		}
	}
	slices.Reverse(all)
	return all
}

// sweep removes what is not in force and not in use of one chroot.
func (c *Chroots) sweep(name string) {
	inForce := false
	for _, dir := range c.generations(name) {
		if !inForce && exists(filepath.Join(dir, infoFile)) {
			inForce = true
			continue
		}
		if lock, err := lockDir(dir, durable.LockFile); err == nil {
			c.discard(dir)
			lock.Close()
		}
	}
	// Only an empty directory goes.
	unix.Rmdir(filepath.Join(c.Dir, name))
}

// readChroot reads an info file.
func readChroot(dir string) (*Chroot, error) {
	data, err := os.ReadFile(filepath.Join(dir, infoFile))
	if err != nil {
		return nil, err
	}
	s, err := deb822.ParseOne(filepath.Join(dir, infoFile), data, deb822.Settings)
	if err != nil {
		return nil, err
	}
	made, err := time.Parse(time.RFC3339Nano, s.Get("Made"))
	if err != nil {
		return nil, s.Errorf("Made", "%v", err)
	}
	ch := &Chroot{Suite: s.Get("Suite"), Arch: s.Get("Architecture"), Made: made, dir: dir}
	for _, line := range strings.Split(s.Get("Base"), "\n") {
		if line != "" {
			ch.Base = append(ch.Base, line)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, tarFile)); err == nil {
		ch.Size = st.Size()
	}
	return ch, nil
}

// Lookup returns the chroot in force, ErrNoChroot if there is none.
func (c *Chroots) Lookup(suite, arch string) (*Chroot, error) {
	ch, err := c.use(suite, arch)
	if err != nil {
		return nil, err
	}
	ch.release()
	return ch, nil
}

// Fresh returns a chroot of the recipe that is not older than max, and makes it
// if need be. Of several callers at once, also in other processes, one makes it
// and the others wait.
func (c *Chroots) Fresh(ctx context.Context, r Recipe, max time.Duration) (*Chroot, error) {
	if err := checkName(r.Suite, r.Arch); err != nil {
		return nil, fmt.Errorf("chroot: %w", err)
	}
	dir := filepath.Join(c.Dir, r.Suite+"-"+r.Arch)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("chroot: %w", err)
	}
	turn, err := durable.Await(ctx, dir, 0)
	if err != nil {
		return nil, fmt.Errorf("chroot: %w", err)
	}
	defer turn.Close()
	ch, err := c.Lookup(r.Suite, r.Arch)
	if err != nil && !errors.Is(err, ErrNoChroot) {
		return nil, err
	}
	if err == nil && ch.Stale(r.Base, max, time.Now()) == "" {
		return ch, nil
	}
	if err := c.Create(ctx, r); err != nil {
		return nil, err
	}
	return c.Lookup(r.Suite, r.Arch)
}

// use returns the chroot in force, locked against removal until release.
func (c *Chroots) use(suite, arch string) (*Chroot, error) {
	if err := checkName(suite, arch); err != nil {
		return nil, fmt.Errorf("chroot: %w", err)
	}
	for _, dir := range c.generations(suite + "-" + arch) {
		lock, err := lockDir(dir, durable.ShareFile)
		if err != nil {
			continue // being made or removed
		}
		ch, err := readChroot(dir)
		if errors.Is(err, fs.ErrNotExist) {
			lock.Close()
			continue
		}
		if err != nil {
			lock.Close()
			return nil, fmt.Errorf("chroot: %w", err)
		}
		ch.lock = lock
		return ch, nil
	}
	return nil, fmt.Errorf("chroot %s-%s in %s: %w; make it with: packmill chroot create %s %s: %w",
		suite, arch, c.Dir, ErrNoChroot, suite, arch, ErrSetup)
}

func (c *Chroot) release() { c.lock.Close() }

// List returns the chroots in force, by name.
func (c *Chroots) List() ([]Chroot, error) {
	entries, err := os.ReadDir(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list chroots: %w", err)
	}
	var all []Chroot
	for _, e := range entries {
		for _, dir := range c.generations(e.Name()) {
			ch, err := readChroot(dir)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("list chroots: %w", err)
			}
			if lock, err := lockDir(dir, durable.LockFile); err == nil {
				lock.Close()
			} else {
				ch.Builds = true
			}
			all = append(all, *ch)
			break
		}
	}
	return all, nil
}

// Remove takes a chroot out of force. Builds that run in it end in peace;
// what they hold is removed when a chroot of this name is next made or
// removed. ErrNoChroot says that there was none.
func (c *Chroots) Remove(suite, arch string) error {
	if err := checkName(suite, arch); err != nil {
		return fmt.Errorf("remove chroot: %w", err)
	}
	found := false
	for _, dir := range c.generations(suite + "-" + arch) {
		if exists(filepath.Join(dir, infoFile)) {
			found = true
			if err := durable.Remove(filepath.Join(dir, infoFile)); err != nil {
				return fmt.Errorf("remove chroot: %w", err)
			}
		}
	}
	c.sweep(suite + "-" + arch)
	if !found {
		return fmt.Errorf("remove chroot %s-%s: %w", suite, arch, ErrNoChroot)
	}
	return nil
}

// SystemBase returns apt lines for this machine's own Debian release, from
// its own apt settings: what a quickstart or a test builds on. Other
// distributions' and foreign repositories are left out.
func SystemBase() ([]string, error) {
	codename := ""
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return nil, fmt.Errorf("this machine's release: %w", err)
	}
	for _, line := range strings.Split(string(data), "\n") {
		if v, ok := strings.CutPrefix(line, "VERSION_CODENAME="); ok {
			codename = strings.Trim(v, `"`)
		}
	}
	if codename == "" {
		return nil, fmt.Errorf("this machine's release has no codename in /etc/os-release: %w", ErrSetup)
	}
	// URIs with mirror+file and the like are resolved by apt; components come one a line.
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)",
		"Created-By: Packages").Output()
	if err != nil {
		return nil, fmt.Errorf("apt-get indextargets: %w", err)
	}
	var order []string
	components := map[string][]string{}
	for _, line := range bytes.Split(out, []byte("\n")) {
		f := strings.Fields(string(line))
		if len(f) != 3 || f[1] != codename && !strings.HasPrefix(f[1], codename+"-") {
			continue
		}
		key := "deb " + f[0] + " " + f[1]
		if components[key] == nil {
			order = append(order, key)
		}
		if !slices.Contains(components[key], f[2]) {
			components[key] = append(components[key], f[2])
		}
	}
	if len(order) == 0 {
		return nil, fmt.Errorf("this machine's apt settings name no repository of %s: %w", codename, ErrSetup)
	}
	// The release itself comes before its updates.
	slices.SortStableFunc(order, func(a, b string) int {
		plain := func(s string) int {
			if strings.HasSuffix(s, " "+codename) {
				return 0
			}
			return 1
		}
		return plain(a) - plain(b)
	})
	var base []string
	for _, key := range order {
		base = append(base, key+" "+strings.Join(components[key], " "))
	}
	return base, nil
}
