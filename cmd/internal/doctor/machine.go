package doctor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/setup"
	"packmill/queue/builders"
	"packmill/queue/runner"
	"packmill/spool"
)

// patience is how long a mirror or a web server may take to answer.
const patience = 20 * time.Second

// ownerOf is the uid of a file, or "".
func ownerOf(path string) string {
	st, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return strconv.Itoa(int(st.Sys().(*syscall.Stat_t).Uid))
}

// programs looks for what the daemons and runners start.
func (p *patient) programs() {
	need := map[string]string{"dpkg-source": "dpkg-dev", "apt-get": "apt", "gpgv": "gpgv",
		"dose-builddebcheck": "dose-builddebcheck", "dose-debcheck": "dose-distcheck"}
	for i := range p.settings.Builders {
		b := &p.settings.Builders[i]
		switch b.Runner {
		case "sbuild":
			need["sbuild"] = "sbuild"
			if b.Mode == "schroot" {
				need["schroot"] = "schroot"
			}
			fallthrough
		case "overlay":
			need["mmdebstrap"], need["newuidmap"] = "mmdebstrap", "uidmap"
		}
	}
	for _, program := range slices.Sorted(maps.Keys(need)) {
		if _, err := exec.LookPath(program); err != nil && !p.has(program) {
			p.error(program, "apt install "+need[program], "it is not installed")
		}
	}
}

// has looks where a person's PATH may not lead.
func (p *patient) has(program string) bool {
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if st, err := os.Stat(filepath.Join(p.Root, dir, program)); err == nil && st.Mode()&0o111 != 0 {
			return true
		}
	}
	return false
}

// buildUsers are the accounts that build in chroots: those of the stanzas, or
// who owns the build queues.
func (p *patient) buildUsers() []string {
	var out []string
	for i := range p.settings.Builders {
		b := &p.settings.Builders[i]
		name := b.User
		switch {
		case !b.Chrooted(), b.Away():
			continue
		case name == "" && p.separate():
			name = spool.UserBuild
		case name == "":
			if u, err := user.LookupId(ownerOf(filepath.Join(p.Tree, "queue"))); err == nil {
				name = u.Username
			}
		}
		if name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// subordinateIDs looks at subuid(5) and subgid(5): each build at a time in a
// clean chroot wants 65536 of each.
func (p *patient) subordinateIDs() {
	for _, name := range p.buildUsers() {
		if name == "root" {
			p.error("user root", "write User: "+spool.UserBuild+" in control/builders", "builds never run as root")
			continue
		}
		jobs := p.jobsOf(name)
		for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
			switch n := p.ranges(file, name); {
			case n == 0:
				p.error("user "+name, "packmill setup --subids "+name, "%s gives it no 65536 ids, which a clean chroot wants", file)
			case n < jobs:
				p.warn("user "+name, fmt.Sprintf("usermod --add-sub%ss FIRST-LAST %s", strings.TrimPrefix(file, "/etc/sub"), name),
					"%s gives it %d times 65536 ids, and each of the %d builds that control/builders allows at a time wants as "+
						"many: the others wait", file, n, jobs)
			}
		}
	}
}

// jobsOf is how many builds there may be at a time in chroots of the account.
func (p *patient) jobsOf(name string) (jobs int) {
	users := p.buildUsers()
	for i := range p.settings.Builders {
		b := &p.settings.Builders[i]
		if b.OwnChroots() && (b.User == name || b.User == "" && slices.Contains(users, name)) {
			jobs += max(1, b.Jobs)
		}
	}
	return jobs
}

// ranges is how many times 65536 ids the account has in subuid(5).
func (p *patient) ranges(file, name string) (n int) {
	f, err := os.Open(p.file(file))
	if err != nil {
		return 0
	}
	defer f.Close()
	uid := ""
	if u, err := user.Lookup(name); err == nil {
		uid = u.Uid
	}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		w := strings.Split(sc.Text(), ":")
		if len(w) == 3 && (w[0] == name || w[0] == uid && uid != "") {
			ids, _ := strconv.Atoi(w[2])
			n += ids / 65536
		}
	}
	return n
}

// namespaces looks at what may forbid user namespaces, in which builds run.
func (p *patient) namespaces() {
	if len(p.buildUsers()) == 0 {
		return
	}
	for _, x := range []struct {
		file  string
		wrong func(int) bool
		cure  string
	}{
		{"/proc/sys/user/max_user_namespaces",
			func(n int) bool { return n == 0 }, "sysctl -w user.max_user_namespaces=10000, and a file in /etc/sysctl.d"},
		{"/proc/sys/kernel/unprivileged_userns_clone",
			func(n int) bool { return n == 0 }, "sysctl -w kernel.unprivileged_userns_clone=1, and a file in /etc/sysctl.d"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", func(n int) bool { return n == 1 },
			"give buildd an AppArmor profile with \"userns,\", or: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
	} {
		data, err := os.ReadFile(p.file(x.file))
		if err != nil {
			continue
		}
		if n, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && x.wrong(n) {
			p.error(x.file, x.cure, "it is %d, so builds get no user namespace", n)
		}
	}
}

// chroots looks for those that the builders of this machine need.
func (p *patient) chroots() {
	for i := range p.settings.Builders {
		b := &p.settings.Builders[i]
		store := b.ChrootStore()
		if b.Chroots == "" && os.Getuid() == 0 && os.Getenv("PACKMILL_CHROOTS") == "" {
			// As the units have it: the build user's own.
			for _, name := range p.buildUsers() {
				if u, err := user.Lookup(name); err == nil {
					store = &runner.Chroots{Dir: control.ChrootDirOf(u), User: name}
				}
			}
		}
		for j := range p.settings.Suites {
			s := &p.settings.Suites[j]
			for _, arch := range b.ChrootsOf(s) {
				p.chroot(b, s, arch, store)
			}
		}
	}
}

func (p *patient) chroot(b *control.Builder, s *control.Suite, arch string, store *runner.Chroots) {
	about := "chroot " + s.Name + "-" + arch
	make := "packmill chroot create " + s.Name + " " + arch
	ch, err := store.Lookup(s.Name, arch)
	switch {
	case errors.Is(err, runner.ErrNoChroot):
		p.warn(about, make, "there is none in %s: the first build makes it, and waits for it", store.Dir)
	case err != nil:
		p.error(about, make, "%v", err)
	default:
		if why := ch.Stale(s.Base, b.ChrootAge, p.Now); why != "" {
			p.warn(about, "packmill chroot update", "%s", why)
		}
	}
}

func (p *patient) room() {
	general := p.settings.General
	if err := general.Room(p.Tree, 0); err != nil {
		p.error(p.Tree, "nothing is begun before that", "%v", err)
	} else if general.Room(p.Tree, 3*general.ReserveBytes+4<<30) != nil {
		p.warn(p.Tree, "make room before it is less than Reserve: packmill archive gc, Keep-Attic, Keep-Logs",
			"little space is free")
	}
	var st unix.Statfs_t
	if unix.Statfs(p.Tree, &st) == nil {
		switch uint32(st.Type) {
		case unix.NFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC, unix.TMPFS_MAGIC:
			p.warn(p.Tree, "put the tree on ext4, xfs or btrfs of this machine",
				"its file system keeps no promise after a crash")
		}
	}
}

// clock looks whether somebody keeps it: signatures and Valid-Until hang on it.
func (p *patient) clock() {
	var t unix.Timex
	if state, err := unix.Adjtimex(&t); err == nil && state == unix.TIME_ERROR {
		cure := "apt install systemd-timesyncd (or chrony)"
		if _, err := os.Stat(p.file("/run/systemd/container")); err == nil {
			cure = "on the host of this container: " + cure // here it would not run
		}
		p.warn("clock", cure, "nothing keeps this machine's clock")
	}
	newest := time.Time{}
	for _, s := range p.settings.Suites {
		if st, err := os.Stat(filepath.Join(p.Tree, "archive/dists", s.Name, "InRelease")); err == nil &&
			st.ModTime().After(newest) {
			newest = st.ModTime()
		}
	}
	if newest.After(p.Now.Add(5 * time.Minute)) {
		p.error("clock", "set the clock", "the archive was published at %s, which is to come",
			newest.UTC().Format(time.RFC3339))
	}
}

// units asks systemd about the daemons, where it runs.
func (p *patient) units() {
	if st, err := os.Stat(p.file("/run/systemd/system")); err != nil || !st.IsDir() {
		p.daemons()
		return
	}
	names := []string{"reviewd.service", "master-buildd.service", "archived.service", "maild.service"}
	for _, a := range p.archs() {
		if slices.ContainsFunc(p.settings.Builders, func(b control.Builder) bool {
			return slices.Contains(b.Architectures, a) && b.Host == ""
		}) {
			names = append(names, "buildd@"+a+".service")
		}
	}
	if exec.CommandContext(p.ctx, "systemctl", "is-enabled", "--quiet", "statusd.service").Run() == nil {
		names = append(names, "statusd.socket", "statusd.service")
	}
	for _, name := range names {
		unit, err := setup.ReadUnit(p.ctx, name)
		if err != nil {
			p.warn(name, "look with: systemctl status "+name, "systemd does not tell of it: %v", err)
			continue
		}
		switch why := "see why: journalctl -u " + name; {
		case unit.Runs():
		case unit.Repeats():
			p.error(name, why, "it ends and is started again and again")
		case unit.Active == "activating":
			p.warn(name, why, "it is starting")
		case unit.Active == "failed":
			p.error(name, why+"; then: systemctl restart "+name, "it has failed")
		case unit.Job:
			p.warn(name, "see what it waits for: systemctl list-jobs", "it does not run yet: systemd starts it after something else")
		default:
			p.error(name, "systemctl enable --now "+name+"; where that starts nothing, journalctl -u "+name+" says why",
				"it does not run")
		}
	}
}

// daemons asks the builders' own notes, where no systemd tells.
func (p *patient) daemons() {
	entries, err := builders.Read(filepath.Join(p.Tree, spool.BuildersDir))
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.Refuses != "" {
			p.warn(e.Daemon, "packmill status says more", "it takes nothing now: %s", e.Refuses)
		}
	}
}

// sshd looks whether uploads can come in.
func (p *patient) sshd() {
	if !slices.ContainsFunc(p.settings.Uploaders, func(u control.Uploader) bool { return u.Account != "" }) {
		return
	}
	if root, known := p.sshdChroot(); !known {
		p.error("sshd", "packmill setup --sshd, or copy packmill.conf to /etc/ssh/sshd_config.d and reload ssh",
			"its settings do not know the group packmill-upload, so uploaders have a shell or nothing")
	} else if here := filepath.Join(p.Tree, "spool"); root != "" && filepath.Clean(root) != here {
		p.error("sshd", "write ChrootDirectory "+here+" there and reload ssh",
			"uploads go to %s, which is not of this tree", root)
	}
	// sshd drops the connection where others can write above the chroot.
	for dir := filepath.Join(p.Tree, "spool"); ; dir = filepath.Dir(dir) {
		st, err := os.Stat(dir)
		if err != nil {
			return
		}
		if sys := st.Sys().(*syscall.Stat_t); sys.Uid != 0 || st.Mode()&0o022 != 0 {
			p.error("sshd", "chown root "+dir+" && chmod go-w "+dir,
				"%s can be written by others than root, and sshd takes no chroot below it", dir)
		}
		if dir == "/" {
			return
		}
	}
}

// sshdChroot is where sshd's settings send uploaders, and whether they know them: what a comment says does not count,
// nor a fragment that they do not include.
func (p *patient) sshdChroot() (root string, known bool) {
	lines := func(path string) (out [][]string) {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		for l := range strings.Lines(string(data)) {
			if w := strings.Fields(l); len(w) > 0 && !strings.HasPrefix(w[0], "#") {
				out = append(out, w)
			}
		}
		return out
	}
	var all [][]string
	for _, w := range lines(p.file("/etc/ssh/sshd_config")) {
		if !strings.EqualFold(w[0], "Include") {
			all = append(all, w)
			continue
		}
		for _, pattern := range w[1:] {
			if !filepath.IsAbs(pattern) {
				pattern = "/etc/ssh/" + pattern
			}
			fragments, _ := filepath.Glob(p.file(pattern))
			for _, f := range fragments {
				all = append(all, lines(f)...)
			}
		}
	}
	inside := false
	for _, w := range all {
		switch {
		case strings.EqualFold(w[0], "Match"):
			inside = strings.Join(w[1:], " ") == "Group "+uploadGroup
			known = known || inside
		case inside && strings.EqualFold(w[0], "ChrootDirectory") && len(w) > 1:
			root = w[1]
		}
	}
	return root, known
}

// mirrors asks for the Release file of each line of Base, each once.
func (p *patient) mirrors() {
	if p.Offline {
		return
	}
	releases := map[string][]byte{} // by address
	for i := range p.settings.Suites {
		s := &p.settings.Suites[i]
		for _, line := range s.Base {
			url := releaseURL(line)
			if url == "" {
				continue
			}
			if _, known := releases[url]; !known {
				status, text, err := p.get(url)
				if err != nil {
					p.error("suite "+s.Name, "look at the network, or write another mirror into Base", "Base: %v", err)
				} else if status != http.StatusOK {
					p.error("suite "+s.Name, "look for a slip in Base", "Base: %s answers %d", url, status)
					text = nil
				}
				releases[url] = text
			}
			p.release(s, line, url, releases[url])
		}
	}
}

// release compares a line of Base with what the mirror says that it has.
func (p *patient) release(s *control.Suite, line, url string, text []byte) {
	field := func(name string) []string {
		for l := range strings.Lines(string(text)) {
			if v, ok := strings.CutPrefix(l, name+":"); ok {
				return strings.Fields(v)
			}
		}
		return nil
	}
	w := aptWords(line)
	if has := field("Components"); len(has) > 0 {
		for _, c := range w[3:] {
			// Security's are called updates/main, and apt asks for main.
			if !slices.ContainsFunc(has, func(h string) bool { return h == c || strings.HasSuffix(h, "/"+c) }) {
				p.error("suite "+s.Name, "write one of these: "+strings.Join(has, " "), "Base: %s has no component %s", url, c)
			}
		}
	}
	if has := field("Architectures"); len(has) > 0 {
		for _, a := range s.Architectures {
			if !slices.Contains(has, a) && isFor(line, a) {
				p.error("suite "+s.Name, "take another mirror, or [arch=...] where another line has it",
					"Base: %s has nothing for %s", url, a)
			}
		}
	}
}

// archOption is the option of an apt line that says which architectures it is for.
var archOption = regexp.MustCompile(`\[[^]]*\barch(\+?-?)=([^]\s]*)`)

// isFor reports whether an apt line is for the architecture; of arch+= and arch-= apt's settings know that alone.
func isFor(line, arch string) bool {
	option := archOption.FindStringSubmatch(line)
	return option == nil || option[1] == "" && slices.Contains(strings.Split(option[2], ","), arch)
}

// aptWords are the words of an apt line without its options.
func aptWords(line string) []string {
	return slices.DeleteFunc(strings.Fields(line), func(s string) bool { return strings.ContainsAny(s, "[]=") })
}

// releaseURL is where the line's InRelease is, if that is http.
func releaseURL(line string) string {
	w := aptWords(line)
	if len(w) < 3 || !strings.HasPrefix(w[1], "http://") && !strings.HasPrefix(w[1], "https://") {
		return ""
	}
	if strings.HasSuffix(w[2], "/") {
		return strings.TrimSuffix(w[1], "/") + "/" + w[2] + "InRelease"
	}
	return strings.TrimSuffix(w[1], "/") + "/dists/" + w[2] + "/InRelease"
}

// get asks for an address, and returns how the answer begins.
func (p *patient) get(url string) (status int, text []byte, err error) {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	text, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, text, err
}

// web asks the web server as a client does, and as a stranger.
func (p *patient) web() {
	if p.URL == "" || p.Offline {
		return
	}
	base := strings.TrimSuffix(p.URL, "/")
	for i := range p.settings.Suites {
		s := &p.settings.Suites[i]
		path := filepath.Join(p.Tree, "archive/dists", s.Name, "InRelease")
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue // nothing is published yet
		}
		url := fmt.Sprintf("%s/dists/%s/InRelease", base, s.Name)
		if status, _, err := p.get(url); err != nil {
			p.error("web", "start the web server, with archive/ of the tree as its root", "%v", err)
			return
		} else if status != http.StatusOK {
			p.error("web", "let its root be "+filepath.Join(p.Tree, "archive"), "%s answers %d", url, status)
		}
	}
	for _, inner := range []string{"/incoming/", "//incoming/", "/installed/", "/cache/"} {
		if status, _, err := p.get(base + inner); err == nil && status == http.StatusOK {
			p.error("web", "take over the locations of the nginx or Caddy example; packmill init --users closes the directory",
				"%s%s is shown to everybody", base, inner)
		}
	}
}
