package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"packmill/archive/pool"
	"packmill/internal/deb822"
	"packmill/internal/paper"
	"packmill/internal/policy"
)

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
	data, err := in.readPaper(l.Name)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != l.SHA256 {
		return in.differs(l, "SHA-256")
	}
	dsc, err := paper.Parse(l.Name, data)
	if err != nil {
		return refuse("%v", err)
	}
	if dsc.Get("Source") != in.source || dsc.Get("Version") != in.version {
		return refuse("%s: is %s %s, but %s is of %s %s; build the upload again", l.Name, dsc.Get("Source"), dsc.Get("Version"), in.Changes, in.source, in.version)
	}
	if want := in.source + "_" + policy.WithoutEpoch(in.version) + ".dsc"; l.Name != want {
		return refuse("%s: by its own words it should be called %s", l.Name, want)
	}
	if wrong := policy.CheckBuildRelations(dsc.Get); wrong != nil {
		return refuse("%s: %v; correct debian/control", l.Name, wrong[0])
	}
	section, priority := in.override("src:"+in.source, l.Section, l.Priority)
	comp, err := in.component(section)
	if err != nil {
		return err
	}
	dir := pool.Dir(comp, in.source)
	in.dir, in.dsc = dir, dsc
	if err := in.add(l, dir); err != nil {
		return err
	}
	parts, err := listFiles(dsc, paper.Short)
	if err != nil {
		return err
	}
	for _, name := range sortedKeys(parts) {
		part := parts[name]
		if ours := in.files[name]; ours != nil {
			if part.Size != ours.Size || part.SHA256 != ours.SHA256 || part.MD5 != ours.MD5 {
				return refuse("%s: %s and %s do not agree about it; build the source package again", name, l.Name, in.Changes)
			}
			if err := in.add(ours, dir); err != nil {
				return err
			}
			continue
		}
		// An .orig of an earlier upload.
		there, err := in.t.pool.Check(dir+"/"+name, part.SHA256, part.Size)
		if errors.Is(err, pool.ErrClash) {
			return refuse("%s: %s wants another file than the one that the archive has under this name; take the archive's, or use a new upstream version", name, l.Name)
		}
		if err != nil {
			return err
		}
		if !there {
			return refuse("%s: %s wants it, but neither the upload nor the archive has it; build the upload with -sa", name, l.Name)
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
				return refuse("%s: %s %s is in %s with other content; published files never change, so give the package a new version", l.Name, in.source, old, in.t.suite.Name)
			case cmp < 0 && !in.Force:
				return refuse("%s: %s has the newer version %s in %s; give the package a higher version, or force it", l.Name, in.source, old, in.t.suite.Name)
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
	newer, err := in.t.p.newer(in.source, in.version) // forced, or it is refused by now
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
