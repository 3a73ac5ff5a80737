package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"packmill/internal/deb/debtest"
	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// hollow makes a file of one byte at the end of a hole.
func (s *site) hollow(path string, size int64) {
	s.t.Helper()
	f, err := os.Create(path)
	if err == nil {
		_, err = f.WriteAt([]byte("x"), size-1)
		f.Close()
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// used is how much of the disk the tree takes, in bytes.
func (s *site) used() (sum int64) {
	s.t.Helper()
	filepath.WalkDir(s.tree.Root(), func(path string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(path, &st) == nil {
			sum += st.Blocks * 512
		}
		return nil
	})
	return sum
}

// unsigned is a .changes that says so much of one file.
func unsigned(name, file string, size int64) string {
	return fmt.Sprintf("Format: 1.8\nDate: Sat, 28 Nov 2026 00:00:00 +0000\nSource: %s\nArchitecture: source\n"+
		"Version: 1\nDistribution: stable\n"+
		"Maintainer: R <robot@example.org>\nChanges:\n x\nChecksums-Sha256:\n %s %d %s\nFiles:\n %s %d misc optional %s\n",
		name, strings.Repeat("0", 64), size, file, strings.Repeat("0", 32), size, file)
}

// TestNothingIsCopiedUnseen: what an upload claims costs a worker nothing: files are
// measured where they lie, and one that cannot be taken is refused as it is. Nothing
// of it is lost.
func TestNothingIsCopiedUnseen(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		name string
		put  func(s *site)
		want string
	}{
		{"a file larger than listed", func(s *site) {
			s.hollow(s.drop("robot", "big_1.dsc"), 3<<30)
			s.write("spool/incoming/robot/big_1_source.changes", unsigned("big", "big_1.dsc", 10))
		}, "big_1.dsc is of 3221225472 bytes, but big_1_source.changes says 10; upload it again\n\n"},
		{"a .changes of three gigabytes", func(s *site) {
			s.hollow(s.drop("robot", "big_1_source.changes"), 3<<30)
		}, "big_1_source.changes: it is of 3221225472 bytes, and 8388608 are the limit for such a file"},
	} {
		t.Run(x.name, func(t *testing.T) {
			s := newSite(t)
			if err := os.MkdirAll(s.drop("robot"), 0o775); err != nil {
				t.Fatal(err)
			}
			x.put(s)
			began := time.Now()
			s.once()
			f := s.await("", spool.Rejected)
			if got := s.reason(f); !strings.Contains(got, x.want) {
				t.Errorf("REASON:\n%s\nwant %q", got, x.want)
			}
			if used := s.used(); used > 10<<20 {
				t.Errorf("the tree takes %d MiB", used>>20)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
			if len(s.files(f)) == 0 {
				t.Error("nothing of the upload is kept")
			}
			s.sound("robot/big_1_source.changes.status")
		})
	}
}

// member is an upload whose orig tarball has further members.
func member(source string, more func(add func(tar.Header))) uploadtest.Package {
	return uploadtest.Package{Source: source, Version: "1.0-1",
		Members: func(which string, m []uploadtest.Member) []uploadtest.Member {
			if which == "orig" {
				more(func(h tar.Header) {
					h.Mode, h.Format = 0o644, tar.FormatGNU
					m = append(m, uploadtest.Member{Header: h})
				})
			}
			return m
		}}
}

// long is an upload that is small and takes long to judge: two million members.
func long(source string) uploadtest.Package {
	return uploadtest.Package{Source: source, Version: "1.0-1", Tarball: func(which string, packed []byte) []byte {
		if which != "orig" {
			return packed
		}
		var raw bytes.Buffer
		tw := tar.NewWriter(&raw)
		for i := range 1000 {
			if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%s-1.0/%d", source, i), Mode: 0o644,
				ModTime: time.Now()}); err != nil {
				panic(err)
			}
		}
		tw.Flush()
		one := debtest.Pack("gz", raw.Bytes())
		return bytes.Repeat(one, 1900)
	}}
}

// TestDearUpload: an upload that costs a worker more than its bound is refused with that
// reason, whoever signed it, and the next goes its way.
func TestDearUpload(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, x := range []struct {
		p       uploadtest.Package
		general string
		want    string
	}{
		{member("deep", func(add func(tar.Header)) {
			add(tar.Header{Name: "deep-1.0/" + strings.Repeat("a/", 500_000)})
		}), "", "has a name of 1000009 bytes"},
		{long("long"), "Max-Time: 1s\n", "to judge it takes longer than the 1s that an upload of"},
	} {
		x.p.Signer = keys().ann
		s.write("control/general", "Reserve: 1M\nReserve-Inodes: 1\n"+x.general)
		dir, names := s.make(x.p)
		s.put("", dir, names...)
		began := time.Now()
		s.once()
		if got := s.reason(s.await(x.p.Source, spool.Rejected)); !strings.Contains(got, x.want) {
			t.Errorf("REASON:\n%s\nwant %q", got, x.want)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s took %v", x.p.Source, took)
		}
	}
	s.write("control/general", "Reserve: 1M\nReserve-Inodes: 1\n")
	dir, names := s.make(uploadtest.Package{Source: "next", Version: "1.0-1", Signer: keys().ann})
	s.put("", dir, names...)
	s.once()
	s.await("next", spool.Review)
	s.sound()
}

// TestStopInJudgement: SIGTERM ends a judgement wherever it is, at once, and the
// next daemon takes the upload up again.
func TestStopInJudgement(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	s := newSite(t)
	p := long("long")
	p.Signer = keys().ann
	dir, names := s.make(p)
	s.put("", dir, names...)
	s.start()
	s.until("it is being judged", func() bool {
		m, _ := filepath.Glob(s.tree.Path("spool/intake/*_long_1.0-1/long_1.0.orig.tar.gz"))
		return len(m) > 0
	})
	began := time.Now()
	s.stop()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the daemon ended after %v", took)
	}
	if len(s.where("long", spool.Intake)) != 1 && len(s.where("long", spool.Review, spool.Rejected)) != 1 {
		t.Error("the upload is nowhere")
	}
	s.once()
	s.await("long", spool.Review)
	s.sound()
}

// TestQuota: no more is kept for an account than its quota; what is over it waits,
// and says so, until there is room.
func TestQuota(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := os.MkdirAll(s.drop("robot"), 0o775); err != nil {
		t.Fatal(err)
	}
	settings := func(quota string) {
		s.write("control/uploaders",
			"Name: robot\nAccount: robot\nEmail: robot@example.org\nAllow: source\nQuota: "+quota+"\n")
	}
	settings("600K")
	bring := func(source string, junk int) {
		p := uploadtest.Package{Source: source, Version: "1.0-1", Packing: "gz"}
		p.Tree = []uploadtest.Member{uploadtest.Text("noise", noise(junk))}
		dir, names := s.make(p)
		s.put("robot", dir, names...)
	}
	bring("first", 700<<10)
	s.once()
	s.await("first", spool.Rejected) // signed by nobody who is known here: what is refused is kept too
	bring("second", 700<<10)
	s.once()
	if got := s.where("second"); len(got) != 0 {
		t.Errorf("an upload over the quota was taken: %v", got)
	}
	status, _ := os.ReadFile(s.drop("robot", "second_1.0-1_source.changes.status"))
	if !strings.Contains(string(status), "Quota in control/uploaders") {
		t.Errorf("the status is %q", status)
	}
	settings("10M")
	s.once()
	s.await("second", spool.Rejected)
	s.sound("robot/first_1.0-1_source.changes.status", "robot/second_1.0-1_source.changes.status")
}

// noise is text that does not get smaller.
func noise(n int) string {
	var b strings.Builder
	for x := uint64(88172645463325252); b.Len() < n; {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		fmt.Fprintf(&b, "%016x", x)
	}
	return b.String()
}
