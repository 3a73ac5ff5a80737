//go:build system

package distribution

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"packmill/internal/openpgp"
	"packmill/queue/buildlog"
	"packmill/queue/runner"
	"packmill/spool"
)

// mill is the tree with its settings and its daemons.
type mill struct {
	tree     string
	chroots  *runner.Chroots
	gnupg    string // the uploader's
	signer   string // fingerprint of the uploader's key
	stopping sync.Once
	stopped  chan struct{}
	running  sync.WaitGroup
}

// uploader is who signs.
const uploader = "Test Uploader <uploader@example.org>"

// newMill opens the tree, or makes it, with keys and settings.
func newMill(d *distribution) *mill {
	m := &mill{tree: filepath.Join(d.dir, "tree"), gnupg: filepath.Join(d.dir, "gnupg"), stopped: make(chan struct{}),
		chroots: &runner.Chroots{Dir: filepath.Join(d.dir, "chroots"), User: spool.UserBuild}}
	sysusers, err := filepath.Abs("../../../../scripts/systemd/packmill.sysusers")
	d.must(err)
	d.sh("/", "systemd-sysusers", sysusers)
	packmill := filepath.Join(bin, "packmill")
	d.sh("/", packmill, "init", "--tree", m.tree)
	d.must(os.MkdirAll(m.chroots.Dir, 0o755))
	account := credential(d, spool.UserBuild)
	d.must(os.Chown(m.chroots.Dir, int(account.Uid), int(account.Gid)))
	keys := map[string]string{}
	for name, who := range map[string]string{"builder": spool.UserBuild, "archive": spool.UserArchive} {
		keys[name] = m.key(d, name, credential(d, who))
	}
	m.signer = m.uploaderKey(d)
	base, err := runner.SystemBase()
	d.must(err)
	for name, text := range map[string]string{
		"suites": fmt.Sprintf("Suite: %s\nLabel: Distribution\nArchitectures: amd64\nReview: never\nBase: %s\n"+
			"Sign-With: private/archive.key\nChecks: dsc-key=remark, date-old=off\n", suite, base[0]),
		"uploaders": "Name: Test Uploader\nEmail: uploader@example.org\nFingerprint: " + m.signer + "\n",
		"builders": fmt.Sprintf("Name: b1\nArchitectures: amd64 all\nRunner: overlay\nFingerprint: %s\n"+
			"Key: private/builder.key\nJobs: %d\nChroots: %s\nChroot-Age: 365d\nTimeout: 1h\nLayers: 16G\n", keys["builder"],
			*jobs, m.chroots.Dir),
	} {
		d.must(os.WriteFile(filepath.Join(m.tree, "control", name), []byte(text), 0o644))
	}
	d.sh("/", packmill, "init", "--tree", m.tree, "--users")
	return m
}

// key is the fingerprint of a daemon's key, which is made if there is none.
func (m *mill) key(d *distribution, name string, of *syscall.Credential) string {
	public := filepath.Join(m.tree, "control/keys", name+".asc")
	if _, err := os.Stat(public); err != nil {
		s, err := openpgp.Generate(name, name+"@example.org", time.Now().Add(-time.Hour))
		d.must(err)
		secret := filepath.Join(m.tree, "control/private", name+".key")
		d.must(os.WriteFile(secret, s.Secret(), 0o600))
		d.must(os.Chown(secret, int(of.Uid), int(of.Gid)))
		d.must(os.WriteFile(public, s.Public(), 0o644))
	}
	return fingerprint(d.sh("/", "gpg", "--batch", "--with-colons", "--show-keys", public))
}

// uploaderKey is a key of gpg's.
func (m *mill) uploaderKey(d *distribution) string {
	d.must(os.MkdirAll(m.gnupg, 0o700))
	d.must(os.Setenv("GNUPGHOME", m.gnupg))
	d.Cleanup(func() { run("/", "gpgconf", "--kill", "all") })
	public := filepath.Join(m.tree, "control/keys/uploader.asc")
	if _, err := os.Stat(public); err != nil {
		d.sh("/", "gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", uploader, "ed25519", "sign", "never")
		d.must(os.WriteFile(public, []byte(d.sh("/", "gpg", "--batch", "--armor", "--export", uploader)), 0o644))
	}
	return fingerprint(d.sh("/", "gpg", "--batch", "--with-colons", "--show-keys", public))
}

// fingerprint is the first in gpg's words.
func fingerprint(colons string) string {
	for line := range strings.Lines(colons) {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			return f[9]
		}
	}
	return ""
}

// credential is an account, with the group that its unit names.
func credential(d *distribution, name string) *syscall.Credential {
	d.Helper()
	u, err := user.Lookup(name)
	d.must(err)
	number := func(s string) uint32 {
		n, err := strconv.ParseUint(s, 10, 32)
		d.must(err)
		return uint32(n)
	}
	c := &syscall.Credential{Uid: number(u.Uid), Gid: number(u.Gid)}
	groups, err := u.GroupIds()
	d.must(err)
	for _, g := range groups {
		c.Groups = append(c.Groups, number(g))
	}
	if strings.HasPrefix(name, "packmill-") && name != spool.UserBuild {
		all, err := user.LookupGroup(spool.GroupAll)
		d.must(err)
		c.Gid = number(all.Gid)
	}
	return c
}

// daemons starts all, each as its account, until stop; what they say is kept.
func (d *distribution) daemons() {
	d.Cleanup(d.stop)
	for _, x := range []struct{ name, account, args string }{
		{"archived", spool.UserArchive, ""}, {"reviewd", spool.UserReview, ""}, {"master-buildd", spool.UserMaster, ""},
		{"buildd", spool.UserBuild, "--builder b1"},
	} {
		log, err := os.OpenFile(filepath.Join(d.dir, x.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		d.must(err)
		who := credential(d, x.account)
		d.running.Go(func() {
			defer log.Close()
			runtime.LockOSThread() // the daemon ends with it
			for {
				cmd := exec.Command(filepath.Join(bin, x.name), append([]string{"--tree", d.tree}, strings.Fields(x.args)...)...)
				cmd.Dir, cmd.Env, cmd.Stderr = "/", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent"}, log
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who, Pdeathsig: syscall.SIGTERM, Setpgid: true}
				if err := cmd.Start(); err != nil {
					d.Errorf("%s: %v", x.name, err)
					return
				}
				ended := make(chan error, 1)
				go func() { ended <- cmd.Wait() }()
				select {
				case <-d.stopped:
					cmd.Process.Signal(syscall.SIGTERM)
					<-ended
					return
				case err := <-ended:
					d.Errorf("%s ended: %v, see %s", x.name, err, log.Name())
					time.Sleep(time.Second) // and again, as its unit does
				}
			}
		})
	}
}

// stop ends the daemons.
func (d *distribution) stop() {
	d.stopping.Do(func() { close(d.stopped) })
	d.running.Wait()
}

func (d *distribution) packmill(args ...string) (string, error) {
	return run("/", filepath.Join(bin, "packmill"), append([]string{"--tree", d.tree}, args...)...)
}

func (d *distribution) fsck() {
	if out, err := d.packmill("fsck"); err != nil {
		d.Errorf("fsck: %v\n%s", err, out)
	}
}

// outcome is what has become of a source.
type outcome struct {
	source        *source
	states        map[string]string // of the first version, by architecture and "source"
	rebuilt       map[string]string // of +b1
	first, second *ending
	plain         *plainBuild
	bits          []bits
	install       string
}

// twice reports whether it is to be built once more: Debian has no binNMU of packages for all architectures, nor have we.
func (o *outcome) twice() bool { return o.states["amd64"] == spool.Installed.Name }

// ending is where something has come to rest.
type ending struct{ published bool }

// look finds out where everything is.
func (d *distribution) look() (moving int) {
	d.Helper()
	t, err := spool.Open(d.tree)
	d.must(err)
	found, err := t.Find("")
	d.must(err)
	for _, s := range d.chosen {
		d.results[s.name] = &outcome{source: s, states: map[string]string{}, rebuilt: map[string]string{}}
	}
	for _, f := range found {
		o := d.results[f.Name.Source]
		if o == nil {
			continue
		}
		arch := f.Arch()
		if arch == "" {
			arch = spool.SourceArch
		}
		// A binNMU has the name of what it is of, and says what it is in its ticket.
		states := o.states
		if ticket, err := os.ReadFile(filepath.Join(d.tree, f.Dir(), spool.TicketFile)); err != nil {
			moving++ // it has moved meanwhile, and is nowhere
			continue
		} else if strings.Contains(string(ticket), "\nBinary-NMU: ") {
			states = o.rebuilt
		}
		if f.Name.Version == o.source.version {
			states[arch] = f.Place.State.Name
		}
		if s := f.Place.State; !s.Is(spool.Settled) && !waits(s) && s != spool.Master && s != spool.Rejected || s == spool.Uploaded {
			moving++
		}
	}
	for _, o := range d.results {
		o.first, o.second = rest(o.states), rest(o.rebuilt)
	}
	return moving
}

// waits reports whether a job is there until something else comes.
func waits(s spool.State) bool { return s == spool.DepWait || s == spool.BDUninstallable }

// rest is where a version has come to rest; nil: nowhere yet, or it does not exist.
func rest(states map[string]string) *ending {
	if len(states) == 0 {
		return nil
	}
	e := &ending{published: true}
	for _, name := range states {
		switch s := spool.Standard.Named(name); {
		case s == spool.Installed || s == spool.AutoNotForUs:
		case s.Is(spool.Settled) && s != spool.Uploaded || waits(s) || s == spool.Rejected || s == spool.Master:
			e.published = false
		default:
			return nil
		}
	}
	if len(states) == 1 && states[spool.SourceArch] == spool.Master.Name {
		return nil // no job yet
	}
	return e
}

// patience is how long nothing may move while something has not ended.
const patience = 20 * time.Minute

// settle waits until all have ended, or nothing has moved for a while and what is left waits for what will not come.
func (d *distribution) settle(what string, ended func(*outcome) bool) {
	d.Helper()
	quiet, told := time.Now(), -1
	for {
		moving, done, whole := d.look(), 0, true
		for _, o := range d.results {
			if ended(o) {
				done++
			}
			for _, states := range []map[string]string{o.states, o.rebuilt} {
				for _, s := range states {
					whole = whole && (s == spool.Installed.Name || s == spool.AutoNotForUs.Name || s == spool.Rejected.Name)
				}
			}
		}
		if done != told {
			d.say("%d of %d %s", done, len(d.chosen), what)
			told = done
		}
		if moving > 0 {
			quiet = time.Now()
		}
		// master-buildd looks at what waits after each publication, and asks dose.
		still := time.Since(quiet)
		if done == len(d.chosen) && moving == 0 && (whole || still > time.Minute) || still > patience || d.over() {
			return
		}
		time.Sleep(3 * time.Second)
	}
}

// again asks for everything of an architecture once more, against what there is now.
func (d *distribution) again() {
	d.Helper()
	var orders strings.Builder
	for _, s := range d.chosen {
		o := d.results[s.name]
		if o.twice() && len(o.rebuilt) == 0 {
			fmt.Fprintf(&orders, "nmu %s . amd64 . -m 'Rebuild against itself'\n", s.name)
		}
	}
	if orders.Len() == 0 || d.over() {
		return
	}
	path := filepath.Join(d.dir, "orders")
	d.must(os.WriteFile(path, []byte(orders.String()), 0o644))
	if out, err := d.packmill("wb", "--file", path); err != nil {
		d.Fatalf("%v\n%s", err, out)
	}
}

// builds is what the tree remembers of builds.
func (d *distribution) builds() (all []buildlog.Build) {
	d.Helper()
	out, err := d.packmill("log", "ls", "--since", "365d", "--json")
	d.must(err)
	for line := range strings.Lines(out) {
		var b buildlog.Build
		if json.Unmarshal([]byte(line), &b) == nil && b.Source != "" {
			all = append(all, b)
		}
	}
	return all
}
