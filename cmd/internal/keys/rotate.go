package keys

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/cmd/internal/account"
	"packmill/cmd/internal/control"
	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/terminal"
	"packmill/internal/durable"
	"packmill/internal/openpgp"
)

// Rotation is a change of the keys that sign a suite: a further one, or one less.
type Rotation struct {
	Keys []string // the files that sign from then on, as Sign-With has them
	New  string   // the one of them that is to be made; "": none
	Out  []string // those that sign no more
	Dead bool     // Out have expired or are revoked: nobody can lose anything by it

	settings *control.Settings
	suite    *control.Suite
}

// Rotate plans a further key of a suite. One that cannot sign any more goes.
func Rotate(s *control.Settings, suite *control.Suite) *Rotation {
	r := living(s, suite)
	r.New = filepath.Join("private",
		fmt.Sprintf("%s-%s.key", suite.Name, time.Now().UTC().Format("20060102T150405.000000")))
	r.Keys = append(r.Keys, r.New)
	return r
}

// Retire plans one key less of a suite: those that cannot sign any more, or the oldest.
func Retire(s *control.Settings, suite *control.Suite) (*Rotation, error) {
	r := living(s, suite)
	switch {
	case len(r.Keys) == 0, len(r.Keys) == 1 && !r.Dead:
		return nil, daemon.Refuse("%s is signed by %s; rotate without --retire first",
			suite.Name, terminal.Counted(len(r.Keys), "key"))
	case !r.Dead:
		r.Out, r.Keys = r.Keys[:1], r.Keys[1:]
	}
	return r, nil
}

// living is a rotation that drops what cannot sign any more.
func living(s *control.Settings, suite *control.Suite) *Rotation {
	r := &Rotation{settings: s, suite: suite}
	for _, k := range suite.SignWith {
		gone := (*openpgp.Refusal)(nil)
		if _, err := openpgp.OpenSigner(s.Path(k)); errors.As(err, &gone) {
			r.Out, r.Dead = append(r.Out, k), true
		} else {
			r.Keys = append(r.Keys, k)
		}
	}
	return r
}

// String says what the rotation does.
func (r *Rotation) String() string {
	out := strings.Join(r.Out, " and ")
	if r.New == "" {
		return fmt.Sprintf("retired %s, whose file stays", out)
	}
	text := fmt.Sprintf("%s signs with %s from now on", r.suite.Name, strings.Join(r.Keys, " and "))
	if len(r.Out) > 0 {
		text += fmt.Sprintf(", and no more with %s, which has expired or is revoked; "+
			"clients need the new key before they take anything"+
			" (packmill archive sources %s URL)", out, r.suite.Name)
	}
	return text
}

// Do makes the new key, with that address in it, and writes Sign-With.
func (r *Rotation) Do(email string) error {
	if r.New != "" {
		if err := r.make(email); err != nil {
			return err
		}
	}
	return r.suite.SetField(r.settings.Path(control.SuitesFile), "Sign-With", strings.Join(r.Keys, " "))
}

// make makes the key for whoever reads the others of the suite.
func (r *Rotation) make(email string) error {
	if err := checkAddress(email); err != nil {
		return err
	}
	k, err := openpgp.Generate("Packmill "+r.suite.Name, address(email, r.suite.Name), time.Now())
	if err != nil {
		return err
	}
	file := r.settings.Path(r.New)
	if err := durable.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	if err := durable.CreateFile(file, k.Secret(), 0o600); err != nil {
		return err
	}
	return account.OwnedAs(file, r.settings.Path(append(slices.Clone(r.suite.SignWith), r.New)[0]))
}
