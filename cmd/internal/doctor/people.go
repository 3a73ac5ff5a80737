package doctor

import (
	"bufio"
	"os"
	"os/user"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"packmill/cmd/internal/control"
	"packmill/spool"
)

// signers looks whether somebody hears of what was built and may let it go on, where that is a person's to do.
func (p *patient) signers() {
	for i := range p.settings.Suites {
		s := &p.settings.Suites[i]
		if s.LogReview != "manual" {
			continue
		}
		about := "suite " + s.Name
		for _, arch := range append(slices.Clone(s.Architectures), "all") {
			if !slices.ContainsFunc(p.settings.Uploaders, func(u control.Uploader) bool {
				// The other bounds of the right are of single packages.
				return (&control.Uploader{Allow: control.Allow{Sign: u.Allow.Sign, Suites: u.Allow.Suites}}).Signs(s, arch, "", "")
			}) {
				p.error(about, "write Allow: sign="+arch+" for somebody in control/uploaders, or Log-Review: auto",
					"its Log-Review is manual, and nobody may sign what is built for %s", arch)
			}
		}
		for _, event := range []string{"log", "failed"} {
			if !slices.ContainsFunc(p.settings.Notify, func(n control.Notice) bool {
				return n.Event == event || n.Event == "*"
			}) {
				p.warn(about, "write a stanza of control/notify: Event: "+event+", To: build-signers",
					"its Log-Review is manual, and nobody is sent logs: control/notify has no Event: %s", event)
			}
		}
	}
}

// reviewers looks whether there is somebody to accept what waits for a person.
func (p *patient) reviewers() {
	waits := slices.ContainsFunc(p.settings.Suites, func(s control.Suite) bool { return s.Review != "never" })
	if !waits {
		return
	}
	two := p.settings.General.TwoPersons
	if !p.separate() {
		if two {
			p.warn("control/general", "packmill init --users, or take Two-Persons away",
				"Two-Persons: yes, and the tree belongs to one account, so there is no second word but root's")
		}
		return
	}
	people := slices.DeleteFunc(p.members(spool.GroupReview), func(name string) bool {
		return name == spool.UserReview || name == spool.UserMail || name == spool.UserStatus
	})
	join := "usermod -aG " + strings.Join([]string{spool.GroupAll, spool.GroupReview, spool.GroupDesk}, ",") + " NAME"
	switch {
	case len(people) == 0:
		p.warn("group "+spool.GroupReview, join+", or Review: never in control/suites",
			"uploads wait for a person, and nobody is in the group %s, so root alone can accept them", spool.GroupReview)
	case two && len(people) == 1:
		p.warn("control/general", join, "Two-Persons: yes, and of the group %s there is %s alone", spool.GroupReview,
			people[0])
	}
}

// members are those whom group(5) gives the group besides their own.
func (p *patient) members(group string) []string {
	f, err := os.Open(p.file("/etc/group"))
	if err != nil {
		return nil
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if w := strings.Split(sc.Text(), ":"); len(w) == 4 && w[0] == group {
			return strings.FieldsFunc(w[3], func(r rune) bool { return r == ',' })
		}
	}
	return nil
}

// account looks at the ssh account of an uploader.
func (p *patient) account(about, name string) {
	add := "packmill uploader add " + name + " KEY.pub"
	u, err := user.Lookup(name)
	if err != nil {
		p.error(about, add, "Account: there is no account %s", name)
		return
	}
	if ids, err := u.GroupIds(); err == nil {
		group, err := user.LookupGroup(uploadGroup)
		if err != nil || !slices.Contains(ids, group.Gid) {
			p.warn(about, add, "Account: %s is not in the group %s, so sshd gives it no directory to upload to",
				name, uploadGroup)
		}
	}
}

// uploadGroup is the group of those whom sshd lets upload, and do nothing else.
const uploadGroup = "packmill-upload"

// lookup is user.Lookup; in tests it knows accounts that the machine need not have.
var lookup = user.Lookup

// mayRead reports whether the account may, as far as the file's own mode says.
func mayRead(u *user.User, file string) bool {
	st, err := os.Stat(file)
	if err != nil {
		return true // who looks for it says so
	}
	sys, mode := st.Sys().(*syscall.Stat_t), st.Mode().Perm()
	ids, _ := u.GroupIds()
	switch {
	case strconv.Itoa(int(sys.Uid)) == u.Uid:
		return mode&0o400 != 0
	case slices.Contains(ids, strconv.Itoa(int(sys.Gid))):
		return mode&0o040 != 0
	}
	return mode&0o004 != 0
}

// suiteOf looks at a suite that an uploader's right or a builder names: both go by its name alone.
func (p *patient) suiteOf(about, said, word string) {
	s, named := p.settings.Suite(word)
	switch {
	case !named:
		p.error(about, "name suites of control/suites: "+p.suiteNames(), "%s: there is no suite %q", said, word)
	case s.Name != word:
		p.error(about, "write "+s.Name+" in its place", "%s: %s is another name of the suite %s, and counts for nothing here",
			said, word, s.Name)
	}
}

// matches reports whether the pattern of a right means one of the words.
func matches(pattern string, words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool { ok, err := path.Match(pattern, w); return ok && err == nil })
}
