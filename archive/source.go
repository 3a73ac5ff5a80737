package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"packmill/archive/index"
	"packmill/archive/pool"
	"packmill/internal/deb822"
	"packmill/internal/paper"
	"packmill/internal/policy"
	"packmill/internal/regular"
)

func (in *inclusion) includeSource(names []string) error {
	l, err := in.theDsc(names)
	if l == nil || err != nil {
		return err
	}
	dsc, err := in.readDsc(l)
	if err != nil {
		return err
	}
	section, priority := in.override("src:"+in.source, l.Section, l.Priority)
	comp, err := in.component(section)
	if err != nil {
		return err
	}
	in.dir, in.dsc = pool.Dir(comp, in.source), dsc
	if err := in.add(l, in.dir); err != nil {
		return err
	}
	if err := in.addParts(l); err != nil {
		return err
	}
	older, err := in.olderSources(l, comp)
	if err != nil {
		return err
	}
	text := sourceStanza(dsc, l, in.dir, section, priority)
	in.changes = append(in.changes, change{sourcesPath(comp), in.source, append(text, older...)})
	return in.dropNewer()
}

// theDsc is the upload's one .dsc; nil if it has none and needs none.
func (in *inclusion) theDsc(names []string) (*paper.File, error) {
	var dscs []string
	for _, n := range names {
		if filepath.Ext(n) == ".dsc" {
			dscs = append(dscs, n)
		}
	}
	switch {
	case len(dscs) == 1:
		return in.files[dscs[0]], nil
	case len(dscs) > 1:
		return nil, refuse("%s: lists %s; an upload has one source package", in.Changes, strings.Join(dscs, " and "))
	case in.Kind&Binary != 0:
		return nil, nil
	}
	return nil, refuse("%s: lists no .dsc; a source upload has one", in.Changes)
}

// readDsc reads the .dsc, which must be of this upload's source and version.
func (in *inclusion) readDsc(l *paper.File) (*deb822.Stanza, error) {
	data, err := in.readPaper(l.Name)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != l.SHA256 {
		return nil, in.differs(l, "SHA-256")
	}
	dsc, err := paper.Parse(l.Name, data)
	if err != nil {
		return nil, refuse("%v", err)
	}
	if dsc.Get("Source") != in.source || dsc.Get("Version") != in.version {
		return nil, refuse("%s: is %s %s, but %s is of %s %s; build the upload again",
			l.Name, dsc.Get("Source"), dsc.Get("Version"), in.Changes, in.source, in.version)
	}
	if want := in.source + "_" + policy.WithoutEpoch(in.version) + ".dsc"; l.Name != want {
		return nil, refuse("%s: by its own words it should be called %s", l.Name, want)
	}
	if wrong := policy.CheckBuildRelations(dsc.Get); wrong != nil {
		return nil, refuse("%s: %v; correct debian/control", l.Name, wrong[0])
	}
	return dsc, nil
}

// addParts adds the files that the .dsc names. Each comes with the upload, or is
// an .orig of an earlier one and in the pool.
func (in *inclusion) addParts(l *paper.File) error {
	parts, err := listFiles(in.dsc, paper.Short)
	if err != nil {
		return err
	}
	for _, name := range sortedKeys(parts) {
		part := parts[name]
		if ours := in.files[name]; ours != nil {
			if part.Size != ours.Size || part.SHA256 != ours.SHA256 || part.MD5 != ours.MD5 {
				return refuse("%s: %s and %s do not agree about it; build the source package again", name, l.Name, in.Changes)
			}
			if err := in.add(ours, in.dir); err != nil {
				return err
			}
			continue
		}
		there, err := in.t.pool.Check(in.dir+"/"+name, part.SHA256, part.Size)
		switch {
		case errors.Is(err, pool.ErrClash):
			return refuse("%s: %s wants another file than the one that the archive has under this name; "+
				"take the archive's, or use a new upstream version", name, l.Name)
		case err != nil:
			return err
		case !there:
			there, err = in.elsewhere(part, in.dir)
		}
		if err != nil {
			return err
		}
		if !there {
			return refuse("%s: %s wants it, but neither the upload nor the archive has it; build the upload with -sa",
				name, l.Name)
		}
	}
	return nil
}

// olderSources compares the source with what the suite has of it, and returns the
// stanzas of older versions: they stay while binaries of them do (settleSources).
func (in *inclusion) olderSources(l *paper.File, comp string) ([]byte, error) {
	older := []byte{}
	for _, c := range in.t.suite.components() {
		list, err := in.t.p.stanzas(sourcesPath(c), in.source)
		if err != nil {
			return nil, err
		}
		for i := range list {
			old := list[i].Get("Version")
			switch cmp := policy.CompareVersions(in.version, old); {
			case cmp == 0 && !sameSource(&list[i], l):
				return nil, in.otherContent(l, in.source, old)
			case cmp < 0 && !in.Force:
				return nil, in.tooOld(l, in.source, old)
			case cmp > 0:
				list[i].Set(extraSource, "yes")
				older = append(list[i].Append(older), '\n')
			}
		}
		if c != comp && len(list) > 0 {
			in.changes = append(in.changes, change{sourcesPath(c), in.source, nil})
			in.notes = append(in.notes, fmt.Sprintf("source package %s moves from component %s to %s.", in.source, c, comp))
		}
	}
	return older, nil
}

// otherContent refuses a package whose version the suite has already.
func (in *inclusion) otherContent(l *paper.File, name, version string) error {
	return refuse("%s: %s %s is in %s with other content; published files never change, so give the package a new version",
		l.Name, name, version, in.t.suite.Name)
}

// tooOld refuses a package of which the suite has a newer version.
func (in *inclusion) tooOld(l *paper.File, name, newer string) error {
	return refuse("%s: %s has the newer version %s in %s; give the package a higher version, or force it",
		l.Name, name, newer, in.t.suite.Name)
}

// dropNewer takes newer versions out of the suite, with what was built of them. Only
// where the version is forced are there any: else it is refused by now.
func (in *inclusion) dropNewer() error {
	newer, err := in.t.p.newer(in.source, in.version)
	for _, b := range newer {
		for i := range b.binaries {
			paths, werr := in.t.where(b.binaries[i].component, &b.binaries[i].st)
			err = errors.Join(err, werr)
			for _, at := range paths {
				in.changes = append(in.changes, change{at, b.binaries[i].st.Get("Package"), nil})
			}
		}
		in.note("source package %s %s goes, with all that was built from it.", b.name, b.version)
	}
	return err
}

// elsewhere notes for the pool's directory a file that an earlier version
// brought when its source was in another component, and reports whether there is one.
func (in *inclusion) elsewhere(part *paper.File, dir string) (bool, error) {
	for _, c := range in.t.suite.components() {
		at := pool.Dir(c, in.source) + "/" + part.Name
		there, err := in.t.pool.Check(at, part.SHA256, part.Size)
		if errors.Is(err, pool.ErrClash) {
			continue
		}
		if err != nil {
			return false, err
		}
		if !there {
			continue
		}
		f, err := regular.Open(in.t.a.path(at))
		if errors.Is(err, fs.ErrNotExist) && in.t.pool.Dry {
			return true, nil // a trial of the upload that brings it
		}
		if err != nil {
			return false, err
		}
		in.items = append(in.items, item{f, f.Name(), dir + "/" + part.Name, index.Sum{SHA256: part.SHA256, Size: part.Size}})
		return true, nil
	}
	return false, nil
}

// sameSource reports whether the stanza names the .dsc with this checksum.
func sameSource(st *deb822.Stanza, l *paper.File) bool {
	files, err := listFiles(st, paper.Short)
	return err == nil && files[l.Name] != nil && files[l.Name].SHA256 == l.SHA256
}

// sourceStanza is a .dsc as Sources has it.
func sourceStanza(dsc *deb822.Stanza, l *paper.File, dir, section, priority string) []byte {
	out := deb822.Stanza{}
	out.Set("Package", dsc.Get("Source"))
	for _, f := range dsc.Fields {
		switch strings.ToLower(f.Name) {
		case "source", "package", "directory", "priority", "section", "checksums-sha1", "checksums-sha512":
		case "files":
			out.Set(f.Name, "\n"+l.MD5+" "+strconv.FormatInt(l.Size, 10)+" "+l.Name+f.Value)
		case "checksums-sha256":
			out.Set(f.Name, "\n"+l.SHA256+" "+strconv.FormatInt(l.Size, 10)+" "+l.Name+f.Value)
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
