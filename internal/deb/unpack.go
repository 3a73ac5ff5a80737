package deb

import (
	"errors"
	"io"

	"packmill/internal/compression"
)

// An unpacker reads what a member holds, within limits.
type unpacker struct {
	m      *member
	r      io.ReadCloser
	limit  int64 // output bytes at all
	lim    *Limits
	n      int64 // output bytes so far
	copyTo io.Writer
}

// unpack opens a member named stem, stem.gz, stem.xz, stem.zst or, if old ones
// are accepted, stem.bz2.
func unpack(m *member, stem string, old bool, limit int64, lim *Limits, copyTo io.Writer) (*unpacker, error) {
	u := &unpacker{m: m, limit: limit, lim: lim, copyTo: copyTo}
	packed, err := packing(m, stem, old)
	if err != nil {
		return nil, err
	}
	if u.r, err = packed.Reader(m); err != nil {
		return nil, u.fault(err)
	}
	return u, nil
}

// packing is a member's compression, which is refused if it is none of those.
func packing(m *member, stem string, old bool) (compression.Kind, error) {
	rest, packed := compression.Cut(m.name)
	if rest != stem || !packed.OfDeb() && !(old && packed == compression.Bzip2) {
		return "", fault("%s is packed in a way that is not accepted; "+
			"build the package again with dpkg-deb -Zxz (or -Zzstd, -Zgzip, -Znone)", m.name)
	}
	return packed, nil
}

// fault tells trouble of the reader from a fault of the member.
func (u *unpacker) fault(err error) error {
	if u.m.src.err != nil {
		return u.m.src.err
	}
	if e := errFault(""); errors.As(err, &e) {
		return e
	}
	switch {
	case compression.EndsEarly(err):
		return fault("%s ends too early; build the package again with dpkg-deb", u.m.name)
	case compression.TooLarge(err):
		return fault("%s needs more memory to unpack than dpkg-deb's highest level does; "+
			"build the package again with dpkg-deb", u.m.name)
	}
	return fault("%s is damaged (%v); build the package again with dpkg-deb", u.m.name, err)
}

func (u *unpacker) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if n > 0 {
		u.n += int64(n)
		if u.n > u.limit {
			return 0, fault("%s unpacks to more than %d bytes; split the package", u.m.name, u.limit)
		}
		// Both sides are counted at the same moment, so a bomb is known as
		// soon as it has passed the floor.
		if packed := u.m.size - u.m.left; u.n > u.lim.Floor && (u.n-u.lim.Floor)/u.lim.Ratio > packed {
			return 0, fault("%s unpacks to more than %d times its size, as bombs do; "+
				"split the package, or leave out what is empty in it", u.m.name, u.lim.Ratio)
		}
		if u.copyTo != nil {
			if _, werr := u.copyTo.Write(p[:n]); werr != nil {
				return 0, writeError{werr}
			}
		}
	}
	if err != nil && err != io.EOF {
		err = u.fault(err)
	}
	return n, err
}

// A writeError comes from the caller's writer: it is no fault of the package.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }
