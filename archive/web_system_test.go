//go:build system

package archive

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// unpacked is Debian's package of a web server, unpacked and not installed: no
// server begins to run on the machine.
func unpacked(t *testing.T, pkg string) string {
	t.Helper()
	cache := testCache(t, "debs")
	out, err := exec.Command("apt-get", "download", "--print-uris", pkg).Output()
	m := regexp.MustCompile(`' (\S+\.deb) `).FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("apt-get download --print-uris %s: %v: %s", pkg, err, out)
	}
	name, dir := string(m[1]), t.TempDir()
	deb := filepath.Join(cache, name)
	if _, err := os.Stat(deb); err != nil {
		cmd := exec.Command("apt-get", "download", "-q", "-o", "APT::Sandbox::User=", pkg)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("apt-get download %s: %v: %s", pkg, err, out)
		}
		deb = filepath.Join(dir, name)
		run(t, dir, "cp", deb, filepath.Join(cache, "."+name+fmt.Sprint(os.Getpid())))
		if err := os.Rename(filepath.Join(cache, "."+name+fmt.Sprint(os.Getpid())), filepath.Join(cache, name)); err != nil {
			t.Fatal(err)
		}
	}
	run(t, dir, "dpkg-deb", "-x", deb, filepath.Join(dir, "root"))
	return filepath.Join(dir, "root")
}

// snippet is a file of scripts/web with the archive's place and a port for this
// test. Every one of the changes must fit, or the snippet is no longer what it was.
func snippet(t *testing.T, name string, change ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../scripts/web", name))
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for i := 0; i < len(change); i += 2 {
		if !strings.Contains(text, change[i]) {
			t.Fatalf("scripts/web/%s has no %q", name, change[i])
		}
		text = strings.Replace(text, change[i], change[i+1], 1)
	}
	return text
}

// The snippets for nginx and Caddy serve apt, tell caches what may be kept, and
// hide what is no client's business.
func TestWebServers(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T, root, addr string) *exec.Cmd{
		"nginx": func(t *testing.T, root, addr string) *exec.Cmd {
			dir, conf := unpacked(t, "nginx"), filepath.Join(t.TempDir(), "nginx.conf")
			server := snippet(t, "nginx.conf", "listen 80;", "listen "+addr+";", "listen [::]:80;", "",
				"/var/lib/packmill/archive", root)
			me := strings.TrimSpace(run(t, "/", "id", "-un"))
			text := fmt.Sprintf("user %s; daemon off; pid %[2]s/pid; error_log stderr;\nevents {}\n"+
				"http { access_log off; client_body_temp_path %[2]s/a; proxy_temp_path %[2]s/b; fastcgi_temp_path %[2]s/c; "+
				"uwsgi_temp_path %[2]s/d; scgi_temp_path %[2]s/e;\n%s\n}\n", me, t.TempDir(), server)
			if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			return exec.Command(filepath.Join(dir, "usr/sbin/nginx"), "-e", "stderr", "-c", conf)
		},
		"caddy": func(t *testing.T, root, addr string) *exec.Cmd {
			dir, conf := unpacked(t, "caddy"), filepath.Join(t.TempDir(), "Caddyfile")
			text := "{\n\tadmin off\n}\n" +
				snippet(t, "Caddyfile", "archive.example.org {", "http://"+addr+" {", "/var/lib/packmill/archive", root)
			if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(filepath.Join(dir, "usr/bin/caddy"), "run", "--config", conf, "--adapter", "caddyfile")
			cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
			return cmd
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.suite.Contents, f.suite.Opkg = true, &Opkg{}
			f.accepted(f.upload(hello("1:1.0~rc1+b")))
			if err := f.a.Snapshot(ctx, f.suite, "monday", f.now); err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			addr := l.Addr().String()
			l.Close()
			cmd := start(t, f.a.Root(), addr)
			var log strings.Builder
			cmd.Stdout, cmd.Stderr = &log, &log
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			for up := false; !up; {
				select {
				case err := <-ended:
					t.Fatalf("%s ended: %v: %s", name, err, log.String())
				case <-time.After(20 * time.Millisecond):
					c, err := net.Dial("tcp", addr)
					if up = err == nil; up {
						c.Close()
					}
				}
			}
			t.Cleanup(func() {
				cmd.Process.Signal(os.Interrupt)
				<-ended
			})
			url := "http://" + addr
			c := newClient(t, strings.ReplaceAll(f.source(), "file:"+f.a.Root(), url), f.key, "amd64")
			c.contents()
			for _, version := range []string{"1:1.0~rc1+b", "1:2.0"} {
				c.run("apt-get", "update")
				c.run("apt-get", "install", "-y", "--download-only", "hello", "hello-doc")
				if got := c.run("apt-cache", "policy", "hello"); !strings.Contains(got, "Candidate: "+version) {
					t.Errorf("apt-cache policy: got %s, want %s", got, version)
				}
				f.accepted(f.upload(hello("1:2.0")))
			}
			index := f.a.path("dists/unstable/main/binary-amd64/Packages.xz")
			sum, err := sumFile(index)
			if err != nil {
				t.Fatal(err)
			}
			for _, tc := range []struct {
				path, cache string
				status      int
			}{
				{"/dists/unstable/InRelease", "no-cache", 200},
				{"/dists/rolling/InRelease", "no-cache", 200}, // an alias
				{"/dists/rolling/main/binary-amd64/Packages.xz", "no-cache", 200},
				{"/dists/unstable/main/binary-amd64/Packages.xz", "no-cache", 200},
				{"/dists/unstable/main/binary-amd64/by-hash/SHA256/" + sum.SHA256, "max-age=2592000", 200},
				{"/pool/main/h/hello/hello_2.0_amd64.deb", "max-age=2592000", 200},
				{"/opkg/unstable/amd64/Packages.gz", "no-cache", 200},
				{"/keys/unstable.asc", "no-cache", 200},
				{"/snapshots/monday/dists/unstable/InRelease", "no-cache", 200},
				{"/snapshots/monday/pool/main/h/hello/hello_1.0~rc1+b_amd64.deb", "", 200},
				{"/cache/", "", 404}, {"/cache/unstable/", "", 404}, {"/.lock", "", 404}, {"/incoming/", "", 404},
				{"/installed", "", 404},
			} {
				resp, err := http.Get(url + tc.path)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if got := resp.Header.Get("Cache-Control"); resp.StatusCode != tc.status || !strings.Contains(got, tc.cache) {
					t.Errorf("%s: got %d, Cache-Control %q, want %d, %q", tc.path, resp.StatusCode, got, tc.status, tc.cache)
				}
			}
		})
	}
}
