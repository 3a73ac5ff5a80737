package archive

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"packmill/archive/opkg"
	"packmill/archive/push"
	"packmill/internal/deb/debtest"
)

// Clients that were set up for another system's addresses find the feeds there, with
// everything that they name, over http and in a copy; what is no longer in the layout
// goes away, and a section that was there once stays, empty.
func TestLayout(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.suite.Architectures = []string{"amd64"}
	net := func(version, section string) debtest.Upload {
		return debtest.Upload{Source: debtest.Source{Name: "other", Version: version},
			Debs: []debtest.Deb{{Name: "other", Version: version, Fields: "Section: " + section + "\n"}}}
	}
	server := httptest.NewServer(f.a.Handler())
	defer server.Close()
	get := func(path string) (string, int) {
		t.Helper()
		resp, err := http.Get(server.URL + "/opkg/" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text := new(strings.Builder)
		if _, err := io.Copy(text, resp.Body); err != nil {
			t.Fatal(err)
		}
		return text.String(), resp.StatusCode
	}
	// has holds what a feed lists, and that each package comes from below it.
	has := func(feed, want string) {
		t.Helper()
		text, status := get(feed + "/Packages")
		if status != http.StatusOK {
			t.Errorf("%s: status %d", feed, status)
			return
		}
		var got []string
		for line := range strings.Lines(text) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Filename: "); ok {
				got = append(got, filepath.Base(name))
				if _, status := get(feed + "/" + name); status != http.StatusOK {
					t.Errorf("%s/%s: status %d", feed, name, status)
				}
			}
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s: got %s, want %s", feed, got, want)
		}
	}
	f.suite.Opkg = &Opkg{Layout: "feeds/dev/trunk/ARCH/any/SECTION",
		Options: opkg.Options{Arch: map[string]string{"amd64": "amd64-linux-glibc"}}}
	f.accepted(f.upload(hello("1")))
	f.accepted(f.upload(net("1", "net")))
	has("feeds/dev/trunk/amd64-linux-glibc/any/net", "other_1_amd64-linux-glibc.opk")
	has("feeds/dev/trunk/all/any/misc", "hello-doc_1_all.opk")
	has("unstable/amd64-linux-glibc", "hello_1_amd64-linux-glibc.opk hello-doc_1_all.opk other_1_amd64-linux-glibc.opk")
	if rep := f.accepted(); rep.Changed {
		t.Error("nothing is new, but the report says so")
	}
	f.accepted(f.upload(net("2", "admin")))
	has("feeds/dev/trunk/amd64-linux-glibc/any/net", "")
	has("feeds/dev/trunk/amd64-linux-glibc/any/admin", "other_2_amd64-linux-glibc.opk")
	if faults, err := f.a.Check(context.Background(), CheckOptions{Deep: true}); err != nil || faults != nil {
		t.Errorf("check: %v, %v", faults, err)
	}

	// A section is a stranger's word.
	f.accepted(f.upload(debtest.Upload{Source: debtest.Source{Name: "evil", Version: "1"},
		Debs: []debtest.Deb{{Name: "evil", Version: "1", Fields: "Section: ..\n"}}}))

	f.suite.Opkg.Layout = "packages/ARCH/SUITE"
	f.suite.Opkg.Arch = map[string]string{"amd64": "x86_64"}
	f.accepted()
	has("packages/x86_64/unstable", "evil_1_x86_64.opk hello_1_x86_64.opk hello-doc_1_all.opk other_2_x86_64.opk")
	if manifest, _ := get("packages/x86_64/unstable/Packages.manifest"); !strings.Contains(manifest, "Package: hello\n") {
		t.Errorf("Packages.manifest: got %q", manifest)
	}
	if left, err := os.ReadDir(f.a.path("opkg/feeds")); err == nil {
		t.Errorf("left of the old layout: %v", left)
	}
	copied := t.TempDir()
	if _, err := f.a.Push(context.Background(), "unstable", &push.Rsync{Dest: copied}, push.Options{}, f.now); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Packages.gz", "pool/main/h/hello/hello_1_x86_64.opk"} {
		if _, err := os.Stat(filepath.Join(copied, "opkg/packages/x86_64/unstable", name)); err != nil {
			t.Errorf("in the copy: %v", err)
		}
	}
	f.suite.Opkg.Layout = ""
	f.accepted()
	if _, err := os.Lstat(f.a.path("opkg/packages")); !os.IsNotExist(err) {
		t.Errorf("left of the layout: %v", err)
	}
}

func TestLayoutsThatCannotBe(t *testing.T) {
	t.Parallel()
	for layout, want := range map[string]string{
		"":                       "",
		"packages/ARCH/SUITE":    "",
		"SUITE/ARCH":             "begins with SUITE",
		"feeds/SUITE":            "has no ARCH",
		"pool/ARCH":              `"pool" is no name for a directory`,
		"feeds/../ARCH":          `".." is no name for a directory`,
		"feeds/ARCH/" + "a b":    `"a b" is no name for a directory`,
		"feeds/%41/ARCH/SECTION": `"%41" is no name`,
	} {
		err := checkLayout(layout)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, want %q", layout, err, want)
		}
	}
	// Two suites at one place.
	f := newFixture(t)
	f.suite.Opkg = &Opkg{Layout: "packages/ARCH/base"}
	f.accepted(f.upload(hello("1")))
	other := f.suite
	other.Name, other.Codename = "testing", "testing"
	if _, err := f.a.Publish(context.Background(), other, nil, f.now); err == nil ||
		!strings.Contains(err.Error(), "give the suites layouts that differ") {
		t.Errorf("two suites: got %v", err)
	}
}

// What opkg cannot take is said when it comes, and not again.
func TestWarnsOfWhatOpkgCannotTake(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.suite.Architectures, f.suite.Opkg = []string{"amd64"}, &Opkg{}
	f.accepted(f.upload(hello("1")))
	// Another content under the name of a package to come.
	taken := f.a.path("opkg/pool/2/main/h/hello/hello_2_amd64.opk")
	data, err := os.ReadFile(f.a.path("opkg/pool/2/main/h/hello/hello_1_amd64.opk"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(taken, data, 0o644); err != nil {
		t.Fatal(err)
	}
	rep := f.accepted(f.upload(hello("2")))
	want := "the opkg feed unstable/amd64 goes without hello 2: "
	if len(rep.Warnings) != 1 || !strings.HasPrefix(rep.Warnings[0], want) ||
		!strings.Contains(rep.Warnings[0], "raise the version") {
		t.Errorf("warnings: got %q, want %s", rep.Warnings, want)
	}
	rep = f.accepted(f.upload(debtest.Upload{Source: debtest.Source{Name: "other", Version: "1"},
		Debs: []debtest.Deb{{Name: "other", Version: "1"}}}))
	if rep.Warnings != nil {
		t.Errorf("said again: %q", rep.Warnings)
	}
}

// The settings name all that a client of each family needs, and nothing that its
// family does not know.
func TestOpkgClients(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	key, err := opkg.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "feed.sec")
	if err := os.WriteFile(file, key.Secret(), 0o600); err != nil {
		t.Fatal(err)
	}
	f.suite.Opkg = &Opkg{Sources: true, Keys: []string{file},
		Options: opkg.Options{Arch: map[string]string{"amd64": "x86_64", "all": "noarch"}}}
	f.accepted(f.upload(hello("1")))
	clients, err := f.a.OpkgClients(f.suite, "amd64", "http://a.example/")
	if err != nil || len(clients) != 3 {
		t.Fatalf("got %v, %v", clients, err)
	}
	common := "src/gz unstable http://a.example/opkg/unstable/x86_64\n" +
		"src/gz unstable-src http://a.example/opkg/unstable/src\narch noarch 1\narch all 1\narch x86_64 10\narch source 5\n"
	for i, want := range []string{
		"option check_signature 1\noption signature_type gpg-asc\noption gpg_trust_level TrustAny\n" + common,
		"option check_signature 1\n" + common,
		common,
	} {
		lines := slices.DeleteFunc(strings.SplitAfter(clients[i].Text, "\n"), func(l string) bool {
			return strings.HasPrefix(l, "#")
		})
		if got := strings.Join(lines, ""); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", clients[i].Family, got, want)
		}
	}
	if !strings.Contains(clients[1].Text, "/etc/opkg/keys/"+key.Fingerprint()+":") {
		t.Errorf("openwrt's key: got\n%s", clients[1].Text)
	}
	if _, err := f.a.OpkgClients(f.suite, "mips", "http://a.example/"); err == nil || !errors.Is(err, ErrNoFeed) ||
		!strings.Contains(err.Error(), "of mips, only of amd64") {
		t.Errorf("an unknown architecture: %v", err)
	}
}
