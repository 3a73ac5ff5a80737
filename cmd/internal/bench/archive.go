package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"packmill/archive"
	"packmill/archive/deb/debtest"
	"packmill/spool/deb822"
	"packmill/spool/openpgp"
)

// The archive's figures: the same packages go into an archive of ours and into
// those of reprepro, aptly and apt-ftparchive, each in a process of its own
// whose CPU time and memory the kernel counts, gpg and xz included.

// realFrom is the number of packages from which they are what the machine's own
// Debian has, if apt knows it: real control files in small packages.
const realFrom = 20_000

// publishArg makes this program publish: ROOT KEY FILE FEEDS, where FILE names
// the .changes of each upload, one a line, and FEEDS is "opkg" or "apt".
const publishArg = "--publish-archive"

// stockArg makes this program write the packages: DIR N.
const stockArg = "--make-stock"

// used is what a process and its children needed.
type used struct {
	wall, cpu time.Duration
	memory    int64 // bytes, the largest process
}

// measured runs a command and returns what it used. Text that it writes is
// the error's if it fails.
func measured(env []string, dir string, args ...string) (used, error) {
	return limited(context.Background(), env, dir, args...)
}

// limited is measured for a command that is stopped, with all that it started,
// when ctx ends; then the error is ctx's.
func limited(ctx context.Context, env []string, dir string, args ...string) (used, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env, cmd.Dir = append(os.Environ(), env...), dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	t := time.Now()
	err := cmd.Run()
	u := used{wall: time.Since(t)}
	if ctx.Err() != nil {
		return u, ctx.Err()
	}
	if err != nil {
		text := out.String()
		return u, fmt.Errorf("%s: %w: %s", strings.Join(args[:min(3, len(args))], " "), err, text[max(0, len(text)-2000):])
	}
	ru := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	u.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	u.memory = ru.Maxrss << 10
	return u, nil
}

// A stock is a set of uploads in one directory, and one more upload.
type stock struct {
	n        int
	dir      string // all of the first uploads
	changes  []string
	more     string // directory of the next upload
	moreName string
}

// makeStock writes packages that are small and quick to unpack, so that what is
// measured is the archive's work. A process of its own does it: the kernel
// counts the memory of who starts a process as that process's.
func makeStock(b *bench, n int) (*stock, error) {
	s := &stock{dir: filepath.Join(b.dir, fmt.Sprintf("stock-%d", n)), more: filepath.Join(b.dir, fmt.Sprintf("more-%d", n))}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if _, err := measured(nil, b.dir, self, stockArg, s.dir, strconv.Itoa(n)); err != nil {
		return nil, err
	}
	list, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		switch filepath.Ext(e.Name()) {
		case ".deb":
			s.n++
		case ".changes":
			s.changes = append(s.changes, filepath.Join(s.dir, e.Name()))
		}
	}
	return s, nil
}

func writeStock(dir string, n int) error {
	us := debtest.Corpus(n, "1.0-1")
	if n > realFrom {
		real, err := realStock()
		if err != nil {
			return err
		}
		if real != nil {
			us = real
		}
	}
	for i := range us {
		for j := range us[i].Debs {
			us[i].Debs[j].Packing = "gz"
		}
	}
	return debtest.WriteAll(dir, us)
}

// next writes the next upload: a higher version each time.
func (s *stock) next(i int) error {
	v := fmt.Sprintf("1.0-%d", i+2)
	u := debtest.Upload{Source: debtest.Source{Name: "elm-bench", Version: v}}
	for _, p := range []string{"elm-bench", "elm-bench-tools"} {
		u.Debs = append(u.Debs, debtest.Deb{Name: p, Source: "elm-bench", Version: v, Packing: "gz",
			Files: []debtest.File{{Path: "usr/bin/" + p, Mode: 0o755, Body: v}, {Path: "usr/share/doc/" + p + "/copyright", Body: "Free for every use.\n"}}})
	}
	if err := os.RemoveAll(s.more); err != nil {
		return err
	}
	if err := os.MkdirAll(s.more, 0o755); err != nil {
		return err
	}
	path, err := u.Write(s.more)
	s.moreName = filepath.Base(path)
	return err
}

// realStock are packages with the control data of Debian's own list, or nil
// if apt has none here.
func realStock() ([]debtest.Upload, error) {
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Packages", "Component: main").Output()
	if err != nil {
		return nil, nil
	}
	var best string
	var size int64
	for _, name := range strings.Fields(string(out)) {
		if st, err := os.Stat(name); err == nil && st.Size() > size {
			best, size = name, st.Size()
		}
	}
	if size < 5<<20 {
		return nil, nil
	}
	text, err := exec.Command("/usr/lib/apt/apt-helper", "cat-file", best).Output()
	if err != nil {
		return nil, fmt.Errorf("apt-helper cat-file %s: %w", best, err)
	}
	sources := map[string]*debtest.Upload{}
	var names []string
	sc := deb822.NewScanner(bytes.NewReader(text))
	for sc.Next() {
		name, version, arch := string(sc.Get("Package")), string(sc.Get("Version")), string(sc.Get("Architecture"))
		src, srcVersion, other := strings.Cut(string(sc.Get("Source")), " ")
		if src == "" {
			src = name
		}
		srcVersion = strings.Trim(srcVersion, "()")
		if !other {
			srcVersion = version
		}
		u := sources[src+" "+srcVersion]
		if u == nil {
			if slices.ContainsFunc([]byte(src), func(c byte) bool { return c < '+' }) {
				continue
			}
			u = &debtest.Upload{Source: debtest.Source{Name: src, Version: srcVersion}}
			sources[src+" "+srcVersion] = u
			names = append(names, src+" "+srcVersion)
		}
		st, err := deb822.ParseOne("Packages", sc.Raw(), deb822.Hostile)
		if err != nil {
			return nil, err
		}
		for _, f := range []string{"Filename", "Size", "MD5sum", "SHA256", "Description-md5", "Source"} {
			st.Del(f)
		}
		st.Set("Source", src+" ("+srcVersion+")")
		u.Debs = append(u.Debs, debtest.Deb{Name: name, Version: version, Arch: arch, Control: string(st.Append(nil)),
			Files: contentsOf(name)})
	}
	if err := sc.Err(); err != nil {
		return nil, err
	}
	us := make([]debtest.Upload, 0, len(names))
	for _, n := range names {
		us = append(us, *sources[n])
	}
	return us, nil
}

// contentsOf are some files of a package.
func contentsOf(name string) []debtest.File {
	var out []debtest.File
	for _, p := range []string{"usr/bin/%s", "usr/lib/%s/part1.so", "usr/lib/%s/part2.so", "usr/share/%s/data", "usr/share/doc/%s/changelog.Debian.gz",
		"usr/share/doc/%s/copyright", "usr/share/lintian/overrides/%s", "usr/share/man/man1/%s.1.gz"} {
		out = append(out, debtest.File{Path: fmt.Sprintf(p, name)})
	}
	return out
}

// benchSuite is the suite that everyone gets: amd64 and all, main, gz and xz, signed.
func benchSuite(key string) archive.Suite {
	return archive.Suite{Name: "bench", Codename: "bench", Components: []string{"main"}, Architectures: []string{"amd64"},
		Compress: []string{"gz", "xz"}, Contents: true, SignWith: []string{key}}
}

// Feeds for opkg come on top, or not.
const (
	aptAlone = "apt"
	withOpkg = "opkg"
)

// archiveProcess does what the arguments say if they are those of a process of
// these figures.
func archiveProcess(args []string) (done bool, err error) {
	switch {
	case len(args) == 5 && args[0] == publishArg:
		return true, publishArchive(args[1:])
	case len(args) == 3 && args[0] == stockArg:
		n, err := strconv.Atoi(args[2])
		if err != nil {
			return true, err
		}
		return true, writeStock(args[1], n)
	}
	return false, nil
}

// publishArchive is the process that publishes.
func publishArchive(args []string) error {
	a, err := archive.Open(args[0])
	if err != nil {
		return err
	}
	f, err := os.Open(args[2])
	if err != nil {
		return err
	}
	defer f.Close()
	var batch []archive.Inclusion
	for sc := bufio.NewScanner(f); sc.Scan(); {
		batch = append(batch, archive.Inclusion{Dir: filepath.Dir(sc.Text()), Changes: filepath.Base(sc.Text())})
	}
	suite := benchSuite(args[1])
	if args[3] == withOpkg {
		suite.Opkg = &archive.Opkg{}
	}
	rep, err := a.Publish(context.Background(), suite, batch, time.Now())
	if err != nil {
		return err
	}
	bad := 0
	for _, r := range rep.Results {
		if r.Outcome == archive.Refused {
			if bad++; bad < 5 {
				fmt.Fprintln(os.Stderr, r.Reason)
			}
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d uploads were refused", bad, len(rep.Results))
	}
	return nil
}

// ours publishes the .changes files into the archive at root.
func ours(b *bench, root, key, feeds string, changes ...string) (used, error) {
	list := filepath.Join(b.dir, "list")
	if err := os.WriteFile(list, []byte(strings.Join(changes, "\n")+"\n"), 0o644); err != nil {
		return used{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return used{}, err
	}
	if len(changes) == 0 {
		if err := os.WriteFile(list, nil, 0o644); err != nil {
			return used{}, err
		}
	}
	return measured(nil, b.dir, self, publishArg, root, key, list, feeds)
}

// benchKey makes a key of ours and gives it to a gpg of its own.
func benchKey(b *bench) (key, gnupg, fpr string, err error) {
	s, err := openpgp.Generate("bench", "bench@packmill.example", time.Now().Add(-time.Hour))
	if err != nil {
		return "", "", "", err
	}
	key, gnupg = filepath.Join(b.dir, "key"), filepath.Join(b.dir, "gnupg")
	if err := os.WriteFile(key, s.Secret(), 0o600); err != nil {
		return "", "", "", err
	}
	if err := os.MkdirAll(gnupg, 0o700); err != nil {
		return "", "", "", err
	}
	_, err = measured([]string{"GNUPGHOME=" + gnupg}, b.dir, "gpg", "--batch", "--import", key)
	return key, gnupg, s.Fingerprint(), err
}

// agentCPU is what the gpg-agent of the home directory has used so far: gpg
// lets it sign, and it is nobody's child.
func agentCPU(gnupg string) time.Duration {
	cmd := exec.Command("gpg-connect-agent", "--no-autostart", "getinfo pid", "/bye")
	cmd.Env = append(os.Environ(), "GNUPGHOME="+gnupg)
	out, err := cmd.Output()
	if err != nil {
		return 0
	}
	w := strings.Fields(string(out))
	if len(w) < 2 {
		return 0
	}
	stat, err := os.ReadFile("/proc/" + w[1] + "/stat")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// A peer is another program that keeps an archive.
type peer struct {
	name    string
	program string // to be installed
	// fill takes all packages of the stock; it is not measured against ours
	// unless it does all that ours does.
	fill func(ctx context.Context, b *bench, s *stock, root, gnupg, fpr string) (used, error)
	// one includes one more upload.
	one func(ctx context.Context, b *bench, s *stock, root, gnupg, fpr string) (used, error)
}

var archivePeers = []peer{
	{"reprepro", "reprepro", fillReprepro, oneReprepro},
	{"aptly", "aptly", fillAptly, oneAptly},
	{"apt-ftparchive", "apt-ftparchive", fillFtparchive, oneFtparchive},
}

func writeFiles(root string, files map[string]string) error {
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func fillReprepro(ctx context.Context, b *bench, s *stock, root, gnupg, fpr string) (used, error) {
	err := writeFiles(root, map[string]string{
		"conf/distributions": "Codename: bench\nSuite: bench\nComponents: main\nArchitectures: amd64 source\nSignWith: " + fpr + "\nDebIndices: Packages Release . .gz .xz\nDscIndices: Sources Release .gz .xz\nContents: .gz\n",
		"conf/incoming":      "Name: in\nIncomingDir: in\nTempDir: tmp\nDefault: bench\nAllow: unstable>bench\nPermit: unused_files\n",
		"in/.keep":           "", "tmp/.keep": "",
	})
	if err != nil {
		return used{}, err
	}
	os.Remove(filepath.Join(root, "in/.keep"))
	debs, err := filepath.Glob(filepath.Join(s.dir, "*.deb"))
	if err != nil {
		return used{}, err
	}
	// In one process, with the defaults that a package may lack.
	list := append([]string{"reprepro", "-b", root, "-S", "misc", "-P", "optional", "includedeb", "bench"}, debs...)
	return many(ctx, []string{"GNUPGHOME=" + gnupg}, s.dir, list, 9)
}

// many runs a command whose arguments from the n-th on are too many for one.
func many(ctx context.Context, env []string, dir string, args []string, n int) (used, error) {
	var sum used
	head, rest := args[:n], args[n:]
	for len(rest) > 0 {
		part := rest[:min(len(rest), 10_000)]
		rest = rest[len(part):]
		u, err := limited(ctx, env, dir, append(slices.Clone(head), part...)...)
		if err != nil {
			return sum, err
		}
		sum.wall += u.wall
		sum.cpu += u.cpu
		sum.memory = max(sum.memory, u.memory)
	}
	return sum, nil
}

func oneReprepro(ctx context.Context, b *bench, s *stock, root, gnupg, fpr string) (used, error) {
	list, err := os.ReadDir(s.more)
	if err != nil {
		return used{}, err
	}
	for _, e := range list {
		if err := copyFile(filepath.Join(s.more, e.Name()), filepath.Join(root, "in", e.Name())); err != nil {
			return used{}, err
		}
	}
	before := agentCPU(gnupg)
	u, err := limited(ctx, []string{"GNUPGHOME=" + gnupg}, root, "reprepro", "-b", root, "processincoming", "in")
	u.cpu += agentCPU(gnupg) - before
	return u, err
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}

func aptly(ctx context.Context, gnupg, root string, args ...string) (used, error) {
	before := agentCPU(gnupg)
	u, err := limited(ctx, []string{"GNUPGHOME=" + gnupg}, root, append([]string{"aptly", "-config=" + root + "/aptly.conf"}, args...)...)
	u.cpu += agentCPU(gnupg) - before
	return u, err
}

func fillAptly(ctx context.Context, b *bench, s *stock, root, gnupg, fpr string) (used, error) {
	err := writeFiles(root, map[string]string{"aptly.conf": fmt.Sprintf(`{"rootDir":%q,"gpgProvider":"gpg","gpgDisableVerify":true,"architectures":["amd64","source"]}`, root)})
	if err != nil {
		return used{}, err
	}
	var sum used
	for _, args := range [][]string{
		{"repo", "create", "-distribution=bench", "-component=main", "bench"},
		{"repo", "add", "bench", s.dir},
		{"publish", "repo", "-batch", "-gpg-key=" + fpr, "-acquire-by-hash", "bench"},
	} {
		u, err := aptly(ctx, gnupg, root, args...)
		if err != nil {
			return sum, err
		}
		sum.wall += u.wall
		sum.cpu += u.cpu
		sum.memory = max(sum.memory, u.memory)
	}
	return sum, nil
}

func oneAptly(ctx context.Context, b *bench, s *stock, root, gnupg, fpr string) (used, error) {
	var sum used
	for _, args := range [][]string{
		{"repo", "include", "-no-remove-files", "-accept-unsigned", "-ignore-signatures", "-repo=bench", s.more},
		{"publish", "update", "-batch", "-gpg-key=" + fpr, "bench"},
	} {
		u, err := aptly(ctx, gnupg, root, args...)
		if err != nil {
			return sum, err
		}
		sum.wall += u.wall
		sum.cpu += u.cpu
		sum.memory = max(sum.memory, u.memory)
	}
	return sum, nil
}

func ftparchive(ctx context.Context, b *bench, root, gnupg, fpr string) (used, error) {
	before := agentCPU(gnupg)
	u, err := limited(ctx, []string{"GNUPGHOME=" + gnupg}, root, "sh", "-ec", `
		apt-ftparchive generate ftp.conf
		apt-ftparchive -o APT::FTPArchive::Release::Suite=bench -o APT::FTPArchive::Release::Codename=bench release dists/bench >Release.new
		mv Release.new dists/bench/Release
		gpg --batch --yes --local-user `+fpr+` --armor --detach-sign -o dists/bench/Release.gpg dists/bench/Release
		gpg --batch --yes --local-user `+fpr+` --clearsign -o dists/bench/InRelease dists/bench/Release`)
	u.cpu += agentCPU(gnupg) - before
	return u, err
}

func fillFtparchive(ctx context.Context, b *bench, s *stock, root, gnupg, fpr string) (used, error) {
	err := writeFiles(root, map[string]string{
		"ftp.conf": fmt.Sprintf(`Dir { ArchiveDir %q; CacheDir %q; };
Default { Packages::Compress ". gzip xz"; Sources::Compress ". gzip xz"; Contents::Compress "gzip"; };
TreeDefault { Directory "pool"; SrcDirectory "pool"; BinCacheDB "cache.db"; };
Tree "dists/bench" { Sections "main"; Architectures "amd64 source"; };
`, root, root),
		"dists/bench/main/binary-amd64/.keep": "", "dists/bench/main/source/.keep": "", "pool/.keep": "",
	})
	if err != nil {
		return used{}, err
	}
	if _, err := limited(ctx, nil, root, "sh", "-ec", `find "$0" -name '*.changes' -prune -o -type f -print0 | xargs -0 cp -l -t pool || find "$0" -name '*.changes' -prune -o -type f -print0 | xargs -0 cp -t pool`, s.dir); err != nil {
		return used{}, err
	}
	return ftparchive(ctx, b, root, gnupg, fpr)
}

func oneFtparchive(ctx context.Context, b *bench, s *stock, root, gnupg, fpr string) (used, error) {
	if _, err := limited(ctx, nil, root, "sh", "-ec", `cp "$0"/*.deb "$0"/*.dsc "$0"/*.tar.* pool/`, s.more); err != nil {
		return used{}, err
	}
	return ftparchive(ctx, b, root, gnupg, fpr)
}

// middleUse is the middle one of the CPU times, with the largest memory.
func middleUse(us []used) used {
	slices.SortFunc(us, func(a, b used) int { return int(a.cpu - b.cpu) })
	u := us[len(us)/2]
	for _, o := range us {
		u.memory = max(u.memory, o.memory)
	}
	return u
}

// installPeers takes from Debian what the figures stand beside.
func installPeers(b *bench) error {
	packages := map[string]string{"reprepro": "reprepro", "aptly": "aptly", "apt-ftparchive": "apt-utils", "gpg": "gnupg", "xz": "xz-utils"}
	var missing []string
	for program, name := range packages {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	if os.Geteuid() != 0 {
		return fmt.Errorf("not installed: %s; run as root: apt-get install %s", strings.Join(missing, ", "), strings.Join(missing, " "))
	}
	b.progress("archive: installing %s", strings.Join(missing, ", "))
	_, err := measured([]string{"DEBIAN_FRONTEND=noninteractive"}, "/", append([]string{"apt-get", "install", "-y", "--no-install-recommends"}, missing...)...)
	return err
}

// archiveFigures measures package archive.
func archiveFigures(b *bench) error {
	if err := installPeers(b); err != nil {
		return err
	}
	key, gnupg, fpr, err := benchKey(b)
	if err != nil {
		return err
	}
	defer func() {
		cmd := exec.Command("gpgconf", "--kill", "gpg-agent")
		cmd.Env = append(os.Environ(), "GNUPGHOME="+gnupg)
		_ = cmd.Run() // it ends by itself when its directory is gone
	}()
	var smallest used
	for i, n := range b.packages {
		one, err := archiveOf(b, n, key, gnupg, fpr, smallest)
		if err != nil {
			return err
		}
		if i == 0 {
			smallest = one
		}
	}
	return nil
}

// archiveOf measures an archive of n packages, and returns what one publication
// into it needs; smallest is that of the smallest archive.
func archiveOf(b *bench, n int, key, gnupg, fpr string, smallest used) (used, error) {
	b.progress("archive: making %d packages", n)
	s, err := makeStock(b, n)
	if err != nil {
		return used{}, err
	}
	root := filepath.Join(b.dir, fmt.Sprintf("ours-%d", n))
	defer func() {
		for _, d := range []string{root, s.dir, s.more} {
			_ = os.RemoveAll(d) // the bench's directory goes as a whole in the end
		}
	}()
	b.progress("archive: %d packages: ours", s.n)
	first, err := ours(b, root, key, aptAlone, s.changes...)
	if err != nil {
		return used{}, err
	}
	b.archive("archive.import", s.n, first, "", used{}, goalOf(n == 10_000, "cpu <= 6 s", first.cpu <= 6*time.Second))
	version := 0
	next := func(feeds string) (used, error) {
		version++
		if err := s.next(version); err != nil {
			return used{}, err
		}
		return ours(b, root, key, feeds, filepath.Join(s.more, s.moreName))
	}
	var ones, nones []used
	for range 5 {
		u, err := next(aptAlone)
		if err != nil {
			return used{}, err
		}
		ones = append(ones, u)
		if u, err = ours(b, root, key, aptAlone); err != nil {
			return used{}, err
		}
		nones = append(nones, u)
	}
	one := middleUse(ones)
	// Of nothing to do the quickest counts: what the others took, other programs did.
	none := slices.MinFunc(nones, func(a, b used) int { return cmp.Compare(a.wall, b.wall) })
	b.archive("archive.publish", s.n, one, "", used{}, goalOf(n > realFrom, "cpu <= 0.25 s", one.cpu <= 250*time.Millisecond))
	b.figure(Figure{Name: fmt.Sprintf("archive.publish-wall.%d", s.n), Value: one.wall.Seconds(), Unit: "s"})
	if n > realFrom {
		if smallest.cpu > 0 {
			r := one.cpu.Seconds() / smallest.cpu.Seconds()
			b.figure(Figure{Name: fmt.Sprintf("archive.growth.%d", s.n), Value: r, Unit: "times", Versus: fmt.Sprintf("%d packages", b.packages[0]), Ratio: r, Goal: "<= 6", Met: r <= 6})
		}
		b.figure(Figure{Name: fmt.Sprintf("archive.memory.%d", s.n), Value: float64(max(first.memory, one.memory)) / (1 << 20), Unit: "MB", Goal: "<= 200", Met: max(first.memory, one.memory) <= 200<<20})
	}
	b.figure(Figure{Name: fmt.Sprintf("archive.nothing-to-do.%d", s.n), Value: none.wall.Seconds(), Unit: "s", Goal: "<= 0.02", Met: none.wall <= 20*time.Millisecond})

	b.progress("archive: %d packages: feeds for opkg", s.n)
	feeds, err := ours(b, root, key, withOpkg)
	if err != nil {
		return one, err
	}
	b.archive("archive.opkg-first", s.n, feeds, "", used{}, goal{})
	if feeds, err = next(withOpkg); err != nil {
		return one, err
	}
	b.archive("archive.opkg-publish", s.n, feeds, "", used{}, goal{})
	for _, p := range archivePeers {
		b.progress("archive: %d packages: %s", s.n, p.name)
		if err := b.beside(p, s, n, gnupg, fpr, first, one); err != nil {
			return one, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return one, nil
}

// beside has a peer do the same. What takes longer than the bench's patience is
// stopped: its line says so, and has no ratio.
func (b *bench) beside(p peer, s *stock, n int, gnupg, fpr string, first, one used) error {
	root := filepath.Join(b.dir, fmt.Sprintf("%s-%d", p.name, n))
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(root)
	timed := func(do func(context.Context, *bench, *stock, string, string, string) (used, error)) (used, error) {
		ctx, cancel := context.WithTimeout(context.Background(), b.patience)
		defer cancel()
		return do(ctx, b, s, root, gnupg, fpr)
	}
	late := fmt.Sprintf("%s: did not finish in %.0f s", p.name, b.patience.Seconds())
	fill, err := timed(p.fill)
	if errors.Is(err, context.DeadlineExceeded) {
		b.archive("archive.import", s.n, first, late, used{}, goal{})
		b.archive("archive.publish", s.n, one, p.name+": nothing to publish into", used{}, goal{})
		return nil
	}
	if err != nil {
		return err
	}
	b.archive("archive.import", s.n, first, p.name+" (its own way)", fill, goal{})
	if err := s.next(100); err != nil {
		return err
	}
	u, err := timed(p.one)
	if errors.Is(err, context.DeadlineExceeded) {
		b.archive("archive.publish", s.n, one, late, used{}, goal{})
		return nil
	}
	if err != nil {
		return err
	}
	times := u.cpu.Seconds() / one.cpu.Seconds()
	g := goal{}
	if n == 10_000 {
		switch p.name {
		case "reprepro":
			g = goal{"at least 5 times less CPU", times >= 5}
		case "aptly":
			g = goal{"at least 20 times less CPU", times >= 20}
		}
	}
	b.archive("archive.publish", s.n, one, p.name, u, g)
	return nil
}

type goal struct {
	text string
	met  bool
}

func goalOf(applies bool, text string, met bool) goal {
	if !applies {
		return goal{}
	}
	return goal{text, met}
}

// archive gives out CPU seconds of ours, beside a peer's.
func (b *bench) archive(name string, n int, u used, versus string, other used, g goal) {
	f := Figure{Name: fmt.Sprintf("%s.%d", name, n), Value: u.cpu.Seconds(), Unit: "CPU s", Goal: g.text, Met: g.met}
	if f.Versus = versus; other.cpu > 0 {
		f.Versus = fmt.Sprintf("%s %.3f CPU s, %.0f MB", versus, other.cpu.Seconds(), float64(other.memory)/(1<<20))
		f.Ratio = other.cpu.Seconds() / u.cpu.Seconds()
	}
	b.figure(f)
}
