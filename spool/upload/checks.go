package upload

import (
	"errors"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"time"

	"packmill/internal/compression"
	"packmill/internal/deb822"
	"packmill/internal/paper"
	"packmill/internal/pattern"
	"packmill/internal/policy"
)

// check is one thing that is looked at. A check speaks with one level; where two
// are needed there are two checks.
type check struct {
	name  string
	level Level
	fixed bool   // the settings cannot change the level: the archive's integrity hangs on it
	about string // what is wrong when it speaks
	judge func(*reading) error
}

// CheckInfo describes a check to settings and documentation.
type CheckInfo struct {
	Name  string
	Level Level // unless the suite says otherwise
	Fixed bool  // the suite cannot say otherwise
	About string
}

// Checks lists all checks, in the order in which they speak.
func Checks() []CheckInfo {
	out := make([]CheckInfo, 0, len(checks))
	for _, c := range checks {
		out = append(out, CheckInfo{c.name, c.level, c.fixed, c.about})
	}
	return out
}

func find(name string) *check {
	for i := range checks {
		if checks[i].name == name {
			return &checks[i]
		}
	}
	panic("upload: no check named " + name) // a constant in this package
}

// checks is set in init's place by a function, for judges mention the table's reader.
var checks = table()

// table has a row for each check. It is data, and as long as it is.
func table() []check {
	return []check{
		// Who, and may he.
		{"signature", Error, true, "the .changes is not signed as it must be", nil},
		{"fields", Error, true, "the .changes cannot be read, or lacks something", checkFields},
		{"replay", Error, true, "the same signed .changes was here before", checkReplay},
		{"signature-age", Error, false, "the signature is too old", checkSignatureAge},
		{"distribution", Error, true, "the suite is not one of ours", checkDistribution},
		{"rights", Error, true, "the uploader may not upload this", checkRights},

		// The files.
		{"changes-name", Error, false, "the .changes is not named after source and version", checkChangesName},
		{"file-name", Error, true, "a file's name is not safe", checkFileNames},
		{"file-type", Error, true, "a listed file is a link, a device or the like", checkFileTypes},
		{"missing", Error, true, "a listed file did not come", checkMissing},
		{"not-listed", Error, false, "a file came that is not listed", checkNotListed},
		{"size", Error, true, "the upload is over a limit", checkSize},
		{"checksum", Error, true, "a file is not the one that was listed", checkSums},
		{"pool", Error, true, "the archive has other bytes under a file's name", checkPool},

		// The upload as a whole.
		{"architecture", Error, true, "the Architecture field does not fit the files or the suite", checkArchitecture},
		{"extra", Error, false, "a file belongs to no package", checkExtra},
		{"section", Error, true, "a section is not valid, or its component not in the suite", checkSection},
		{"section-none", Remark, false, "a file has no section", checkSectionNone},
		{"priority", Warning, false, "a priority is unknown", checkPriority},
		{"maintainer", Error, false, "an address is not one", checkMaintainer},
		{"urgency", Warning, false, "the urgency is unknown", checkUrgency},
		{"closes", Error, false, "Closes lists something else than bug numbers", checkCloses},
		{"date", Error, false, "the date is not one, or in the future", checkDate},
		{"date-old", Error, false, "the date is too long ago", checkDateOld},
		{"description", Warning, false, "binary packages are not described", checkDescription},

		// The source package.
		{"source", Error, true, "there is not exactly one source package", checkSource},
		{"dsc-signature", Error, true, "the .dsc has a signature that is not good", checkDscSignature},
		{"dsc-key", Error, false, "the .dsc is signed by a key that is not known here, as Debian's are", checkDscKey},
		{"dsc-unsigned", Error, false, "the .dsc is not signed", checkDscUnsigned},
		{"dsc-fields", Error, true, "the .dsc cannot be read, or lacks something", checkDscFields},
		{"dsc-agrees", Error, true, "the .dsc and the .changes contradict each other", checkDscAgrees},
		{"dsc-files", Error, true, "a file of the source package is not to be had", checkDscFiles},
		{"format", Error, true, "the source format is not allowed, or its files do not fit it", checkFormat},
		{"native", Warning, false, "a native package has a Debian revision", checkNative},
		{"relations", Error, false, "a relation to other packages cannot be read", checkRelations},
		{"nothing-builds", Warning, false, "no architecture of the suite builds it", checkNothingBuilds},
		{"version", Error, false, "the version is not newer than the suite's", checkVersion},
		{"version-below", Error, false, "a suite below has a newer version", checkVersionBelow},
		{"epoch", Error, true, "the version differs from another in its epoch only", checkEpoch},
		{"epoch-new", Warning, false, "the version raises the epoch", checkEpochNew},

		// Binaries.
		{"binaries", Error, true, "the suite takes no binaries", checkBinaries},
		{"binaries-dropped", Remark, false, "binaries are left out", checkBinariesDropped},
		{"binary", Error, false, "the Binary field does not fit the files", checkBinary},
		{"binary-source", Error, true, "binaries without their source", checkBinarySource},
		{"binnmu-all", Error, false, "a binNMU of packages for all architectures", checkBinNMUAll},
		{"takes-over", Warning, false, "another source builds one of its binary packages now", checkTakesOver},
		{"dbgsym", Warning, false, "debug symbols without their package", checkDbgsym},
		{"deb", Error, true, "a binary package is not sound", checkDeb},
		{"buildinfo", Error, false, "the .buildinfo is of another build", checkBuildinfo},
		{"buildinfo-none", Warning, false, "binaries without a .buildinfo", checkBuildinfoNone},

		// Inside the tarballs.
		{"tar", Error, true, "a tarball cannot be read", fromTarballs("tar")},
		{"tar-size", Error, true, "a tarball is a bomb, or over a limit", fromTarballs("tar-size")},
		{"tar-name", Error, true, "a tarball has a member outside of its tree", fromTarballs("tar-name")},
		{"tar-type", Error, true, "a tarball has a device in it", fromTarballs("tar-type")},
		{"tar-fifo", Error, false, "a tarball has a FIFO in it", fromTarballs("tar-fifo")}, // dpkg's own has
		{"tar-closed", Error, false, "a tarball has a directory that its owner cannot enter", fromTarballs("tar-closed")},
		{"tar-mode", Warning, false, "a tarball has a set-user-ID file", fromTarballs("tar-mode")},
		{"tar-link", Warning, false, "a tarball has a symbolic link out of its tree", fromTarballs("tar-link")},
		{"tar-future", Error, false, "a tarball has a member from the future", fromTarballs("tar-future")},
		{"tar-past", Remark, false, "a tarball has a member from before 1975", fromTarballs("tar-past")},
		{"changelog", Error, false, "debian/changelog is of another upload", checkChangelog},
		{"changelog-suite", Warning, false, "debian/changelog names another suite", checkChangelogSuite},
		{"control", Error, false, "debian/control is of another source", checkControl},
	}
}

func checkFields(r *reading) error {
	for _, text := range r.changesBad {
		r.say("%s", text)
	}
	if f := r.up.Changes.Format; f != "" && f != "1.8" && f != "1.7" {
		r.say("%s: Format is %s; 1.8 is the one that is read here", r.up.Name, quote(f))
	}
	return nil
}

func checkReplay(r *reading) error {
	if r.ctx.Seen == nil {
		return nil
	}
	if fate, ok := r.ctx.Seen(r.up.Hash); ok {
		r.say("%s: this upload was here before (%s); build a new version, and sign that", show(r.up.Name), fate)
	}
	return nil
}

func checkSignatureAge(r *reading) error {
	if s := r.up.Signature; s != nil && r.ctx.Now.Sub(s.Created) > r.lim.Age {
		r.say("%s: it was signed at %s, more than %d days ago; sign it again",
			show(r.up.Name), when(s.Created), days(r.lim.Age))
	}
	return nil
}

func days(d time.Duration) int { return int(d / (24 * time.Hour)) }

func checkDistribution(r *reading) error {
	d := r.up.Changes.Distribution
	switch words := deb822.Words(d); {
	case d == "" || r.up.Suite != nil:
	case len(words) > 1:
		r.say("Distribution names %d suites, %s; upload to one at a time", len(words), quote(d))
	case d == "UNRELEASED":
		r.say("Distribution is UNRELEASED; finish the changelog entry (dch -r) and build again")
	default:
		var known []string
		for _, s := range r.ctx.Suites {
			known = append(known, s.Name)
		}
		slices.Sort(known)
		r.say("Distribution is %s, which is no suite here; use one of: %s", quote(d), strings.Join(known, ", "))
	}
	return nil
}

// comesWithBinaries reports whether binary packages of the upload go into the archive.
func (r *reading) comesWithBinaries() bool {
	return len(r.binaryArchs()) > 0 &&
		(r.up.Suite == nil || r.up.Suite.Binaries != BinariesDropped || !r.up.Changes.HasSource())
}

// binaryArchs are the architectures of the upload's binaries: what the field
// says, and what the files' names say.
func (r *reading) binaryArchs() []string {
	var archs []string
	for _, a := range r.up.Changes.Architectures {
		if a != "source" && !slices.Contains(archs, a) {
			archs = append(archs, a)
		}
	}
	for _, f := range r.up.Changes.Files {
		if _, a, ok := debName(f.Name); ok && !slices.Contains(archs, a) {
			archs = append(archs, a)
		}
	}
	return archs
}

// debName takes pkg_version_arch.deb apart.
func debName(name string) (pkg, arch string, ok bool) {
	if k := kindOf(name); k != kindDeb && k != kindUdeb {
		return "", "", false
	}
	w := strings.Split(name[:strings.LastIndexByte(name, '.')], "_")
	if len(w) != 3 {
		return "", "", false
	}
	return w[0], w[2], true
}

func checkRights(r *reading) error {
	u, c := r.up.Uploader, r.up.Changes
	if u == nil {
		r.say("the key %s is known, but belongs to no uploader; ask for it to be registered", r.up.Signature.Fingerprint)
		return nil
	}
	if r.up.Suite == nil {
		return nil // told
	}
	// The reason is that of the right that comes nearest to fitting.
	best, reason := -1, fmt.Sprintf("%s has no rights; ask for some", quote(u.Name))
	for i := range u.Allow {
		step, why, err := r.allowed(&u.Allow[i], c, r.up.Suite)
		if err != nil {
			return err
		}
		if why == "" {
			r.up.Right = &u.Allow[i]
			return errors.Join(r.covered(), r.takeovers())
		}
		if step > best {
			best, reason = step, why
		}
	}
	r.say("%s", reason)
	return nil
}

// covered lists the suites in which the uploader's rights cover the upload: a
// reviewer may put it into any of them.
func (r *reading) covered() error {
	for _, s := range r.ctx.Suites {
		for i := range r.up.Uploader.Allow {
			_, why, err := r.allowed(&r.up.Uploader.Allow[i], r.up.Changes, s)
			if err != nil {
				return err
			}
			if why == "" {
				r.up.Suites = append(r.up.Suites, s.Name)
				break
			}
		}
	}
	return nil
}

// allowed says how far a right carries for a suite, and why not further.
func (r *reading) allowed(a *Right, c *Changes, s *Suite) (step int, why string, err error) {
	who, suite := quote(r.up.Uploader.Name), s.Name
	if !fits(a.Suites, suite) {
		return 0, fmt.Sprintf("%s may not upload to %s; ask for the right, or change Distribution", who, suite), nil
	}
	if !fits(a.Packages, c.Source) {
		return 1, fmt.Sprintf("%s may not upload the source package %s to %s; ask for the right",
			who, quote(c.Source), suite), nil
	}
	for _, f := range c.Files {
		if comp, _ := component(f.Section); f.Section != "-" && f.Section != "" && !fits(a.Components, comp) {
			return 2, fmt.Sprintf("%s may not upload to the component %s of %s; ask for the right, or change Section",
				who, quote(comp), suite), nil
		}
	}
	if c.HasSource() && !a.Source {
		return 3, fmt.Sprintf("%s may not upload sources to %s; ask for the right", who, suite), nil
	}
	if r.comesWithBinaries() && !(c.HasSource() && s.Binaries != BinariesAllowed) {
		for _, arch := range r.binaryArchs() {
			if len(a.Binaries) == 0 || !fits(a.Binaries, arch) {
				return 4, fmt.Sprintf("%s may not upload binaries of %s to %s; build with dpkg-buildpackage -S, "+
					"or ask for the right", who, quote(arch), suite), nil
			}
		}
	}
	if a.New {
		return 6, "", nil
	}
	isNew := r.up.New
	if s != r.up.Suite {
		versions, err := r.ctx.published(s.Name, c.Source)
		if err != nil {
			return 0, "", err
		}
		isNew = len(versions) == 0
	}
	if isNew {
		return 5, fmt.Sprintf("%s may not upload new packages to %s, which has no %s yet; ask somebody who may, "+
			"or for the right", who, suite, quote(c.Source)), nil
	}
	return 6, "", nil
}

func checkChangesName(r *reading) error {
	c := r.up.Changes
	want := c.Source + "_" + policy.WithoutEpoch(c.Version) + "_"
	if c.Source == "" || c.Version == "" {
		return nil // told
	}
	if !strings.HasPrefix(r.up.Name, want) || !strings.HasSuffix(r.up.Name, ".changes") {
		r.say("%s should be named %s*.changes, after its Source and Version; rename it, or build it again",
			show(r.up.Name), show(want))
	}
	return nil
}

func checkFileNames(r *reading) error {
	seen := map[string]bool{}
	for _, f := range r.up.Changes.Files {
		if err := policy.CheckFile(f.Name); err != nil {
			r.say("%s", err)
			continue
		}
		if f.Name == r.up.Name {
			r.say("%s lists itself; list the files that belong to it", show(f.Name))
		}
		if lower := strings.ToLower(f.Name); seen[lower] {
			r.say("%s differs from another file in upper and lower case only; rename one", f.Name)
		} else {
			seen[lower] = true
		}
	}
	return nil
}

func checkFileTypes(r *reading) error {
	for _, e := range r.odd {
		r.say("%s", e.Text)
	}
	return nil
}

func checkMissing(r *reading) error {
	if r.ctx.Left {
		return nil // nobody knows whether they came
	}
	for _, f := range r.up.Changes.Files {
		if policy.CheckFile(f.Name) != nil || r.present[f.Name] != nil || r.ctx.Told[f.Name] {
			continue
		}
		if slices.ContainsFunc(r.odd, func(e *FileError) bool { return e.Name == f.Name }) {
			continue
		}
		r.say("%s is listed, but did not come; upload it again with all its files", f.Name)
	}
	return nil
}

func checkNotListed(r *reading) error {
	names, err := r.entries()
	if err != nil {
		return err
	}
	for _, n := range names {
		r.say("%s came with the upload, but %s does not list it; list it, or leave it out", show(n), show(r.up.Name))
	}
	return nil
}

func checkSize(r *reading) error {
	var total int64
	for _, f := range r.up.Changes.Files {
		if f.Size > r.lim.FileSize {
			r.say("%s is of %d bytes, and %d are the limit; make it smaller, or ask for a higher limit",
				show(f.Name), f.Size, r.lim.FileSize)
		}
		if total += f.Size; total < 0 {
			total = 1<<63 - 1
			break
		}
	}
	if total > r.lim.Size {
		r.say("the upload is of %d bytes, and %d are the limit; make it smaller, or ask for a higher limit",
			total, r.lim.Size)
	}
	return nil
}

func checkSums(r *reading) error {
	for _, f := range r.up.Changes.Files {
		sum, ok := r.sums[f.Name]
		if !ok {
			continue
		}
		r.compare(f, sum, r.up.Name, "upload it again")
	}
	return nil
}

// compare says the first thing in which a file is not what owner lists.
func (r *reading) compare(f File, sum Sums, owner, cure string) {
	for _, c := range []struct{ name, want, got string }{
		{"SHA-256", f.SHA256, sum.SHA256}, {"SHA-1", f.SHA1, sum.SHA1}, {"MD5", f.MD5, sum.MD5},
	} {
		switch {
		case f.Size != sum.Size:
			r.say("%s is of %d bytes, but %s says %d; %s", show(f.Name), sum.Size, show(owner), f.Size, cure)
			return
		case c.want != "" && c.got != "" && c.want != c.got:
			r.say("%s: %s differs from %s; %s", show(f.Name), c.name, show(owner), cure)
			return
		}
	}
}

func checkPool(r *reading) error {
	for _, f := range r.up.Changes.Files {
		if policy.CheckFile(f.Name) != nil || kindOf(f.Name) == kindBuildinfo {
			continue
		}
		sha, size, ok := r.ctx.pool(f.Name)
		if !ok || sha == f.SHA256 && size == f.Size || slices.Contains(r.dropped(), f.Name) {
			continue
		}
		cure := "raise the version and build again"
		if strings.Contains(f.Name, ".orig") {
			cure = "build with the archive's tarball, or raise the upstream version"
		}
		r.say("%s: the archive has a file of this name with other contents; %s", f.Name, cure)
	}
	return nil
}

// dropped are the files that the suite leaves out.
func (r *reading) dropped() []string {
	var names []string
	if r.up.Suite == nil || r.up.Suite.Binaries != BinariesDropped || !r.up.Changes.HasSource() {
		return nil
	}
	for _, f := range r.up.Changes.Files {
		if k := kindOf(f.Name); k == kindDeb || k == kindUdeb {
			names = append(names, f.Name)
		}
	}
	return names
}

func checkArchitecture(r *reading) error {
	c := r.up.Changes
	seen := map[string]bool{}
	hasDsc, debArchs := false, map[string]bool{}
	for _, f := range c.Files {
		hasDsc = hasDsc || kindOf(f.Name) == kindDsc
		if _, a, ok := debName(f.Name); ok {
			debArchs[a] = true
		}
	}
	for _, a := range c.Architectures {
		if seen[a] {
			r.say("Architecture lists %s twice; build the upload again", quote(a))
			continue
		}
		seen[a] = true
		switch {
		case a == "source":
			if !hasDsc {
				r.say("Architecture lists source, but no .dsc is listed; build the upload again")
			}
			continue
		case policy.CheckArch(a) != nil:
			r.say("Architecture: %s; build the upload again", policy.CheckArch(a))
			continue
		case !debArchs[a]:
			r.say("Architecture lists %s, but no package of that architecture is listed; build the upload again", a)
		}
		if s := r.up.Suite; s != nil && a != "all" && !slices.Contains(s.Architectures, a) &&
			!slices.Contains(archsOf(r.dropped()), a) {
			r.say("Architecture lists %s, which %s does not have; its architectures are: %s",
				a, s.Name, strings.Join(s.Architectures, ", "))
		}
	}
	if hasDsc && !seen["source"] {
		r.say("a .dsc is listed, but Architecture does not say source; build the upload again")
	}
	for _, f := range c.Files {
		if _, a, ok := debName(f.Name); ok && !seen[a] {
			r.say("%s is of an architecture that Architecture does not list; build the upload again", show(f.Name))
		}
	}
	return nil
}

func archsOf(files []string) []string {
	var out []string
	for _, f := range files {
		if _, a, ok := debName(f); ok {
			out = append(out, a)
		}
	}
	return out
}

func checkExtra(r *reading) error {
	for _, f := range r.up.Changes.Files {
		if policy.CheckFile(f.Name) != nil || f.Name == r.up.Name {
			continue // told
		}
		switch kindOf(f.Name) {
		case kindDsc, kindBuildinfo:
		case kindDeb, kindUdeb:
			if _, _, ok := debName(f.Name); !ok {
				r.say("%s is not named package_version_architecture; build it again", show(f.Name))
			}
		default:
			if d := r.up.Dsc; d != nil && d.File(f.Name) == nil {
				r.say("%s belongs neither to the source package nor to a binary package; leave it out", show(f.Name))
			} else if d == nil && !r.up.Changes.HasSource() {
				r.say("%s belongs to a source package, but the upload has none; leave it out", show(f.Name))
			}
		}
	}
	return nil
}

var sectionForm = pattern.Lazy(`^([a-z0-9][a-z0-9-]*/)*[a-z0-9][a-z0-9-]*$`)

func checkSection(r *reading) error {
	seen := map[string]bool{}
	for _, f := range r.up.Changes.Files {
		if seen[f.Section] || f.Section == "-" || f.MD5 == "" { // without MD5 it is not in Files: told
			continue
		}
		seen[f.Section] = true
		if !sectionForm().MatchString(f.Section) || len(f.Section) > 100 {
			r.say("%s has the section %s; use at most 100 lower case letters, digits and '-', such as utils or contrib/libs",
				show(f.Name), quote(f.Section))
			continue
		}
		comp, _ := component(f.Section)
		if s := r.up.Suite; s != nil && !slices.Contains(s.components(), comp) {
			r.say("%s has the section %s, but %s has no component %s; its components are: %s",
				show(f.Name), f.Section, s.Name, comp, strings.Join(s.components(), ", "))
		}
	}
	return nil
}

func checkSectionNone(r *reading) error {
	for _, f := range r.up.Changes.Files {
		if k := kindOf(f.Name); f.Section == "-" && (k == kindDsc || k == kindDeb || k == kindUdeb) {
			r.say("%s has no section; set Section in debian/control", show(f.Name))
		}
	}
	return nil
}

func checkPriority(r *reading) error {
	known := []string{"required", "important", "standard", "optional", "extra", "source", "-"}
	seen := map[string]bool{}
	for _, f := range r.up.Changes.Files {
		if f.MD5 != "" && !slices.Contains(known, f.Priority) && !seen[f.Priority] {
			seen[f.Priority] = true
			r.say("%s has the priority %s; use optional, or another of Policy 2.5", show(f.Name), quote(f.Priority))
		}
	}
	return nil
}

var addressForm = pattern.Lazy(`^(?:[^<>\n]*[^<>\s] )?<?([^\s<>(),:;@"\[\]\\]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)>?$`)

// checkAddress tells what a field with one person's name and address lacks.
func checkAddress(field, value string) string {
	switch {
	case strings.ContainsAny(value, "\n\r"):
		return fmt.Sprintf("%s is on several lines; write one name and one address", field)
	case strings.ContainsFunc(value, func(c rune) bool {
		return c < 0x20 || c >= 0x7f && c < 0xa0 || c == 0x2028 || c == 0x2029 || c >= 0x202a && c <= 0x202e ||
			c >= 0x2066 && c <= 0x2069
	}):
		return fmt.Sprintf("%s holds control characters: %s; write one name and one address", field, quote(value))
	case !addressForm().MatchString(value), strings.Count(value, "<") != strings.Count(value, ">"):
		return fmt.Sprintf("%s is %s; write it as: Name <user@example.org>", field, quote(value))
	case len(value) > 250:
		return fmt.Sprintf("%s is longer than 250 bytes; shorten it", field)
	}
	return ""
}

func checkMaintainer(r *reading) error {
	tell := func(field, value string) {
		if text := checkAddress(field, value); value != "" && text != "" {
			r.say("%s", text)
		}
	}
	tell("Maintainer", r.up.Changes.Maintainer)
	tell("Changed-By", r.up.Changes.ChangedBy)
	if d := r.up.Dsc; d != nil {
		tell("Maintainer of the .dsc", d.Maintainer)
	}
	return nil
}

func checkUrgency(r *reading) error {
	u := r.up.Changes.Urgency
	if !slices.Contains([]string{"", "low", "medium", "high", "emergency", "critical"}, u) {
		r.say("Urgency is %s; use low, medium, high, emergency or critical", quote(u))
	}
	return nil
}

var number = pattern.Lazy(`^[1-9][0-9]{0,9}$`)

func checkCloses(r *reading) error {
	for _, n := range r.up.Changes.Closes {
		if !number().MatchString(n) {
			r.say("Closes lists %s, which is no bug number; correct the changelog entry", quote(n))
		}
	}
	return nil
}

func checkDate(r *reading) error {
	d := r.up.Changes.Date
	if d == "" {
		return nil
	}
	t, err := mail.ParseDate(d)
	if err != nil {
		r.say("Date is %s; write it as date -R does", quote(d))
	} else if t.After(r.ctx.Now.Add(24 * time.Hour)) {
		r.say("Date is %s, in the future; set the clock and build again", when(t))
	}
	return nil
}

func checkDateOld(r *reading) error {
	if t, err := mail.ParseDate(r.up.Changes.Date); err == nil && r.ctx.Now.Sub(t) > r.lim.Age {
		r.say("Date is %s, more than %d days ago; give the changelog entry a new date (dch -r) and build again",
			when(t), days(r.lim.Age))
	}
	return nil
}

func checkDescription(r *reading) error {
	if len(r.binaryArchs()) == 0 {
		return nil
	}
	described := map[string]bool{}
	for line := range strings.SplitSeq(r.up.Changes.Stanza.Get("Description"), "\n") {
		if w := deb822.Words(line); len(w) >= 3 && w[1] == "-" {
			described[w[0]] = true
		}
	}
	for _, f := range r.up.Changes.Files {
		pkg, _, ok := debName(f.Name)
		if !ok || strings.HasSuffix(pkg, "-dbgsym") {
			continue
		}
		if !described[pkg] {
			r.say("Description says nothing about %s; set Description in debian/control", show(pkg))
		}
	}
	return nil
}

func checkSource(r *reading) error {
	c := r.up.Changes
	var dscs []string
	for _, f := range c.Files {
		if kindOf(f.Name) == kindDsc {
			dscs = append(dscs, f.Name)
		}
	}
	if len(dscs) > 1 {
		r.say("%d .dsc files are listed; upload each source package by itself", len(dscs))
	}
	if len(c.Files) == 0 && c.Stanza.Get("Files") != "" {
		r.say("no files are listed; build the upload again")
	}
	if c.HasSource() && c.SourceVersion != c.Version {
		r.say("Source is %s, with a version other than Version, in an upload with source; build the upload again",
			quote(c.Stanza.Get("Source")))
	}
	if len(dscs) == 1 && c.Source != "" && c.Version != "" {
		if want := c.Source + "_" + policy.WithoutEpoch(c.Version) + ".dsc"; dscs[0] != want {
			r.say("%s should be named %s, after Source and Version; build the upload again", show(dscs[0]), show(want))
		}
	}
	return nil
}

func checkDscSignature(r *reading) error {
	if r.dscRefusal != nil {
		r.say("%s: %s", r.dscName(), r.dscRefusal)
	}
	return nil
}

// checkDscKey judges by itself what the .changes vouches for: its signer sends
// somebody else's source package as it is.
func checkDscKey(r *reading) error {
	if r.dscStranger != nil {
		r.say("%s: %s", r.dscName(), r.dscStranger)
	}
	return nil
}

func (r *reading) dscName() string {
	for _, f := range r.up.Changes.Files {
		if kindOf(f.Name) == kindDsc {
			return show(f.Name)
		}
	}
	return "the .dsc"
}

func checkDscUnsigned(r *reading) error {
	if r.up.Dsc != nil && r.up.DscSignature == nil && r.dscStranger == nil && !r.unsigned {
		r.say("%s has no signature; sign the whole upload with debsign", r.dscName())
	}
	return nil
}

func checkDscFields(r *reading) error {
	if r.dscErr != nil {
		r.say("%s; build the source package again", r.dscErr)
	}
	for _, text := range r.dscBad {
		r.say("%s", text)
	}
	if r.up.Dsc != nil {
		if _, err := policy.ArchList(strings.Join(r.up.Dsc.Architectures, " ")); err != nil &&
			len(r.up.Dsc.Architectures) > 0 {
			r.say("%s: Architecture: %s; correct debian/control", r.dscName(), err)
		}
		for _, b := range r.up.Dsc.Binary {
			if err := policy.CheckPackage(b); err != nil {
				r.say("%s: Binary: %s", r.dscName(), err)
			}
		}
	}
	return nil
}

func checkDscAgrees(r *reading) error {
	c, d := r.up.Changes, r.up.Dsc
	if d == nil {
		return nil
	}
	for _, f := range []struct{ name, changes, dsc string }{
		{"Source", c.Source, d.Source}, {"Version", c.Version, d.Version},
	} {
		if f.changes != f.dsc && f.changes != "" && f.dsc != "" {
			r.say("%s is %s in %s, but %s in %s; build the upload again",
				f.name, quote(f.dsc), r.dscName(), quote(f.changes), show(r.up.Name))
		}
	}
	for _, f := range d.Files {
		for _, l := range c.Files {
			if l.Name != f.Name {
				continue
			}
			switch {
			case l.Size != f.Size:
				r.say("%s: its size differs between %s and %s; rebuild the source package",
					show(f.Name), r.dscName(), show(r.up.Name))
			case f.SHA256 != "" && l.SHA256 != "" && l.SHA256 != f.SHA256:
				r.say("%s: SHA-256 differs from %s; rebuild the source package", show(f.Name), r.dscName())
			case f.SHA1 != "" && l.SHA1 != "" && l.SHA1 != f.SHA1:
				r.say("%s: SHA-1 differs from %s; rebuild the source package", show(f.Name), r.dscName())
			case f.MD5 != "" && l.MD5 != "" && l.MD5 != f.MD5:
				r.say("%s: MD5 differs from %s; rebuild the source package", show(f.Name), r.dscName())
			}
		}
	}
	return nil
}

func checkDscFiles(r *reading) error {
	d := r.up.Dsc
	if d == nil {
		return nil
	}
	r.up.Pool = nil
	for _, f := range d.Files {
		if err := policy.CheckFile(f.Name); err != nil {
			r.say("%s: %s", r.dscName(), err)
			continue
		}
		if !strings.HasPrefix(f.Name, d.Source+"_") {
			r.say("%s is in %s, but is not named after its source package; rebuild the source package", f.Name, r.dscName())
			continue
		}
		if r.up.Changes.Lists(f.Name) {
			continue
		}
		sha, size, ok := r.ctx.pool(f.Name)
		switch {
		case !ok:
			r.say("%s is in %s, but neither in the upload nor in the archive; build with dpkg-buildpackage -sa",
				f.Name, r.dscName())
		case sha != f.SHA256 || size != f.Size:
			r.say("%s: the archive's file of this name differs from %s; build with the archive's tarball, "+
				"or raise the upstream version", f.Name, r.dscName())
		default:
			r.up.Pool = append(r.up.Pool, f)
		}
	}
	return nil
}

func checkFormat(r *reading) error {
	d := r.up.Dsc
	if d == nil || d.Format == "" {
		return nil
	}
	formats := []string{"1.0", "3.0 (native)", "3.0 (quilt)"}
	if r.up.Suite != nil {
		formats = r.up.Suite.formats()
	}
	if !slices.Contains(formats, d.Format) {
		r.say("%s: the source format %s is not allowed; use one of: %s",
			r.dscName(), quote(d.Format), strings.Join(formats, ", "))
		return nil
	}
	if policy.CheckVersion(d.Version) != nil {
		return nil
	}
	if text := fileSet(d); text != "" {
		r.say("%s: %s; rebuild the source package", r.dscName(), text)
	}
	return nil
}

// fileSet says why the files of a .dsc are not those of its format (dpkg-source(1)).
func fileSet(d *Dsc) string {
	s := sortFiles(d)
	for _, a := range s.ascs {
		base := strings.TrimSuffix(a, ".asc")
		if !slices.Contains(s.origs, base) && !slices.Contains(s.comps, base) {
			return fmt.Sprintf("%s signs no upstream tarball of the package", show(a))
		}
	}
	if len(s.others) > 0 {
		return fmt.Sprintf("%s does not belong into format %s of version %s", show(s.others[0]), d.Format, quote(d.Version))
	}
	switch d.Format {
	case "1.0":
		if s.counts() != [4]int{1, 0, 0, 0} && s.counts() != [4]int{0, 1, 0, 1} || len(s.comps) > 0 {
			return "format 1.0 has either one tarball, or an orig tarball and a diff"
		}
		if slices.ContainsFunc(append(s.native, s.origs...), func(name string) bool {
			return !strings.HasSuffix(name, ".gz")
		}) {
			return "format 1.0 has gzip tarballs only"
		}
	case "3.0 (native)":
		if s.counts() != [4]int{1, 0, 0, 0} || len(s.comps) > 0 || len(s.ascs) > 0 {
			return "format 3.0 (native) has exactly one tarball"
		}
	case "3.0 (quilt)":
		if policy.VersionOf(d.Version).Revision == "" {
			return "format 3.0 (quilt) needs a version with a Debian revision, such as 1.0-1"
		}
		if s.counts() != [4]int{0, 1, 1, 0} {
			return "format 3.0 (quilt) has one orig tarball, one debian tarball and maybe component tarballs"
		}
		seen := map[string]bool{}
		for _, c := range s.comps {
			base, _, _ := strings.Cut(c, ".tar.")
			if seen[base] {
				return fmt.Sprintf("%s is there in two compressions", show(base))
			}
			seen[base] = true
		}
	}
	return "" // also of a format that the suite allows and nobody here knows
}

// sourceFiles are the files of a .dsc, by what they are: upstream's tarball,
// tarballs of components, their signatures, what Debian adds, and the rest.
type sourceFiles struct{ native, origs, debians, diffs, comps, ascs, others []string }

func (s *sourceFiles) counts() [4]int {
	return [4]int{len(s.native), len(s.origs), len(s.debians), len(s.diffs)}
}

func sortFiles(d *Dsc) *sourceFiles {
	full := d.Source + "_" + policy.WithoutEpoch(d.Version)
	orig := d.Source + "_" + policy.VersionOf(d.Version).Version + ".orig"
	tarball := func(name, base string) bool {
		rest, ok := strings.CutPrefix(name, base)
		tar, packed := compression.Cut(rest)
		return ok && tar == ".tar" && packed.OfSource()
	}
	component := func(name string) bool {
		rest, ok := strings.CutPrefix(name, orig+"-")
		c, _, _ := strings.Cut(rest, ".tar.")
		return ok && kindOf(name) == kindTar && c != "" && !strings.ContainsAny(c, "._~+")
	}
	s := &sourceFiles{}
	for _, f := range d.Files {
		of := &s.others
		switch {
		case tarball(f.Name, full):
			of = &s.native
		case tarball(f.Name, orig):
			of = &s.origs
		case tarball(f.Name, full+".debian"):
			of = &s.debians
		case f.Name == full+".diff.gz":
			of = &s.diffs
		case component(f.Name):
			of = &s.comps
		case kindOf(f.Name) == kindAsc:
			of = &s.ascs
		}
		*of = append(*of, f.Name)
	}
	return s
}

func checkNative(r *reading) error {
	if d := r.up.Dsc; d != nil && d.Format == "3.0 (native)" && policy.VersionOf(d.Version).Revision != "" {
		r.say("%s is native, but its version %s has a Debian revision; drop the revision, or use 3.0 (quilt)",
			d.Source, quote(d.Version))
	}
	return nil
}

func checkRelations(r *reading) error {
	if r.up.Dsc == nil {
		return nil
	}
	for _, err := range policy.CheckBuildRelations(r.up.Dsc.Stanza.Get) {
		r.say("%s: %s; correct debian/control", r.dscName(), err)
	}
	return nil
}

func checkNothingBuilds(r *reading) error {
	d, s := r.up.Dsc, r.up.Suite
	if d == nil || s == nil || len(d.Architectures) == 0 {
		return nil
	}
	for _, a := range append([]string{"all"}, s.Architectures...) {
		if policy.BuildsOn(d.Architectures, a) {
			return nil
		}
	}
	r.say("Architecture is %s, of which %s has none; its architectures are: %s",
		quote(strings.Join(d.Architectures, " ")), s.Name, strings.Join(s.Architectures, ", "))
	return nil
}

func newest(versions []string) string {
	top := ""
	for _, v := range versions {
		if top == "" || policy.CompareVersions(v, top) > 0 {
			top = v
		}
	}
	return top
}

func checkVersion(r *reading) error {
	c := r.up.Changes
	if !c.HasSource() || policy.CheckVersion(c.Version) != nil {
		return nil
	}
	top := newest(r.up.Published)
	if top == "" || policy.CompareVersions(c.Version, top) > 0 {
		return nil
	}
	switch {
	case policy.CompareVersions(c.Version, top) == 0:
		r.say("%s %s is in %s already; raise the version", c.Source, c.Version, r.up.Suite.Name)
	case policy.VersionOf(c.Version).Epoch != policy.VersionOf(top).Epoch:
		r.say("%s %s sorts before %s in %s, for it has lost the epoch; begin the version with %d:",
			c.Source, c.Version, top, r.up.Suite.Name, policy.VersionOf(top).Epoch)
	default:
		r.say("%s %s is older than %s in %s; raise the version", c.Source, c.Version, top, r.up.Suite.Name)
	}
	return nil
}

func checkVersionBelow(r *reading) error {
	c, s := r.up.Changes, r.up.Suite
	if s == nil || !c.HasSource() || policy.CheckVersion(c.Version) != nil || policy.CheckSource(c.Source) != nil {
		return nil
	}
	for _, below := range s.Below {
		versions, err := r.ctx.published(below, c.Source)
		if err != nil {
			return err
		}
		if top := newest(versions); top != "" && policy.CompareVersions(c.Version, top) < 0 {
			r.say("%s %s is older than %s in %s, which must not be ahead of %s; raise the version",
				c.Source, c.Version, top, below, s.Name)
		}
	}
	return nil
}

func checkEpoch(r *reading) error {
	c := r.up.Changes
	if !c.HasSource() || policy.CheckVersion(c.Version) != nil {
		return nil
	}
	for _, v := range r.up.Published {
		was, now := policy.VersionOf(v), policy.VersionOf(c.Version)
		if was.Epoch != now.Epoch && was.StringWithoutEpoch() == now.StringWithoutEpoch() {
			r.say("%s %s and %s differ in the epoch only, so their files would bear the same names; "+
				"change the version behind the epoch too", c.Source, c.Version, v)
		}
	}
	return nil
}

func checkEpochNew(r *reading) error {
	c := r.up.Changes
	top := newest(r.up.Published)
	if c.HasSource() && top != "" && policy.CheckVersion(c.Version) == nil &&
		policy.VersionOf(c.Version).Epoch != policy.VersionOf(top).Epoch && policy.CompareVersions(c.Version, top) > 0 {
		r.say("%s %s raises the epoch of %s; an epoch can never be taken back, so be sure", c.Source, c.Version, top)
	}
	return nil
}

func checkBinaries(r *reading) error {
	s, c := r.up.Suite, r.up.Changes
	if s == nil || !c.HasSource() || s.Binaries == BinariesDropped || s.Binaries == BinariesAllowed {
		return nil
	}
	if archs := r.binaryArchs(); len(archs) > 0 {
		r.say("%s takes no binaries with a source, and the upload has some of %s; build with dpkg-buildpackage -S",
			s.Name, quote(strings.Join(archs, ", ")))
	}
	return nil
}

func checkBinariesDropped(r *reading) error {
	for _, f := range r.up.Drop {
		r.say("%s is left out: %s builds its binaries from source", show(f), r.up.Suite.Name)
	}
	return nil
}

func checkBinary(r *reading) error {
	c := r.up.Changes
	said := map[string]bool{}
	for _, b := range c.Binary {
		if err := policy.CheckPackage(b); err != nil {
			r.say("Binary: %s", err)
		}
		said[b] = true
	}
	for _, f := range c.Files {
		pkg, _, ok := debName(f.Name)
		if ok && !said[pkg] && !strings.HasSuffix(pkg, "-dbgsym") {
			r.say("%s is not in the field Binary; build the upload again", show(f.Name))
		}
	}
	return nil
}

func checkBinarySource(r *reading) error {
	c := r.up.Changes
	if r.up.Suite == nil || c.HasSource() || len(c.Files) == 0 || slices.Contains(r.up.Published, c.SourceVersion) ||
		slices.ContainsFunc(c.Files, func(f File) bool { return kindOf(f.Name) == kindDsc }) {
		return nil
	}
	r.say("the upload has binaries of %s %s, but %s does not have that source; upload the source first",
		quote(c.Source), quote(c.SourceVersion), r.up.Suite.Name)
	return nil
}

func checkBinNMUAll(r *reading) error {
	if !r.up.Changes.BinaryOnly {
		return nil
	}
	for _, f := range r.up.Changes.Files {
		if _, arch, ok := debName(f.Name); ok && arch == "all" {
			r.say("%s is for all architectures, which a binNMU must not rebuild; upload a new version of the source",
				show(f.Name))
		}
	}
	return nil
}

// takeovers finds the names that another source has in the suite. What the
// uploader's rights do not cover there a reviewer must see: see Upload.Foreign.
func (r *reading) takeovers() error {
	if r.ctx.BuiltBy == nil {
		return nil
	}
	names := slices.Clone(r.up.Changes.Binary)
	if r.up.Dsc != nil {
		names = append(names, r.up.Dsc.Packages...)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return policy.CheckPackage(n) != nil })
	for _, n := range slices.Clone(names) {
		names = append(names, n+"-dbgsym")
	}
	slices.Sort(names)
	names = slices.Compact(names)
	builders, err := r.ctx.BuiltBy(r.up.Suite.Name, names)
	if err != nil {
		return err
	}
	for _, name := range names {
		source, ok := builders[name]
		if !ok || source == r.up.Changes.Source {
			continue
		}
		r.up.TakesOver = append(r.up.TakesOver, name+"="+source)
		if !r.covers(source) {
			r.up.Foreign = append(r.up.Foreign, name+"="+source)
		}
	}
	return nil
}

func checkTakesOver(r *reading) error {
	for _, x := range r.up.TakesOver {
		name, source, _ := strings.Cut(x, "=")
		r.say("the binary package %s is built by the source %s in %s; agree with its maintainer, or rename yours",
			name, source, r.up.Suite.Name)
	}
	return nil
}

// covers reports whether the uploader may upload another source to the suite, too.
func (r *reading) covers(source string) bool {
	u := r.up.Uploader
	return u != nil && slices.ContainsFunc(u.Allow, func(a Right) bool {
		return a.Source && fits(a.Suites, r.up.Suite.Name) && fits(a.Packages, source)
	})
}

func checkDbgsym(r *reading) error {
	for _, f := range r.up.Changes.Files {
		if pkg, arch, ok := debName(f.Name); ok && strings.HasSuffix(pkg, "-dbgsym") {
			base := strings.TrimSuffix(pkg, "-dbgsym")
			if !slices.ContainsFunc(r.up.Changes.Files, func(o File) bool {
				p, a, ok := debName(o.Name)
				return ok && p == base && a == arch
			}) {
				r.say("%s came without the package %s, whose debug symbols it has; upload both", show(f.Name), show(base))
			}
		}
	}
	return nil
}

func checkDeb(r *reading) error {
	if r.ctx.Deb == nil {
		return nil
	}
	drop := r.dropped()
	for _, f := range r.up.Changes.Files {
		if _, _, ok := debName(f.Name); !ok || r.present[f.Name] == nil || slices.Contains(drop, f.Name) {
			continue
		}
		texts, err := r.ctx.Deb(r.context, r.dir, r.up, f)
		if err != nil {
			return err
		}
		for _, t := range texts {
			r.say("%s", t)
		}
	}
	return nil
}

func checkBuildinfo(r *reading) error {
	c := r.up.Changes
	for _, f := range c.Files {
		if kindOf(f.Name) != kindBuildinfo || r.present[f.Name] == nil {
			continue
		}
		if f.Size > MaxChanges {
			r.say("%s is larger than %d bytes; build again", show(f.Name), MaxChanges)
			continue
		}
		data, err := readSmall(r.dir, f.Name)
		if err != nil {
			return err
		}
		// The .changes, which is signed, vouches for the file.
		st, err := paper.Parse(show(f.Name), data)
		if err != nil {
			r.say("%s; build again", err)
			continue
		}
		if src, _ := paper.Source(st.Get("Source")); src != c.Source {
			r.say("%s is of the source %s, not of %s; build again", show(f.Name), quote(src), quote(c.Source))
		}
		if v := st.Get("Version"); v != c.Version {
			r.say("%s is of version %s, not of %s; build again", show(f.Name), quote(v), quote(c.Version))
		}
		var bad problems
		for _, b := range parseFiles(st, f.Name, paper.Short, &bad) {
			for _, l := range c.Files {
				if l.Name == b.Name && b.SHA256 != "" && l.SHA256 != b.SHA256 && kindOf(l.Name) != kindDsc {
					r.say("%s: SHA-256 differs from %s; build again", show(l.Name), show(f.Name))
				}
			}
		}
		for _, t := range bad {
			r.say("%s", t)
		}
	}
	return nil
}

func checkBuildinfoNone(r *reading) error {
	c := r.up.Changes
	if len(r.binaryArchs()) > 0 && !slices.ContainsFunc(c.Files, func(f File) bool {
		return kindOf(f.Name) == kindBuildinfo
	}) {
		r.say("the upload has binaries, but no .buildinfo; build with dpkg-buildpackage")
	}
	return nil
}

// fromTarballs makes the check that tells what the listing found under its name.
func fromTarballs(name string) func(*reading) error {
	return func(r *reading) error {
		for _, l := range r.tarballs {
			for _, text := range l.problems[name] {
				r.say("%s", text)
			}
		}
		return nil
	}
}

var entryForm = pattern.Lazy(`^(\S+) \(([^()\s]+)\)((?: +[-+.0-9A-Za-z]+)+);`)

// entry is the head of the newest changelog entry (Debian Policy 4.4), if it can be read.
func (r *reading) entry() (source, version, suite string, ok bool) {
	for line := range strings.SplitSeq(string(r.tree.changelog), "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		m := entryForm().FindStringSubmatch(line)
		if m == nil {
			return "", "", "", false
		}
		return m[1], m[2], strings.TrimSpace(m[3]), true
	}
	return "", "", "", false
}

func checkChangelog(r *reading) error {
	if r.tree == nil || len(r.tree.problems["tar"])+len(r.tree.problems["tar-size"]) > 0 {
		return nil
	}
	d := r.up.Dsc
	if r.tree.changelog == nil {
		// A diff of format 1.0 may change a changelog that the orig tarball has.
		if kindOf(r.tarSource) != kindDiff {
			r.say("%s has no debian/changelog; build the source package with dpkg-source", show(r.tarSource))
		}
		return nil
	}
	source, version, _, ok := r.entry()
	switch {
	case !ok && kindOf(r.tarSource) == kindDiff: // only a part of the file is in the diff
	case !ok:
		r.say("debian/changelog in %s does not begin with an entry such as: hello (2.10-3) stable; urgency=medium",
			show(r.tarSource))
	case source != d.Source:
		r.say("debian/changelog in %s is of %s, but the source package is %s; rebuild it",
			show(r.tarSource), quote(source), quote(d.Source))
	case version != d.Version:
		r.say("debian/changelog in %s is of version %s, but the source package of %s; rebuild it",
			show(r.tarSource), quote(version), quote(d.Version))
	}
	return nil
}

func checkChangelogSuite(r *reading) error {
	if r.tree == nil || r.tree.changelog == nil || r.up.Suite == nil {
		return nil
	}
	if _, _, suite, ok := r.entry(); ok && suite != r.up.Changes.Distribution && r.ctx.suite(suite) != r.up.Suite {
		r.say("debian/changelog names the suite %s, but Distribution is %s; make them agree (dch -r)",
			quote(suite), quote(r.up.Changes.Distribution))
	}
	return nil
}

func checkControl(r *reading) error {
	if r.tree == nil || len(r.tree.problems["tar"])+len(r.tree.problems["tar-size"]) > 0 {
		return nil
	}
	if r.tree.control == nil {
		if kindOf(r.tarSource) != kindDiff {
			r.say("%s has no debian/control; build the source package with dpkg-source", show(r.tarSource))
		}
		return nil
	}
	if kindOf(r.tarSource) == kindDiff {
		return nil // maybe only a part of the file
	}
	lim := deb822.Hostile
	lim.Comments = true
	stanzas, err := deb822.Parse("debian/control of "+show(r.tarSource), r.tree.control, lim)
	if err != nil {
		r.say("%s; correct it", err)
		return nil
	}
	if len(stanzas) == 0 || stanzas[0].Get("Source") != r.up.Dsc.Source {
		got := ""
		if len(stanzas) > 0 {
			got = stanzas[0].Get("Source")
		}
		r.say("debian/control in %s is of the source %s, but the source package is %s; rebuild it",
			show(r.tarSource), quote(got), quote(r.up.Dsc.Source))
	}
	return nil
}
