package mail

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/cmd/internal/control"
	"packmill/internal/durable"
	"packmill/internal/regular"
	"packmill/internal/trouble"
	"packmill/spool"
)

// outgoing is a mail, or the call of a hook, that waits in spool.LettersDir: its file
// has this on the first line, as JSON, and then the text.
type outgoing struct {
	Via  string   `json:"via"` // a program, or the hook's URL
	From string   `json:"from,omitempty"`
	To   []string `json:"to,omitempty"`
	ID   string   `json:"id,omitempty"` // of a call
	text []byte
}

// maxOutgoing bounds such a file: a text, a .changes, and a log with its middle left out.
const maxOutgoing = 64 << 20

// leftoverAge is the age at which a letter that is half written never gets whole.
const leftoverAge = time.Hour

// post puts a mail where maild finds it, durably: who writes it may then note that
// it is said.
func (o *outgoing) post(tree *spool.Tree) error {
	head, err := json.Marshal(o)
	if err != nil {
		return err
	}
	// Oldest first, and no two alike.
	name := time.Now().UTC().Format("20060102T150405.000000000Z-") + rand.Text()[:8]
	err = durable.CreateFile(tree.Path(spool.LettersDir, name), slices.Concat(head, []byte("\n"), o.text), 0o640)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; packmill init --users makes the directory", err)
	}
	return err
}

// readOutgoing reads what somebody put there. What cannot be a mail, or names a
// program that the settings do not, is an error: whoever may write a letter does not
// say what maild runs.
func readOutgoing(path string, notices []control.Notice) (*outgoing, error) {
	data, err := regular.Read(path, maxOutgoing)
	if err != nil {
		return nil, err
	}
	head, text, _ := bytes.Cut(data, []byte("\n"))
	o := &outgoing{text: text}
	if err := json.Unmarshal(head, o); err != nil {
		return nil, fmt.Errorf("it is no letter: %w", err)
	}
	if hookOf(notices, o.Via) != nil {
		return o, nil
	}
	if o.ID != "" {
		return nil, fmt.Errorf("no Hook of control/notify names %s; write it there again, or remove the letter",
			spool.OneLine(o.Via))
	}
	for _, a := range append([]string{o.From}, o.To...) {
		if plain, err := Address(a); err != nil || plain != a {
			return nil, fmt.Errorf("it is no letter: the address %q", spool.OneLine(a))
		}
	}
	if len(o.To) == 0 {
		return nil, errors.New("it is no letter: it is to nobody")
	}
	known := func(n control.Notice) bool { return n.Via == o.Via }
	if o.Via != control.Sendmail && !slices.ContainsFunc(notices, known) {
		return nil, fmt.Errorf("no Via of control/notify names the program %s; write it there again, or remove the letter",
			spool.OneLine(o.Via))
	}
	return o, nil
}

// Post hands on what lies in spool.LettersDir to the sendmails and hooks of the
// settings. What one does not take stays, and is brought again later and later; nothing is
// given up.
type Post struct {
	Tree     *spool.Tree
	Settings *control.Store
	Log      *slog.Logger

	again map[string]retry // by the letter's name
	said  trouble.Said
}

// Serve hands on letters until ctx ends, or, with once, all that there are now.
// Of several processes one does.
func (p *Post) Serve(ctx context.Context, once bool) error {
	dir := p.Tree.Path(spool.LettersDir)
	lock, err := durable.Lock(dir, 0)
	if errors.Is(err, durable.ErrLocked) {
		if once {
			return nil
		}
		lock, err = durable.Await(ctx, dir, 0)
	}
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		if err := p.round(ctx); err != nil || once {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// round hands on every letter whose time has come, oldest first.
func (p *Post) round(ctx context.Context) error {
	if err := p.Tree.Check(); err != nil {
		return err
	}
	entries, err := os.ReadDir(p.Tree.Path(spool.LettersDir))
	if err != nil {
		return err
	}
	silent := map[string]error{} // hooks that did not answer in this round: others' letters do not wait for them
	for _, e := range entries {
		if ctx.Err() != nil {
			return nil
		}
		path := p.Tree.Path(spool.LettersDir, e.Name())
		if strings.HasPrefix(e.Name(), durable.NewPrefix) {
			if st, err := e.Info(); err == nil && time.Since(st.ModTime()) > leftoverAge {
				os.Remove(path) // if it cannot be removed, the next round will try
			}
			continue
		}
		if r, ok := p.again[e.Name()]; ok && time.Now().Before(r.at) {
			continue
		}
		if err := p.hand(ctx, path, silent); err != nil && ctx.Err() == nil {
			p.later(e.Name(), err)
		}
	}
	return nil
}

// hand gives one letter to its sendmail, and removes it when that has it: a death
// between the two sends it twice, and never not at all.
func (p *Post) hand(ctx context.Context, path string, silent map[string]error) error {
	all := p.Settings.Get()
	o, err := readOutgoing(path, all.Notify)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := silent[o.Via]; err != nil {
		return err
	}
	if err := o.hand(ctx, all); err != nil {
		if o.ID != "" {
			silent[o.Via] = err
		}
		return err
	}
	name := filepath.Base(path)
	delete(p.again, name)
	p.said.Over(name)
	p.Log.Info("sent", "letter", name, "to", len(o.To))
	return durable.Remove(path)
}

func (o *outgoing) hand(ctx context.Context, all *control.Settings) error {
	hook := hookOf(all.Notify, o.Via)
	if hook == nil {
		return deliver(ctx, o.Via, o.From, o.To, o.text)
	}
	secret, err := HookSecret(all.Path(hook.Secret))
	if err != nil {
		return err
	}
	return o.request(ctx, secret)
}

func (p *Post) later(name string, err error) {
	if p.again == nil {
		p.again = map[string]retry{}
	}
	r := p.again[name]
	r.by = tellAgain.After(r.by)
	r.at = time.Now().Add(r.by)
	p.again[name] = r
	if p.said.Fresh(name, err) {
		p.Log.Error("letter", "letter", name, "err", err, "again", r.by)
	}
}
