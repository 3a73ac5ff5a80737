// Package release writes and reads a suite's Release file and its signed
// forms (Debian repository format; apt's sources.list(5), apt-secure(8)).
package release

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"packmill/archive/index"
	"packmill/internal/deb822"
	"packmill/internal/durable"
	"packmill/internal/openpgp"
	"packmill/internal/paper"
)

// Release is the content of a Release file.
type Release struct {
	Fields []deb822.Field // all but Date, Valid-Until and the sums, in order
	Date   time.Time
	Until  time.Time            // zero: no Valid-Until
	Sums   map[string]index.Sum // by path relative to the suite's directory
}

// Text is the Release file.
func (r *Release) Text() []byte {
	var b bytes.Buffer
	dated := false
	date := func() {
		dated = true
		fmt.Fprintf(&b, "Date: %s\n", r.Date.UTC().Format(dateForm))
		if !r.Until.IsZero() {
			fmt.Fprintf(&b, "Valid-Until: %s\n", r.Until.UTC().Format(dateForm))
		}
	}
	for _, f := range r.Fields {
		if f.Value == "" {
			continue
		}
		fmt.Fprintf(&b, "%s: %s\n", f.Name, strings.ReplaceAll(f.Value, "\n", " "))
		if f.Name == "Codename" {
			date()
		}
	}
	if !dated {
		date()
	}
	names := make([]string, 0, len(r.Sums))
	width := 1
	for n, s := range r.Sums {
		names = append(names, n)
		width = max(width, len(strconv.FormatInt(s.Size, 10)))
	}
	slices.Sort(names)
	b.WriteString("SHA256:\n")
	for _, n := range names {
		fmt.Fprintf(&b, " %s %*d %s\n", r.Sums[n].SHA256, width, r.Sums[n].Size, n)
	}
	return b.Bytes()
}

const dateForm = "Mon, 02 Jan 2006 15:04:05 UTC"

// Parse reads a Release file. It is meant for our own; what others publish is
// read with the same strictness and refused where it differs.
func Parse(name string, text []byte) (*Release, error) {
	st, err := deb822.ParseOne(name, text, deb822.Settings)
	if err != nil {
		return nil, err
	}
	r := &Release{Sums: map[string]index.Sum{}}
	for _, f := range st.Fields {
		switch strings.ToLower(f.Name) {
		case "date", "valid-until":
			t, err := parseDate(f.Value)
			if err != nil {
				return nil, st.Errorf(f.Name, "%q is no date", f.Value)
			}
			if strings.EqualFold(f.Name, "date") {
				r.Date = t
			} else {
				r.Until = t
			}
		case "sha256":
			for i, line := range strings.Split(f.Value, "\n") {
				w := deb822.Words(line)
				if i == 0 && len(w) == 0 {
					continue
				}
				if len(w) != 3 || len(w[0]) != 64 {
					return nil, st.Errorf(f.Name, "line %d is not a checksum, a size and a name", i+1)
				}
				size, err := strconv.ParseInt(w[1], 10, 64)
				if err != nil || size < 0 || !filepath.IsLocal(w[2]) {
					return nil, st.Errorf(f.Name, "line %d is not a checksum, a size and a name", i+1)
				}
				r.Sums[w[2]] = index.Sum{SHA256: strings.ToLower(w[0]), Size: size}
			}
		case "md5sum", "sha1", "sha512":
		default:
			r.Fields = append(r.Fields, deb822.Field{Name: f.Name, Value: f.Value})
		}
	}
	return r, nil
}

func parseDate(s string) (time.Time, error) {
	for _, form := range []string{dateForm, "Mon, 2 Jan 2006 15:04:05 MST", time.RFC1123Z,
		"Mon, 2 Jan 2006 15:04:05 -0700"} {
		if t, err := time.Parse(form, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, errors.New("no date")
}

// Get returns the field's value or "".
func (r *Release) Get(name string) string {
	for _, f := range r.Fields {
		if strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// Same reports whether two releases differ only in their dates.
func (r *Release) Same(o *Release) bool {
	if len(r.Sums) != len(o.Sums) {
		return false
	}
	for n, s := range r.Sums {
		if o.Sums[n] != s {
			return false
		}
	}
	a, b := *r, *o
	a.Date, a.Until, a.Sums = time.Time{}, time.Time{}, nil
	b.Date, b.Until, b.Sums = time.Time{}, time.Time{}, nil
	return bytes.Equal(a.Text(), b.Text())
}

// Read reads dir/InRelease, the file whose rename makes a publication visible.
// The signature is not checked: it is our own tree. It returns nil without an
// error if there is none.
func Read(dir string) (*Release, error) {
	name := filepath.Join(dir, "InRelease")
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		// A suite that is not signed has a Release only.
		name = filepath.Join(dir, "Release")
		data, err = os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return Parse(name, paper.Text(data))
}

// Sign writes Release, Release.gpg and, last, InRelease into dir, each in one
// step and synced: with the last one the publication is visible. Without
// signers only Release is written, and the signed forms of an earlier one go.
func Sign(dir string, text []byte, signers []*openpgp.Signer, now time.Time) error {
	if len(signers) == 0 {
		for _, n := range []string{"InRelease", "Release.gpg"} {
			if err := durable.Remove(filepath.Join(dir, n)); err != nil {
				return err
			}
		}
		return durable.WriteFile(filepath.Join(dir, "Release"), text, 0o644)
	}
	in, err := openpgp.Clearsign(text, now, signers...)
	if err != nil {
		return err
	}
	gpg, err := openpgp.Detach(text, now, signers...)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{"Release", text}, {"Release.gpg", gpg}, {"InRelease", in}} {
		if err := durable.WriteFile(filepath.Join(dir, f.name), f.data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// SignedBy returns the fingerprints, sorted, of the keys that Release.gpg in
// dir claims to be signed by; none if there is no such file.
func SignedBy(dir string) ([]string, error) {
	data, err := os.ReadFile(filepath.Join(dir, "Release.gpg"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out, err := openpgp.Issuers(data)
	slices.Sort(out)
	return slices.Compact(out), err
}
