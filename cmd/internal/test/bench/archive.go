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
	"time"

	"golang.org/x/sys/unix"

	"packmill/archive"
	"packmill/internal/deb/debtest"
	"packmill/internal/deb822"
	"packmill/internal/openpgp"
	"packmill/spool"
)

// compared is what the archive's figures are, for --help.
const compared = `The archive's figures: N small packages with their sources go into an archive of ours and into those of reprepro, aptly and apt-ftparchive, from one directory, on one file system, one after the other; then one more source with two packages into each, five times, spread over the alphabet, of which the middle one counts; packages, sources and lists of files change. (Of more than 20,000 packages the control data are Debian's own, if apt has its list.)

CPU is user and system time of all processes, as the kernel counts them: the program, what it starts (xz, gpg, also what is left behind for init), and what its gpg-agent uses meanwhile. Memory is the largest process's.

archive.publish is the whole process of "packmill archive include"; archive.publish-resident the same in a process that lives on, as archived; archive.nothing-to-do a process that finds nothing to do; archive.import one publication of everything. Everyone checks the packages, writes Packages, Sources and Contents for amd64, and signs Release twice; nobody checks the signature of the upload.

Ours: gz, xz, by-hash, each file synced. reprepro: gz, xz, no by-hash, nothing synced; includedeb takes the .debs and update the sources from our archive, processincoming one more. aptly: gz, plain, and bz2 in place of xz, by-hash; repo add, publish; then repo include, publish update; once more without bz2 and Contents, which is less than ours does. apt-ftparchive: gz, xz, no by-hash, its cache warm, SHA-256 and MD5 alone; copying into its pool is not counted.`

// realFrom is the number of packages from which they are what the machine's own
// Debian has, if apt knows it: real control files in small packages.
const realFrom = 20_000

// publishArg makes this program publish as archived does: ROOT KEY FILE HOW, where
// FILE names the .changes of each upload, one a line, and HOW is "together", "other" (the same into another suite) or
// "each"; then it says of each publication what it used.
const publishArg = "--publish-archive"

// stockArg makes this program write the packages: DIR N.
const stockArg = "--make-stock"

// A stock is a set of uploads in one directory, and further uploads.
type stock struct {
	n       int
	dir     string // all of the first uploads
	changes []string
	more    string // the further ones, each in a directory of its own
	made    int    // how many of them
}

// makeStock writes packages that are small and quick to unpack, so that what is
// measured is the archive's work. A process of its own does it: the kernel
// counts the memory of who starts a process as that process's.
func makeStock(b *bench, n int) (*stock, error) {
	s := &stock{dir: filepath.Join(b.dir, fmt.Sprintf("stock-%d", n)),
		more: filepath.Join(b.dir, fmt.Sprintf("more-%d", n))}
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

// next writes one more upload, and returns the path of its .changes. Five that
// follow each other are spread over the alphabet as the stock is, since where an
// index changes says how much of it is hashed anew.
func (s *stock) next() (string, error) {
	i := s.made % includes
	near, _, _ := strings.Cut(filepath.Base(s.changes[(2*i+1)*len(s.changes)/(2*includes)]), "_")
	s.made++
	v := fmt.Sprintf("1.0-%d", s.made)
	name := near + "-bench"
	u := debtest.Upload{Source: debtest.Source{Name: name, Version: v}}
	for _, p := range []string{name, name + "-tools"} {
		// Some files stay, and some have the version in their names.
		files := []debtest.File{{Path: "usr/bin/" + p, Mode: 0o755, Body: v},
			{Path: "usr/share/doc/" + p + "/copyright", Body: "Free for every use.\n"}}
		for _, dir := range []string{"usr/lib/%s/", "usr/share/%s/"} {
			files = append(files, debtest.File{Path: fmt.Sprintf(dir, p) + v + "/data", Body: v})
		}
		u.Debs = append(u.Debs, debtest.Deb{Name: p, Source: name, Version: v, Packing: "gz", Files: files})
	}
	dir := filepath.Join(s.more, strconv.Itoa(s.made))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return u.Write(dir)
}

// realStock are packages with the control data of Debian's own list, or nil
// if apt has none here.
func realStock() ([]debtest.Upload, error) {
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Packages",
		"Component: main").Output()
	if err != nil {
		return nil, nil
	}
	best := largest(strings.Fields(string(out)))
	if st, err := os.Stat(best); err != nil || st.Size() < 5<<20 {
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

func largest(names []string) (best string) {
	var size int64
	for _, name := range names {
		if st, err := os.Stat(name); err == nil && st.Size() > size {
			best, size = name, st.Size()
		}
	}
	return best
}

// contentsOf are some files of a package.
func contentsOf(name string) []debtest.File {
	var out []debtest.File
	for _, p := range []string{"usr/bin/%s", "usr/lib/%s/part1.so", "usr/lib/%s/part2.so", "usr/share/%s/data",
		"usr/share/doc/%s/changelog.Debian.gz",
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

// setUp makes the tree whose archive is ours, with benchSuite in its settings, and further lines of them.
func setUp(root, key, further string) error {
	t, err := spool.Init(root)
	if err != nil {
		return err
	}
	return os.WriteFile(t.Path("control", "suites"),
		[]byte("Suite: bench\nArchitectures: amd64\nComponents: main\nCompress: gz xz\nContents: yes\nTranslations: no\n"+
			further+"Sign-With: "+key+"\n"), 0o644)
}

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
	if args[3] == "other" {
		suite.Name, suite.Codename = "other", "other"
	}
	if args[3] != "each" {
		return publishBatch(a, suite, batch)
	}
	for i := range batch {
		cpu, t := spent(), time.Now()
		if err := publishBatch(a, suite, batch[i:i+1]); err != nil {
			return err
		}
		fmt.Println(int64(spent()-cpu), int64(time.Since(t)))
	}
	return nil
}

// spent is the CPU time of this process and of the children it waited for.
func spent() time.Duration {
	var sum int64
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var ru unix.Rusage
		if err := unix.Getrusage(who, &ru); err != nil {
			panic(err) // the arguments are constants
		}
		sum += ru.Utime.Nano() + ru.Stime.Nano()
	}
	return time.Duration(sum)
}

func publishBatch(a *archive.Archive, suite archive.Suite, batch []archive.Inclusion) error {
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

// ours publishes the .changes files into the archive at root, in one process of
// archive.Publish.
func ours(b *bench, root, key, how string, changes ...string) (used, string, error) {
	list := filepath.Join(b.dir, "list")
	var text strings.Builder
	for _, c := range changes {
		fmt.Fprintln(&text, c)
	}
	if err := os.WriteFile(list, []byte(text.String()), 0o644); err != nil {
		return used{}, "", err
	}
	self, err := os.Executable()
	if err != nil {
		return used{}, "", err
	}
	return account(context.Background(), nil, b.dir, self, publishArg, filepath.Join(root, "archive"), key, list, how)
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

// middleUse is the middle one of the CPU times, with the largest memory.
func middleUse(us []used) used {
	slices.SortFunc(us, func(a, b used) int { return int(a.cpu - b.cpu) })
	u := us[len(us)/2]
	for _, o := range us {
		u.memory = max(u.memory, o.memory)
	}
	return u
}

// archiveFigures measures package archive.
func archiveFigures(b *bench) error {
	if err := install(b, map[string]string{"reprepro": "reprepro", "aptly": "aptly", "apt-ftparchive": "apt-utils",
		"gpg": "gnupg", "xz": "xz-utils"}); err != nil {
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
	for i, n := range b.sizes(1000, 10_000, 63_440) {
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

// includes is how often one more upload is included; the middle one counts.
const includes = 5

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
	bin, err := programs(b, "packmill")
	if err != nil {
		return used{}, err
	}
	if err := setUp(root, key, "Opkg: no\n"); err != nil {
		return used{}, err
	}
	b.progress("archive: %d packages: ours", s.n)
	m := &archiveBench{bench: b, stock: s, root: root, key: key, packmill: filepath.Join(bin, "packmill"),
		large: n > realFrom}
	first, one, err := m.publications(n == 10_000, smallest)
	if err != nil {
		return used{}, err
	}
	for _, p := range archivePeers {
		b.progress("archive: %d packages: %s", s.n, p.name)
		r := &rival{s: s, root: filepath.Join(b.dir, fmt.Sprintf("peer-%d", n)), ours: filepath.Join(root, "archive"),
			gnupg: gnupg, fpr: fpr}
		if err := b.beside(p, r, n, first, one); err != nil {
			return one, fmt.Errorf("%s: %w", p.name, err)
		}
	}

	return one, errors.Join(m.otherSuite(one), m.clients(one), m.feeds())
}

// archiveBench is an archive of ours that is measured.
type archiveBench struct {
	*bench
	*stock
	root, key string
	packmill  string // the program
	large     bool
}

// include includes one more upload.
func (m *archiveBench) include() (used, error) {
	changes, err := m.stock.next()
	if err != nil {
		return used{}, err
	}
	return measured(nil, m.bench.dir, m.packmill, "--tree", m.root, "archive", "include", "bench", changes)
}

// publications measures the first publication of all, one of one more upload, one
// of nothing, and one in a process that lives on. ten says that there is a goal for the first.
func (m *archiveBench) publications(ten bool, smallest used) (first, one used, err error) {
	if first, _, err = ours(m.bench, m.root, m.key, "together", m.changes...); err != nil {
		return first, one, err
	}
	m.archive("archive.import", m.n, first, "", used{}, goalOf(ten, "cpu <= 6 s", first.cpu <= 6*time.Second))
	var ones, nones []used
	for range includes {
		u, err := m.include()
		if err != nil {
			return first, one, err
		}
		ones = append(ones, u)
		if u, _, err = ours(m.bench, m.root, m.key, "together"); err != nil {
			return first, one, err
		}
		nones = append(nones, u)
	}
	one = middleUse(ones)
	// Of nothing to do the quickest counts: what the others took, other programs did.
	none := slices.MinFunc(nones, func(a, b used) int { return cmp.Compare(a.wall, b.wall) })
	m.archive("archive.publish", m.n, one, "", used{}, goalOf(m.large, "cpu <= 0.25 s", one.cpu <= 250*time.Millisecond))
	m.figure(Figure{Name: fmt.Sprintf("archive.publish-wall.%d", m.n), Value: one.wall.Seconds(), Unit: "s"})
	resident, err := residentUse(m.bench, m.stock, m.root, m.key)
	if err != nil {
		return first, one, err
	}
	m.archive("archive.publish-resident", m.n, resident, "", used{}, goal{})
	if m.large && smallest.cpu > 0 {
		r := one.cpu.Seconds() / smallest.cpu.Seconds()
		m.figure(Figure{
			Name: fmt.Sprintf("archive.growth.%d", m.n), Value: r, Unit: "times",
			Versus: fmt.Sprintf("%d packages", m.packages[0]), Ratio: r, Goal: "<= 6", Met: r <= 6,
		})
	}
	m.figure(Figure{
		Name: fmt.Sprintf("archive.nothing-to-do.%d", m.n), Value: none.wall.Seconds(), Unit: "s",
		Goal: "<= 0.02", Met: none.wall <= 20*time.Millisecond,
	})
	m.memory("archive.memory", m.n, max(first.memory, one.memory, resident.memory), m.large)
	return first, one, nil
}

// feeds measures the publication that makes the first feeds, and one after it.
func (m *archiveBench) feeds() error {
	m.progress("archive: %d packages: feeds for opkg", m.n)
	if err := setUp(m.root, m.key, "Opkg: yes\n"); err != nil {
		return err
	}
	u, err := m.include()
	if err != nil {
		return err
	}
	m.archive("archive.opkg-first", m.n, u, "", used{}, goal{})
	m.memory("archive.opkg-first-memory", m.n, u.memory, m.large)
	if u, err = m.include(); err != nil {
		return err
	}
	m.archive("archive.opkg-publish", m.n, u, "", used{}, goal{})
	m.memory("archive.opkg-memory", m.n, u.memory, m.large)
	return nil
}

// otherSuite measures how long publications into the suite take while all packages go into another suite of the archive.
func (m *archiveBench) otherSuite(alone used) error {
	m.progress("archive: %d packages: into another suite, and publications beside it", m.n)
	done := make(chan error, 1)
	go func() {
		_, _, err := ours(m.bench, m.root, m.key, "other", m.changes...)
		done <- err
	}()
	var beside []time.Duration
	for len(done) == 0 {
		u, err := m.include()
		if err != nil {
			return errors.Join(err, <-done)
		}
		beside = append(beside, u.wall)
	}
	slices.Sort(beside)
	for _, f := range []struct {
		name string
		wall time.Duration
	}{{"archive.publish-beside", beside[len(beside)/2]}, {"archive.publish-beside-worst", beside[len(beside)-1]}} {
		m.figure(Figure{Name: fmt.Sprintf("%s.%d", f.name, m.n), Value: f.wall.Seconds(), Unit: "s",
			Versus: fmt.Sprintf("alone: %.3f s", alone.wall.Seconds()), Ratio: f.wall.Seconds() / alone.wall.Seconds()})
	}
	return <-done
}

// residentUse is what a publication needs in a process that lives on, as
// archived's; the process's first one does not count.
func residentUse(b *bench, s *stock, root, key string) (used, error) {
	var changes []string
	for range includes + 1 {
		c, err := s.next()
		if err != nil {
			return used{}, err
		}
		changes = append(changes, c)
	}
	all, out, err := ours(b, root, key, "each", changes...)
	if err != nil {
		return used{}, err
	}
	var us []used
	for line := range strings.Lines(out) {
		u := used{memory: all.memory}
		if _, err := fmt.Sscan(line, &u.cpu, &u.wall); err != nil {
			return used{}, fmt.Errorf("what publications used: %q: %w", line, err)
		}
		us = append(us, u)
	}
	if len(us) != includes+1 {
		return used{}, fmt.Errorf("%d publications instead of %d", len(us), includes+1)
	}
	return middleUse(us[1:]), nil
}

// memory gives out the most memory that a process of ours had.
func (b *bench) memory(name string, n int, bytes int64, goal bool) {
	f := Figure{Name: fmt.Sprintf("%s.%d", name, n), Value: float64(bytes) / 1e6, Unit: "MB"}
	if goal {
		f.Goal, f.Met = "<= 200", bytes <= 200e6
	}
	b.figure(f)
}

// beside has a peer do the same. What takes longer than the bench's patience is
// stopped: its line says so, and has no ratio.
func (b *bench) beside(p peer, r *rival, n int, first, one used) error {
	if err := os.MkdirAll(r.root, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(r.root)
	patient := func(do func(context.Context) (used, error)) (u used, late bool, err error) {
		ctx, cancel := context.WithTimeout(context.Background(), b.patience)
		defer cancel()
		u, err = do(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return u, true, nil
		}
		return u, false, err
	}
	tooLate := fmt.Sprintf("%s: did not finish in %.0f s", p.name, b.patience.Seconds())
	fill, late, err := patient(func(ctx context.Context) (used, error) { return p.fill(ctx, r) })
	if err != nil {
		return err
	}
	if late {
		b.archive("archive.import", r.s.n, first, tooLate, used{}, goal{})
		b.archive("archive.publish", r.s.n, one, p.name+": nothing to publish into", used{}, goal{})
		return nil
	}
	b.archive("archive.import", r.s.n, first, p.name+" ("+p.fills+")", fill, goal{})
	var us []used
	for range includes {
		changes, err := r.s.next()
		if err != nil {
			return err
		}
		u, late, err := patient(func(ctx context.Context) (used, error) { return p.one(ctx, r, changes) })
		if err != nil {
			return err
		}
		if late {
			b.archive("archive.publish", r.s.n, one, tooLate, used{}, goal{})
			return nil
		}
		us = append(us, u)
	}
	u := middleUse(us)
	times := u.cpu.Seconds() / one.cpu.Seconds()
	g := goal{}
	if p.times > 0 && n == 10_000 {
		g = goal{fmt.Sprintf("at least %.0f times less CPU", p.times), times >= p.times}
	}
	b.archive("archive.publish", r.s.n, one, p.name, u, g)
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
		f.Versus = fmt.Sprintf("%s: %.3f CPU s, %.3f s, %.0f MB",
			versus, other.cpu.Seconds(), other.wall.Seconds(), float64(other.memory)/1e6)
		f.Ratio = other.cpu.Seconds() / u.cpu.Seconds()
	}
	b.figure(f)
}
