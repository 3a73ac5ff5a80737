package archive

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"packmill/archive/index"
	"packmill/internal/deb"
	"packmill/internal/deb822"
	"packmill/internal/policy"
)

// derive adds the changes that follow from those of Packages and Sources.
func (t *transaction) derive() error {
	for _, step := range []func() error{t.settleAll, t.settleSources, t.deriveTranslations, t.deriveContents} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// touched are the packages whose entries change in any Packages of the
// component, sorted.
func (t *transaction) touched(component string) []string {
	keys := map[string]bool{}
	for _, arch := range append(t.suite.archs(), "all") {
		for k := range t.p.changes[packagesPath(component, arch)] {
			keys[k] = true
		}
	}
	return sortedKeys(keys)
}

const extraSource = "Extra-Source-Only"

// touchedSources are the sources of all packages that change, as they were and
// as they are now, each with those packages.
func (t *transaction) touchedSources() (map[string]map[string]bool, error) {
	names := map[string]map[string]bool{}
	add := func(source string) map[string]bool {
		if names[source] == nil {
			names[source] = map[string]bool{}
		}
		return names[source]
	}
	for _, c := range t.suite.components() {
		for k := range t.p.changes[sourcesPath(c)] {
			add(k)
		}
	}
	for _, c := range t.areas() {
		for _, arch := range append(t.suite.archs(), "all") {
			path := packagesPath(c, arch)
			for k, now := range t.p.changes[path] {
				was, err := t.p.before(path, k)
				if err != nil {
					return nil, err
				}
				for _, text := range [][]byte{was, now} {
					list, err := parse(path, text)
					if err != nil {
						return nil, err
					}
					for i := range list {
						source, _ := sourceOf(&list[i])
						add(source)[k] = true
						for ref := range builtUsing(&list[i]) {
							name, _, _ := strings.Cut(ref, " ")
							add(name)
						}
					}
				}
			}
		}
	}
	return names, nil
}

// settleSources takes an older version of a source package out of Sources as
// soon as none of its binaries is left, and marks it until then, so that
// apt-get source does not offer it.
func (t *transaction) settleSources() error {
	names, err := t.touchedSources()
	if err != nil {
		return err
	}
	var refs map[string]bool
	for _, name := range sortedKeys(names) {
		for _, c := range t.suite.components() {
			list, err := t.p.stanzas(sourcesPath(c), name)
			if err != nil {
				return err
			}
			if len(list) == 0 || len(list) == 1 && list[0].Get(extraSource) == "" {
				continue
			}
			slices.SortStableFunc(list, func(a, b deb822.Stanza) int {
				return policy.CompareVersions(b.Get("Version"), a.Get("Version"))
			})
			var text []byte
			for i := range list {
				list[i].Del(extraSource)
				if i > 0 {
					used, err := t.hasBinaries(&list[i])
					if err != nil {
						return err
					}
					if !used {
						if refs == nil {
							if refs, err = t.builtUsing(); err != nil {
								return err
							}
						}
						used = refs[name+" "+list[i].Get("Version")]
					}
					if !used {
						continue
					}
					list[i].Set(extraSource, "yes")
				}
				text = append(list[i].Append(text), '\n')
			}
			t.p.set(sourcesPath(c), name, text)
		}
	}
	return nil
}

// builtUsing are the sources, as "NAME VERSION", whose code is in a package
// (Debian Policy 7.8): who has the package may ask for them.
func builtUsing(st *deb822.Stanza) map[string]bool {
	out := map[string]bool{}
	for _, field := range []string{"Built-Using", "Static-Built-Using"} {
		list, _ := policy.ParseRelations(st.Get(field)) // of an older tree; the gate refuses it now
		for _, or := range list {
			for _, r := range or {
				out[r.Name+" "+r.Version] = true
			}
		}
	}
	return out
}

// builtUsing are those of all packages of the suite.
func (t *transaction) builtUsing() (map[string]bool, error) {
	out := map[string]bool{}
	note := func(path string, records []byte) error {
		if !bytes.Contains(records, []byte("Built-Using:")) {
			return nil
		}
		list, err := parse(path, records)
		for i := range list {
			maps.Copy(out, builtUsing(&list[i]))
		}
		return err
	}
	for _, c := range t.areas() {
		for _, arch := range append(t.suite.archs(), "all") {
			path := packagesPath(c, arch)
			for _, records := range t.p.changes[path] {
				if err := note(path, records); err != nil {
					return nil, err
				}
			}
			if t.isNew(path) && t.p.open[path] == nil {
				continue
			}
			x, err := t.p.index(path)
			if err != nil {
				return nil, err
			}
			err = x.All(func(key, records []byte) error {
				if _, changed := t.p.changes[path][string(key)]; changed {
					return nil
				}
				return note(path, records)
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// hasBinaries reports whether a package of the suite is built from exactly
// this source.
func (t *transaction) hasBinaries(src *deb822.Stanza) (bool, error) {
	name, version := src.Get("Package"), src.Get("Version")
	for _, pkg := range binariesOf(src) {
		for _, c := range t.areas() {
			for _, arch := range append(t.suite.archs(), "all") {
				list, err := t.p.stanzas(packagesPath(c, arch), pkg)
				if err != nil {
					return false, err
				}
				for i := range list {
					if s, v := sourceOf(&list[i]); s == name && v == version {
						return true, nil
					}
				}
			}
		}
	}
	return false, nil
}

// splitDescription replaces a long description by its first line and the
// checksum of the whole (apt's Description-md5), and keeps the whole for
// Translation-en.
func (t *transaction) splitDescription(component string, st *deb822.Stanza) {
	d := st.Get("Description")
	short, _, long := strings.Cut(d, "\n")
	if !long {
		return
	}
	one := deb822.Stanza{}
	one.Set("Description", d)
	text := bytes.TrimPrefix(one.Append(nil), []byte("Description: "))
	sum := md5.Sum(text)
	id := hex.EncodeToString(sum[:])
	st.Set("Description", short)
	st.Set("Description-md5", id)
	entry := deb822.Stanza{}
	entry.Set("Package", st.Get("Package"))
	entry.Set("Description-md5", id)
	entry.Set("Description-en", d)
	key := component + "/" + st.Get("Package")
	if t.descriptions[key] == nil {
		t.descriptions[key] = map[string][]byte{}
	}
	t.descriptions[key][id] = append(entry.Append(nil), '\n')
}

// deriveTranslations keeps the descriptions that a package of the component
// names, and no others.
func (t *transaction) deriveTranslations() error {
	for _, c := range t.suite.components() {
		path := translationPath(c)
		if !t.translated(c) {
			continue
		}
		for _, key := range t.touched(c) {
			have := map[string][]byte{}
			list, err := t.p.stanzas(path, key)
			if err != nil {
				return err
			}
			for i := range list {
				have[list[i].Get("Description-md5")] = append(list[i].Append(nil), '\n')
			}
			for id, text := range t.descriptions[c+"/"+key] {
				have[id] = text
			}
			if len(have) == 0 {
				continue
			}
			keep := map[string][]byte{}
			for _, arch := range append(t.suite.archs(), "all") {
				list, err := t.p.stanzas(packagesPath(c, arch), key)
				if err != nil {
					return err
				}
				for i := range list {
					if id := list[i].Get("Description-md5"); have[id] != nil {
						keep[id] = have[id]
					}
				}
			}
			var text []byte
			for _, id := range sortedKeys(keep) {
				text = append(text, keep[id]...)
			}
			t.p.set(path, key, text)
		}
	}
	return nil
}

// translated reports whether the component has a Translation-en: also if the
// setting is off by now, for the descriptions are nowhere else.
func (t *transaction) translated(component string) bool {
	return t.suite.Translations || t.p.state(translationPath(component)).Text.SHA256 != ""
}

// A label is a package's name in Contents: section and package.
type label struct {
	name string
	gone bool
}

// contentsBatch bounds how many files' names are in memory at once.
const contentsBatch = 60_000

// deriveContents changes the lists of files.
func (t *transaction) deriveContents() error {
	if !t.suite.Contents {
		return nil
	}
	for _, c := range t.areas() {
		for _, arch := range append(t.suite.archs(), "all") {
			if err := t.contents(c, arch); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *transaction) contents(component, arch string) error {
	packages := packagesPath(component, arch)
	if len(t.p.changes[packages]) == 0 {
		return nil
	}
	w, err := t.labels(component, arch)
	if err != nil {
		return err
	}
	for _, key := range sortedKeys(t.p.changes[packages]) {
		old, err := t.p.before(packages, key)
		if err != nil {
			return err
		}
		if err := w.add(old, true); err != nil {
			return err
		}
		if err := w.add(t.p.changes[packages][key], false); err != nil {
			return err
		}
	}
	return w.flush()
}

// beginContents makes the Contents of packages that are published already.
func (t *transaction) beginContents(component, arch string) error {
	packages := packagesPath(component, arch)
	w, err := t.labels(component, arch)
	if err != nil || t.p.state(packages).Text.SHA256 == "" {
		return err
	}
	x, err := t.p.index(packages)
	if err != nil {
		return err
	}
	err = x.All(func(_, records []byte) error { return w.add(records, false) })
	if err != nil {
		return err
	}
	return w.flush()
}

// A labeller writes packages into a Contents.
type labeller struct {
	a     *Archive
	x     *index.File
	path  string
	arch  string
	lines map[string][]label
	n     int
}

func (t *transaction) labels(component, arch string) (*labeller, error) {
	x, err := t.p.index(contentsPath(component, arch))
	return &labeller{t.a, x, packagesPath(component, arch), arch, map[string][]label{}, 0}, err
}

// add notes the files of stanzas of Packages.
func (w *labeller) add(records []byte, gone bool) error {
	list, err := parse(w.path, records)
	if err != nil {
		return err
	}
	for i := range list {
		st := &list[i]
		if st.Get("Architecture") != w.arch {
			continue
		}
		files, err := w.a.files(st)
		if err != nil {
			return err
		}
		name := st.Get("Package")
		if s := st.Get("Section"); s != "" {
			name = s + "/" + name
		}
		for _, f := range files {
			w.lines[f] = append(w.lines[f], label{name, gone})
		}
		w.n += len(files)
	}
	if w.n >= contentsBatch {
		return w.flush()
	}
	return nil
}

func (w *labeller) flush() error {
	err := w.x.Merge(sortedKeys(w.lines), func(file string, old []byte) []byte {
		return mergeLine(file, old, w.lines[file])
	})
	clear(w.lines)
	w.n = 0
	return err
}

// mergeLine changes one line of Contents. The additions come after the
// removals, so a package that keeps a file stays.
func mergeLine(file string, old []byte, labels []label) []byte {
	names := map[string]bool{}
	if len(old) > 0 {
		list := bytes.TrimRight(old, "\n")
		list = list[bytes.LastIndexAny(list, " \t")+1:]
		for _, n := range bytes.Split(list, []byte(",")) {
			names[string(n)] = true
		}
	}
	for _, l := range labels {
		if l.gone {
			delete(names, l.name)
		}
	}
	for _, l := range labels {
		if !l.gone {
			names[l.name] = true
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []byte(file + "\t" + strings.Join(sortedKeys(names), ",") + "\n")
}

// files returns what the package of a stanza installs, directories left out.
// The list is kept in the cache; if it is not there the package is read.
func (a *Archive) files(st *deb822.Stanza) ([]string, error) {
	sha := st.Get("SHA256")
	if len(sha) != 64 {
		return nil, fmt.Errorf("package %s %s: no SHA256: %w", st.Get("Package"), st.Get("Version"), index.ErrDamaged)
	}
	data, err := os.ReadFile(a.filesCache(sha))
	if err == nil {
		if text, ok := bytes.CutSuffix(data, []byte("\n.\n")); ok { // whole
			if len(text) == 0 {
				return nil, nil
			}
			return strings.Split(string(text), "\n"), nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	name := st.Get("Filename")
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("package %s: Filename %q: %w", st.Get("Package"), name, index.ErrDamaged)
	}
	p, err := deb.ReadFile(a.path(name), deb.Options{Old: true})
	if err != nil {
		return nil, err
	}
	if p.SHA256 != sha {
		return nil, fmt.Errorf("package %s: %w", name, index.ErrDamaged)
	}
	return a.keepFiles(p)
}

func (a *Archive) filesCache(sha string) string { return a.path("cache", "files", sha[:2], sha) }

// keepFiles writes a package's list into the cache.
func (a *Archive) keepFiles(p *deb.Package) ([]string, error) {
	var out []string
	size := 3
	for _, e := range p.Contents {
		if e.Type == '5' || strings.ContainsAny(e.Path, "\n\r") || strings.TrimRight(e.Path, " \t") != e.Path {
			continue // a directory, or a name that no line of Contents can hold
		}
		out = append(out, e.Path)
		size += len(e.Path) + 1
	}
	data := make([]byte, 0, size)
	for i, f := range out {
		if i > 0 {
			data = append(data, '\n')
		}
		data = append(data, f...)
	}
	data = append(data, "\n.\n"...)
	name := a.filesCache(p.SHA256)
	err := os.WriteFile(name, data, 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(name), 0o755); err == nil {
			err = os.WriteFile(name, data, 0o644)
		}
	}
	return out, err
}
