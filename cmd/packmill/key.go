package main

import (
	"fmt"
	"os"
	"path/filepath"

	"packmill/cmd/internal/hand"
	"packmill/cmd/internal/keys"
)

type keyCmd struct {
	New keyNew `cmd:"" help:"Make a key of the archive's or a builder's own."`
}

type keyNew struct {
	Name  string `arg:"" help:"What it is for: archive, or a builder's name. It names the files."`
	Email string `help:"The address in the key." placeholder:"ADDRESS"`
	Opkg  bool   `help:"A usign key, for Opkg-Key in control/suites, in place of an OpenPGP one."`
	Owner string `help:"The user that the secret half is for, where the daemons are different users." placeholder:"USER"`
}

func (keyNew) Help() string {
	return `Makes an OpenPGP key without a passphrase: the secret half as control/private/NAME.key, the public half as control/keys/NAME.asc. A key that is there already stays. With --opkg the halves are control/private/NAME.sec and NAME.pub, as usign and signify want them.

Examples:
  packmill key new archive --email archive@example.org     for Sign-With in control/suites
  packmill key new builder                                 for Key in control/builders
  packmill key new archive --owner packmill-archive        after packmill init --users
  packmill key new feed --opkg                             for Opkg-Key in control/suites`
}

func (k *keyNew) Run(c *cli) error {
	if err := hand.Alone(c.Tree); err != nil {
		return err
	}
	n := keys.New{Name: k.Name, Email: k.Email, Owner: k.Owner, Opkg: k.Opkg}
	if c.DryRun {
		secret, public, err := n.Files(c.Tree)
		if err == nil {
			c.print(os.Stdout, map[string]any{"secret": secret, "public": public, "done": false},
				fmt.Sprintf("would make %s and %s", secret, public))
		}
		return err
	}
	m, err := n.Make(c.Tree)
	if err != nil {
		return err
	}
	c.print(os.Stdout, m, fmt.Sprintf("Fingerprint: %s\nKey: private/%s\n(the public half is %s)",
		m.Fingerprint, filepath.Base(m.Secret), m.Public))
	return nil
}
