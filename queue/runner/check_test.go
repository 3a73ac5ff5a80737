package runner

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"packmill/internal/deb822"
)

// fillResult writes a good result for the job: one real package, a buildinfo
// and a .changes, with the file names as given by dpkg.
func fillResult(t *testing.T, job *Job, arch string) string {
	t.Helper()
	control := fmt.Sprintf("Package: hello\nVersion: %s\nArchitecture: %s\nMaintainer: A Builder <a@example.org>\n"+
		"Description: greets\n", job.BinaryVersion(), arch)
	source := "hello"
	if job.BinNMU != nil {
		source = "hello (" + job.Version + ")"
		control = "Source: " + source + "\n" + control
	}
	deb := makeDeb(t, job.Result, control)
	info := fmt.Sprintf("hello_%s_%s.buildinfo", job.BinaryVersion(), arch)
	write(t, filepath.Join(job.Result, info),
		fmt.Sprintf("Format: 1.0\nSource: %s\nBinary: hello\nArchitecture: %s\nVersion: %s\n",
			source, arch, job.BinaryVersion()))
	name := fmt.Sprintf("hello_%s_%s.changes", job.BinaryVersion(), arch)
	writeChanges(t, job, name, source, arch, deb, info)
	return name
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func writeChanges(t *testing.T, job *Job, name, source, arch string, files ...string) {
	t.Helper()
	var f, s1, s256 strings.Builder
	for _, file := range files {
		data, err := os.ReadFile(filepath.Join(job.Result, file))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&f, " %x %d devel optional %s\n", md5.Sum(data), len(data), file)
		fmt.Fprintf(&s1, " %x %d %s\n", sha1.Sum(data), len(data), file)
		fmt.Fprintf(&s256, " %x %d %s\n", sha256.Sum256(data), len(data), file)
	}
	write(t, filepath.Join(job.Result, name), fmt.Sprintf("Format: 1.8\nDate: Sat, 21 Nov 2026 00:00:00 +0000\n"+
		"Source: %s\nBinary: hello\nArchitecture: %s\nVersion: %s\nDistribution: %s\nDescription:\n hello - greets\n"+
		"Changes:\n hello\nChecksums-Sha1:\n%sChecksums-Sha256:\n%sFiles:\n%s",
		source, arch, job.BinaryVersion(), job.Suite, s1.String(), s256.String(), f.String()))
}

// debControl reads a package with the real dpkg-deb.
func debControl(path string) (*deb822.Stanza, error) {
	out, err := exec.Command("dpkg-deb", "-f", path).Output()
	if err != nil {
		return nil, fmt.Errorf("dpkg-deb -f %s: %w", filepath.Base(path), err)
	}
	return deb822.ParseOne(path, out, deb822.Hostile)
}

func TestCheck(t *testing.T) {
	replace := func(old, new string) func(*testing.T, *Job, string) {
		return func(t *testing.T, job *Job, changes string) {
			path := filepath.Join(job.Result, changes)
			data, _ := os.ReadFile(path)
			if !strings.Contains(string(data), old) {
				t.Fatalf("no %q in\n%s", old, data)
			}
			write(t, path, strings.ReplaceAll(string(data), old, new))
		}
	}
	binNMU := func(j *Job) {
		j.BinNMU = &BinNMU{Number: 2, Changelog: "x", Time: time.Unix(1, 0)}
	}
	all := func(j *Job) { j.Arch = "all" }
	for _, c := range []struct {
		name   string
		job    func(*Job)
		spoil  func(t *testing.T, job *Job, changes string)
		want   string // in the error; empty: good
		forged bool
	}{
		{name: "good"},
		{name: "good binNMU", job: binNMU},
		{name: "good all", job: all},
		{name: "another name of the .changes", spoil: func(t *testing.T, job *Job, c string) {
			os.Rename(filepath.Join(job.Result, c), filepath.Join(job.Result, "hello_1.0-1_multi.changes"))
		}},
		{name: "a package that the source names", job: func(j *Job) { j.Packages = []string{"doc", "hello"} }},
		{"a package that it does not name", func(j *Job) {
			j.Packages = []string{"doc"}
		}, nil, "made the package hello, which its source does not name", true},
		{"other source", nil, replace("Source: hello", "Source: bash"), `result of "bash"`, true},
		{"other version", nil, replace("Version: 1.0-1", "Version: 2.0-1"), `version "2.0-1"`, true},
		{"other source version", nil, replace("Source: hello", "Source: hello (0.9)"), `version "0.9"`, true},
		{"no +bN", func(j *Job) { binNMU(j); j.BinNMU.Number = 9 }, replace("+b9", ""), "has version", true},
		{"other suite", nil, replace("Distribution: sid", "Distribution: stable"), `for "stable"`, true},
		{"other architecture", nil, replace("Architecture: amd64", "Architecture: arm64"), `packages for "arm64"`, true},
		{"with source", nil, replace("Architecture: amd64", "Architecture: source amd64"), `packages for "source"`, true},
		{"all in an amd64 build", nil, replace("Architecture: amd64", "Architecture: amd64 all"), `packages for "all"`, true},
		{"path in a name", nil, replace("hello_1.0-1_amd64.deb", "../hello_1.0-1_amd64.deb"), "file name", true},
		{"two lists differ", nil, func(t *testing.T, job *Job, c string) {
			data, _ := os.ReadFile(filepath.Join(job.Result, c))
			text := string(data)
			i := strings.LastIndex(text, "\n ")
			write(t, filepath.Join(job.Result, c), text[:i+1])
		}, "is not in Files", true},
		{"no checksums", nil, replace("Checksums-Sha256:", "Checksums-Sha512:"), "no field Checksums-Sha256", true},
		{"duplicate field", nil, replace("Format: 1.8", "Format: 1.8\nSource: hello"), "Source", true},
		{"not deb822", nil, replace("Format: 1.8", "\x00\x01"), ".changes", true},
		{"package changed", nil, func(t *testing.T, job *Job, c string) {
			path := filepath.Join(job.Result, "hello_1.0-1_amd64.deb")
			data, _ := os.ReadFile(path)
			data[len(data)-1] ^= 1
			write(t, path, string(data))
		}, "SHA-256 differs", true},
		{"package longer", nil, func(t *testing.T, job *Job, c string) {
			f, _ := os.OpenFile(filepath.Join(job.Result, "hello_1.0-1_amd64.deb"), os.O_APPEND|os.O_WRONLY, 0)
			f.WriteString("more")
			f.Close()
		}, "bytes, the .changes says", true},
		{"full disk, nothing written", nil, func(t *testing.T, job *Job, c string) {
			write(t, filepath.Join(job.Result, "hello_1.0-1_amd64.deb"), "")
		}, "is empty, as on a full disk", false},
		{"full disk, half written", nil, func(t *testing.T, job *Job, c string) {
			os.Truncate(filepath.Join(job.Result, "hello_1.0-1_amd64.deb"), 100)
		}, "as on a full disk", false},
		{"full disk, .changes empty", nil, func(t *testing.T, job *Job, c string) {
			write(t, filepath.Join(job.Result, c), "")
		}, "is empty, as on a full disk", false},
		{"package missing", nil, func(t *testing.T, job *Job, c string) {
			os.Remove(filepath.Join(job.Result, "hello_1.0-1_amd64.deb"))
		}, "lacks hello_1.0-1_amd64.deb", false},
		{"no .changes", nil, func(t *testing.T, job *Job, c string) {
			os.Remove(filepath.Join(job.Result, c))
		}, "left no .changes", false},
		{"two .changes", nil, func(t *testing.T, job *Job, c string) {
			write(t, filepath.Join(job.Result, "bash_1_amd64.changes"), "x")
		}, "two .changes", true},
		{"a file more", nil, func(t *testing.T, job *Job, c string) {
			write(t, filepath.Join(job.Result, "bash_1_amd64.deb"), "x")
		}, "does not list", true},
		{"a link", nil, func(t *testing.T, job *Job, c string) {
			os.Symlink("/etc/passwd", filepath.Join(job.Result, "bash_1_amd64.deb"))
		}, "not a plain file", true},
		{"package is a link", nil, func(t *testing.T, job *Job, c string) {
			path := filepath.Join(job.Result, "hello_1.0-1_amd64.deb")
			os.Rename(path, filepath.Join(job.Dir, "x"))
			os.Symlink(filepath.Join(job.Dir, "x"), path)
		}, "not a plain file", true},
		{"package has a second name", nil, func(t *testing.T, job *Job, c string) {
			os.Link(filepath.Join(job.Result, "hello_1.0-1_amd64.deb"), filepath.Join(job.Dir, "x"))
		}, "one name", true},
		{"a directory", nil, func(t *testing.T, job *Job, c string) {
			os.Mkdir(filepath.Join(job.Result, "d"), 0o755)
		}, "not a plain file", true},
		{"a foreign kind of file", nil, func(t *testing.T, job *Job, c string) {
			write(t, filepath.Join(job.Result, "hello_1.0-1_amd64.tar"), "x")
			writeChanges(t, job, c, "hello", "amd64", "hello_1.0-1_amd64.deb", "hello_1.0-1_amd64.tar")
		}, "only .deb", true},
		{"no package", nil, func(t *testing.T, job *Job, c string) {
			os.Remove(filepath.Join(job.Result, "hello_1.0-1_amd64.deb"))
			writeChanges(t, job, c, "hello", "amd64", "hello_1.0-1_amd64.buildinfo")
		}, "lists no package", true},
		{"foreign package", nil, func(t *testing.T, job *Job, c string) {
			deb := makeDeb(t, job.Result,
				"Package: bash\nVersion: 5\nArchitecture: amd64\nMaintainer: A Builder <a@example.org>\nDescription: a shell\n")
			writeChanges(t, job, c, "hello", "amd64", "hello_1.0-1_amd64.deb", "hello_1.0-1_amd64.buildinfo", deb)
		}, "built from bash 5", true},
		{"package in disguise", nil, func(t *testing.T, job *Job, c string) {
			deb := makeDeb(t, job.Result, "Package: bash\nSource: hello (1.0-1)\nVersion: 5\nArchitecture: amd64\n"+
				"Maintainer: A Builder <a@example.org>\nDescription: a shell\n")
			os.Rename(filepath.Join(job.Result, deb), filepath.Join(job.Result, "hello_1.0-1_amd64.deb"))
			writeChanges(t, job, c, "hello", "amd64", "hello_1.0-1_amd64.deb", "hello_1.0-1_amd64.buildinfo")
		}, "says inside that it is bash", true},
		{"not a package", nil, func(t *testing.T, job *Job, c string) {
			write(t, filepath.Join(job.Result, "hello_1.0-1_amd64.deb"), "rubbish")
			writeChanges(t, job, c, "hello", "amd64", "hello_1.0-1_amd64.deb", "hello_1.0-1_amd64.buildinfo")
		}, "dpkg-deb", true},
		{"foreign buildinfo", nil, func(t *testing.T, job *Job, c string) {
			write(t, filepath.Join(job.Result, "hello_1.0-1_amd64.buildinfo"), "Format: 1.0\nSource: bash\nVersion: 5\n")
			writeChanges(t, job, c, "hello", "amd64", "hello_1.0-1_amd64.deb", "hello_1.0-1_amd64.buildinfo")
		}, "is about bash 5", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			job := newJob(t)
			job.Control = debControl
			if c.job != nil {
				c.job(job)
			}
			changes := fillResult(t, job, job.Arch)
			if c.spoil != nil {
				c.spoil(t, job, changes)
			}
			got, _, err := Check(job)
			if c.want == "" {
				if err != nil || got != changes {
					t.Errorf("got %q, %v; want %q", got, err, changes)
				}
				return
			}
			var f *Forged
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.As(err, &f) != c.forged {
				t.Errorf("got %q, %v (forged %v); want an error with %q (forged %v)", got, err, f != nil, c.want, c.forged)
			}
		})
	}
}

// A package may have another version than its source, as many have.
func TestCheckOwnVersion(t *testing.T) {
	job := newJob(t)
	job.Control = debControl
	deb := makeDeb(t, job.Result, "Package: hello-data\nSource: hello (1.0-1)\nVersion: 1:7\nArchitecture: amd64\n"+
		"Maintainer: A Builder <a@example.org>\nDescription: data\n")
	writeChanges(t, job, "hello_1.0-1_amd64.changes", "hello", "amd64", deb)
	if _, _, err := Check(job); err != nil {
		t.Error(err)
	}
}

// The whole way of a good build, with a program that builds for real.
func TestExecGood(t *testing.T) {
	job := newJob(t)
	job.Control = debControl
	fillResult(t, job, "amd64")
	keep := t.TempDir()
	os.Chmod(filepath.Dir(keep), 0o755)
	os.Chmod(keep, 0o755)
	if out, err := exec.Command("cp", "-a", job.Result+"/.", keep).CombinedOutput(); err != nil {
		t.Fatalf("cp: %s", out)
	}
	res := mustRun(t, script(t, "cp "+keep+"/* $PACKMILL_RESULT/"), job)
	if res.Outcome != Good || res.Changes != "hello_1.0-1_amd64.changes" {
		t.Errorf("got %v %q: %s", res.Outcome, res.Changes, res.Reason)
	}
	if res.Usage.Overhead <= 0 {
		t.Errorf("overhead %v", res.Usage.Overhead)
	}
	res = mustRun(t, script(t, "cp "+keep+"/* $PACKMILL_RESULT/; echo x >> $PACKMILL_RESULT/hello_1.0-1_amd64.deb"), job)
	if res.Outcome != Quarantined {
		t.Errorf("got %v: %s", res.Outcome, res.Reason)
	}
}

// What may pass is no forgery: the job is given back.
func TestForgedIsNotOurTrouble(t *testing.T) {
	trouble := &os.PathError{Op: "open", Path: "hello_1_amd64.deb", Err: syscall.EMFILE}
	var f *Forged
	if err := forged("%s: %v", "hello_1_amd64.deb", trouble); errors.As(err, &f) {
		t.Errorf("got %v as a forgery, want trouble that may pass", err)
	}
}
