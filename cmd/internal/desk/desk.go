// Package desk is the reviewer's: what waits for a decision, what is new in an
// upload and known of it, and what a reviewer says. An upload lies in
// spool/review/SUITE until somebody decides; who may is whom the system lets
// write there.
package desk

import (
	"context"
	"errors"
	"slices"
	"strings"

	"packmill/archive"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/survey"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/spool"
)

// Waiting is an upload as the desk shows it.
type Waiting struct {
	survey.Row
	Uploader string   `json:"uploader,omitempty"`
	New      bool     `json:"new"`               // the suite has no version of it
	Hold     string   `json:"hold,omitempty"`    // who put it on hold
	Accepts  []string `json:"accepts,omitempty"` // who accepted it, where two must
	Waits    []string `json:"waits,omitempty"`   // sources whose builds wait for its binaries
	Remarks  []string `json:"remarks,omitempty"` // what the checks remarked
	Maintain string   `json:"maintainer,omitempty"`
}

// Desk is a tree with what reviewers look at.
type Desk struct {
	tree    *spool.Tree
	set     *control.Settings
	archive *archive.Archive
	waits   map[string][]string // binary package -> sources that wait for it
}

// Open opens the desk of a tree.
func Open(t *spool.Tree, set *control.Settings) (*Desk, error) {
	a, err := archive.Open(t.Path("archive"))
	if err != nil {
		return nil, err
	}
	d := &Desk{tree: t, set: set, archive: a}
	return d, d.findWaits()
}

// findWaits reads which builds wait for which packages.
func (d *Desk) findWaits() error {
	d.waits = map[string][]string{}
	found, err := d.tree.Find("", spool.DepWait, spool.BDUninstallable)
	if _, err = spool.Closed(err); err != nil {
		return err // a reviewer need not see the queues
	}
	for _, f := range found {
		st, err := spool.ReadTicket(d.tree.Path(f.Dir()))
		if err != nil {
			continue
		}
		rel, err := policy.ParseRelations(st.Get("Dep-Wait"))
		if err != nil {
			continue
		}
		for _, or := range rel {
			for _, r := range or {
				if !slices.Contains(d.waits[r.Name], f.Name.Source) {
					d.waits[r.Name] = append(d.waits[r.Name], f.Name.Source)
				}
			}
		}
	}
	return nil
}

// published is the highest version of a source that a suite has, "" if none.
func (d *Desk) published(suite, source string) (version, component string, err error) {
	versions, err := d.archive.Versions(context.Background(), source)
	if err != nil && !errors.Is(err, archive.ErrNoSuite) {
		return "", "", err
	}
	for _, v := range versions {
		if v.Suite == suite && (version == "" || policy.CompareVersions(v.Version, version) > 0) {
			version, component = v.Version, v.Component
		}
	}
	return version, component, nil
}

// Look gives what a list shows of an upload, and its ticket.
func (d *Desk) Look(f spool.Found) (Waiting, *queue.Ticket, error) {
	dir := d.tree.Path(f.Dir())
	w := Waiting{Row: survey.RowOf(d.tree, f)}
	opinions := ReadOpinions(dir)
	if o, ok := Held(opinions); ok {
		w.Hold = o.Who
	}
	for _, o := range opinions {
		if o.Verb == "accept" && !slices.Contains(w.Accepts, o.Who) {
			w.Accepts = append(w.Accepts, o.Who)
		}
	}
	old, _, err := d.published(f.Place.Suite, f.Name.Source)
	if err != nil {
		return w, nil, err
	}
	w.New = old == ""
	st, err := spool.ReadTicket(dir)
	if err != nil {
		return w, nil, err
	}
	tk, err := queue.ReadTicket(st)
	if err != nil {
		return w, nil, err
	}
	w.Uploader, w.Maintain = tk.Uploader, tk.Maintainer
	if tk.Remarks != "" {
		w.Remarks = strings.Split(tk.Remarks, "\n")
	}
	for _, b := range tk.Binary {
		for _, s := range d.waits[b] {
			if s != f.Name.Source && !slices.Contains(w.Waits, s) {
				w.Waits = append(w.Waits, s)
			}
		}
	}
	return w, tk, nil
}
