package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/term"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/setup"
	"packmill/cmd/internal/terminal"
	"packmill/internal/openpgp"
	"packmill/internal/policy"
	"packmill/queue/runner"
	"packmill/spool"
)

type setupCmd struct {
	Suite    string   `help:"The name of the first suite." placeholder:"NAME"`
	Base     []string `help:"What builds stand on: a release (bookworm, trixie, sid, noble) or an apt line; several are allowed." placeholder:"RELEASE"`
	Arch     []string `help:"Architectures to build on this machine." placeholder:"ARCH"`
	From     string   `help:"The address that mail comes from; none: no mail." placeholder:"ADDRESS"`
	Runner   string   `help:"sbuild, or our own overlay, which is faster." enum:"sbuild,overlay" default:"overlay"`
	Review   string   `help:"Whose uploads a person must accept: always, new (of new packages), never." enum:"always,new,never" default:"always"`
	Opkg     string   `help:"Feeds for opkg beside apt's indexes: yes or no. They cost room and time: a package is there once more, about one and a half times as large." enum:"yes,no," default:"" placeholder:"yes"`
	NoChroot bool     `help:"Make no chroot now: the first build does."`
	NoStart  bool     `help:"Start no daemon."`

	Subids string `help:"Only give this account subordinate ids." placeholder:"USER"`
	Sshd   bool   `help:"Only put the uploaders' settings into sshd's."`
}

func (setupCmd) Help() string {
	return `Makes a server of this machine: accounts, the tree, settings, keys, a clean chroot, sshd's settings for uploaders, and the daemons as units. At a terminal it asks for what no flag says; what is there already stays, so it may run again. Run it as root.

Exit status: 0 done, 1 something is left to do, 100 wrong use.

Examples:
  packmill setup
  packmill setup --suite stable --base bookworm --arch amd64 --from "Archive <archive@example.org>"
  packmill setup --base "deb http://mirror.example/debian trixie main" --no-start
  packmill uploader add alice alice.pub --openpgp alice.asc       what comes next`
}

func (s *setupCmd) Run(c *cli) error {
	switch {
	case c.DryRun:
		return daemon.Wrong{Err: errors.New("setup has no --dry-run; it asks at a terminal, and leaves what is there")}
	case os.Getuid() != 0:
		return daemon.Wrong{Err: errors.New("accounts and units are root's to make: sudo packmill setup")}
	case s.Subids != "":
		_, err := setup.SubordinateIDs(s.Subids)
		return err
	case s.Sshd:
		_, err := setup.Sshd(libexec("packmill.conf"))
		return err
	}
	a, err := s.answers()
	if err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func(*cli, *setup.Answers) error
	}{
		{"accounts", s.accounts}, {"tree", s.tree}, {"keys and settings", s.settings}, {"sshd", s.sshd},
		{"chroots", s.chroots}, {"daemons", s.daemons},
	} {
		if err := step.do(c, a); err != nil {
			return fmt.Errorf("%s: %w; mend it and run packmill setup again", step.name, err)
		}
	}
	terminal.Print(os.Stdout, `
Ready. What comes next:
  packmill uploader add NAME SSHKEY.pub --openpgp KEY.asc    for each person who uploads
  usermod -aG packmill,packmill-review,packmill-desk NAME    for each person who reviews
  a web server with the root %s    (examples in /usr/share/doc/packmill)
  packmill archive sources %s http://HOST/                 prints what apt's users need
  packmill doctor                                            looks it all over
`, filepath.Join(c.Tree, "archive"), a.Suite)
	return nil
}

// answers are the flags', with questions for what they leave open.
func (s *setupCmd) answers() (*setup.Answers, error) {
	codename, mirror := setup.Machine()
	in := bufio.NewReader(os.Stdin)
	suite, err := answer(in, s.Suite, "Name of the suite", "stable", policy.CheckSuite)
	if err != nil {
		return nil, err
	}
	base := s.Base
	if len(base) == 0 {
		word, err := answer(in, "", "What builds stand on ("+strings.Join(setup.Releases(), ", ")+", or an apt line)", codename,
			func(w string) error { _, err := setup.Base(w, mirror); return err })
		if err != nil {
			return nil, err
		}
		base = []string{word}
	}
	arch, err := answer(in, strings.Join(s.Arch, " "), "Architectures to build", runner.Machine(), func(w string) error {
		for _, a := range strings.Fields(w) {
			if err := policy.CheckArch(a); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	from, err := answer(in, s.From, "Address that mail comes from (- for no mail)", "-", func(string) error { return nil })
	if err != nil {
		return nil, err
	}
	feeds, err := answer(in, s.Opkg, "Feeds for opkg beside apt's indexes; each package is there once more, about one and a half times as large (yes, no)", "no", yesOrNo)
	if err != nil {
		return nil, err
	}
	a := &setup.Answers{Suite: suite, Archs: strings.Fields(arch), Runner: s.Runner, Review: s.Review, Opkg: feeds == "yes"}
	if from != "-" {
		a.From = from
	}
	for _, word := range base {
		lines, err := setup.Base(word, mirror)
		if err != nil {
			return nil, daemon.Wrong{Err: err}
		}
		a.Base = append(a.Base, lines...)
	}
	return a, nil
}

func yesOrNo(word string) error {
	if word != "yes" && word != "no" {
		return fmt.Errorf("%q: yes or no?", word)
	}
	return nil
}

// answer is given, or what a person types at a terminal, or else the proposal.
func answer(in *bufio.Reader, given, question, proposal string, check func(string) error) (string, error) {
	if given != "" {
		if err := check(given); err != nil {
			return "", daemon.Wrong{Err: err}
		}
		return given, nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		if proposal == "" {
			return "", daemon.Wrong{Err: fmt.Errorf("%s: say it with a flag: packmill setup --help", question)}
		}
		return proposal, check(proposal)
	}
	for {
		terminal.Print(os.Stderr, "%s [%s]: ", question, proposal)
		line, err := in.ReadString('\n')
		if err != nil {
			return "", err
		}
		word := strings.TrimSpace(line)
		if word == "" {
			word = proposal
		}
		if err := check(word); err != nil {
			terminal.Print(os.Stderr, "%s\n", err)
			continue
		}
		return word, nil
	}
}

func (s *setupCmd) accounts(_ *cli, a *setup.Answers) error {
	for _, name := range []string{"packmill.conf", "packmill.sysusers"} {
		if path := filepath.Join("/usr/lib/sysusers.d", name); fileExists(path) {
			if out, err := exec.Command("systemd-sysusers", path).CombinedOutput(); err != nil {
				return fmt.Errorf("systemd-sysusers: %w: %s", err, out)
			}
		}
	}
	gave, err := setup.SubordinateIDs(spool.UserBuild)
	if err != nil {
		return err
	}
	if gave {
		terminal.Print(os.Stdout, "gave %s subordinate ids\n", spool.UserBuild)
	}
	// Its home is below a directory of root's.
	out, err := exec.Command("install", "-d", "-o", spool.UserBuild, "-g", spool.UserBuild, home(spool.UserBuild)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (s *setupCmd) tree(c *cli, _ *setup.Answers) error {
	_, err := initCmd{Users: true}.complete(c)
	return err
}

func (s *setupCmd) settings(c *cli, a *setup.Answers) error {
	keys := map[string]string{"archive": spool.UserArchive, "builder": spool.UserBuild}
	for _, name := range []string{"archive", "builder"} {
		k := &keyNew{Name: name, Owner: keys[name]}
		if err := k.Run(c); err != nil && !errors.Is(err, daemon.ErrRefused) {
			return err
		}
	}
	key, err := openpgp.ReadSigner(filepath.Join(c.Tree, "control/private/builder.key"))
	if err != nil {
		return err
	}
	a.Fingerprint = key.Fingerprint()
	wrote, kept, err := setup.WriteSettings(filepath.Join(c.Tree, "control"), setup.Settings(a))
	for _, n := range wrote {
		terminal.Print(os.Stdout, "wrote %s\n", filepath.Join(c.Tree, "control", n))
	}
	for _, n := range kept {
		terminal.Print(os.Stdout, "%s has settings already and stays\n", filepath.Join(c.Tree, "control", n))
	}
	if err != nil {
		return err
	}
	_, err = control.Load(filepath.Join(c.Tree, "control"))
	return err
}

func (s *setupCmd) sshd(*cli, *setup.Answers) error {
	did, err := setup.Sshd(libexec("packmill.conf"))
	if err != nil {
		// Uploads may come another way, so the rest goes on.
		terminal.Print(os.Stderr, "packmill: sshd: %v\n", err)
	} else if did {
		terminal.Print(os.Stdout, "sshd takes uploads of the group packmill-upload\n")
	}
	return nil
}

// chroots are made as the user who builds, whose they are.
func (s *setupCmd) chroots(c *cli, a *setup.Answers) error {
	if s.NoChroot {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, arch := range a.Archs {
		if err := asBuilder(self, "--tree", c.Tree, "chroot", "create", a.Suite, arch); err != nil {
			return err
		}
	}
	return nil
}

func (s *setupCmd) daemons(_ *cli, a *setup.Answers) error {
	if s.NoStart {
		return nil
	}
	if !setup.Systemd() {
		terminal.Print(os.Stdout, "systemd does not run here: take the lines of examples/cron into /etc/cron.d/packmill\n")
		return nil
	}
	units := setup.Units(a.Archs)
	if err := setup.Start(units); err != nil {
		return err
	}
	terminal.Print(os.Stdout, "running: %s\n", strings.Join(units, " "))
	return nil
}

// asBuilder runs a program as the user who builds.
func asBuilder(program string, args ...string) error {
	cmd := exec.Command("runuser", append([]string{"-u", spool.UserBuild, "--", "env", "-C", "/", "HOME=" + home(spool.UserBuild), program}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// home is the account's directory, by getent(1): os/user alone reads it.
func home(account string) string {
	out, err := exec.Command("getent", "passwd", account).Output()
	if w := strings.Split(strings.TrimSpace(string(out)), ":"); err == nil && len(w) > 5 {
		return w[5]
	}
	return "/var/lib/packmill-build"
}

func fileExists(path string) bool { _, err := os.Stat(path); return err == nil }

// libexec finds a file of the package that is no program of a person's; beside
// the source in a checkout.
func libexec(name string) string {
	dirs := append([]string{"/usr/share/packmill"}, setup.Libexec...)
	if self, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Join(filepath.Dir(self), "../scripts/sshd"))
	}
	if i := slices.IndexFunc(dirs, func(d string) bool { return fileExists(filepath.Join(d, name)) }); i >= 0 {
		return filepath.Join(dirs[i], name)
	}
	return filepath.Join(dirs[0], name)
}

type uploaderCmd struct {
	Add    uploaderAdd    `cmd:"" help:"Make an account that can upload, and its right."`
	Remove uploaderRemove `cmd:"" help:"Take an account away; what it uploaded stays."`
	Ls     uploaderLs     `cmd:"" help:"List the accounts that can upload."`
}

func (uploaderCmd) Help() string {
	return `Accounts for people who upload: sftp into a directory of their own and nothing else. Run it as root.

Examples:
  packmill uploader add alice alice_id_ed25519.pub --openpgp alice.asc
  packmill uploader add robot robot.pub --allow "source, packages=robot-*"    trusted without a signature
  packmill uploader ls`
}

type uploaderAdd struct {
	Name    string   `arg:"" help:"The account."`
	Keys    []string `arg:"" name:"sshkey" help:"Files with public ssh keys." type:"existingfile"`
	OpenPGP string   `name:"openpgp" help:"The public OpenPGP key that signs the uploads; without it the account alone is trusted." placeholder:"FILE" type:"existingfile"`
	Allow   string   `help:"The rights, as in control/uploaders." default:"source"`
}

func (u *uploaderAdd) Run(c *cli) error {
	all, err := c.control()
	if err != nil {
		return err
	}
	fingerprint := ""
	var key []byte
	if u.OpenPGP != "" {
		if key, err = os.ReadFile(u.OpenPGP); err != nil {
			return err
		}
		ring, err := openpgp.ReadKeyring(key)
		if err != nil || len(ring.Fingerprints()) != 1 {
			return daemon.Wrong{Err: fmt.Errorf("%s: not one public OpenPGP key that can be used; export it with: gpg --export --armor ADDRESS", u.OpenPGP)}
		}
		fingerprint = ring.Fingerprints()[0]
	}
	if err := accounts(c, append([]string{"add", u.Name}, u.Keys...)...); err != nil {
		return err
	}
	if slices.ContainsFunc(all.Uploaders, func(x control.Uploader) bool { return x.Name == u.Name || x.Account == u.Name }) {
		terminal.Print(os.Stdout, "control/uploaders has a stanza for %s already, which stays\n", u.Name)
		return nil
	}
	dir := filepath.Join(c.Tree, "control")
	if err := setup.AddUploader(dir, u.Name, fingerprint, u.Allow, key); err != nil {
		return err
	}
	if _, err := control.Load(dir); err != nil {
		return daemon.Wrong{Err: err}
	}
	terminal.Print(os.Stdout, "%s may upload (%s); dput's and dupload's settings are in the examples\n", u.Name, u.Allow)
	return nil
}

type uploaderRemove struct {
	Name string `arg:"" help:"The account."`
}

func (u *uploaderRemove) Run(c *cli) error {
	if err := accounts(c, "remove", u.Name); err != nil {
		return err
	}
	terminal.Print(os.Stdout, "take the stanza of %s out of %s too\n", u.Name, filepath.Join(c.Tree, "control/uploaders"))
	return nil
}

type uploaderLs struct{}

func (uploaderLs) Run(c *cli) error { return accounts(c, "list") }

// accounts runs the script that knows the system's accounts.
func accounts(c *cli, args ...string) error {
	cmd := exec.CommandContext(context.Background(), libexec("uploader"), append([]string{"--tree", c.Tree}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	var status *exec.ExitError
	switch {
	case errors.As(err, &status) && status.ExitCode() == daemon.ExitWrong:
		return daemon.Wrong{Err: errors.New("no account was changed")}
	case errors.As(err, &status):
		return daemon.Refuse("no account was changed")
	}
	return err
}
