package quinndiff

import (
	"io"
	"iter"
	"os"

	"packmill/internal/compression"
)

// Files are index files of any archive, compressed or not.
type Files struct {
	Sources, Packages []string
	Arch              string // of the Packages
	Specific          *Specific
}

// Diff compares the files. Refused are the entries that were left out.
func (f *Files) Diff() (needed iter.Seq[Needed], refused []error, err error) {
	var sources Sources
	var packages Packages
	for _, name := range f.Sources {
		if err := unpacked(name, sources.Add); err != nil {
			return nil, nil, err
		}
	}
	for _, name := range f.Packages {
		if err := unpacked(name, packages.Add); err != nil {
			return nil, nil, err
		}
	}
	refused = append(sources.Refused, packages.Refused...)
	return Diff(&sources, &packages, f.Arch, Options{Specific: f.Specific}), refused, nil
}

// unpacked reads an index file, compressed or not.
func unpacked(path string, read func(io.Reader) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := compression.Sniff(f)
	if err != nil {
		return err
	}
	defer r.Close()
	return read(r)
}
