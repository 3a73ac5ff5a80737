package desk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/archive"
	"packmill/archive/pool"
	"packmill/cmd/internal/control"
	"packmill/internal/paper"
	"packmill/internal/policy"
	"packmill/spool"
)

// Report is all that a reviewer is shown of an upload.
type Report struct {
	Waiting
	Fingerprint  string   `json:"fingerprint,omitempty"`
	ChangedBy    string   `json:"changed_by,omitempty"`
	Rights       string   `json:"rights,omitempty"` // the stanza of control/uploaders that applied
	Files        []File   `json:"files"`
	Against      string   `json:"against,omitempty"` // the suite's version
	Added        []string `json:"added,omitempty"`
	Removed      []string `json:"removed,omitempty"`
	Changed      []string `json:"changed,omitempty"`
	Scripts      []string `json:"scripts,omitempty"`   // maintainer scripts that differ
	Copyright    []string `json:"copyright,omitempty"` // copyright files that differ
	NewBinaries  []string `json:"new_binaries,omitempty"`
	GoneBinaries []string `json:"gone_binaries,omitempty"`
	NewDepends   []string `json:"new_build_depends,omitempty"`
	GoneDepends  []string `json:"gone_build_depends,omitempty"`
	// Elsewhere are suites that have this very source, and what brings it here with what was built of it
	Elsewhere   []string    `json:"elsewhere,omitempty"`
	Lintian     []string    `json:"lintian,omitempty"` // tags that the suite's version has not
	LintianNote string      `json:"lintian_note,omitempty"`
	Opinions    []Opinion   `json:"opinions,omitempty"`
	Earlier     []Rejection `json:"earlier,omitempty"`
	Changelog   string      `json:"changelog,omitempty"` // what Changes says
	Diff        string      `json:"diff,omitempty"`
}

// File is a file of an upload.
type File struct {
	Name string `json:"name"`
	Size int64  `json:"size"` // bytes
}

// Rejection is an earlier upload of the same source that was refused.
type Rejection struct {
	Version string    `json:"version"`
	Time    time.Time `json:"time"`
	Who     string    `json:"who"`
	Reason  string    `json:"reason"`
}

// Report gathers everything. Nothing of the upload is run or unpacked to disk
// but by lintian, which does it in a cage; without it there is what a reviewer left
// (KeepLintian). It ends when ctx does.
func (d *Desk) Report(ctx context.Context, f spool.Found, withLintian bool) (*Report, error) {
	x, tk, err := d.Look(f)
	if err != nil {
		return nil, err
	}
	dir := d.tree.Path(f.Dir())
	r := &Report{Waiting: x, Fingerprint: tk.Fingerprint, ChangedBy: tk.ChangedBy, Opinions: ReadOpinions(dir)}
	for _, u := range d.set.Uploaders {
		if u.Name == tk.Uploader {
			r.Rights = rights(u.Allow)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && policy.CheckFile(e.Name()) == nil {
			r.Files = append(r.Files, File{e.Name(), info.Size()})
		}
	}
	if r.Earlier, err = d.earlier(f); err != nil {
		return nil, err
	}
	r.Changelog = changesField(dir, tk.Changes)
	if tk.Dsc == "" {
		return r, nil
	}
	if r.Elsewhere, err = d.elsewhere(ctx, f, tk.Dsc); err != nil {
		return nil, err
	}
	old, component, err := d.published(f.Place.Suite, f.Name.Source)
	if err != nil {
		return nil, err
	}
	oldDir, oldDsc := "", ""
	if old != "" {
		r.Against = old
		oldDir = filepath.Join(d.archive.Root(), pool.Dir(component, f.Name.Source))
		oldDsc = f.Name.Source + "_" + policy.WithoutEpoch(old) + ".dsc"
	}
	if err := r.compare(ctx, dir, tk, oldDir, oldDsc); err != nil {
		return nil, err
	}
	if withLintian {
		r.lint(dir, tk.Dsc, oldDir, oldDsc)
	} else {
		r.kept(dir)
	}
	return r, nil
}

// elsewhere finds other suites that have the same .dsc: there it was built already.
func (d *Desk) elsewhere(ctx context.Context, f spool.Found, dsc string) (out []string, err error) {
	mine, err := os.ReadFile(d.tree.Path(f.Dir(), dsc))
	if err != nil {
		return nil, err
	}
	versions, err := d.archive.Versions(ctx, f.Name.Source)
	if err != nil && !errors.Is(err, archive.ErrNoSuite) {
		return nil, err
	}
	for _, v := range versions {
		if v.Suite == f.Place.Suite || v.Version != f.Name.Version {
			continue
		}
		theirs, err := os.ReadFile(filepath.Join(d.archive.Root(), pool.Dir(v.Component, f.Name.Source), dsc))
		if err == nil && bytes.Equal(theirs, mine) {
			out = append(out, fmt.Sprintf("%s has this source, with what was built of it; to have the same here: "+
				"packmill archive copy %s %s %s", v.Suite, v.Suite, f.Place.Suite, f.Name.ID()))
		}
	}
	return out, nil
}

// rights says in words what a stanza allows.
func rights(a control.Allow) string {
	var out []string
	if a.Source {
		out = append(out, "source")
	}
	for k, v := range map[string][]string{"binary": a.Binary, "sign": a.Sign, "suites": a.Suites,
		"components": a.Components, "packages": a.Packages} {
		if len(v) > 0 {
			out = append(out, k+"="+strings.Join(v, " "))
		}
	}
	if !a.New {
		out = append(out, "new=no")
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// earlier finds refused uploads of the same source.
func (d *Desk) earlier(f spool.Found) ([]Rejection, error) {
	found, err := d.tree.Find(f.Name.Source, spool.Rejected, spool.Attic)
	if _, err = spool.Closed(err); err != nil {
		return nil, err
	}
	var out []Rejection
	for _, x := range found {
		events, err := spool.ReadHistory(d.tree.Path(x.Dir()))
		if err != nil {
			continue
		}
		for _, e := range slices.Backward(events) {
			if p, _ := d.tree.PlaceOf(e.To); p.State == spool.Rejected && e.From != e.To {
				out = append(out, Rejection{x.Name.Version, e.Time, e.Who, e.Reason})
				break
			}
		}
	}
	slices.SortFunc(out, func(a, b Rejection) int { return a.Time.Compare(b.Time) })
	return out, nil
}

// changesField is the field Changes of the .changes of this name, "" if that
// cannot be read.
func changesField(dir, name string) string {
	st, err := paper.Read(dir, name)
	if err != nil {
		return ""
	}
	return strings.TrimPrefix(st.Get("Changes"), "\n") + "\n"
}
