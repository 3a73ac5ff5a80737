// Package paper reads the papers of Debian's packages: .dsc, .changes,
// .buildinfo and Release (Debian Policy 5.4 and 5.5, deb-buildinfo(5)). Each is
// one stanza, perhaps inside an OpenPGP signature, and lists files.
//
// Nothing is verified here. A paper whose signature counts goes to package
// openpgp, and what that returns is used from then on; here are read those that
// were verified when they were let in, and those that nobody has vouched for.
package paper

import (
	"bytes"
	"strings"

	"packmill/internal/deb822"
	"packmill/internal/openpgp"
	"packmill/internal/regular"
)

const beginSig = "-----BEGIN PGP SIGNATURE-----"

// Text is the text of a paper without the signature around it, each line as it
// was signed: without the escape of a dash and without blanks at its end. A paper
// that has no signature comes back as it is.
//
// Of all that openpgp accepts it is the text that openpgp returns.
func Text(data []byte) []byte {
	if !openpgp.IsSigned(data) {
		return data
	}
	_, body, ok := bytes.Cut(data, []byte("\n\n"))
	if !ok {
		return nil // it ends within the headers
	}
	out := make([]byte, 0, len(body))
	for line := range bytes.Lines(body) {
		line = bytes.TrimRight(line, "\n")
		if string(line) == beginSig {
			break
		}
		out = append(out, bytes.TrimRight(bytes.TrimPrefix(line, []byte("- ")), " \t")...)
		out = append(out, '\n')
	}
	return out
}

// Parse reads the text of a paper, signed or not. name stands in errors, which
// are *deb822.Errors.
func Parse(name string, data []byte) (*deb822.Stanza, error) {
	return deb822.ParseOne(name, Text(data), deb822.Hostile)
}

// Read reads the paper of this name in dir: a regular file, and dir no symbolic
// link (regular.OpenIn).
func Read(dir, name string) (*deb822.Stanza, error) {
	f, err := regular.OpenIn(dir, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := regular.ReadAll(f, deb822.Hostile.Size)
	if err != nil {
		return nil, err
	}
	return Parse(name, data)
}

// Source splits the field Source of a .changes, a .buildinfo or a binary
// package, "hello (2.10-3)", into name and version. The version is "" where the
// field has none: it is then that of the paper itself.
func Source(field string) (name, version string) {
	if name, rest, ok := strings.Cut(field, " ("); ok {
		if version, ok := strings.CutSuffix(rest, ")"); ok {
			return name, version
		}
	}
	return field, ""
}
