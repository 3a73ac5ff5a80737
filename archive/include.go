package archive

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"packmill/archive/deb"
	"packmill/archive/index"
	"packmill/archive/pool"
	"packmill/archive/release"
	"packmill/spool/deb822"
	"packmill/spool/policy"
)

// Kind says which of an upload's files are included.
type Kind uint8

const (
	Source Kind = 1 << iota
	Binary
)

// Inclusion is one upload that is to be published. Its files must be ours: who
// could write to them before must not have them open any more.
type Inclusion struct {
	Dir     string
	Changes string // the .changes in Dir, which names the files and their checksums
	Kind    Kind   // both if zero

	// Text, if set, is the content of the .changes as the caller verified it.
	// Then the file is not read again: what was checked is what is used.
	Text []byte

	// These replace what the packages say; "" leaves it. The suite's overrides
	// go before Section and Priority.
	Component, Section, Priority string

	// Architectures, if set, are those for which the upload may bring binaries:
	// the caller knows what its sender is allowed.
	Architectures []string

	// Overrides are for single packages what Section and Priority are for all,
	// by the names of Suite.Overrides, which go before them.
	Overrides map[string]Override

	Force bool // the version may go down

	// Sourceless takes binaries whose source package is not in the suite: of a
	// repository that has none.
	Sourceless bool
}

// Outcome is what became of an inclusion.
type Outcome int

const (
	Published Outcome = iota
	AlreadyThere
	Refused
)

func (o Outcome) String() string {
	return [...]string{"published", "already there", "refused"}[o]
}

// Result is the outcome of one inclusion.
type Result struct {
	Changes string // as in the Inclusion
	Outcome Outcome
	Reason  string   // of a refusal: a sentence that says what helps
	Notes   []string // what a person may want to know, a sentence each
	Files   []string // the upload's files in the pool, relative to the archive
}

// refusal is a fault of the upload.
type refusal string

func (r refusal) Error() string { return string(r) }

func refuse(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

// item is a file of an upload on its way into the pool.
type item struct {
	f    *os.File
	from string
	name string // in the pool
	sum  index.Sum
}

// change is one edit of an index; they are made when the whole upload is good.
type change struct {
	path, key string
	records   []byte
}

// inclusion is the work on one upload.
type inclusion struct {
	*Inclusion
	t       *transaction
	ch      *deb822.Stanza
	source  string
	version string
	files   map[string]*listed
	items   []item
	changes []change
	notes   []string
	news    bool // it changes the suite
}

// listed is a file of the .changes.
type listed struct {
	name              string
	size              int64
	sha               string
	md5               string
	section, priority string
}

// include checks an upload, puts its files into the pool and notes what
// changes in the indexes. An error that is no refusal is our own trouble.
func (t *transaction) include(inc *Inclusion) (Result, error) {
	in := &inclusion{Inclusion: inc, t: t}
	if inc.Kind == 0 {
		in.Kind = Source | Binary
	}
	defer func() {
		for _, it := range in.items {
			it.f.Close()
		}
	}()
	res := Result{Changes: inc.Changes}
	err := in.run()
	var r refusal
	if errors.As(err, &r) {
		res.Outcome, res.Reason = Refused, string(r)
		return res, nil
	}
	if err != nil {
		return res, fmt.Errorf("include %s: %w", inc.Changes, err)
	}
	for _, it := range in.items {
		res.Files = append(res.Files, it.name)
	}
	slices.Sort(res.Files)
	res.Files = slices.Compact(res.Files)
	res.Notes = in.notes
	if !in.news {
		res.Outcome = AlreadyThere
	}
	return res, nil
}

func (in *inclusion) run() error {
	if err := in.readChanges(); err != nil {
		return err
	}
	names := make([]string, 0, len(in.files))
	for n := range in.files {
		names = append(names, n)
	}
	slices.Sort(names)
	if in.Kind&Source != 0 {
		if err := in.includeSource(names); err != nil {
			return err
		}
	}
	if in.Kind&Binary != 0 {
		for _, n := range names {
			switch filepath.Ext(n) {
			case ".deb":
				if err := in.includeDeb(in.files[n]); err != nil {
					return err
				}
			case ".udeb":
				return refuse("%s: packages for the Debian installer are not published here; build without them", n)
			}
		}
	}
	if len(in.items) == 0 {
		return refuse("%s: names nothing that could be published; it must list a .dsc or a .deb", in.Changes)
	}
	// Everything is good so far; a name that is taken is the last thing that
	// can be wrong.
	for i := range in.items {
		it := &in.items[i]
		if _, err := in.t.pool.Check(it.name, it.sum.SHA256, it.sum.Size); errors.Is(err, pool.ErrClash) {
			return refuse("%s: the archive has a file of this name with other content; published files never change, so give the package a new version", filepath.Base(it.name))
		} else if err != nil {
			return err
		}
	}
	for _, it := range in.items {
		if in.t.dry {
			break
		}
		if err := in.t.pool.Place(it.f, it.from, it.name, it.sum.SHA256); err != nil {
			return err
		}
	}
	for _, c := range in.changes {
		old, err := in.t.p.get(c.path, c.key)
		if err != nil {
			return err
		}
		if !bytes.Equal(old, c.records) {
			in.news = true
			in.t.p.set(c.path, c.key, c.records)
		}
	}
	return nil
}

// readChanges reads the .changes: one list of files from Files and
// Checksums-Sha256, which must agree.
func (in *inclusion) readChanges() error {
	if err := policy.CheckFile(in.Changes); err != nil {
		return refuse("%v", err)
	}
	data, err := in.Text, error(nil)
	if data == nil {
		data, err = readSmall(filepath.Join(in.Dir, in.Changes))
	}
	if err != nil {
		return err
	}
	ch, err := deb822.ParseOne(in.Changes, release.ClearText(data), deb822.Hostile)
	if err != nil {
		return refuse("%v", err)
	}
	in.ch = ch
	in.source, in.version = ch.Get("Source"), ch.Get("Version")
	if s, v, ok := strings.Cut(in.source, " "); ok { // of a binNMU: the version of the source
		in.source = s
		in.version = strings.Trim(v, "()")
	}
	if err := policy.CheckSource(in.source); err != nil {
		return refuse("%s: %v", in.Changes, err)
	}
	if err := policy.CheckVersion(in.version); err != nil {
		return refuse("%s: %v", in.Changes, err)
	}
	in.files, err = listFiles(ch)
	return err
}

// readSmall reads a control file that is no link and of decent size.
func readSmall(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
			return nil, refuse("%s: is not there as a regular file; send the whole upload again", filepath.Base(name))
		}
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > deb822.Hostile.Size {
		return nil, refuse("%s: is no regular file, or larger than %d bytes", filepath.Base(name), deb822.Hostile.Size)
	}
	return io.ReadAll(f)
}

// listFiles reads the file list of a .changes or .dsc.
func listFiles(st *deb822.Stanza) (map[string]*listed, error) {
	out := map[string]*listed{}
	bad := func(field, what string) error { return refusal(st.Errorf(field, "%s", what).Error()) }
	for _, line := range strings.Split(strings.TrimPrefix(st.Get("Checksums-Sha256"), "\n"), "\n") {
		w := deb822.Words(line)
		if len(w) != 3 {
			return nil, bad("Checksums-Sha256", "a line is not a checksum, a size and a name; build the package again with today's dpkg")
		}
		size, err := strconv.ParseInt(w[1], 10, 64)
		if raw, herr := hex.DecodeString(w[0]); err != nil || size < 0 || herr != nil || len(raw) != sha256.Size {
			return nil, bad("Checksums-Sha256", fmt.Sprintf("the line of %q has no SHA-256 or no size", w[2]))
		}
		if err := policy.CheckFile(w[2]); err != nil {
			return nil, bad("Checksums-Sha256", err.Error())
		}
		if out[w[2]] != nil {
			return nil, bad("Checksums-Sha256", fmt.Sprintf("%s stands there twice", w[2]))
		}
		out[w[2]] = &listed{name: w[2], size: size, sha: strings.ToLower(w[0])}
	}
	n := 0
	for _, line := range strings.Split(strings.TrimPrefix(st.Get("Files"), "\n"), "\n") {
		w := deb822.Words(line)
		if len(w) != 3 && len(w) != 5 {
			return nil, bad("Files", "a line is neither a checksum, a size and a name, nor that with section and priority")
		}
		l := out[w[len(w)-1]]
		size, err := strconv.ParseInt(w[1], 10, 64)
		if l == nil || err != nil || size != l.size || l.md5 != "" {
			return nil, bad("Files", fmt.Sprintf("%s: Files and Checksums-Sha256 do not agree; build the package again", w[len(w)-1]))
		}
		l.md5 = strings.ToLower(w[0])
		if len(w) == 5 {
			l.section, l.priority = w[2], w[3]
		}
		n++
	}
	if n != len(out) {
		return nil, bad("Files", "Files and Checksums-Sha256 do not list the same files; build the package again")
	}
	return out, nil
}

// open opens a file of the upload, whose kind and size must be right.
func (in *inclusion) open(l *listed) (*os.File, error) {
	name := filepath.Join(in.Dir, l.name)
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
			return nil, refuse("%s: %s lists it, but it is not there as a regular file; send the whole upload again", l.name, in.Changes)
		}
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = refuse("%s: is no regular file; send the whole upload again", l.name)
	}
	if err == nil && st.Size() != l.size {
		err = refuse("%s: has %d bytes, but %s says %d; send the whole upload again", l.name, st.Size(), in.Changes, l.size)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (in *inclusion) differs(l *listed, what string) error {
	return refuse("%s: %s differs from %s; send the whole upload again", l.name, what, in.Changes)
}

// add hashes a source file and notes it for the pool.
func (in *inclusion) add(l *listed, dir string) error {
	f, err := in.open(l)
	if err != nil {
		return err
	}
	a, b := sha256.New(), md5.New()
	if _, err := io.Copy(io.MultiWriter(a, b), f); err != nil {
		f.Close()
		return fmt.Errorf("read %s: %w", l.name, err)
	}
	in.items = append(in.items, item{f, f.Name(), dir + "/" + l.name, index.Sum{SHA256: l.sha, Size: l.size}})
	if hex.EncodeToString(a.Sum(nil)) != l.sha {
		return in.differs(l, "SHA-256")
	}
	if hex.EncodeToString(b.Sum(nil)) != l.md5 {
		return in.differs(l, "MD5")
	}
	return nil
}

// component is the one that a package goes to.
func (in *inclusion) component(section string) (string, error) {
	c := in.Component
	if c == "" {
		if pre, _, ok := strings.Cut(section, "/"); ok {
			c = pre
		}
	}
	all := in.t.suite.components()
	switch {
	case c == "" || c == "main" && !slices.Contains(all, "main"):
		return all[0], nil
	case !slices.Contains(all, c):
		return "", refuse("%s: the suite %s has no component %q, only %s; change the Section of the package or the component of the upload", in.Changes, in.t.suite.Name, c, strings.Join(all, ", "))
	}
	return c, nil
}

func (in *inclusion) includeSource(names []string) error {
	var dscs []string
	for _, n := range names {
		if filepath.Ext(n) == ".dsc" {
			dscs = append(dscs, n)
		}
	}
	if len(dscs) == 0 {
		if in.Kind&Binary != 0 {
			return nil
		}
		return refuse("%s: lists no .dsc; a source upload has one", in.Changes)
	}
	if len(dscs) > 1 {
		return refuse("%s: lists %s; an upload has one source package", in.Changes, strings.Join(dscs, " and "))
	}
	l := in.files[dscs[0]]
	data, err := readSmall(filepath.Join(in.Dir, l.name))
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != l.sha {
		return in.differs(l, "SHA-256")
	}
	dsc, err := deb822.ParseOne(l.name, release.ClearText(data), deb822.Hostile)
	if err != nil {
		return refuse("%v", err)
	}
	if dsc.Get("Source") != in.source || dsc.Get("Version") != in.version {
		return refuse("%s: is %s %s, but %s is of %s %s; build the upload again", l.name, dsc.Get("Source"), dsc.Get("Version"), in.Changes, in.source, in.version)
	}
	if want := in.source + "_" + policy.WithoutEpoch(in.version) + ".dsc"; l.name != want {
		return refuse("%s: by its own words it should be called %s", l.name, want)
	}
	section, priority := in.override("src:"+in.source, l.section, l.priority)
	comp, err := in.component(section)
	if err != nil {
		return err
	}
	dir := pool.Dir(comp, in.source)
	if err := in.add(l, dir); err != nil {
		return err
	}
	parts, err := listFiles(dsc)
	if err != nil {
		return err
	}
	for _, name := range sortedKeys(parts) {
		part := parts[name]
		if ours := in.files[name]; ours != nil {
			if *part != (listed{name: name, size: ours.size, sha: ours.sha, md5: ours.md5}) {
				return refuse("%s: %s and %s do not agree about it; build the source package again", name, l.name, in.Changes)
			}
			if err := in.add(ours, dir); err != nil {
				return err
			}
			continue
		}
		// An .orig of an earlier upload.
		there, err := in.t.pool.Check(dir+"/"+name, part.sha, part.size)
		if errors.Is(err, pool.ErrClash) {
			return refuse("%s: %s wants another file than the one that the archive has under this name; take the archive's, or use a new upstream version", name, l.name)
		}
		if err != nil {
			return err
		}
		if !there {
			return refuse("%s: %s wants it, but neither the upload nor the archive has it; build the upload with -sa", name, l.name)
		}
	}
	text := sourceStanza(dsc, l, dir, section, priority)
	older := []byte{}
	for _, c := range in.t.suite.components() {
		list, err := in.t.p.stanzas(sourcesPath(c), in.source)
		if err != nil {
			return err
		}
		for i := range list {
			old := list[i].Get("Version")
			switch cmp := policy.CompareVersions(in.version, old); {
			case cmp == 0 && !sameSource(&list[i], l):
				return refuse("%s: %s %s is in %s with other content; published files never change, so give the package a new version", l.name, in.source, old, in.t.suite.Name)
			case cmp < 0 && !in.Force:
				return refuse("%s: %s has the newer version %s in %s; give the package a higher version, or force it", l.name, in.source, old, in.t.suite.Name)
			}
		}
		for i := range list {
			if policy.CompareVersions(in.version, list[i].Get("Version")) > 0 {
				// It stays while binaries of it do; see settleSources.
				list[i].Set(extraSource, "yes")
				older = append(list[i].Append(older), '\n')
			}
		}
		if c != comp && len(list) > 0 {
			in.changes = append(in.changes, change{sourcesPath(c), in.source, nil})
			in.notes = append(in.notes, fmt.Sprintf("source package %s moves from component %s to %s.", in.source, c, comp))
		}
	}
	in.changes = append(in.changes, change{sourcesPath(comp), in.source, append(text, older...)})
	return nil
}

// sameSource reports whether the stanza names the .dsc with this checksum.
func sameSource(st *deb822.Stanza, l *listed) bool {
	files, err := listFiles(st)
	return err == nil && files[l.name] != nil && files[l.name].sha == l.sha
}

func (in *inclusion) override(key, section, priority string) (string, string) {
	pick := func(first ...string) string {
		for _, s := range first {
			if s != "" {
				return s
			}
		}
		return ""
	}
	o, own := in.t.suite.Overrides[key], in.Overrides[key]
	return pick(o.Section, own.Section, in.Section, section), pick(o.Priority, own.Priority, in.Priority, priority)
}

// sourceStanza is a .dsc as Sources has it.
func sourceStanza(dsc *deb822.Stanza, l *listed, dir, section, priority string) []byte {
	out := deb822.Stanza{}
	out.Set("Package", dsc.Get("Source"))
	for _, f := range dsc.Fields {
		switch strings.ToLower(f.Name) {
		case "source", "package", "directory", "priority", "section", "checksums-sha1", "checksums-sha512":
		case "files":
			out.Set(f.Name, "\n"+l.md5+" "+strconv.FormatInt(l.size, 10)+" "+l.name+f.Value)
		case "checksums-sha256":
			out.Set(f.Name, "\n"+l.sha+" "+strconv.FormatInt(l.size, 10)+" "+l.name+f.Value)
		default:
			out.Set(f.Name, f.Value)
		}
	}
	out.Set("Directory", dir)
	if priority != "" && priority != "-" {
		out.Set("Priority", priority)
	}
	if section != "" && section != "-" {
		out.Set("Section", section)
	}
	return append(out.Append(nil), '\n')
}

func (in *inclusion) includeDeb(l *listed) error {
	f, err := in.open(l)
	if err != nil {
		return err
	}
	at := len(in.items)
	in.items = append(in.items, item{f: f, from: f.Name(), sum: index.Sum{SHA256: l.sha, Size: l.size}})
	p, err := deb.Read(f, l.name, deb.Options{})
	var fault *deb.Refusal
	if errors.As(err, &fault) {
		return refuse("%s", fault.Error())
	}
	if err != nil {
		return err
	}
	switch {
	case p.SHA256 != l.sha:
		return in.differs(l, "SHA-256")
	case p.MD5 != l.md5:
		return in.differs(l, "MD5")
	}
	if err := p.CheckName(l.name); err != nil {
		return refuse("%s", err.Error())
	}
	if p.Source != in.source || policy.CompareVersions(p.SourceVersion, in.version) != 0 && p.Version != in.version {
		return refuse("%s: is built from %s %s, but %s is of %s %s; build the upload again", l.name, p.Source, p.SourceVersion, in.Changes, in.source, in.version)
	}
	arch := p.Architecture
	suite := in.t.suite
	if arch != "all" && !slices.Contains(suite.archs(), arch) {
		return refuse("%s: the suite %s has no architecture %s, only %s", l.name, suite.Name, arch, strings.Join(suite.archs(), ", "))
	}
	if len(in.Architectures) > 0 && !slices.Contains(in.Architectures, arch) {
		return refuse("%s: its sender may bring packages for %s only", l.name, strings.Join(in.Architectures, ", "))
	}
	if !slices.Contains(deb822.Words(in.ch.Get("Architecture")), arch) {
		return refuse("%s: %s does not name its architecture; build the upload again", l.name, in.Changes)
	}
	debug := isDbgsym(p)
	if !debug && !slices.Contains(deb822.Words(in.ch.Get("Binary")), p.Name) {
		return refuse("%s: %s does not name it in Binary; build the upload again", l.name, in.Changes)
	}
	if s, err := in.t.findSource(in, p.Source, p.SourceVersion); err != nil {
		return err
	} else if !s && !in.Sourceless {
		return refuse("%s: its source package %s %s is not in %s; publish the source first", l.name, p.Source, p.SourceVersion, suite.Name)
	}
	if suite.Contents {
		if _, err := in.t.a.keepFiles(p); err != nil {
			return err
		}
	}
	section, priority := in.override(p.Name, p.Control.Get("Section"), p.Control.Get("Priority"))
	comp, err := in.component(section)
	if err != nil {
		return err
	}
	if debug && suite.Dbgsym != "" {
		comp = suite.Dbgsym
	}
	name := pool.Dir(comp, p.Source) + "/" + l.name
	in.items[at].name = name
	text := in.t.binaryStanza(p, comp, name, section, priority)

	archs := []string{arch}
	if arch == "all" {
		archs = append(suite.archs(), "all")
	}
	for _, a := range archs {
		newest := true
		for _, c := range suite.components() {
			list, err := in.t.p.stanzas(packagesPath(c, a), p.Name)
			if err != nil {
				return err
			}
			for i := range list {
				old := &list[i]
				v := old.Get("Version")
				switch cmp := policy.CompareVersions(p.Version, v); {
				case cmp == 0 && old.Get("Architecture") == arch && old.Get("SHA256") != p.SHA256:
					return refuse("%s: %s %s is in %s with other content; published files never change, so give the package a new version", l.name, p.Name, v, suite.Name)
				case cmp < 0 && a != arch && !in.Force:
					// An architecture that builds the package itself is ahead.
					newest = false
				case cmp < 0 && !in.Force:
					return refuse("%s: %s has the newer version %s in %s; give the package a higher version, or force it", l.name, p.Name, v, suite.Name)
				}
				if src, _ := sourceOf(old); src != p.Source {
					in.note("package %s is taken over from source package %s by %s.", p.Name, src, p.Source)
				}
			}
			if c != comp && len(list) > 0 && newest {
				in.changes = append(in.changes, change{packagesPath(c, a), p.Name, nil})
				in.note("package %s moves from component %s to %s.", p.Name, c, comp)
			}
		}
		if newest {
			in.changes = append(in.changes, change{packagesPath(comp, a), p.Name, text})
		}
	}
	return nil
}

func (in *inclusion) note(format string, args ...any) {
	if n := fmt.Sprintf(format, args...); !slices.Contains(in.notes, n) {
		in.notes = append(in.notes, n)
	}
}

// isDbgsym reports whether debhelper made the package for debug symbols.
func isDbgsym(p *deb.Package) bool {
	return strings.HasSuffix(p.Name, "-dbgsym") && slices.Contains(deb822.Words(p.Control.Get("Auto-Built-Package")), "debug-symbols")
}

// sourceOf is the source package of a stanza of Packages.
func sourceOf(st *deb822.Stanza) (name, version string) {
	name, version = st.Get("Package"), st.Get("Version")
	if s := st.Get("Source"); s != "" {
		n, v, ok := strings.Cut(s, " ")
		name = n
		if ok {
			version = strings.Trim(v, "()")
		}
	}
	return name, version
}

// binaryStanza is a package as Packages has it.
func (t *transaction) binaryStanza(p *deb.Package, component, name, section, priority string) []byte {
	out := deb822.Stanza{}
	out.Set("Package", p.Name)
	for _, f := range p.Control.Fields {
		switch strings.ToLower(f.Name) {
		case "package", "filename", "size", "md5sum", "sha1", "sha256", "sha512", "description-md5",
			"status", "config-version", "conffiles":
			// What a package says of its own place and sum is not believed.
		case "section":
			out.Set(f.Name, section)
		case "priority":
			out.Set(f.Name, priority)
		default:
			out.Set(f.Name, f.Value)
		}
	}
	if section != "" {
		out.Set("Section", section)
	}
	if priority != "" {
		out.Set("Priority", priority)
	}
	if t.translated(component) {
		t.splitDescription(component, &out)
	}
	out.Set("Filename", name)
	out.Set("Size", strconv.FormatInt(p.Size, 10))
	out.Set("MD5sum", p.MD5)
	out.Set("SHA256", p.SHA256)
	return append(out.Append(nil), '\n')
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func sumFile(name string) (index.Sum, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return index.Sum{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return index.Sum{}, fmt.Errorf("read %s: %w", name, err)
	}
	return index.Sum{SHA256: hex.EncodeToString(h.Sum(nil)), Size: n}, nil
}
