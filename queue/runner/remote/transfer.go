package remote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"packmill/internal/durable"
	"packmill/internal/policy"
	"packmill/internal/regular"
)

// CheckSums refuses a list of files that nobody should keep.
func CheckSums(files []Sum, bytes int64) error {
	if len(files) > maxFiles {
		return fmt.Errorf("%d files, and at most %d are taken", len(files), maxFiles)
	}
	seen := map[string]bool{}
	for _, f := range files {
		if err := policy.CheckFile(f.Name); err != nil {
			return err
		}
		if raw, err := hex.DecodeString(f.SHA256); err != nil || len(raw) != sha256.Size || f.Size < 0 {
			return fmt.Errorf("%s: no SHA-256 and size", f.Name)
		}
		if seen[f.Name] {
			return fmt.Errorf("%s: named twice", f.Name)
		}
		seen[f.Name] = true
		if bytes -= f.Size; bytes < 0 {
			return errors.New("more bytes than are taken")
		}
	}
	return nil
}

// sumsOf are the plain files of a directory.
func sumsOf(dir string) ([]Sum, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []Sum
	for _, e := range entries {
		sum, err := sumOf(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		out = append(out, sum)
	}
	return out, nil
}

// sumOf is what a plain file is.
func sumOf(path string) (Sum, error) {
	f, err := regular.Open(path)
	if err != nil {
		return Sum{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := regular.Stream(h, f)
	return Sum{filepath.Base(path), n, hex.EncodeToString(h.Sum(nil))}, err
}

// partSuffix ends the name of a file of which the rest is to come.
const partSuffix = ".part"

// pieceTime is about how long one request for a piece of a file takes: what is on its way on a slow
// line must not hold up a sign of life.
const pieceTime = 5 * time.Second

// errSum says that what came is not what was promised.
var errSum = errors.New("its SHA-256 is not what was said")

// errHere says that what came cannot be kept on this machine.
var errHere = errors.New("it cannot be kept here")

// here is the error of something that was done on this machine.
func here(err error) error {
	if err == nil || errors.Is(err, errSum) {
		return err
	}
	return fmt.Errorf("%w: %w", errHere, err)
}

// keeper tells the errors of writing from those of what is read meanwhile.
type keeper struct{ io.Writer }

func (k keeper) Write(p []byte) (int, error) {
	n, err := k.Writer.Write(p)
	return n, here(err)
}

// fetch brings a file that the other end has under path to dir, and goes on where an earlier session
// ended. It counts, and bears its name, when it is whole and its checksum right.
func (s *session) fetch(ctx context.Context, path, dir string, want Sum) error {
	name := filepath.Join(dir, want.Name)
	part, err := os.OpenFile(name+partSuffix, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return here(err)
	}
	defer part.Close()
	have, err := part.Seek(0, io.SeekEnd)
	if err != nil {
		return here(err)
	}
	for piece := int64(64 << 10); have < want.Size; {
		begun := time.Now()
		n, err := s.piece(ctx, path, part, have, min(piece, want.Size-have))
		if have += n; err != nil {
			return err
		}
		if took := time.Since(begun); took < pieceTime/2 {
			piece = min(piece*4, 64<<20)
		} else if took > pieceTime {
			piece = max(piece/2, 16<<10)
		}
	}
	return here(settle(part, name, want))
}

// piece appends n bytes from an offset, and says how many came.
func (s *session) piece(ctx context.Context, path string, to io.Writer, from, n int64) (int64, error) {
	a, err := s.do(ctx, "GET", path, nil, "Range", fmt.Sprintf("bytes=%d-%d", from, from+n-1))
	if err != nil {
		return 0, err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusPartialContent || !strings.HasPrefix(a.Header.Get("Content-Range"),
		fmt.Sprintf("bytes %d-", from)) {
		return 0, &status{http.StatusBadGateway, "the answer is not the piece that was asked for"}
	}
	got, err := io.Copy(keeper{to}, io.LimitReader(a.Body, n))
	if err == nil && got < n {
		err = io.ErrUnexpectedEOF
	}
	return got, err
}

// settle gives a whole file its name, or throws it away.
func settle(part *os.File, name string, want Sum) error {
	if _, err := part.Seek(0, io.SeekStart); err != nil {
		return err
	}
	h := sha256.New()
	if n, err := io.Copy(h, part); err != nil {
		return err
	} else if n != want.Size || hex.EncodeToString(h.Sum(nil)) != want.SHA256 {
		return errors.Join(fmt.Errorf("%s: %w", want.Name, errSum), durable.Remove(part.Name()))
	}
	if err := durable.SyncFile(part); err != nil {
		return err
	}
	return durable.Replace(part.Name(), name)
}

// serveFile answers with a plain file, or a piece of it.
func serveFile(w http.ResponseWriter, r *http.Request, path string) {
	f, err := regular.Open(path)
	if err != nil {
		http.Error(w, "no such file", http.StatusNotFound)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, f)
}

// Sound says why the files in a directory are not those of the list, or nil.
func Sound(dir string, files []Sum) error {
	for _, want := range files {
		if got, err := sumOf(filepath.Join(dir, want.Name)); err != nil {
			return err
		} else if got != want {
			return fmt.Errorf("%s: %w", want.Name, errSum)
		}
	}
	return nil
}
