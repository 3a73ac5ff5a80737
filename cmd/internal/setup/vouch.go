package setup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"packmill/archive"
	"packmill/cmd/internal/daemon"
	"packmill/internal/openpgp"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/spool"
	"packmill/spool/statement"
	"packmill/spool/upload"
)

// vouch signs statements for what is on its way in a tree from before there were
// any: as it lies when the key is made, and never again. As long as the public
// half is not there nothing is verified, so a run that was cut off begins anew. left
// says what got none.
func vouch(root string) (left []string, err error) {
	_, err = os.Lstat(root + "/" + statement.PublicFile)
	if _, terr := os.Lstat(root + "/control"); !errors.Is(err, fs.ErrNotExist) || terr != nil {
		return nil, nil
	}
	t, err := spool.Complete(root)
	if err != nil {
		return nil, err
	}
	key, err := statement.MakeSecret(root)
	if err != nil {
		return nil, err
	}
	found, err := t.Find("", spool.Standard.Where(func(s spool.State) bool {
		return s == spool.Review || s.Is(spool.Queued)
	})...)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		err := vouchFor(t, f, key)
		if errors.Is(err, spool.ErrBusy) {
			return left, daemon.Wrong{Err: fmt.Errorf("%s: a daemon works on it; stop the daemons, and run this again: "+
				"what lies in the tree gets statements now, once", f.Dir())}
		}
		if err != nil && !errors.Is(err, spool.ErrGone) {
			left = append(left, fmt.Sprintf("%s: no statement for it, upload it again: %v", f.Dir(), err))
		}
	}
	return left, nil
}

// vouchFor signs a statement for one item. A job of what is published needs none.
func vouchFor(t *spool.Tree, f spool.Found, key *openpgp.Signer) error {
	it, err := t.Claim(f.Place, f.Name.String())
	if err != nil {
		return err
	}
	defer it.Release()
	tk, err := queue.TicketOf(it)
	if err != nil || tk.Changes == "" {
		return err
	}
	s := &statement.Statement{
		Source: it.Name.Source, Version: it.Name.Version, Suite: it.Place.Suite, Suites: []string{it.Place.Suite},
		Component: tk.Component,
		Dsc:       tk.Dsc, Changes: tk.Changes, Received: tk.Received, Has: tk.Has, Uploader: tk.Uploader,
		Fingerprint: tk.Fingerprint, Account: tk.Account,
		Rights: "it lay in the tree when statements began",
	}
	entries, err := os.ReadDir(it.Path())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if policy.CheckFile(e.Name()) != nil {
			continue
		}
		sum, err := upload.Sum(context.Background(), it.Path(), e.Name(), upload.TakeOptions{})
		if err != nil {
			return err
		}
		s.Files = append(s.Files, statement.Sum{Name: e.Name(), Size: sum.Size, SHA256: sum.SHA256})
	}
	if tk.Dsc != "" {
		if s.Packages, s.TakesOver, err = packagesOf(t, it, tk.Dsc); err != nil {
			return err
		}
	}
	signed, err := s.Sign(key)
	if err != nil {
		return err
	}
	return it.WriteFile(statement.File, signed)
}

// packagesOf reads which packages a .dsc names, and which of them another source
// has in the suite.
func packagesOf(t *spool.Tree, it *spool.Item, dsc string) (names, takesOver []string, err error) {
	f, _, err := upload.Open(it.Path(), dsc)
	if err != nil {
		return nil, nil, err
	}
	f.Close()
	text, err := os.ReadFile(f.Name())
	if err == nil && openpgp.IsSigned(text) {
		text, err = openpgp.ClearText(text)
	}
	if err != nil {
		return nil, nil, err
	}
	d, err := upload.ParseDsc(dsc, text)
	if err != nil {
		return nil, nil, err
	}
	a, err := archive.Open(t.Path("archive"))
	if err != nil {
		return nil, nil, err
	}
	builders, err := a.Builders(context.Background(), it.Place.Suite, d.Packages)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range d.Packages {
		if source := builders[n]; source != "" && source != it.Name.Source {
			takesOver = append(takesOver, n+"="+source)
		}
	}
	return d.Packages, takesOver, nil
}
