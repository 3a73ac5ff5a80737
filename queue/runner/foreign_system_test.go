//go:build system

package runner

import (
	"debug/elf"
	"errors"
	"flag"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var long = flag.Bool("runner.long", false,
	"build for arm64 too, emulated and crossed: ten minutes or more; scripts/test long")

// program reads the ELF header of a program in a .deb.
func program(t *testing.T, deb, path string) *elf.File {
	t.Helper()
	dir := t.TempDir()
	run(t, "dpkg-deb", "-x", deb, dir)
	f, err := elf.Open(filepath.Join(dir, path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// greets builds a program in C, packs it and, where it runs, runs it.
const greets = `
	printf '%s\n' '#include <stdio.h>' 'int main() { puts("built for " ARCH); return 0; }' > x.c
	$$(dpkg-architecture -qDEB_HOST_GNU_TYPE)-gcc -DARCH="\"$$(dpkg-architecture -qDEB_HOST_ARCH)\"" -o x x.c
	test $$(dpkg-architecture -qDEB_HOST_ARCH) != $$(dpkg-architecture -qDEB_BUILD_ARCH) || ./x
	mkdir -p debian/hello/usr/bin
	cp x debian/hello/usr/bin/hello`

// TestForeign builds a program for each way to another architecture: as the
// machine runs it, emulated, and crossed.
func TestForeign(t *testing.T) {
	if Machine() != "amd64" {
		t.Fatal("this test is for amd64 machines")
	}
	for _, x := range []struct {
		name, arch, from string
		machine          elf.Machine
		runner           func(*Chroots) Runner
		long             bool
	}{
		{"i386 by overlay", "i386", "", elf.EM_386, func(c *Chroots) Runner { return &Overlay{Chroots: c} }, false},
		{"i386 by sbuild", "i386", "", elf.EM_386, func(c *Chroots) Runner { return &Sbuild{Chroots: c} }, true},
		{"arm64 crossed by sbuild", "arm64", "amd64", elf.EM_AARCH64, func(c *Chroots) Runner {
			return &Sbuild{Chroots: c}
		}, true},
		{"arm64 emulated by overlay", "arm64", "", elf.EM_AARCH64, func(c *Chroots) Runner {
			return &Overlay{Chroots: c}
		}, true},
		{"arm64 emulated by sbuild", "arm64", "", elf.EM_AARCH64, func(c *Chroots) Runner {
			return &Sbuild{Chroots: c}
		}, true},
	} {
		if x.long && !*long {
			continue
		}
		if x.arch == "i386" && Runs(x.arch) != nil {
			t.Logf("%s: this kernel runs no 32-bit programs (ia32_emulation=0)", x.name)
			continue
		}
		t.Run(x.name, func(t *testing.T) {
			chroot := x.arch
			if x.from != "" {
				chroot = x.from
			} else if x.arch == "arm64" {
				if err := Runs(x.arch); err != nil {
					t.Fatalf("%v; or run scripts/test long, which does", err)
				}
			}
			r := x.runner(testChroots(t, chroot))
			job := newSystemJob(t)
			job.Arch, job.CrossFrom = x.arch, x.from
			job.Limits.Wall, job.Limits.Silence = 30*time.Minute, 15*time.Minute
			source{build: "uname -m" + greets}.make(t, job)
			start := time.Now()
			res := mustRun(t, r, job)
			log := logText(t, job)
			if res.Outcome != Good || res.Changes != "hello_1.0_"+x.arch+".changes" {
				t.Fatalf("got %v: %s\n%s", res.Outcome, res.Reason, log[max(0, len(log)-6000):])
			}
			if x.from == "" && !strings.Contains(log, "\nbuilt for "+x.arch+"\n") {
				t.Errorf("it did not run: %s", log)
			}
			if x.arch == "i386" && !strings.Contains(log, "\ni686\n") {
				t.Errorf("the machine is not said to be of 32 bits: %s", log)
			}
			if f := program(t, filepath.Join(job.Result, "hello_1.0_"+x.arch+".deb"), "usr/bin/hello"); f.Machine != x.machine {
				t.Errorf("a program for %v", f.Machine)
			}
			t.Logf("%v, cpu %v", time.Since(start).Round(100*time.Millisecond), res.Usage.CPU)
		})
	}
}

// What does not run here is said before anything is begun, with its cure.
func TestNotRuns(t *testing.T) {
	c := testChroots(t, Machine())
	base := []string{"deb http://127.0.0.1:9/debian sid main"}
	// No emulator is for this one.
	err := c.Create(t.Context(), Recipe{Suite: "sid", Arch: "ia64", Base: base})
	if !errors.Is(err, ErrSetup) || !strings.Contains(err.Error(), "qemu-user-static") ||
		!strings.Contains(err.Error(), "Cross-From: "+Machine()) {
		t.Errorf("make a chroot: %v", err)
	}
	if exists(filepath.Join(c.Dir, "sid-ia64")) {
		t.Error("something was begun")
	}
	for _, r := range []Runner{&Sbuild{Chroots: c}, &Overlay{Chroots: c}} {
		if err := r.Ready("ia64"); !errors.Is(err, ErrSetup) {
			t.Errorf("%T: %v", r, err)
		}
		if err := r.Ready(Machine()); err != nil {
			t.Errorf("%T: %v", r, err)
		}
	}
}
