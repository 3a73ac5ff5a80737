package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/setup"
	"packmill/cmd/internal/terminal"
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
	Pages    string   `help:"Run statusd, too, which shows what is where at http://127.0.0.1:8077: yes or no." enum:"yes,no," default:"" placeholder:"yes"`
	NoChroot bool     `help:"Make no chroot now: the first build does."`
	NoStart  bool     `help:"Start no daemon."`

	Subids string `help:"Only give this account subordinate ids." placeholder:"USER"`
	Sshd   bool   `help:"Only put the uploaders' settings into sshd's."`
}

func (setupCmd) Help() string {
	return `Makes a server of this machine: accounts, the tree, settings, keys, a clean chroot, sshd's settings for uploaders, and the daemons as units. At a terminal it asks for what no flag says; what is there already stays, so it may run again. Run it as root.

Exit status: 0 done, 1 nothing was changed, 100 wrong use, 111 something is left to do: run it again.

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
	case c.Tree != setup.OfUnits && !s.NoStart && s.Subids == "" && !s.Sshd && setup.Systemd():
		return daemon.Wrong{Err: fmt.Errorf("the units are of the tree %s: mount the disk that you mean there, "+
			"or say --no-start and write units of your own", setup.OfUnits)}
	case s.Subids != "":
		_, err := setup.SubordinateIDs(s.Subids)
		return err
	case s.Sshd:
		_, err := setup.Sshd(setup.File("packmill.conf"), c.Tree)
		return err
	}
	given := setup.Given{Suite: s.Suite, Base: s.Base, Archs: s.Arch, From: s.From, Opkg: s.Opkg, Pages: s.Pages}
	a, err := given.Ask(bufio.NewReader(os.Stdin))
	if err != nil {
		return err
	}
	a.Runner, a.Review = s.Runner, s.Review
	if err := a.Check(); err != nil {
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

func (s *setupCmd) accounts(*cli, *setup.Answers) error {
	gave, err := setup.Accounts()
	if gave {
		terminal.Print(os.Stdout, "gave %s subordinate ids\n", spool.UserBuild)
	}
	return err
}

func (s *setupCmd) tree(c *cli, _ *setup.Answers) error {
	_, err := initCmd{Users: true}.complete(c)
	return err
}

func (s *setupCmd) settings(c *cli, a *setup.Answers) error {
	for name, owner := range map[string]string{"archive": spool.UserArchive, "builder": spool.UserBuild} {
		k := &keyNew{Name: name, Owner: owner}
		if err := k.Run(c); err != nil && !errors.Is(err, daemon.ErrRefused) {
			return err
		}
	}
	wrote, kept, err := setup.Control(c.Tree, a)
	for _, n := range wrote {
		terminal.Print(os.Stdout, "wrote %s\n", filepath.Join(c.Tree, "control", n))
	}
	for _, n := range kept {
		terminal.Print(os.Stdout, "%s has settings already and stays\n", filepath.Join(c.Tree, "control", n))
	}
	return err
}

func (s *setupCmd) sshd(c *cli, _ *setup.Answers) error {
	did, err := setup.Sshd(setup.File("packmill.conf"), c.Tree)
	if err != nil {
		// Uploads may come another way, so the rest goes on.
		terminal.Print(os.Stderr, "packmill: sshd: %v\n", err)
	} else if did {
		terminal.Print(os.Stdout, "sshd takes uploads of the group packmill-upload\n")
	}
	return nil
}

func (s *setupCmd) chroots(c *cli, _ *setup.Answers) error {
	if s.NoChroot {
		return nil
	}
	return setup.Chroots(c.Tree)
}

func (s *setupCmd) daemons(_ *cli, a *setup.Answers) error {
	if s.NoStart {
		return nil
	}
	if !setup.Systemd() {
		terminal.Print(os.Stdout, "systemd does not run here: take the lines of examples/cron into /etc/cron.d/packmill\n")
		return nil
	}
	units := a.Units()
	waiting, err := setup.Start(units)
	if err != nil {
		return err
	}
	running := slices.DeleteFunc(units, func(u string) bool { return slices.Contains(waiting, u) })
	terminal.Print(os.Stdout, "running: %s\n", strings.Join(running, " "))
	if len(waiting) > 0 {
		terminal.Print(os.Stdout, "to start when systemd lets them (systemctl list-jobs says what they wait for): %s\n",
			strings.Join(waiting, " "))
	}
	if a.Pages {
		terminal.Print(os.Stdout, "status pages: http://%s\n", setup.PagesAddress)
	}
	return nil
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
  packmill uploader add bob bob.pub --openpgp bob.asc --email bob@example.org       where the key has several addresses
  packmill uploader ls`
}

type uploaderAdd struct {
	Name    string   `arg:"" help:"The account."`
	Keys    []string `arg:"" name:"sshkey" help:"Files with public ssh keys." type:"existingfile"`
	OpenPGP string   `name:"openpgp" help:"The public OpenPGP key that signs the uploads; without it the account alone is trusted." placeholder:"FILE" type:"existingfile"`
	Email   string   `help:"Where mail about the uploads goes; the address in the OpenPGP key, if it has exactly one." placeholder:"ADDRESS"`
	Allow   string   `help:"The rights, as in control/uploaders." default:"source"`
}

func (u *uploaderAdd) Run(c *cli) error {
	up, err := setup.ReadUploader(u.Name, u.Allow, u.Email, u.OpenPGP)
	if err != nil {
		return err
	}
	if _, err := c.control(); err != nil {
		return err
	}
	if err := accounts(c, append([]string{"add", u.Name}, u.Keys...)...); err != nil {
		return err
	}
	if err := recordAccounts(c); err != nil {
		return err
	}
	there, err := up.Add(filepath.Join(c.Tree, "control"))
	switch {
	case err != nil:
		return err
	case there:
		terminal.Print(os.Stdout, "control/uploaders has a stanza for %s already, which stays\n", u.Name)
	default:
		terminal.Print(os.Stdout, "%s may upload (%s); dput's and dupload's settings are in the examples\n", u.Name, u.Allow)
		if up.Email == "" {
			terminal.Print(os.Stdout, "no mail goes to %s: write Email: into that stanza of control/uploaders\n", u.Name)
		} else {
			terminal.Print(os.Stdout, "mail about uploads goes to %s\n", up.Email)
		}
	}
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

// recordAccounts lets a backup know whose the new account's files are.
func recordAccounts(c *cli) error {
	t, err := c.open()
	if err != nil {
		return err
	}
	return t.RecordAccounts()
}

// accounts runs the script that knows the system's accounts.
func accounts(c *cli, args ...string) error {
	return setup.UploaderAccounts(append([]string{"--tree", c.Tree}, args...)...)
}
