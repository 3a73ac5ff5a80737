package viewtest

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"packmill/archive/index"
	"packmill/archive/release"
	"packmill/internal/deb822"
)

// publish writes the indexes of the suite and of a snapshot from a week before, in which every seventh package was
// older. The files that they name are not there.
func (m *maker) publish() error {
	if err := m.indexes(m.Path("archive/dists", Suite), m.now, func(i int) string { return version(i) }); err != nil {
		return err
	}
	week := m.now.AddDate(0, 0, -7)
	return m.indexes(m.Path("archive/snapshots", week.Format("20060102"), "dists", Suite), week, func(i int) string {
		if i%7 == 0 {
			return "0.9-1"
		}
		return version(i)
	})
}

// indexes writes a directory of dists with the packages in these versions.
func (m *maker) indexes(dir string, at time.Time, version func(int) string) error {
	r := &release.Release{Date: at, Until: at.AddDate(0, 0, 10), Sums: map[string]index.Sum{}, Fields: []deb822.Field{
		{Name: "Suite", Value: Suite}, {Name: "Codename", Value: Suite}, {Name: "Components", Value: "main"},
		{Name: "Architectures", Value: strings.Join(m.size.Archs, " ")}}}
	for _, arch := range m.size.Archs {
		var text strings.Builder
		for i := range m.size.Packages {
			name := Name(i)
			fmt.Fprintf(&text, "Package: %s\nVersion: %s\nArchitecture: %s\nFilename: pool/main/%s/%s_%s.deb\n"+
				"SHA256: %064x\nSize: 1000\n\n", name, version(i), arch, name, name, arch, i)
		}
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		if _, err := io.WriteString(w, text.String()); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		rel := "main/binary-" + arch + "/Packages"
		r.Sums[rel], r.Sums[rel+".gz"] = sumOf([]byte(text.String())), sumOf(packed.Bytes())
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, rel)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, rel+".gz"), packed.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "Release"), r.Text(), 0o644)
}

func sumOf(data []byte) index.Sum {
	sum := sha256.Sum256(data)
	return index.Sum{SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data))}
}
