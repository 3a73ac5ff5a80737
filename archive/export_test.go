package archive

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"packmill/archive/opkg"
	"packmill/archive/push"
	"packmill/internal/deb/debtest"
)

func TestBreaks(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	up := func(name, depends string) Inclusion {
		d := debtest.Deb{Name: name, Version: "1"}
		if depends != "" {
			d.Fields = "Depends: " + depends + "\n"
		}
		return f.upload(debtest.Upload{Source: debtest.Source{Name: name, Version: "1"}, Debs: []debtest.Deb{d}})
	}
	for name, fields := range map[string]string{"made-with": "Build-Depends: debhelper (>= 13), user [amd64]\n",
		"made-without": "Build-Depends: debhelper, either\nBuild-Conflicts: second\n",
		"never-made":   "Build-Depends: user, other (>= 7)\n"} {
		f.accepted(f.upload(debtest.Upload{Source: debtest.Source{Name: name, Version: "1", Fields: fields}}))
	}
	f.accepted(up("base", "libc6 (>= 2.36)"), up("user", "base (>= 1), libc6"), up("second", "user"),
		up("either", "base | other"), up("other", ""), up("broken", "nothing-of-ours (= 1), base"),
		up("bounded", "perl (<< 6), base,\n python3 (>= 3.11),\n python3 (<< 3.12)"), up("theirs", "nothing-of-ours | base"))
	f.older("main/binary-amd64/Packages", "other", replace("Description:", "Depends: a,,b\nDescription:"))
	p := f.planned(f.a.Remove(ctx, f.suite, []string{"base"}, ChangeOptions{Dry: true}, f.now))
	none := func(string) []string { return nil }
	got, err := f.a.Breaks(ctx, "unstable", p.Removed, none)
	if want := "[{bounded 1 amd64 base} {broken 1 amd64 base} {second 1 amd64 base (>= 1)} {user 1 amd64 base (>= 1)} " +
		"{made-with 1 source base (>= 1)}]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v, %v, want %s", got, err, want)
	}
	if got, err := f.a.Breaks(ctx, "unstable", nil, none); err != nil || len(got) > 0 {
		t.Errorf("without a removal: got %v, %v, want nothing", got, err)
	}
	// The distribution below the suite has one of them, and what makes good for it.
	below := filepath.Join(t.TempDir(), "Packages")
	text := ""
	for _, p := range []string{"libc6 2.36", "perl 5", "python3 3.11", "debhelper 13", "build-essential 1", "other 1",
		"nothing-of-ours 1", "base 0.5\nProvides: second (= 1)", "unread 1\nDepends: a b"} {
		name, rest, _ := strings.Cut(p, " ")
		text += "Package: " + name + "\nArchitecture: amd64\nVersion: " + rest + "\n\n"
	}
	if err := os.WriteFile(below, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err = f.a.Breaks(ctx, "unstable", p.Removed, func(string) []string { return []string{below} })
	// The older base provides what made-without must not meet, and the suite's other lacks a.
	if want := "[{second 1 amd64 base (>= 1)} {user 1 amd64 base (>= 1)} {made-with 1 source base (>= 1)} " +
		"{made-without 1 source a}]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("over a distribution that has an older base: got %v, %v, want %s", got, err, want)
	}
}

func TestExportAndRsync(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	f := newFixture(t)
	usign, err := opkg.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	f.suite.Opkg = &Opkg{Keys: []string{filepath.Join(t.TempDir(), "feed.sec")}}
	if err := os.WriteFile(f.suite.Opkg.Keys[0], usign.Secret(), 0o600); err != nil {
		t.Fatal(err)
	}
	f.accepted(f.upload(hello("1")))
	f.accepted(f.upload(hello("2")))
	// Of the keys only what the suite hands out goes along.
	for _, stray := range []string{"unstable.key", "unstable.asc.orig", "gone.asc", "feed.sec"} {
		if err := os.WriteFile(f.a.path("keys", stray), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(t.TempDir(), "srv", "archive")
	far := filepath.Join(t.TempDir(), "far", "archive")
	send := func() {
		t.Helper()
		if _, err := f.a.Export(ctx, "unstable", dir, ExportOptions{Link: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := f.a.Push(ctx, "unstable", &push.Rsync{Dest: far}, push.Options{}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	send()
	for _, d := range []string{dir, far} {
		list := strings.Join(tree(t, filepath.Join(d, "pool")), " ")
		if want := "main/h/hello/hello-doc_2_all.deb main/h/hello/hello_2.dsc main/h/hello/hello_2.tar.xz " +
			"main/h/hello/hello_2_amd64.deb"; list != want {
			t.Errorf("%s: got %s, want %s", d, list, want)
		}
		if list := strings.Join(tree(t, filepath.Join(d, "keys")), " "); list != "unstable.asc unstable.pub" {
			t.Errorf("%s: keys: got %s", d, list)
		}
		if pub, err := os.ReadFile(filepath.Join(d, "keys/unstable.pub")); err != nil ||
			string(pub) != string(usign.Public()) {
			t.Errorf("%s: the feeds' public key: got %q, %v", d, pub, err)
		}
		c := newClient(t, strings.ReplaceAll(f.source(), f.a.Root(), d), filepath.Join(d, "keys/unstable.asc"), "amd64")
		c.run("apt-get", "update")
		c.run("apt-get", "download", "hello=2")
		if to, err := os.Readlink(filepath.Join(d, "dists/sid")); err != nil || to != "unstable" {
			t.Errorf("%s: alias: got %q, %v", d, to, err)
		}
	}
	again, err := f.a.Export(ctx, "unstable", dir, ExportOptions{Link: true})
	if err != nil || again.Files != 0 {
		t.Errorf("a second export: got %+v, %v, want nothing sent", again, err)
	}
	// The whole archive, and a snapshot, which has the keys of its day.
	if err := f.a.Snapshot(ctx, f.suite, "monday", f.now); err != nil {
		t.Fatal(err)
	}
	for _, view := range []string{"", "monday/unstable"} {
		to := t.TempDir()
		if _, err := f.a.Push(ctx, view, &push.Rsync{Dest: to}, push.Options{}, time.Now()); err != nil {
			t.Fatal(err)
		}
		if list := strings.Join(tree(t, filepath.Join(to, "keys")), " "); list != "unstable.asc unstable.pub" {
			t.Errorf("push of %q: keys: got %s", view, list)
		}
		newClient(t, strings.ReplaceAll(f.source(), f.a.Root(), to), filepath.Join(to, "keys/unstable.asc"),
			"amd64").run("apt-get", "update")
	}
	f.accepted(f.upload(hello("3")))
	send()
	for _, d := range []string{dir, far} {
		c := newClient(t, strings.ReplaceAll(f.source(), f.a.Root(), d), f.key, "i386")
		c.run("apt-get", "update")
		c.run("apt-get", "download", "hello-doc=3")
	}
}

// rsync has the lock of its push: one that outlives the program that began it
// still keeps every other away.
func TestRsyncHasTheLock(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.accepted(f.upload(hello("1")))
	seen := filepath.Join(t.TempDir(), "seen")
	shell := filepath.Join(t.TempDir(), "shell")
	if err := os.WriteFile(shell, []byte("#!/bin/sh\nls -l /proc/$PPID/fd >"+seen+"\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := f.a.Push(ctx, "unstable", &push.Rsync{Dest: "host:/srv", Args: []string{"-e", shell}}, push.Options{},
		time.Now()); err == nil {
		t.Fatal("got no error of a remote shell that fails")
	}
	got, err := os.ReadFile(seen)
	if err != nil || !regexp.MustCompile(`cache/push-[0-9a-f]+\.lock`).Match(got) {
		t.Errorf("rsync's files: got %s (%v), want the lock among them", got, err)
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.accepted(f.upload(hello("1")))
	s := httptest.NewServer(f.a.Handler())
	defer s.Close()
	c := newClient(t, strings.ReplaceAll(f.source(), "file:"+f.a.Root(), s.URL), f.key, "amd64")
	c.run("apt-get", "update")
	c.run("apt-get", "download", "hello")
	get := func(p string) (int, string) {
		t.Helper()
		// As it stands, for a client cleans a path.
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: archive\r\nConnection: close\r\n\r\n", p)
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(text)
	}
	// All that is refused is there, and has a file: the daemons' places, a view that is being made, and what lies
	// beside the archive.
	inner := []string{"cache", "incoming", "installed", "published", ".lock"}
	beside := filepath.Base(f.a.Root()) + "-beside"
	t.Cleanup(func() { os.RemoveAll(filepath.Join(filepath.Dir(f.a.Root()), beside)) })
	for _, dir := range []string{"cache", "incoming", "installed", "published", "dists/.new-unstable", "../" + beside} {
		dir = filepath.Join(f.a.Root(), dir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("secret"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(f.a.Root(), ".lock")); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"/", "//", "/./", "/dists/..", "/pool//../"} {
		_, text := get(p)
		for _, n := range inner {
			if strings.Contains(text, n) {
				t.Errorf("%s lists %s:\n%s", p, n, text)
			}
		}
	}
	outer := append(inner, "dists/.new-unstable", "../"+beside)
	for _, n := range outer[:len(outer):len(outer)] {
		if n != ".lock" {
			outer = append(outer, n+"/file")
		}
	}
	for _, n := range outer {
		for _, way := range []string{"/%s", "//%s", "/%s/", "//%s/", "/./%s/", "/dists/../%s/", "/dists//../%s",
			"/pool/%%2e%%2e/%s/", "/%%2f%s/", "/%%2e/%s", "/dists/..//%s/"} {
			p := fmt.Sprintf(way, n)
			// A client that is sent to the clean name is refused there.
			code, text := get(p)
			if code == http.StatusOK || strings.Contains(text, "<a href") && code/100 != 3 || strings.Contains(text, "secret") {
				t.Errorf("%s: got %d, want none of it", p, code)
			}
			if way == "/%s" && !strings.HasPrefix(n, "..") && code != http.StatusNotFound {
				t.Errorf("%s: got %d, want %d", p, code, http.StatusNotFound)
			}
		}
	}
}

func TestSourcesFile(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.accepted(f.upload(hello("1")))
	text, err := f.a.Sources(f.suite, "file:"+f.a.Root())
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, "", "", "amd64")
	if err := os.WriteFile(filepath.Join(c.dir, "etc/sources.list.d/packmill.sources"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c.run("apt-get", "update")
	c.run("apt-get", "download", "hello")
}

// What is written is one publication, though others come meanwhile.
func TestExportDuringPublications(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.accepted(f.upload(hello("0")))
	dir := filepath.Join(t.TempDir(), "out")
	done := make(chan error, 1)
	go func() {
		for range 6 {
			if _, err := f.a.Export(ctx, "unstable", dir, ExportOptions{Link: true}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for i := range 6 {
		f.accepted(f.upload(hello(fmt.Sprint(i + 1))))
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	out, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	faults, err := out.Check(ctx, CheckOptions{Deep: true})
	if err != nil || len(faults) > 0 {
		t.Errorf("check of the export: %v, %v", faults, err)
	}
}
