package statement

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"packmill/internal/durable"
	"packmill/internal/openpgp"
)

// Where the key lies, below the tree. Only reviewd's account reads the secret
// half; in a tree whose daemons are different users the public half is root's.
const (
	SecretFile = "control/private/reviewd.key"
	PublicFile = "control/reviewd.asc"
)

// OpenRing reads the key by which statements are verified.
func OpenRing(root string) (*Ring, error) {
	path := filepath.Join(root, PublicFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: not there, and nothing that reviewd let in can be verified; make it with: "+
			"packmill init --tree %s (--users, where the daemons are different users)", path, root)
	}
	if err != nil {
		return nil, err
	}
	keys, err := openpgp.ReadKeyring(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Ring{keys}, nil
}

// OpenKey reads the key that signs statements.
func OpenKey(root string) (*openpgp.Signer, error) {
	key, err := openpgp.OpenSigner(filepath.Join(root, SecretFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; make it with: packmill init --tree %s (--users, where the daemons are different users)",
			err, root)
	}
	return key, err
}

// MakeSecret makes the secret half, unless it is there. As long as the public
// half is not, nobody can verify what it signs.
func MakeSecret(root string) (*openpgp.Signer, error) {
	path := filepath.Join(root, SecretFile)
	if key, err := openpgp.OpenSigner(path); !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	// A clock that is set back a little must not end all signatures.
	key, err := openpgp.Generate("Packmill reviewd", "reviewd@packmill.invalid", time.Now().Add(-time.Hour))
	if err != nil {
		return nil, err
	}
	if err := durable.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	if err := durable.CreateFile(path, key.Secret(), 0o600); err != nil {
		return nil, err
	}
	return key, nil
}

// MakeKey makes both halves, or what is missing of them.
func MakeKey(root string) error {
	path := filepath.Join(root, PublicFile)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key, err := MakeSecret(root)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, key.Public(), 0o644)
}
