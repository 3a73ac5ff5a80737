package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"packmill/archive/opkg"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/internal/durable"
	"packmill/internal/openpgp"
	"packmill/internal/policy"
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
  packmill key new builder1                                for Key in control/builders
  packmill key new archive --owner packmill-archive        after packmill init --users
  packmill key new feed --opkg                             for Opkg-Key in control/suites`
}

func (k *keyNew) Run(c *cli) error {
	if err := c.alone(); err != nil {
		return err
	}
	// The name becomes a file's.
	if err := policy.CheckSuite(k.Name); err != nil {
		return daemon.Wrong{Err: fmt.Errorf("%q cannot name a key: lower-case letters, digits, . + - only", k.Name)}
	}
	if k.Email == "" {
		k.Email = k.Name + "@packmill.invalid"
	}
	if strings.ContainsAny(k.Email, "<>()\n") {
		return daemon.Wrong{Err: fmt.Errorf("%q is no address: write it as name@host", k.Email)}
	}
	dir := filepath.Join(c.Tree, "control")
	secret, public := filepath.Join(dir, "private", k.Name+".key"), filepath.Join(dir, control.KeysDir, k.Name+".asc")
	if k.Opkg {
		secret, public = filepath.Join(dir, "private", k.Name+".sec"), filepath.Join(dir, "private", k.Name+".pub")
	}
	if c.DryRun {
		c.print(os.Stdout, map[string]any{"secret": secret, "public": public, "done": false}, fmt.Sprintf("would make %s and %s", secret, public))
		return nil
	}
	uid := -1
	if k.Owner != "" {
		u, err := user.Lookup(k.Owner)
		if err != nil {
			return daemon.Wrong{Err: fmt.Errorf("%w; packmill-archive signs the archive, packmill-build what it built", err)}
		}
		if uid, err = strconv.Atoi(u.Uid); err != nil {
			return err
		}
	}
	var key interface { // one of two kinds
		Secret() []byte
		Public() []byte
		Fingerprint() string
	}
	var err error
	if k.Opkg {
		key, err = opkg.GenerateKey()
	} else {
		key, err = openpgp.Generate("Packmill "+k.Name, k.Email, time.Now())
	}
	if err != nil {
		return err
	}
	for _, d := range []string{secret, public} {
		if err := durable.MkdirAll(filepath.Dir(d), 0o750); err != nil {
			return err
		}
	}
	err = durable.CreateFile(secret, key.Secret(), 0o600)
	if errors.Is(err, fs.ErrExist) {
		if _, err := os.Lstat(public); !errors.Is(err, fs.ErrNotExist) {
			return daemon.Refuse("%s is there already; take another name, or remove it first", secret)
		}
		// An earlier run was cut off before it had written the public half.
		if key, err = openpgp.OpenSigner(secret); k.Opkg {
			key, err = opkg.ReadKey(secret)
		}
	}
	if err != nil {
		return err
	}
	if err := os.Chown(secret, uid, -1); err != nil {
		return fmt.Errorf("%w; run it as root", err)
	}
	if err := durable.WriteFile(public, key.Public(), 0o644); err != nil {
		return err
	}
	c.print(os.Stdout, map[string]string{"name": k.Name, "fingerprint": key.Fingerprint(), "secret": secret, "public": public},
		fmt.Sprintf("Fingerprint: %s\nKey: private/%s\n(the public half is %s)", key.Fingerprint(), filepath.Base(secret), public))
	return nil
}
