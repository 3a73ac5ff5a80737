package doctor

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/archive"
	"packmill/archive/opkg"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/mail"
	"packmill/internal/openpgp"
	"packmill/spool"
	"packmill/spool/incoming"
)

// soon is how long before its end a key is told of.
const soon = 30 * 24 * time.Hour

func (p *patient) suites() {
	if len(p.settings.Suites) == 0 {
		p.error("control/suites", "write a stanza for each suite, or: packmill setup",
			"there is no suite, so nothing can be uploaded")
	}
	for i := range p.settings.Suites {
		s := &p.settings.Suites[i]
		about := "suite " + s.Name
		if len(s.Base) == 0 && slices.ContainsFunc(p.settings.Builders, func(b control.Builder) bool {
			return len(b.ChrootsOf(s)) > 0
		}) {
			p.error(about, "say in control/suites which apt lines its builds stand on: Base: deb MIRROR bookworm main",
				"it has no Base, so no chroot can be made for it")
		}
		for _, line := range s.Base {
			p.baseLine(about, line)
		}
		if path := p.settings.Path(s.Override); s.Override != "" &&
			p.readable(about, "Override", path, "write the file, or take the field away") {
			if _, err := archive.ReadOverrides(path); err != nil {
				p.error(about, "mend that line; until then nothing of the suite is published", "Override: %v", err)
			}
		}
	}
}

// baseLine looks at one line of Base.
func (p *patient) baseLine(about, line string) {
	if !control.IsAptLine(line) {
		p.error(about, "write it as sources.list(5) has it: deb MIRROR bookworm main",
			"its Base has the line %q, which apt does not take", line)
	}
}

// readable reports whether the file is there, and says so if it is not.
func (p *patient) readable(about, field, path, cure string) bool {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.error(about, cure, "%s: %s does not exist", field, path)
	case err != nil:
		p.error(about, "look at it as root", "%s: %v", field, err)
	case !st.Mode().IsRegular():
		p.error(about, cure, "%s: %s is no plain file", field, path)
	default:
		return true
	}
	return false
}

// archiveKeys looks at what signs the suites.
func (p *patient) archiveKeys() {
	for i := range p.settings.Suites {
		s := &p.settings.Suites[i]
		about := "suite " + s.Name
		if len(s.SignWith) == 0 {
			p.warn(about, "packmill key new archive --owner "+spool.UserArchive+
				", and Sign-With: private/archive.key in control/suites",
				"it has no Sign-With, so apt's users must trust it unseen")
		}
		for _, name := range s.SignWith {
			p.signs(about, "Sign-With", name, spool.UserArchive, "")
		}
		for _, name := range s.OpkgKeys {
			path := p.settings.Path(name)
			if !p.readable(about, "Opkg-Key", path, "packmill key new feed --opkg") {
				continue
			}
			if _, err := opkg.ReadKey(path); err != nil && !errors.Is(err, fs.ErrPermission) {
				p.error(about, "packmill key new NAME --opkg makes another", "Opkg-Key: %v", err)
			}
		}
	}
}

// signs looks at a secret key that owner's daemon signs with; fingerprint, if
// it is known, is what the settings say of it.
func (p *patient) signs(about, field, name, owner, fingerprint string) {
	if strings.HasPrefix(name, openpgp.AgentPrefix) {
		if got := strings.TrimPrefix(name, openpgp.AgentPrefix); fingerprint != "" && !strings.EqualFold(got, fingerprint) {
			p.error(about, "write the same key into both fields", "%s is %s, and Fingerprint is %s", field, name, fingerprint)
		} else if !p.separate() { // another account's agent is not asked
			if _, err := openpgp.OpenSigner(name); err != nil {
				p.warn(about, "gpg --list-secret-keys, as who runs the daemons and with their GNUPGHOME", "%s: %v", field, err)
			}
		}
		return
	}
	path := p.settings.Path(name)
	short := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	if !p.readable(about, field, path, "packmill key new "+short+" --owner "+owner) {
		return
	}
	if u, err := user.Lookup(owner); err == nil && p.separate() {
		if have := ownerOf(path); have != "" && have != u.Uid {
			p.error(about, "chown "+owner+" "+path, "%s: %s does not belong to %s, whose daemon must read it",
				field, path, owner)
		}
	}
	key, err := openpgp.ReadSigner(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		p.warn(about, "run packmill doctor as root", "%s: %s cannot be read by you, so nothing is known of the key",
			field, path)
		return
	case err != nil:
		p.error(about, "packmill key new "+short+"2 --owner "+owner+" makes another", "%s: %v", field, err)
		return
	}
	if err := key.Check(p.Now); err != nil {
		p.error(about, "packmill archive key rotate for a suite; packmill key new for a builder", "%s: %v", field, err)
	} else if end := key.Expires(p.Now); !end.IsZero() && end.Before(p.Now.Add(soon)) {
		p.warn(about, "make its end later with gpg, or a new one: packmill archive key rotate",
			"%s: the key %s expires on %s", field, key.Fingerprint(), end.Format(time.DateOnly))
	}
	if fingerprint != "" && key.Fingerprint() != fingerprint {
		p.error(about, "write Fingerprint: "+key.Fingerprint(), "Fingerprint is %s, and the key of %s has another",
			fingerprint, field)
	}
}

func (p *patient) builders() {
	for i := range p.settings.Builders {
		b := &p.settings.Builders[i]
		about := "builder " + b.Name
		for _, s := range b.Suites {
			p.suiteOf(about, "Suites", s)
		}
		for _, a := range b.Architectures {
			if !slices.Contains(p.archs(), a) {
				p.warn(about, "take it out, or add it to a suite's Architectures", "no suite is built for %s", a)
			}
		}
		if !b.Chrooted() {
			if st, err := os.Stat(b.Exec); err != nil || st.Mode()&0o111 == 0 {
				p.error(about, "install the program, with the right to execute", "Runner: %s cannot be run", b.Exec)
			}
		}
		if b.AlwaysQuiet() {
			p.error(about, "leave it some hours, or write Takes: no", "its Quiet is all day, so it never builds")
		}
		if b.User != "" {
			if _, err := user.Lookup(b.User); err != nil {
				p.error(about, "make the account, or write another", "User: there is no account %s", b.User)
			}
		}
		p.builderKey(about, b)
	}
}

// builderKey looks at what signs a builder's results, where no person does.
func (p *patient) builderKey(about string, b *control.Builder) {
	automatic := slices.ContainsFunc(p.settings.Suites, func(s control.Suite) bool {
		return s.LogReview == "auto" && (len(b.Suites) == 0 || slices.Contains(b.Suites, s.Name))
	})
	if b.Key != "" {
		p.signs(about, "Key", b.Key, spool.UserBuild, b.Fingerprint)
	}
	if !automatic {
		return
	}
	make := "packmill key new builder --owner " + spool.UserBuild + " prints both fields"
	if b.Key == "" {
		p.error(about, make, "it has no Key, so nobody signs what it builds (Log-Review: auto)")
	}
	if b.Fingerprint == "" {
		p.error(about, make, "it has no Fingerprint, so archived takes nothing of what it signs")
	} else {
		p.public(about, []string{b.Fingerprint})
	}
}

// public looks at public keys that the settings name.
func (p *patient) public(about string, fingerprints []string) {
	_, missing, err := p.settings.Keyring(fingerprints)
	if err != nil {
		p.error(about, "gpg --export --armor FINGERPRINT writes a good file", "control/keys: %v", err)
		return
	}
	for _, f := range missing {
		p.error(about, "gpg --export --armor "+f+" >"+p.control(control.KeysDir)+"/NAME.asc",
			"control/keys has no key %s that can be used", f)
	}
}

// coverage looks whether somebody builds what the suites are for.
func (p *patient) coverage() {
	for i := range p.settings.Suites {
		s := &p.settings.Suites[i]
		for _, arch := range append(slices.Clone(s.Architectures), "all") {
			p.covered(s, arch)
		}
	}
}

// covered looks for builders of an architecture: any, then those that work, then those that take every package.
func (p *patient) covered(s *control.Suite, arch string) {
	about := "suite " + s.Name
	all := p.settings.Builders
	keep := func(from []control.Builder, fits func(*control.Builder) bool) []control.Builder {
		return slices.DeleteFunc(slices.Clone(from), func(b control.Builder) bool { return !fits(&b) })
	}
	of := keep(all, func(b *control.Builder) bool {
		return slices.Contains(b.Architectures, arch) && (len(b.Suites) == 0 || slices.Contains(b.Suites, s.Name))
	})
	if len(of) == 0 {
		p.error(about, "add "+arch+" to the Architectures of a builder in control/builders",
			"no builder builds %s for it", arch)
		return
	}
	able := keep(of, func(b *control.Builder) bool { return b.Uncaged(s) == "" })
	if len(able) == 0 {
		p.error(about, "Runner: overlay, or Chroot-Mode: unshare; or Build-Network: yes for the suite",
			"nobody builds %s for it: of %s, %s", arch, of[0].Name, of[0].Uncaged(s))
		return
	}
	takes := keep(able, func(b *control.Builder) bool { return b.Takes == "yes" })
	if len(takes) == 0 {
		p.warn(about, "packmill builder resume "+able[0].Name,
			"who builds %s for it, %s, takes nothing now (Takes)", arch, able[0].Name)
		takes = able
	}
	for _, c := range s.Components {
		if len(keep(takes, func(b *control.Builder) bool {
			return len(b.Components) == 0 || slices.Contains(b.Components, c)
		})) == 0 {
			p.error(about, "add "+c+" to the Components of a builder", "no builder builds %s of its component %s", arch, c)
		}
	}
	if len(keep(takes, func(b *control.Builder) bool { return len(b.Packages) == 0 })) == 0 {
		p.warn(about, "add a builder without Packages, if that is not meant",
			"%s of packages that no Packages of a builder names is built by nobody", arch)
	}
}

func (p *patient) uploaders() {
	if len(p.settings.Uploaders) == 0 {
		p.warn("control/uploaders", "write a stanza for each person", "nobody may upload")
	}
	for i := range p.settings.Uploaders {
		u := &p.settings.Uploaders[i]
		about := "uploader " + u.Name
		p.public(about, u.Fingerprints)
		for _, s := range u.Allow.Suites {
			if !matches(s, p.settings.SuiteNames()) {
				p.suiteOf(about, "Allow: suites="+s, s)
			}
		}
		for _, c := range u.Allow.Components {
			if !slices.ContainsFunc(p.settings.Suites, func(s control.Suite) bool { return matches(c, s.Components) }) {
				p.error(about, "name Components of control/suites", "Allow: components=%s: no suite has it", c)
			}
		}
		for _, a := range append(slices.Clone(u.Allow.Binary), u.Allow.Sign...) {
			if a != "any" && !slices.Contains(p.archs(), a) {
				p.warn(about, "name Architectures of control/suites", "Allow: no suite is built for %s", a)
			}
		}
		if u.Account != "" {
			p.account(about, u.Account)
			if _, err := os.Stat(filepath.Join(p.Tree, "spool/incoming", u.Account)); errors.Is(err, fs.ErrNotExist) {
				p.error(about, "packmill uploader add "+u.Account+" KEY.pub", "Account: %s has no directory in spool/incoming",
					u.Account)
			}
		}
	}
}

func (p *patient) notify() {
	if len(p.settings.Notify) == 0 {
		p.warn("control/notify", "write a stanza: Event: *, To: signer, From: NAME <ADDRESS>",
			"nobody hears of anything by mail")
	}
	for i := range p.settings.Notify {
		n := &p.settings.Notify[i]
		about := "notify " + n.Event
		if n.Hook != "" {
			secret := p.settings.Path(n.Secret)
			if u, err := lookup(spool.UserMail); err == nil && p.separate() && !mayRead(u, secret) {
				p.error(about, "chown "+spool.UserMail+" "+secret,
					"Secret: %s cannot read it, so the hook is not called", spool.UserMail)
			}
			if _, err := mail.HookSecret(p.settings.Path(n.Secret)); err != nil && !errors.Is(err, fs.ErrPermission) {
				p.error(about, "openssl rand -hex 32 >"+p.settings.Path(n.Secret)+", for "+spool.UserMail+" to read",
					"Secret: %v; the hook is not called", err)
			}
			continue
		}
		if n.From == "" {
			p.error(about, "write From: Archive <archive@example.org>",
				"it has no From, and mail without one is not taken everywhere")
		}
		if st, err := os.Stat(p.file(n.Via)); err != nil || st.Mode()&0o111 == 0 {
			p.error(about, "install a mail system (postfix, exim4, msmtp-mta), or write Via", "there is no %s to send mail with",
				n.Via)
		}
	}
}

// disputed looks for directories of accounts that are somebody else's.
func (p *patient) disputed() {
	t, err := spool.Open(p.Tree)
	if err != nil {
		return // fsck says it
	}
	for _, account := range (&incoming.Box{Tree: t}).Disputed() {
		p.error(filepath.Join(incoming.Root, account), "give it to the account (packmill uploader add does), or remove it",
			"it has the name of an account and does not belong to it, so nothing is taken from there")
	}
}

// slow is the age at which a letter should have gone.
const slow = 10 * time.Minute

// letters looks for mails that maild has not handed on.
func (p *patient) letters() {
	dir := filepath.Join(p.Tree, spool.LettersDir)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.warn(dir, "ask as root", "%v", err)
	}
	n := 0
	for _, e := range entries {
		if st, err := e.Info(); err == nil && p.Now.Sub(st.ModTime()) > slow {
			n++
		}
	}
	if n > 0 {
		p.error(dir, "start maild, or see why its sendmail or a Hook does not take them: journalctl -u maild",
			"%d letters wait for more than %v", n, slow)
	}
}

func (p *patient) suiteNames() string { return strings.Join(p.settings.SuiteNames(), " ") }

// separate reports whether the daemons have accounts of their own.
func (p *patient) separate() bool {
	return ownerOf(filepath.Join(p.Tree, "spool")) == "0" && ownerOf(filepath.Join(p.Tree, "queue")) != "0"
}
