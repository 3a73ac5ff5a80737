package wb

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"packmill/cmd/internal/account"
	"packmill/internal/durable"
	"packmill/internal/policy"
	"packmill/internal/regular"
	"packmill/spool/upload"
)

// takeResult copies a .changes and the files that it lists into a job's
// directory of results. Each file is hashed on the way. What was there goes
// when the new result is on the disk.
func takeResult(changes, dir string) (string, error) {
	name := filepath.Base(changes)
	if err := policy.CheckFile(name); err != nil {
		return "", err
	}
	var data []byte
	var files []upload.File
	err := account.Back(func() (err error) {
		if data, err = os.ReadFile(changes); err == nil {
			files, err = upload.Peek(filepath.Dir(changes), name)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	fresh := filepath.Join(filepath.Dir(dir), durable.NewPrefix+filepath.Base(dir))
	if err := durable.RemoveAll(fresh); err != nil {
		return "", err
	}
	if err := os.Mkdir(fresh, 0o775); err != nil {
		return "", err
	}
	for _, f := range files {
		if err := copyListed(filepath.Join(filepath.Dir(changes), f.Name), filepath.Join(fresh, f.Name), f); err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(filepath.Join(fresh, name), data, 0o644); err != nil {
		return "", err
	}
	if err := durable.SyncTree(fresh); err != nil {
		return "", err
	}
	err = durable.Exchange(fresh, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return name, durable.Rename(fresh, dir)
	}
	if err != nil {
		return "", err
	}
	return name, durable.RemoveAll(fresh)
}

func copyListed(from, to string, want upload.File) error {
	var r *os.File
	err := account.Back(func() (err error) { r, err = regular.Open(from); return err })
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(r, want.Size+1))
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err == nil && (n != want.Size || hex.EncodeToString(h.Sum(nil)) != want.SHA256) {
		err = fmt.Errorf("%s is not the file that the .changes lists", filepath.Base(from))
	}
	return err
}
