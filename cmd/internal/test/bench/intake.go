package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"packmill/internal/openpgp"
	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// Sizes of the intake's measures.
const (
	smallUploads = 60
	dropAccounts = 8
	eachAccount  = 25
	largeUpload  = 1 << 30
)

// intake measures cmd/reviewd as a program, over a tree on the disk.
func intake(b *bench) error {
	bin := filepath.Join(b.dir, "reviewd")
	if out, err := exec.Command("go", "build", "-o", bin, "./cmd/reviewd").CombinedOutput(); err != nil {
		return fmt.Errorf("go build ./cmd/reviewd (run scripts/bench): %w: %s", err, out)
	}
	signer, err := openpgp.Generate("Bench", "bench@example.org", time.Now().AddDate(-1, 0, 0))
	if err != nil {
		return err
	}
	in := &intakeBench{bench: b, bin: bin, signer: signer}
	for _, f := range []func() error{in.latency, in.accounts, in.large} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

type intakeBench struct {
	*bench
	bin    string
	signer *openpgp.Signer
	trees  int
}

// start makes a tree and runs reviewd over it.
func (in *intakeBench) start() (t *spool.Tree, stop func() error, err error) {
	in.trees++
	if t, err = spool.Init(filepath.Join(in.dir, fmt.Sprintf("tree%d", in.trees))); err != nil {
		return nil, nil, err
	}
	for name, text := range map[string]string{
		"suites":    "Suite: stable\nArchitectures: amd64\n",
		"uploaders": "Name: bench\nFingerprint: " + in.signer.Fingerprint() + "\nAllow: source\n",
		"keys/key":  string(in.signer.Public()),
	} {
		path := t.Path("control", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, nil, err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return nil, nil, err
		}
	}
	if err := t.Ensure(spool.In(spool.Review, "stable")); err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(in.bin, "--tree", t.Root())
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	return t, func() error {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("reviewd: %w: %s", err, log.String())
		}
		return nil
	}, nil
}

// make writes an upload; the .changes is the last of the paths.
func (in *intakeBench) make(p uploadtest.Package) (paths []string, err error) {
	dir, err := os.MkdirTemp(in.dir, "upload-")
	if err != nil {
		return nil, err
	}
	p.Version, p.Signer = "1.0-1", in.signer
	changes, err := p.Write(dir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name() != changes {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return append(paths, filepath.Join(dir, changes)), nil
}

// drop moves an upload's files into a drop directory.
func drop(to string, paths []string) error {
	for _, p := range paths {
		if err := os.Rename(p, filepath.Join(to, filepath.Base(p))); err != nil {
			return err
		}
	}
	return nil
}

// reviewed waits until n uploads are in review.
func reviewed(t *spool.Tree, n int, within time.Duration) error {
	for end := time.Now().Add(within); ; time.Sleep(200 * time.Microsecond) {
		names, err := t.List(review0)
		if err != nil {
			return err
		}
		if len(names) >= n {
			return nil
		}
		if time.Now().After(end) {
			bad, _ := t.Find("", spool.Rejected)
			return fmt.Errorf("%d of %d uploads are in review after %v, %d are refused", len(names), n, within, len(bad))
		}
	}
}

var review0 = spool.In(spool.Review, "stable")

// latency is the time from the last file's arrival to review, beside the bare
// copies of the same files, each with its sync.
func (in *intakeBench) latency() error {
	t, stop, err := in.start()
	if err != nil {
		return err
	}
	var took, raw []time.Duration
	for i := range smallUploads {
		paths, err := in.make(uploadtest.Package{Source: fmt.Sprintf("small%d", i)})
		if err != nil {
			return err
		}
		begin := time.Now()
		if err := copySynced(paths, in.dir); err != nil {
			return err
		}
		raw = append(raw, time.Since(begin))
		last := len(paths) - 1
		if err := drop(t.Path("spool/incoming"), paths[:last]); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond) // an idle moment, as between two files of a transfer
		begin = time.Now()
		if err := drop(t.Path("spool/incoming"), paths[last:]); err != nil {
			return err
		}
		if err := reviewed(t, i+1, 20*time.Second); err != nil {
			return err
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	slices.Sort(raw)
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	med, base := ms(took[len(took)/2]), ms(raw[len(raw)/2])
	in.figure(Figure{Name: "intake.drop-to-review", Value: med, Unit: "ms median",
		Versus: "a copy of each file with fsync, and of the directory",
		Ratio:  med / base, Goal: "< 20 ms", Met: med < 20})
	p99 := ms(took[len(took)*99/100])
	in.figure(Figure{Name: "intake.drop-to-review-p99", Value: p99, Unit: "ms"})
	return stop()
}

// copySynced is the least that taking an upload costs.
func copySynced(paths []string, below string) error {
	dir, err := os.MkdirTemp(below, "raw-")
	if err != nil {
		return err
	}
	for _, p := range paths {
		if err := copyHashed(p, filepath.Join(dir, filepath.Base(p))); err != nil {
			return err
		}
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// copyHashed is one pass of copy and SHA-256, with the file's sync.
func copyHashed(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(dst, h)}, struct{ io.Reader }{src}, make([]byte, 1<<20))
	if err == nil {
		err = dst.Sync()
	}
	if cerr := dst.Close(); err == nil {
		err = cerr
	}
	return err
}

// accounts is how many uploads a second come in from several accounts at once.
func (in *intakeBench) accounts() error {
	t, stop, err := in.start()
	if err != nil {
		return err
	}
	all := make([][][]string, dropAccounts)
	for i := range all {
		for j := range eachAccount {
			paths, err := in.make(uploadtest.Package{Source: fmt.Sprintf("acct%d-%d", i, j)})
			if err != nil {
				return err
			}
			all[i] = append(all[i], paths)
		}
		if err := os.MkdirAll(t.Path("spool/incoming", fmt.Sprintf("acct%d", i)), 0o755); err != nil {
			return err
		}
	}
	time.Sleep(200 * time.Millisecond)
	begin := time.Now()
	var wg sync.WaitGroup
	errs := make([]error, dropAccounts)
	for i, uploads := range all {
		wg.Go(func() {
			for _, paths := range uploads {
				if err := drop(t.Path("spool/incoming", fmt.Sprintf("acct%d", i)), paths); err != nil {
					errs[i] = err
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	if err := reviewed(t, dropAccounts*eachAccount, 2*time.Minute); err != nil {
		return err
	}
	rate := float64(dropAccounts*eachAccount) / time.Since(begin).Seconds()
	in.figure(Figure{Name: "intake.uploads", Value: rate, Unit: fmt.Sprintf("uploads/s of %d accounts", dropAccounts)})
	return stop()
}

// makeLarge writes an upload whose upstream tarball is large and packs badly.
func (in *intakeBench) makeLarge() ([]string, error) {
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.NoCompression)
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: "large-1.0/data", Mode: 0o644, Size: largeUpload, ModTime: time.Now().Add(-time.Hour),
	}); err != nil {
		return nil, err
	}
	random := rand.NewChaCha8([32]byte{1})
	if _, err := io.CopyN(w, random, largeUpload); err != nil {
		return nil, err
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		return nil, err
	}
	return in.make(uploadtest.Package{Source: "large", Tarball: func(which string, small []byte) []byte {
		if which == "orig" {
			return packed.Bytes()
		}
		return small
	}})
}

// large is a 1 GB upload beside one pass of copy and SHA-256.
func (in *intakeBench) large() error {
	paths, err := in.makeLarge()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(paths, func(p string) bool { return strings.Contains(p, ".orig.tar") })
	syscall.Sync()
	begin := time.Now()
	if err := copyHashed(paths[i], filepath.Join(in.dir, "copy")); err != nil {
		return err
	}
	base := time.Since(begin)
	if err := os.Remove(filepath.Join(in.dir, "copy")); err != nil {
		return err
	}
	syscall.Sync()
	t, stop, err := in.start()
	if err != nil {
		return err
	}
	time.Sleep(200 * time.Millisecond)
	begin = time.Now()
	if err := drop(t.Path("spool/incoming"), paths); err != nil {
		return err
	}
	if err := reviewed(t, 1, 5*time.Minute); err != nil {
		return err
	}
	took := time.Since(begin)
	ratio := base.Seconds() / took.Seconds()
	in.figure(Figure{Name: "intake.large", Value: float64(largeUpload) / (1 << 20) / took.Seconds(),
		Unit:   "MiB/s of one upload of 1 GiB",
		Versus: "one pass of copy and SHA-256, with sync", Ratio: ratio, Goal: "ratio >= 0.8", Met: ratio >= 0.8})
	return stop()
}
