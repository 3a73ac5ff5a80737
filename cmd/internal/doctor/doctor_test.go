package doctor

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"packmill/internal/openpgp"
	"packmill/spool"
)

// server is a tree with good settings, and a machine that is fit for it.
type server struct {
	*testing.T
	tree, root               string
	archive, builder, person *openpgp.Signer
	mirror                   *httptest.Server
	url                      string
	now                      time.Time
}

func (s *server) write(path, text string) {
	s.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.Fatal(err)
	}
	mode := os.FileMode(0o755)
	if strings.Contains(path, "/private/") {
		mode = 0o600
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		s.Fatal(err)
	}
}

func (s *server) control(name, text string) { s.write(filepath.Join(s.tree, "control", name), text) }
func (s *server) machine(name, text string) { s.write(filepath.Join(s.root, name), text) }

// change replaces text of a file of control; that it is there is part of the test.
func (s *server) change(name, old, new string) {
	s.Helper()
	path := filepath.Join(s.tree, "control", name)
	data, err := os.ReadFile(path)
	if err != nil {
		s.Fatal(err)
	}
	if !strings.Contains(string(data), old) {
		s.Fatalf("%s has no %q", name, old)
	}
	s.control(name, strings.Replace(string(data), old, new, 1))
}

func (s *server) remove(path string) {
	s.Helper()
	if err := os.RemoveAll(path); err != nil {
		s.Fatal(err)
	}
}

// owned gives files of the tree away, as a tree with accounts has them.
func (s *server) owned(uid int, names ...string) {
	for _, name := range names {
		if err := os.Lchown(filepath.Join(s.tree, name), uid, uid); err != nil {
			s.Skip("only root can give files away")
		}
	}
}

func (s *server) key(name string, at time.Time) *openpgp.Signer {
	s.Helper()
	k, err := openpgp.Generate(name, name+"@packmill.invalid", at)
	if err != nil {
		s.Fatal(err)
	}
	return k
}

func good(t *testing.T) *server {
	// The temporary directory may lie in memory, which is no place for a tree.
	disk, err := os.MkdirTemp("/var/tmp", "doctor-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(disk) })
	s := &server{T: t, tree: disk, root: t.TempDir(), now: time.Now()}
	if _, err := spool.Init(s.tree); err != nil {
		t.Fatal(err)
	}
	s.mirror = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/debian/dists/bookworm/InRelease" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nArchitectures: all amd64\n"+
			"Components: updates/main updates/contrib\nSHA256:\n 00 1 main/binary-amd64/Packages\n")
	}))
	t.Cleanup(s.mirror.Close)
	s.archive, s.builder, s.person = s.key("archive", s.now), s.key("builder", s.now), s.key("person", s.now)
	s.control("private/archive.key", string(s.archive.Secret()))
	s.control("private/builder.key", string(s.builder.Secret()))
	s.control("keys/builder.asc", string(s.builder.Public()))
	s.control("keys/person.asc", string(s.person.Public()))
	s.control("suites", "Suite: stable\nArchitectures: amd64\nSign-With: private/archive.key\nBase: deb "+s.mirror.URL+"/debian bookworm main\n")
	s.machine("build", "#!/bin/sh\n")
	s.control("builders",
		"Name: b1\nArchitectures: amd64 all\nRunner: exec "+filepath.Join(s.root,
			"build")+"\nKey: private/builder.key\nFingerprint: "+s.builder.Fingerprint()+"\n")
	s.control("uploaders", "Name: ann\nFingerprint: "+s.person.Fingerprint()+"\nAllow: source, suites=stable\n")
	s.control("notify", "Event: *\nTo: signer\nFrom: Archive <archive@packmill.invalid>\n")
	s.machine("usr/sbin/sendmail", "#!/bin/sh\n")
	for _, program := range []string{"dose-builddebcheck", "dose-debcheck", "gpgv", "dpkg-source", "sbuild", "mmdebstrap",
		"newuidmap"} {
		s.machine("usr/sbin/"+program, "#!/bin/sh\n")
	}
	s.machine("etc/subuid", "nobody:100000:65536\n")
	s.machine("etc/subgid", "nobody:100000:65536\n")
	return s
}

// chrooted makes the builder one that needs chroots and an account for them.
func (s *server) chrooted() {
	s.change("builders", "Runner: exec "+filepath.Join(s.root, "build"),
		"Runner: overlay\nUser: nobody\nChroots: "+filepath.Join(s.root, "chroots"))
}

// cluster makes the builder one whose jobs are Slurm's.
func (s *server) cluster() {
	s.change("builders", "Runner: exec "+filepath.Join(s.root, "build"), "Runner: slurm\nShared: /jobs")
	s.Setenv("SLURM_CONF", filepath.Join(s.root, "slurm.conf"))
}

func (s *server) look() []Finding {
	return Look(s.Context(), Options{Tree: s.tree, Root: s.root, Now: s.now, URL: s.url})
}

// A machine without Packmill has no accounts of it.
func init() {
	lookup = func(name string) (*user.User, error) {
		u, err := user.Lookup(name)
		if err != nil && name == spool.UserMail {
			return &user.User{Uid: "64002", Gid: "64002", Username: name}, nil
		}
		return u, err
	}
}

func TestGood(t *testing.T) {
	s := good(t)
	for _, f := range s.look() {
		if f.Check != "clock" { // the machine's own
			t.Errorf("a good server: %v", f)
		}
	}
}

// TestArchOption: a line is for what its option says, and an archive's address is none (sources.list(5)).
func TestArchOption(t *testing.T) {
	for line, want := range map[string]bool{
		"deb http://archive.example/ sid main":                               true,
		"deb http://arch=i386.example/ sid main":                             true,
		"deb [arch=amd64] http://mirror.example/ sid main":                   false,
		"deb [trusted=yes arch=amd64,riscv64] http://mirror.example/ s main": true,
		"deb [ arch=riscv64 ] http://mirror.example/ sid main":               true,
		"deb [arch-=riscv64] http://mirror.example/ sid main":                false,
	} {
		if isFor(line, "riscv64") != want {
			t.Errorf("%s: is it for riscv64? want %v", line, want)
		}
	}
}

// TestBroken breaks one thing of a good server at a time.
func TestBroken(t *testing.T) {
	elsewhere := strings.Repeat("AB", 20)
	rows := []struct {
		name  string
		make  func(*server)
		check string
		want  string // of the finding
	}{
		{"settings refused", func(s *server) { s.change("suites", "Suite:", "Siute:") }, "settings", "Siute"},
		{"two faults in them", func(s *server) {
			s.change("suites", "amd64", "amd64 all")
			s.change("notify", "Event: *", "Event: party")
		}, "settings", "party"},
		{"no suite", func(s *server) { s.control("suites", "") }, "suites", "there is no suite"},
		{"no Base", func(s *server) {
			s.chrooted()
			s.change("suites", "Base: deb "+s.mirror.URL+"/debian bookworm main\n", "")
		}, "suites", "it has no Base"},
		{"Base without a component", func(s *server) {
			s.change("suites", "bookworm main", "bookworm")
		}, "suites", "which apt does not take"},
		{"Base of deb-src", func(s *server) {
			s.change("suites", "Base: deb ", "Base: deb-src ")
		}, "suites", "which apt does not take"},
		{"no Override file", func(s *server) {
			s.control("suites", read(s, "suites")+"Override: override\n")
		}, "suites", "override does not exist"},
		{"a slip in Base", func(s *server) {
			s.change("suites", "bookworm main", "bookwrom main")
		}, "mirrors", "answers 404"},
		{"a mirror that is down", func(s *server) { s.mirror.Close() }, "mirrors", "connection refused"},
		{"a cluster without its directory", func(s *server) { s.cluster() }, "clusters", "jobs is no directory"},
		{"a cluster's directory that is open", func(s *server) {
			s.cluster()
			if err := errors.Join(os.MkdirAll(filepath.Join(s.root, "jobs"), 0o755), os.Chmod(filepath.Join(s.root, "jobs"), 0o777)); err != nil {
				s.Fatal(err)
			}
		}, "clusters", "others can write"},
		{"a cluster that this machine does not know", func(s *server) { s.cluster() }, "clusters", "sinfo"},
		{"no Sign-With", func(s *server) {
			s.change("suites", "Sign-With: private/archive.key\n", "")
		}, "archive-keys", "it has no Sign-With"},
		{"no key file", func(s *server) {
			s.remove(filepath.Join(s.tree, "control/private/archive.key"))
		}, "archive-keys", "archive.key does not exist"},
		{"key file is a directory", func(s *server) {
			s.change("suites", "private/archive.key", "private")
		}, "archive-keys", "is no plain file"},
		{"key file holds none", func(s *server) {
			s.control("private/archive.key", "nothing\n")
		}, "archive-keys", "Sign-With: "},
		{"a public key to sign with", func(s *server) {
			s.control("private/archive.key", string(s.archive.Public()))
		}, "archive-keys", "Sign-With: "},
		{"a key that others can read", func(s *server) {
			if err := os.Chmod(filepath.Join(s.tree, "control/private/archive.key"), 0o644); err != nil {
				s.Fatal(err)
			}
		}, "archive-keys", "lets others at it"},
		{"a key that ends soon", func(s *server) {
			s.control("private/archive.key", s.gpgKey("10d"))
		}, "archive-keys", "expires on"},
		{"no usign key", func(s *server) {
			s.control("suites", read(s, "suites")+"Opkg-Key: private/feed.sec\n")
		}, "archive-keys", "feed.sec does not exist"},
		{"a usign key that is none", func(s *server) {
			s.control("suites", read(s, "suites")+"Opkg-Key: private/archive.key\n")
		}, "archive-keys", "Opkg-Key: "},
		{"a key of the time to come", func(s *server) {
			s.control("private/archive.key", string(s.key("late", s.now.Add(48*time.Hour)).Secret()))
		}, "archive-keys", "makes no signatures that count"},
		{"no builder", func(s *server) { s.control("builders", "") }, "coverage", "no builder builds amd64"},
		{"nobody for all", func(s *server) {
			s.change("builders", "amd64 all", "amd64")
		}, "coverage", "no builder builds all"},
		{"an architecture that nobody builds", func(s *server) {
			s.change("suites", "amd64", "amd64 riscv64")
		}, "coverage", "no builder builds riscv64"},
		{"a suite that no builder builds", func(s *server) {
			s.control("suites", read(s, "suites")+"\nSuite: testing\nArchitectures: amd64\nSign-With: private/archive.key\n")
			s.control("builders", read(s, "builders")+"Suites: stable\n")
		}, "coverage", "no builder builds amd64 for it"},
		{"a builder of another suite", func(s *server) { s.control("builders", read(s, "builders")+"Suites: stabel\n") }, "builders", `there is no suite "stabel"`},
		{"a builder of another architecture", func(s *server) {
			s.change("builders", "amd64 all", "amd64 all arm64")
		}, "builders", "no suite is built for arm64"},
		{"no Key", func(s *server) {
			s.change("builders", "Key: private/builder.key\n", "")
		}, "builders", "nobody signs what it builds"},
		{"no file of Key", func(s *server) {
			s.remove(filepath.Join(s.tree, "control/private/builder.key"))
		}, "builders", "builder.key does not exist"},
		{"no Fingerprint", func(s *server) {
			s.change("builders", "Fingerprint: "+s.builder.Fingerprint()+"\n", "")
		}, "builders", "it has no Fingerprint"},
		{"another's Fingerprint", func(s *server) {
			s.change("builders", s.builder.Fingerprint(), s.person.Fingerprint())
		}, "builders", "has another"},
		{"a Fingerprint without its key", func(s *server) {
			s.remove(filepath.Join(s.tree, "control/keys/builder.asc"))
		}, "builders", "has no key"},
		{"agent's key and another Fingerprint", func(s *server) {
			s.change("builders", "private/builder.key", "gpg:"+elsewhere)
		}, "builders", "Key is gpg:" + elsewhere},
		{"a program that is not there", func(s *server) {
			s.remove(filepath.Join(s.root, "build"))
		}, "builders", "cannot be run"},
		{"a program that is no program", func(s *server) {
			if err := os.Chmod(filepath.Join(s.root, "build"), 0o644); err != nil {
				s.Fatal(err)
			}
		}, "builders", "cannot be run"},
		{"an account that is not there", func(s *server) {
			s.control("builders", read(s, "builders")+"User: packmill-nobody\n")
		}, "builders", "there is no account packmill-nobody"},
		{"no uploader", func(s *server) { s.control("uploaders", "") }, "uploaders", "nobody may upload"},
		{"an uploader without a key", func(s *server) {
			s.remove(filepath.Join(s.tree, "control/keys/person.asc"))
		}, "uploaders", "has no key"},
		{"a key file that is none", func(s *server) {
			s.control("keys/person.asc", "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nxx\n")
		}, "uploaders", "control/keys"},
		{"an uploader of another suite", func(s *server) {
			s.change("uploaders", "suites=stable", "suites=stabel")
		}, "uploaders", "suites=stabel"},
		{"an uploader of another component", func(s *server) {
			s.change("uploaders", "suites=stable", "components=contirb")
		}, "uploaders", "components=contirb"},
		{"a signer of another architecture", func(s *server) {
			s.change("uploaders", "suites=stable", "sign=amd46")
		}, "uploaders", "no suite is built for amd46"},
		{"an account without an account", func(s *server) {
			s.control("uploaders", read(s, "uploaders")+"\nName: robot\nAccount: packmill-robot\n")
		}, "uploaders", "there is no account packmill-robot"},
		{"an account without a directory", func(s *server) {
			s.control("uploaders", read(s, "uploaders")+"\nName: robot\nAccount: nobody\n")
		}, "uploaders", "has no directory"},
		{"nobody is told", func(s *server) { s.control("notify", "") }, "notify", "nobody hears"},
		{"no From", func(s *server) {
			s.change("notify", "From: Archive <archive@packmill.invalid>\n", "")
		}, "notify", "it has no From"},
		{"no mail system", func(s *server) {
			s.remove(filepath.Join(s.root, "usr/sbin/sendmail"))
		}, "notify", "to send mail with"},
		{"a directory of an account that is another's", func(s *server) {
			dir := filepath.Join(s.tree, "spool/incoming/robot")
			if err := os.Mkdir(dir, 0o755); err != nil {
				s.Fatal(err)
			}
			if err := os.Lchown(dir, 64003, 64003); err != nil {
				s.Skip("only root can give a directory away")
			}
		}, "drops", "does not belong to it"},
		{"letters that nobody hands on", func(s *server) {
			s.write(filepath.Join(s.tree, spool.LettersDir, "letter"), "")
			s.now = s.now.Add(time.Hour)
		}, "letters", "1 letters wait"},
		{"no subordinate users", func(s *server) { s.chrooted(); s.machine("etc/subuid", "somebody:100000:65536\n") }, "ids",
			"/etc/subuid gives it no 65536 ids"},
		{"few subordinate groups", func(s *server) { s.chrooted(); s.machine("etc/subgid", "nobody:100000:1000\n") }, "ids",
			"/etc/subgid gives it no 65536 ids"},
		{"few ids for its jobs", func(s *server) {
			s.chrooted()
			s.control("builders", strings.Replace(read(s, "builders"), "Name: ", "Jobs: 3\nName: ", 1))
		}, "ids", "/etc/subuid gives it 1 times 65536 ids, and each of the 3 builds"},
		{"no user namespaces", func(s *server) { s.chrooted(); s.machine("proc/sys/user/max_user_namespaces", "0\n") },
			"namespaces", "builds get no user namespace"},
		{"none without privileges",
			func(s *server) {
				s.chrooted()
				s.machine("proc/sys/kernel/unprivileged_userns_clone",
					"0\n")
			}, "namespaces", "builds get no user namespace"},
		{"AppArmor's limit", func(s *server) {
			s.chrooted()
			s.machine("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n")
		}, "namespaces", "builds get no user namespace"},
		{"no chroot", func(s *server) { s.chrooted() }, "chroots", "the first build makes it"},
		{"a full disk", func(s *server) { s.control("general", "Reserve: 1000000G\n") }, "room", "are free"},
		{"an Override that is none", func(s *server) {
			s.control("suites", read(s, "suites")+"Override: override\n")
			s.control("override", "hello\n")
		}, "suites", "Override: "},
		{"a component that the mirror has not", func(s *server) {
			s.change("suites", "bookworm main", "bookworm mian")
		}, "mirrors", "has no component mian"},
		{"an architecture that the mirror has not", func(s *server) {
			s.change("suites", "amd64", "amd64 riscv64")
		}, "mirrors", "has nothing for riscv64"},
		{"an architecture that no mirror's line is for", func(s *server) {
			s.change("suites", "amd64", "amd64 riscv64")
			s.change("suites", "deb http", "deb [trusted=yes arch=amd64,riscv64] http")
		}, "mirrors", "has nothing for riscv64"},
		{"a builder that is paused", func(s *server) {
			s.control("builders", read(s, "builders")+"Takes: no\n")
		}, "coverage", "takes nothing"},
		{"a builder that is always quiet", func(s *server) {
			s.control("builders", read(s, "builders")+"Quiet: 00:00-12:00 12:00-00:00\n")
		}, "builders", "all day"},
		{"a component that nobody builds", func(s *server) {
			s.control("suites", read(s, "suites")+"Components: main contrib\n")
			s.control("builders", read(s, "builders")+"Components: main\n")
		}, "coverage", "component contrib"},
		{"builders of some packages alone", func(s *server) {
			s.control("builders", read(s, "builders")+"Packages: lib*\n")
		}, "coverage", "Packages"},
		{"a schroot in a suite without a network", func(s *server) {
			s.change("builders", "Runner: exec "+filepath.Join(s.root, "build"), "Runner: sbuild\nUser: nobody\nChroot-Mode: schroot")
		}, "coverage", "Build-Network"},
		{"logs that nobody may judge", func(s *server) {
			s.control("suites", read(s, "suites")+"Log-Review: manual\n")
		}, "signers", "nobody may sign what is built for amd64"},
		{"logs that nobody is shown", func(s *server) {
			s.control("suites", read(s, "suites")+"Log-Review: manual\n")
			s.change("uploaders", "Allow: source", "Allow: source, sign=amd64 all")
			s.change("notify", "Event: *", "Event: published")
		}, "signers", "Event: log"},
		{"two persons in a tree of one", func(s *server) {
			s.owned(64003, "queue", "spool")
			s.control("general", "Two-Persons: yes\n")
		}, "reviewers", "Two-Persons"},
		{"nobody who reviews", func(s *server) {
			s.owned(64003, "queue")
			s.machine("etc/group", "packmill-review:x:990:\n")
		}, "reviewers", "nobody is in the group packmill-review"},
		{"one who reviews where two must", func(s *server) {
			s.owned(64003, "queue")
			s.machine("etc/group", "packmill-review:x:990:rita\n")
			s.control("general", "Two-Persons: yes\n")
		}, "reviewers", "Two-Persons: yes, and of the group packmill-review there is rita alone"},
		{"an uploader of a codename", func(s *server) {
			s.control("suites", read(s, "suites")+"Codename: bookworm\n")
			s.change("uploaders", "suites=stable", "suites=bookworm")
		}, "uploaders", "another name of the suite stable"},
		{"a builder of a codename", func(s *server) {
			s.control("suites", read(s, "suites")+"Codename: bookworm\n")
			s.control("builders", read(s, "builders")+"Suites: bookworm\n")
		}, "builders", "another name of the suite stable"},
		{"a key of an uploader that ended", func(s *server) {
			s.control("keys/person.asc", string(s.key("late", s.now.Add(48*time.Hour)).Public()))
		}, "uploaders", "has no key"},
		{"a key that the agent has not", func(s *server) {
			s.Setenv("GNUPGHOME", s.root)
			s.change("suites", "private/archive.key", "gpg:"+elsewhere)
		}, "archive-keys", "gpg does not know it"},
		{"a secret that maild cannot read", func(s *server) {
			s.control("notify", read(s, "notify")+"\nEvent: published\nHook: https://ci.packmill.invalid/x\nSecret: private/hook\n")
			s.control("private/hook", "secret\n")
			s.owned(64003, "queue", "control/private/hook")
		}, "notify", "cannot read it"},
		{"an uploader with a shell", func(s *server) {
			s.control("uploaders", read(s, "uploaders")+"\nName: robot\nAccount: nobody\n")
			s.write(filepath.Join(s.tree, "spool/incoming/nobody/x"), "")
		}, "uploaders", "is not in the group packmill-upload"},
		{"sshd's settings for uploaders as a comment", func(s *server) {
			s.control("uploaders", read(s, "uploaders")+"\nName: robot\nAccount: nobody\n")
			s.machine("etc/ssh/sshd_config", "# Match Group packmill-upload\n")
		}, "sshd", "do not know the group"},
		{"a fragment that sshd does not read", func(s *server) {
			s.control("uploaders", read(s, "uploaders")+"\nName: robot\nAccount: nobody\n")
			s.machine("etc/ssh/sshd_config", "Port 22\n")
			s.machine("etc/ssh/sshd_config.d/packmill.conf", "Match Group packmill-upload\nChrootDirectory "+s.tree+"/spool\n")
		}, "sshd", "do not know the group"},
		{"sshd's settings of another tree", func(s *server) {
			s.control("uploaders", read(s, "uploaders")+"\nName: robot\nAccount: nobody\n")
			s.machine("etc/ssh/sshd_config", "Match Group packmill-upload\n    ChrootDirectory /srv/spool\n")
		}, "sshd", "/srv/spool"},
		{"a clock that went back", func(s *server) {
			s.write(filepath.Join(s.tree, "archive/dists/stable/InRelease"), "")
			s.now = s.now.Add(-24 * time.Hour)
		}, "clock", "which is to come"},
		{"sshd knows no uploaders", func(s *server) {
			s.control("uploaders", read(s, "uploaders")+"\nName: robot\nAccount: nobody\n")
		}, "sshd", "packmill-upload"},
		{"a tree that others can write", func(s *server) {
			s.control("uploaders", read(s, "uploaders")+"\nName: robot\nAccount: nobody\n")
			if err := os.Chmod(filepath.Join(s.tree, "spool"), 0o777); err != nil {
				s.Fatal(err)
			}
		}, "sshd", "can be written by others"},
		{"a web server that shows everything", func(s *server) {
			s.write(filepath.Join(s.tree, "archive/incoming/stable/x"), "")
			web := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(s.tree, "archive"))))
			s.Cleanup(web.Close)
			s.url = web.URL
		}, "web", "is shown to everybody"},
		{"a web server with another root", func(s *server) {
			s.write(filepath.Join(s.tree, "archive/dists/stable/InRelease"), "")
			web := httptest.NewServer(http.NotFoundHandler())
			s.Cleanup(web.Close)
			s.url = web.URL
		}, "web", "answers 404"},
		{"no web server", func(s *server) {
			s.write(filepath.Join(s.tree, "archive/dists/stable/InRelease"), "")
			web := httptest.NewServer(http.NotFoundHandler())
			web.Close()
			s.url = web.URL
		}, "web", "connection refused"},
	}
	if len(rows) < 40 {
		t.Errorf("%d rows, want 40 at least", len(rows))
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			s := good(t)
			r.make(s)
			found := s.look()
			for _, f := range found {
				if f.Check == r.check && strings.Contains(f.String(), r.want) {
					if f.Cure == "" || strings.Contains(f.Text, "\n") {
						t.Errorf("got %+v, want one line and a cure", f)
					}
					return
				}
			}
			t.Errorf("got %v, want one of %s with %q", found, r.check, r.want)
		})
	}
}

// gpgKey is a secret key that gpg made, with an end.
func (s *server) gpgKey(expires string) string {
	s.Helper()
	home, err := os.MkdirTemp("", "gpg") // short: gpg's sockets lie there
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		os.RemoveAll(home)
	})
	gpg := func(args ...string) string {
		cmd := exec.Command("gpg", append([]string{"--homedir", home, "--batch", "--quiet", "--passphrase", ""}, args...)...)
		out, err := cmd.Output()
		if err != nil {
			s.Fatalf("%v: %v", cmd, err)
		}
		return string(out)
	}
	gpg("--quick-generate-key", "Archive <archive@packmill.invalid>", "ed25519", "sign", expires)
	s.now = time.Now() // on a slow machine the key is younger than the server
	return gpg("--export-secret-keys", "--armor")
}

func read(s *server, name string) string {
	s.Helper()
	data, err := os.ReadFile(filepath.Join(s.tree, "control", name))
	if err != nil {
		s.Fatal(err)
	}
	return string(data)
}
