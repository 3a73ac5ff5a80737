package spool

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"packmill/internal/deb822"
	"packmill/internal/durable"
	"packmill/internal/regular"
)

// Lease says that a builder on another machine has a job: it keeps the job while no process of this
// machine holds its lock. It is a file of the item, whose time of change is when the builder was
// last heard.
type Lease struct {
	Builder  string // its stanza of control/builders
	Token    string // of this attempt alone
	Span     time.Duration
	LogStart int64  // what came from the builder is behind it in the log
	Begun    bool   // the builder has the job
	Says     string // why it does not build yet; "": it does, or has not said
	Heard    time.Time
}

// NewLease is one for an attempt that begins.
func NewLease(builder string, span time.Duration) *Lease {
	token := make([]byte, 16)
	rand.Read(token)
	return &Lease{Builder: builder, Token: hex.EncodeToString(token), Span: span}
}

// ReadLease reads the lease of an item, or nil.
func ReadLease(dir string) (*Lease, error) {
	f, err := regular.Open(filepath.Join(dir, LeaseFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	data, err := regular.ReadAll(f, 4<<10)
	if err != nil {
		return nil, err
	}
	st, err := deb822.ParseOne(f.Name(), data, deb822.Hostile)
	if err != nil {
		return nil, err
	}
	l := &Lease{Builder: st.Get("Builder"), Token: st.Get("Token"), Begun: st.Get("Begun") == "yes",
		Says: st.Get("Says"), Heard: info.ModTime()}
	l.Span, err = time.ParseDuration(st.Get("Span"))
	var err2 error
	l.LogStart, err2 = strconv.ParseInt(st.Get("Log-Start"), 10, 64)
	if err = errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return l, nil
}

// Write puts the lease into the item, for good.
func (l *Lease) Write(dir string) error {
	st := &deb822.Stanza{}
	st.Set("Builder", l.Builder)
	st.Set("Token", l.Token)
	st.Set("Span", l.Span.String())
	st.Set("Log-Start", strconv.FormatInt(l.LogStart, 10))
	if l.Begun {
		st.Set("Begun", "yes")
	}
	if l.Says != "" {
		st.Set("Says", OneLine(l.Says))
	}
	return durable.WriteFile(filepath.Join(dir, LeaseFile), st.Append(nil), 0o644)
}

// Renew notes that the builder was heard.
func (l *Lease) Renew(dir string) error {
	now := time.Now()
	return os.Chtimes(filepath.Join(dir, LeaseFile), now, now)
}

// End takes the lease away.
func (l *Lease) End(dir string) error { return durable.Remove(filepath.Join(dir, LeaseFile)) }

// Until is when it ends if the builder is not heard again.
func (l *Lease) Until() time.Time { return l.Heard.Add(l.Span) }

// Leased is the lease by which a builder has the job in dir now, or nil.
func Leased(dir string, now time.Time) *Lease {
	l, err := ReadLease(dir)
	if err != nil || l == nil || !now.Before(l.Until()) {
		return nil
	}
	return l
}
