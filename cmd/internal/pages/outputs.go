package pages

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"packmill/archive/pool"
	"packmill/cmd/internal/control"
	"packmill/internal/paper"
	"packmill/internal/policy"
	"packmill/internal/regular"
	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/spool"
)

// Output is a file that a build made.
type Output struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256,omitempty"`
	Pool   string `json:"pool,omitempty"` // where it lies in the archive, once it is published
	URL    string `json:"url,omitempty"`  // that for the world, if it is said where the archive is
}

// Fetched says at which address of the web the world fetches the archive; "" says that nobody knows. It is to be
// called before the site answers.
func (s *Site) Fetched(address string) error {
	address = strings.TrimRight(address, "/")
	u, err := url.Parse(address)
	if err != nil || address != "" && (u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil ||
		u.RawQuery != "" || strings.ContainsAny(address, " #")) {
		return fmt.Errorf("%q is no address of the web; write https://HOST/PATH", address)
	}
	s.archiveAt = address
	return nil
}

// jobOf is the item that a build was of, and its ticket: nil if none is there any more.
func (s *Site) jobOf(b *buildlog.Build) (f spool.Found, t *queue.Ticket) {
	for _, f := range s.view.Package(b.Source) {
		if !f.IsJob() || f.Place.Suite != b.Suite || f.Arch() != b.Arch {
			continue
		}
		if t, err := queue.TicketAt(s.view.Tree(), f); err == nil && t.Plus() == b.Version {
			return f, t
		}
	}
	return f, nil
}

// outputs are the files that a job's result lists. They may be fetched once they are published; nothing but what
// the pool has for everybody is shown the way to.
func (s *Site) outputs(f spool.Found, t *queue.Ticket) (out []Output) {
	if t.Result == "" {
		return nil
	}
	st, err := paper.Read(s.view.Tree().Path(f.Dir(), "result"), t.Result)
	if err != nil {
		return nil
	}
	files, err := paper.Files(st, paper.Long)
	if err != nil {
		return nil
	}
	for _, file := range files {
		o := Output{Name: file.Name, Size: file.Size, SHA256: file.SHA256}
		if f.Place.State == spool.Installed {
			o.Pool = s.inPool(t, file.Name, file.Size)
			o.URL = s.inArchive(o.Pool)
		}
		out = append(out, o)
	}
	return out
}

// inPool is where the pool has a source's file of this size, "" if it does not.
func (s *Site) inPool(t *queue.Ticket, name string, size int64) string {
	if policy.CheckComponent(t.Component) != nil || policy.CheckSource(t.Source) != nil || policy.CheckFile(name) != nil {
		return ""
	}
	at := path.Join(pool.Dir(t.Component, t.Source), name)
	info, err := os.Lstat(s.view.Tree().Path("archive", at))
	if err != nil || !info.Mode().IsRegular() || size >= 0 && info.Size() != size {
		return ""
	}
	return at
}

// inArchive is the address of a file of the archive, "" where nobody said where that is.
func (s *Site) inArchive(at string) string {
	if s.archiveAt == "" || at == "" {
		return ""
	}
	return s.archiveAt + "/" + (&url.URL{Path: at}).EscapedPath()
}

// again are the commands that build once more what a build was of: here, and by anybody, with what is published.
func (s *Site) again(b *buildlog.Build, f spool.Found, t *queue.Ticket) (out []string) {
	if f.Place.State == spool.Installed {
		out = append(out, command("packmill", "rebuild", "--check", "-s", b.Suite, "-a", b.Arch, t.Source+"_"+t.Version))
	}
	suite, ok := s.view.Settings().Suite(b.Suite)
	dsc := s.inPool(t, t.Dsc, -1)
	at := s.inArchive(dsc)
	if !ok || at == "" {
		return out
	}
	sum := dscSum(s.view.Tree().Path("archive", dsc))
	if sum == "" {
		return out
	}
	on := b.Arch
	if on == "all" {
		on = suite.IndepOf(t)
	}
	key := s.inArchive("keys/" + suite.Name + ".asc")
	if _, err := os.Lstat(s.view.Tree().Path("archive/keys", suite.Name+".asc")); err != nil {
		return out // nobody can check that archive
	}
	ours := []string{"--extra-repository=deb " + s.archiveAt + " " + suite.Name + " " + strings.Join(suite.Components, " "),
		"--extra-repository-key=" + suite.Name + ".asc"}
	out = append(out, command("wget", key), command("dget", "--download-only", "--allow-unauthenticated", at),
		command("echo", sum+"  "+t.Dsc)+" | sha256sum --check")
	if base := s.openBase(suite); base != nil {
		words := []string{"mmdebstrap", "--variant=buildd", "--architectures=" + on, suite.Name, "base.tar"}
		out = append(out, command(append(words, base...)...))
	} else {
		out = append(out, "# base.tar: a chroot of what the suite is built on, which is not for everybody")
	}
	return append(out, sbuildWords(suite, t, b.Arch, on, ours))
}

// openBase are the lines for apt that a suite is built on, if all of them may be told: addresses of the web without
// a password or a path of this machine, and nothing hidden.
func (s *Site) openBase(suite *control.Suite) []string {
	for _, line := range suite.Base {
		words := strings.Fields(line)
		if len(words) < 3 || words[0] != "deb" {
			return nil
		}
		u, err := url.Parse(words[1])
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" ||
			slices.ContainsFunc(words[2:], s.view.Hides) {
			return nil
		}
	}
	return slices.Clone(suite.Base)
}

// sbuildWords is the command of sbuild that builds as the job was built. The name in the changelog of a binNMU is
// left out, for it is an address.
func sbuildWords(suite *control.Suite, t *queue.Ticket, arch, on string, ours []string) string {
	words := append([]string{"sbuild", "--chroot-mode=unshare", "--chroot=base.tar", "--dist=" + suite.Name}, ours...)
	switch {
	case arch == "all":
		words = append(words, "--arch="+on, "--arch-all", "--no-arch-any")
	default:
		words = append(words, "--arch="+arch, "--no-arch-all")
	}
	if p := suite.ProfilesOf(t); len(p) > 0 {
		words = append(words, "--profiles="+strings.Join(p, ","))
	}
	if t.ExtraDepends != "" {
		words = append(words, "--add-depends="+t.ExtraDepends)
	}
	if t.ExtraConflicts != "" {
		words = append(words, "--add-conflicts="+t.ExtraConflicts)
	}
	if t.BinNMU > 0 {
		words = append(words, "--binNMU="+strconv.Itoa(t.BinNMU), "--make-binNMU="+cmp.Or(t.BinNMUText, "rebuild"))
		if !t.BinNMUTime.IsZero() {
			words = append(words, "--binNMU-timestamp="+strconv.FormatInt(t.BinNMUTime.Unix(), 10))
		}
	}
	out := command(append(words, t.Dsc)...)
	if o := suite.OptionsOf(t); len(o) > 0 {
		out = "DEB_BUILD_OPTIONS=" + command(strings.Join(o, " ")) + " " + out
	}
	return out
}

// maxDsc bounds what is read of a .dsc to name its bytes.
const maxDsc = 1 << 20

// dscSum is the SHA-256 of a .dsc: "" of what cannot be read whole.
func dscSum(name string) string {
	f, err := regular.Open(filepath.Clean(name))
	if err != nil {
		return ""
	}
	defer f.Close()
	h := sha256.New()
	if n, err := io.Copy(h, io.LimitReader(f, maxDsc+1)); err != nil || n > maxDsc {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}
