package control

import (
	"net/mail"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"packmill/archive"
	"packmill/internal/deb822"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/spool/upload"
)

func (r *reader) suite() Suite {
	x := Suite{
		Name: r.need("Suite", policy.CheckSuite), Stanza: r.st,
		Aliases: r.words("Aliases", nil, policy.CheckSuite),
		Origin:  r.str("Origin", ""), Label: r.str("Label", ""), Description: r.str("Description", ""),
		Architectures: r.words("Architectures", nil, policy.CheckArch),
		Components:    r.words("Components", []string{"main"}, policy.CheckComponent),
		Base:          r.lines("Base"),
		Review:        r.one("Review", "always", "always", "new", "never"),
		LogReview:     r.one("Log-Review", "auto", "manual", "auto"),
		Publish:       r.one("Publish", "together", "together", "source-first"),
		Tries:         int(r.number("Tries", 3, 1, 100)),
		SignWith:      r.words("Sign-With", nil, nil),
		ValidFor:      r.span("Valid-For", 7*day),
		NotAutomatic:  r.yes("Not-Automatic", false),
		ButAutomatic:  r.yes("But-Automatic-Upgrades", false),
		Compress:      r.words("Compress", []string{"gz", "xz"}, oneOf(archive.Forms()...)),
		Pdiffs:        r.yes("Pdiffs", false),
		Contents:      r.yes("Contents", true),
		Translations:  r.yes("Translations", true),
		Dbgsym:        r.str("Dbgsym", ""),
		Override:      r.str("Override", ""),
		IndexStay:     r.span("Index-Stay", 3*day),
		Opkg:          r.yes("Opkg", true),
		OpkgArchs:     r.pairs("Opkg-Architectures", "Debian's name=opkg's name"),
		OpkgSource:    r.yes("Opkg-Source", false),
		OpkgExtension: r.one("Opkg-Extension", "opk", "opk", "ipk"),
		OpkgLayout:    r.str("Opkg-Layout", ""),
		OpkgKeys:      r.words("Opkg-Key", nil, nil),
		Formats:       r.commas("Formats", []string{"1.0", "3.0 (native)", "3.0 (quilt)"}),
		Binaries:      r.one("Binaries", "allow", "allow", "drop", "refuse"),
		Checks:        r.pairs("Checks", "check=error, check=warning or check=off"),
		Below:         r.words("Below", nil, policy.CheckSuite),
		BuildNetwork:  r.yes("Build-Network", false),
		Limits:        r.limits("Limits"),
		Priority:      r.perPackage("Build-Priority", checkPoints),
		Profiles:      r.words("Profiles", nil, checkProfile),
		Options:       r.words("Options", nil, checkOption),
		PkgProfiles:   r.perPackage("Package-Profiles", checkProfile),
		PkgOptions:    r.perPackage("Package-Options", checkOption),
		Incomplete:    r.span("Incomplete", day),
		MaxUpload:     r.size("Max-Upload", 20<<30),
		KeepRejected:  r.span("Keep-Rejected", 30*day),
		Hidden:        r.yes("Hidden", false),
	}
	if x.Dbgsym != "" {
		r.check("Dbgsym", x.Dbgsym, policy.CheckComponent)
	}
	x.Weights = r.weights()
	x.Codename = r.str("Codename", x.Name)
	r.check("Codename", x.Codename, policy.CheckSuite)
	r.builtOn(&x)
	r.checks(x.Checks)
	return x
}

// weights reads Weights: nil for the order of acceptance.
func (r *reader) weights() queue.Weights {
	kinds := []string{"suite", "priority", "section", "component", "urgency", "note"}
	own := queue.Weights{}
	standard, points := weightWords(r.str("Weights", ""))
	for name, v := range points {
		n, err := strconv.Atoi(v)
		if kind, _, _ := strings.Cut(name, "-"); err != nil || !slices.Contains(kinds, kind) {
			r.fail("Weights", "%s=%s: write suite-, priority-, section-, component-, urgency- or note-NAME=points, "+
				"such as urgency-high=30", name, v)
		}
		own[name] = n
	}
	switch {
	case standard:
		return queue.DefaultWeights().With(own)
	case len(own) > 0:
		return own
	}
	return nil
}

// builtOn checks the suite's architectures, and reads on which all is built.
func (r *reader) builtOn(x *Suite) {
	if len(x.Architectures) == 0 {
		r.fail("Architectures", "missing; name the architectures that the suite is built for, such as: Architectures: amd64")
		return
	}
	for _, a := range x.Architectures {
		if a == "all" || a == "source" || a == "any" {
			r.fail("Architectures", "%q is not an architecture to build on; all is built on the one that Indep-On names", a)
		}
	}
	x.IndepOn = r.str("Indep-On", x.Architectures[0])
	if !slices.Contains(x.Architectures, x.IndepOn) {
		r.fail("Indep-On", "%q is not one of the suite's Architectures (%s)", x.IndepOn, strings.Join(x.Architectures, " "))
	}
}

// checks looks whether a suite may give the checks of uploads these levels.
func (r *reader) checks(levels map[string]string) {
	for check, level := range levels {
		if _, err := upload.ParseLevel(level); err != nil {
			r.fail("Checks", "%s=%s: the level is error, warning, remark or off", check, level)
		}
		if known, fixed := settable(check); fixed {
			r.fail("Checks", "%s cannot be set: what the archive promises hangs on it", check)
		} else if known != nil {
			r.fail("Checks", "%q is no check; a suite may set: %s", check, strings.Join(known, " "))
		}
	}
}

// settable says whether a suite may set the level of a check. If there is no
// check of that name it returns those that there are.
func settable(name string) (known []string, fixed bool) {
	for _, c := range upload.Checks() {
		if c.Name == name {
			return nil, c.Fixed
		}
		if !c.Fixed {
			known = append(known, c.Name)
		}
	}
	return known, false
}

func (r *reader) uploader() Uploader {
	u := Uploader{
		Name: r.need("Name", nil), Account: r.str("Account", ""), Email: r.str("Email", ""),
		Fingerprints: r.fingerprints(),
	}
	if len(u.Fingerprints) == 0 && u.Account == "" {
		r.fail("Name", "neither Fingerprint nor Account; nobody could upload as %q", u.Name)
	}
	u.Quota = r.size("Quota", 0)
	if u.Quota > 0 && u.Account == "" {
		r.fail("Quota", "it is for an Account; that of the shared drop directory is Quota in control/general")
	}
	u.Allow = r.allow()
	return u
}

func (r *reader) fingerprints() []string {
	var out []string
	for _, f := range r.commas("Fingerprint", nil) {
		f = strings.ToUpper(strings.ReplaceAll(f, " ", ""))
		if len(f) != 40 || strings.Trim(f, "0123456789ABCDEF") != "" {
			r.fail("Fingerprint",
				"%q is not the fingerprint of a version 4 OpenPGP key (40 hexadecimal digits); take what gpg --list-keys prints", f)
			continue
		}
		out = append(out, f)
	}
	return out
}

// allow reads, with commas between them: "suites=sid experimental",
// "packages=lib*", "components=main", "source", "binary=amd64 i386",
// "sign=amd64", "new=no".
func (r *reader) allow() Allow {
	a := Allow{New: true}
	named, said := false, map[string]bool{}
	for _, item := range r.commas("Allow", nil) {
		k, v, _ := strings.Cut(item, "=")
		list := deb822.Words(v)
		if said[k] {
			r.fail("Allow", "%s is there a second time; write it once, with blanks between: %s=%s ...", k, k, v)
		}
		said[k] = true
		switch k {
		case "suites":
			a.Suites = list
		case "components":
			a.Components = list
		case "packages":
			a.Packages = list
			for _, p := range list {
				if _, err := path.Match(p, "x"); err != nil {
					r.fail("Allow", "packages=%s: not a pattern; * and ? are its wild cards", p)
				}
			}
		case "new":
			a.New = v != "no"
		case "source":
			a.Source, named = true, true
		case "binary":
			a.Binary, named = list, true
			if len(list) == 0 {
				a.Binary = []string{"any", "all"}
			}
		case "sign":
			a.Sign, named = list, true
			if len(list) == 0 {
				a.Sign = []string{"any", "all"}
			}
		default:
			r.fail("Allow", "%q is not known; allowed are: suites=..., components=..., packages=..., new=no, source, "+
				"binary=ARCH..., sign=ARCH..., with commas between", item)
		}
	}
	if !named {
		a.Source = true
	}
	return a
}

func (r *reader) builder() Builder {
	b := Builder{
		Name:          r.need("Name", nil),
		Architectures: r.words("Architectures", nil, policy.CheckArch),
		Suites:        r.words("Suites", nil, policy.CheckSuite),
		Components:    r.words("Components", nil, policy.CheckComponent),
		Packages:      r.words("Packages", nil, checkPattern),
		NotPackages:   r.words("Not-Packages", nil, checkPattern),
		Last:          r.words("Last", nil, checkPattern),
		MinAge:        r.span("Min-Age", 0),
		Nice:          int(r.number("Nice", 0, 0, 19)),
		CrossFrom:     r.str("Cross-From", ""),
		Mode:          r.one("Chroot-Mode", "unshare", "unshare", "schroot"),
		Key:           r.str("Key", ""),
		User:          r.str("User", ""),
		Jobs:          int(r.number("Jobs", 1, 1, 1000)),
		Chroots:       r.str("Chroots", ""),
		ChrootAge:     r.span("Chroot-Age", 14*day),
		Layers:        r.size("Layers", 0),
		Ccache:        r.size("Ccache", 0),
		Limits:        r.limits("Limits"),
		Pause:         r.span("Pause", 10*time.Second),
		Stop:          r.one("Stop", "give-back", "give-back", "wait"),
		Lease:         r.span("Lease", time.Hour),
		Takes:         r.one("Takes", "yes", "yes", "no", "drain"),
		Host:          r.str("Host", ""),
		Stanza:        r.st,
		Email:         r.str("Email", ""),
	}
	r.limit(&b)
	for _, w := range r.words("Quiet", nil, nil) {
		h, err := parseHours(w)
		if err != nil {
			r.fail("Quiet", "%v", err)
		}
		b.Quiet = append(b.Quiet, h)
	}
	if f := r.fingerprints(); len(f) == 1 {
		b.Fingerprint = f[0]
	} else if len(f) > 1 {
		r.fail("Fingerprint", "a builder signs with one key; write a stanza for each")
	}
	if len(b.Architectures) == 0 {
		r.fail("Architectures", "missing; name what this builder builds, such as: Architectures: amd64 all")
	}
	r.runner(&b)
	return b
}

// runner reads how a builder's builds are run.
func (r *reader) runner(b *Builder) {
	run := deb822.Words(r.str("Runner", "sbuild"))
	switch {
	case len(run) == 1 && slices.Contains([]string{"sbuild", "overlay", "remote"}, run[0]):
		b.Runner = run[0]
	case len(run) == 2 && run[0] == "exec" && filepath.IsAbs(run[1]):
		b.Runner, b.Exec = run[0], run[1]
	case len(run) > 0 && run[0] == "slurm":
		b.Runner, run = run[0], run[1:]
	default:
		r.fail("Runner", "%q is not known; use sbuild, overlay, remote, slurm, or exec and the absolute path of a program",
			strings.Join(run, " "))
	}
	r.cluster(b, run)
	if b.Ccache > 0 && b.Runner != "overlay" && b.Within != "overlay" {
		r.fail("Ccache", "only the overlay runner keeps compiler caches; use Runner: overlay, or take it away")
	}
	if b.CrossFrom != "" {
		r.check("Cross-From", b.CrossFrom, policy.CheckArch)
		if b.Runner == "overlay" || b.Within == "overlay" {
			r.fail("Cross-From", "the overlay runner does not cross-build; use Runner: sbuild")
		}
	}
}

// limit reads the limits of a build.
func (r *reader) limit(b *Builder) {
	b.Timeout = r.span("Timeout", day)
	b.Silence = r.span("Silence", 150*time.Minute)
	b.MaxLog = r.size("Max-Log", 1<<30)
	b.Memory = r.size("Memory", 0)
	b.Tasks = int(r.number("Tasks", 0, 0, 1<<20))
	b.Disk = r.size("Disk", 0)
}

func (r *reader) notice() Notice {
	n := Notice{
		Event: r.need("Event", oneOf(Events...)), To: r.commas("To", nil),
		Via: r.str("Via", Sendmail), From: r.str("From", ""),
		Hook: r.str("Hook", ""), Secret: r.str("Secret", ""),
	}
	u, err := url.Parse(n.Hook)
	switch {
	case n.Hook == "" && len(n.To) == 0:
		r.fail("To", "missing; write addresses, or %s, with commas between; or Hook", strings.Join(People, ", "))
	case n.Hook == "":
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		r.fail("Hook", "%q is no address of the web; write https://HOST/PATH", n.Hook)
	case n.Secret == "":
		r.fail("Secret", "missing; name the file of what signs the calls of the hook, such as private/hook.secret")
	case len(n.To) > 0:
		r.fail("Hook", "To is of mails; write a stanza for each")
	}
	for _, to := range n.To {
		if a, err := mail.ParseAddress(to); !slices.Contains(People, to) &&
			(err != nil || !strings.Contains(a.Address, "@")) {
			r.fail("To", "%q is no address and none of %s; write name@host", to, strings.Join(People, ", "))
		}
	}
	return n
}

func (r *reader) general(g General) General {
	g.ReserveBytes = r.size("Reserve", g.ReserveBytes)
	g.ReserveInodes = r.number("Reserve-Inodes", g.ReserveInodes, 0, 1<<40)
	g.Attic = r.span("Keep-Attic", g.Attic)
	g.Strays = r.span("Keep-Strays", g.Strays)
	g.Logs = r.span("Keep-Logs", g.Logs)
	g.Remind = r.span("Remind", g.Remind)
	g.MaxTime = r.span("Max-Time", 0)
	g.Quota = r.size("Quota", 0)
	g.TwoPersons = r.yes("Two-Persons", false)
	g.ShowAddresses = r.yes("Show-Addresses", false)
	return g
}
