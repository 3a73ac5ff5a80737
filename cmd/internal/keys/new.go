// Package keys makes the keys that sign the archive and what builders built, and
// changes which of them sign a suite.
package keys

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

// New is a key that is to be.
type New struct {
	Name  string // archive, or a builder's; it names the files
	Email string // the address in the key; "": one that nobody has
	Owner string // whom the secret half is for; "": who makes it
	Opkg  bool   // a usign key in place of an OpenPGP one
}

// Made is a key, and the files of its halves.
type Made struct {
	Name        string `json:"name"`
	Fingerprint string `json:"fingerprint"`
	Secret      string `json:"secret"`
	Public      string `json:"public"`
}

// Files are where the halves go in a tree.
func (n *New) Files(tree string) (secret, public string, err error) {
	if err := policy.CheckSuite(n.Name); err != nil {
		return "", "", daemon.Wrong{Err: fmt.Errorf("%q cannot name a key: lower-case letters, digits, . + - only", n.Name)}
	}
	if err := checkAddress(n.Email); err != nil {
		return "", "", err
	}
	dir := filepath.Join(tree, "control")
	private := filepath.Join(dir, "private")
	if n.Opkg {
		return filepath.Join(private, n.Name+".sec"), filepath.Join(private, n.Name+".pub"), nil
	}
	return filepath.Join(private, n.Name+".key"), filepath.Join(dir, control.KeysDir, n.Name+".asc"), nil
}

func checkAddress(email string) error {
	if strings.ContainsAny(email, "<>()\n") {
		return daemon.Wrong{Err: fmt.Errorf("%q is no address: write it as name@host", email)}
	}
	return nil
}

// address is the one that a person named, or one of the name that nobody has.
func address(email, name string) string {
	if email == "" {
		return name + "@packmill.invalid"
	}
	return email
}

// halves are a key of either kind.
type halves interface {
	Secret() []byte
	Public() []byte
	Fingerprint() string
}

// Make makes the key. One that is there already stays, and is a refusal; one whose
// public half a cut-off run did not write gets it.
func (n *New) Make(tree string) (*Made, error) {
	secret, public, err := n.Files(tree)
	if err != nil {
		return nil, err
	}
	owner, err := n.owner()
	if err != nil {
		return nil, err
	}
	key, err := n.generate()
	if err != nil {
		return nil, err
	}
	for _, d := range []string{secret, public} {
		if err := durable.MkdirAll(filepath.Dir(d), 0o750); err != nil {
			return nil, err
		}
	}
	err = durable.CreateFile(secret, key.Secret(), 0o600)
	if errors.Is(err, fs.ErrExist) {
		if _, err := os.Lstat(public); !errors.Is(err, fs.ErrNotExist) {
			return nil, daemon.Refuse("%s is there already; take another name, or remove it first", secret)
		}
		key, err = n.read(secret)
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chown(secret, owner, -1); err != nil {
		return nil, fmt.Errorf("%w; run it as root", err)
	}
	if err := durable.WriteFile(public, key.Public(), 0o644); err != nil {
		return nil, err
	}
	return &Made{n.Name, key.Fingerprint(), secret, public}, nil
}

func (n *New) generate() (halves, error) {
	if n.Opkg {
		return opkg.GenerateKey()
	}
	return openpgp.Generate("Packmill "+n.Name, address(n.Email, n.Name), time.Now())
}

func (n *New) read(secret string) (halves, error) {
	if n.Opkg {
		return opkg.ReadKey(secret)
	}
	return openpgp.OpenSigner(secret)
}

// owner is the number of the user, -1 of whoever makes the key.
func (n *New) owner() (int, error) {
	if n.Owner == "" {
		return -1, nil
	}
	u, err := user.Lookup(n.Owner)
	if err != nil {
		return 0, daemon.Wrong{Err: fmt.Errorf("%w; packmill-archive signs the archive, packmill-build what it built", err)}
	}
	return strconv.Atoi(u.Uid)
}
