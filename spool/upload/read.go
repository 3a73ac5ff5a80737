package upload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"packmill/internal/openpgp"
	"packmill/internal/paper"
	"packmill/internal/policy"
)

// maxTexts is how many findings of one check are told; further ones are counted.
const maxTexts = 20

// reading is one upload on its way through the checks.
type reading struct {
	context  context.Context
	dir      string
	ctx      *Context
	lim      Limits
	up       *Upload
	findings []Finding
	now      *check         // the check that speaks
	texts    map[string]int // findings of each check so far

	changesBad  problems
	dscBad      problems
	dscErr      error                  // the .dsc is no stanza, or cannot be taken
	dscRefusal  error                  // its signature is not good
	dscStranger error                  // its signature is of a key that is not known here
	unsigned    bool                   // the .changes, from a trusted account
	present     map[string]fs.FileInfo // files of the directory that are listed and regular
	odd         []*FileError           // listed files that are not
	sums        map[string]Sums
	tarballs    []*listing
	tarSource   string // name of the file that holds debian/
	tree        *listing
}

// say adds a finding of the present check.
func (r *reading) say(format string, args ...any) {
	name := r.now.name
	r.texts[name]++
	switch n := r.texts[name]; {
	case n <= maxTexts:
		r.findings = append(r.findings, Finding{name, r.level(), ascii(fmt.Sprintf(format, args...))})
	case n == maxTexts+1:
		r.findings = append(r.findings, Finding{name, r.level(), "and more of this kind, which are not listed"})
	}
}

func (r *reading) level() Level { return levelOf(r.now, r.up.Suite) }

func levelOf(c *check, s *Suite) Level {
	if s != nil && !c.fixed {
		if l, ok := s.Checks[c.name]; ok {
			return l
		}
	}
	return c.level
}

// Read verifies, parses and judges the upload whose .changes has this name in dir,
// which holds its files and which no uploader can reach: see Take. All findings
// are told at once, the gravest kind of each check; the upload is good when
// Worst of them is below Error. If the signature is not good, nothing
// further is looked at: nobody vouches for the names in that file.
//
// The *Upload is never nil, but has only what could be found out. An error is
// ours (a file that cannot be read), not the uploader's; but if stop ended before
// Read did, it is that one's cause, which may be ErrCost.
func Read(stop context.Context, dir, changesName string, ctx *Context) (*Upload, []Finding, error) {
	r := &reading{
		context: stop, dir: dir, ctx: ctx, lim: DefaultLimits,
		up:      &Upload{Name: changesName},
		texts:   map[string]int{},
		present: map[string]fs.FileInfo{},
		sums:    map[string]Sums{},
	}
	r.up.Sums = r.sums
	goOn, err := r.verify()
	if err != nil {
		return r.up, nil, err
	}
	if !goOn {
		return r.up, r.findings, nil
	}
	if err := r.prepare(); err != nil {
		return r.up, nil, err
	}
	for i := range checks {
		r.now = &checks[i]
		if r.now.judge == nil || r.level() == Off {
			continue
		}
		if r.up.Suite == nil && !r.now.fixed {
			continue // a suite says whether it wants it, and there is none
		}
		if stop.Err() != nil {
			return r.up, nil, context.Cause(stop)
		}
		if err := r.now.judge(r); err != nil {
			return r.up, nil, fmt.Errorf("check %s of %s: %w", r.now.name, show(changesName), err)
		}
	}
	if stop.Err() != nil {
		return r.up, nil, context.Cause(stop) // what was looked up last may be wrong
	}
	return r.up, r.findings, nil
}

// verify reads the .changes and finds out who vouches for it. It reports
// whether there is anything to go on with.
func (r *reading) verify() (bool, error) {
	r.now = find("signature")
	name := r.up.Name
	data, err := readSmall(r.dir, name)
	var fileErr *FileError
	if errors.As(err, &fileErr) {
		r.say("%s", fileErr.Text)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	account := r.ctx.byAccount()
	if !openpgp.IsSigned(data) && account != nil && account.Unsigned {
		r.up.Text, r.up.Uploader, r.unsigned = data, account, true
	} else {
		keyring := r.ctx.Keyring
		if keyring == nil {
			keyring = &openpgp.Keyring{}
		}
		text, sig, err := keyring.VerifyClear(data, r.ctx.Now)
		if err != nil {
			r.say("%s: %s", show(name), err)
			return false, nil
		}
		r.up.Text, r.up.Signature = text, sig
		r.up.Uploader = r.ctx.byKey(sig.Fingerprint)
	}
	r.up.Hash, r.up.Read = openpgp.CanonicalHash(r.up.Text), sumsOf(data)

	r.now = find("fields")
	c, bad, err := parseChanges(name, r.up.Text)
	if err != nil {
		r.say("%s; build the upload again with dpkg-buildpackage", err)
		return false, nil
	}
	r.up.Changes, r.changesBad = c, bad
	return true, nil
}

// prepare gathers what several checks look at.
func (r *reading) prepare() error {
	c := r.up.Changes
	r.up.Suite = r.ctx.suite(c.Distribution)
	if r.up.Suite != nil {
		r.lim = r.up.Suite.Limits
	}
	r.lim = r.lim.withDefaults()
	if r.up.Suite != nil && policy.CheckSource(c.Source) == nil {
		var err error
		if r.up.Published, err = r.ctx.published(r.up.Suite.Name, c.Source); err != nil {
			return fmt.Errorf("versions of %s in %s: %w", c.Source, r.up.Suite.Name, err)
		}
		r.up.New = len(r.up.Published) == 0
	}

	if len(c.Files) > r.lim.Files {
		c.Files = c.Files[:r.lim.Files] // the check "files" tells it
		r.changesBad.addf("%s: it lists more than %d files; split the upload, or ask for a higher limit",
			show(r.up.Name), r.lim.Files)
	}
	if err := r.gather(c.Files); err != nil {
		return err
	}
	r.up.Drop = r.dropped()
	section := ""
	for _, f := range c.Files {
		if kindOf(f.Name) == kindDsc && r.up.Dsc == nil && r.dscErr == nil && r.present[f.Name] != nil {
			if err := r.readDsc(f.Name); err != nil {
				return err
			}
			section = f.Section
		}
	}
	if section == "" && len(c.Files) > 0 {
		section = c.Files[0].Section
	}
	if (section == "" || section == "-") && r.up.Dsc != nil && r.up.Dsc.Section != "" {
		section = r.up.Dsc.Section
	}
	r.up.Component, r.up.Section = component(section)
	return r.readTarballs()
}

// gather finds the listed files that came, and their hashes.
func (r *reading) gather(files []File) error {
	for _, f := range files {
		if policy.CheckFile(f.Name) != nil || f.Name == r.up.Name {
			continue
		}
		file, info, err := Open(r.dir, f.Name)
		var fileErr *FileError
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case errors.As(err, &fileErr):
			r.odd = append(r.odd, fileErr)
		case err != nil:
			return err
		default:
			file.Close()
			r.present[f.Name] = info
			sum, ok := r.ctx.Sums[f.Name]
			if !ok {
				if sum, err = Sum(r.context, r.dir, f.Name, TakeOptions{MD5: f.MD5 != "", SHA1: f.SHA1 != ""}); err != nil {
					return err
				}
			}
			r.sums[f.Name] = sum
		}
	}
	return nil
}

func (r *reading) readDsc(name string) error {
	data, err := readSmall(r.dir, name)
	var fileErr *FileError
	if errors.As(err, &fileErr) {
		r.dscErr = fileErr
		return nil
	}
	if err != nil {
		return err
	}
	// Who may write to the item could change the file after its sum was taken.
	if r.sums[name].SHA256 != sumsOf(data).SHA256 {
		r.dscErr = &FileError{Name: name, Text: show(name) + ": it was changed while it was read; upload it again"}
		return nil
	}
	text := data
	if openpgp.IsSigned(data) {
		keyring := r.ctx.Keyring
		if keyring == nil {
			keyring = &openpgp.Keyring{}
		}
		var verr error
		text, r.up.DscSignature, verr = keyring.VerifyClear(data, r.ctx.Now)
		if refusal := (*openpgp.Refusal)(nil); errors.As(verr, &refusal) && refusal.Kind == openpgp.UnknownKey {
			r.dscStranger, text = verr, paper.Text(data)
		} else if verr != nil {
			r.dscRefusal = verr
			return nil
		}
	}
	d, bad, err := parseDsc(name, text)
	if err != nil {
		r.dscErr = err
		return nil
	}
	if len(d.Files) > r.lim.Files {
		d.Files = d.Files[:r.lim.Files]
		bad.addf("%s: it lists more than %d files; ask for a higher limit", show(name), r.lim.Files)
	}
	r.up.Dsc, r.dscBad = d, bad
	return nil
}

// readTarballs lists the tarballs of the source package that came with it, side by
// side. An upstream tarball that the archive has already was listed when it first came.
func (r *reading) readTarballs() error {
	if r.up.Dsc == nil {
		return nil
	}
	type result struct {
		name string
		l    *listing
		err  error
	}
	var results []*result
	var work sync.WaitGroup
	slots := make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))
	for _, f := range r.up.Dsc.Files {
		info, k := r.present[f.Name], kindOf(f.Name)
		if info == nil || k != kindTar && k != kindDiff {
			continue
		}
		if r.sums[f.Name].SHA256 != f.SHA256 {
			continue // it is not what it says; that is told, and enough
		}
		if sha, _, ok := r.ctx.pool(f.Name); ok && sha == f.SHA256 && strings.Contains(f.Name, ".orig") {
			continue
		}
		res := &result{name: f.Name}
		results = append(results, res)
		if l := r.sums[f.Name].listing; l != nil && DefaultLimits.listsLike(r.lim) {
			res.l = l
			continue
		}
		work.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			file, _, err := Open(r.dir, res.name)
			if err != nil {
				res.err = err
				return
			}
			defer file.Close()
			if k == kindDiff {
				res.l = listDiff(r.context, file, res.name, info.Size(), r.lim)
			} else {
				res.l = list(r.context, file, res.name, info.Size(), r.ctx.Now, r.lim)
			}
		})
	}
	work.Wait()
	for _, res := range results {
		if res.err != nil {
			return res.err
		}
		if res.l.ended != nil {
			return res.l.ended
		}
		r.tarballs = append(r.tarballs, res.l)
		if kindOf(res.name) == kindDiff || !strings.Contains(res.name, ".orig") {
			r.tarSource, r.tree = res.name, res.l
		}
	}
	return nil
}

// entries lists the directory's other names that look like files of an upload.
func (r *reading) entries() ([]string, error) {
	all, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range all {
		if n := e.Name(); n != r.up.Name && policy.CheckFile(n) == nil && !e.IsDir() && !r.up.Changes.Lists(n) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names, nil
}
