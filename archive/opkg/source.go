package opkg

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"packmill/internal/deb822"
	"packmill/internal/paper"
	"packmill/internal/policy"
	"packmill/internal/regular"
)

// Sources is the name of the feed of a suite's sources.
const Sources = "src"

// Source packages have an architecture and names of their own, ProteanOS's: a
// source often bears its binary's name, and upgrades must not take one for the
// other. Clients see them only if they have "arch source PRIORITY" in their
// configuration. libsolv would not do with "src", which is RPM's word for what
// is never installed (repo.h, ARCH_SRC; pool_installable).
const (
	sourceArch   = "source"
	sourcePrefix = "src:"
)

// makeSource makes the entry of a source package: one that installs the .dsc and
// its files below /usr/src.
func (f *Feed) makeSource(st *deb822.Stanza, tmp string) ([]byte, move, error) {
	name, version := st.Get("Package"), st.Get("Version")
	for _, err := range []error{policy.CheckSource(name), policy.CheckVersion(version)} {
		if err != nil {
			return nil, move{}, errSkip{err}
		}
	}
	dir := st.Get("Directory")
	inPool, ok := strings.CutPrefix(dir, "pool/")
	if !ok || !filepath.IsLocal(dir) || path.Clean(dir) != dir {
		return nil, move{}, errSkip{fmt.Errorf("Directory %q is not in the pool", dir)}
	}
	file, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, move{}, err
	}
	defer file.Close()
	c := deb822.Stanza{}
	c.Set("Package", sourcePrefix+name)
	c.Set("Version", version)
	c.Set("Architecture", sourceArch)
	for _, field := range []string{"Maintainer", "Section", "Priority", "Homepage"} {
		if v := oneLine(st.Get(field)); v != "" {
			c.Set(field, v)
		}
	}
	c.Set("Description", "source of "+name)
	info, err := f.packSource(file, st, dir, c.Append(nil))
	if err != nil {
		return nil, move{}, err
	}
	inFeed := path.Join("pool", inPool, name+"_"+policy.WithoutEpoch(version)+"_"+sourceArch+"."+f.extension())
	info, m, err := f.place(file, info, inFeed)
	if err != nil {
		return nil, move{}, err
	}
	out, err := entry(nil, &c, c.Get("Description"), inFeed, info, sourceArch, namer{}, Options{})
	if err != nil {
		return nil, move{}, errSkip{err}
	}
	return out, m, nil
}

// packSource writes the package of a source. Everything in it has the time 0:
// a source package has none of its own.
func (f *Feed) packSource(file *os.File, st *deb822.Stanza, dir string, control []byte) (Info, error) {
	data := &spill{dir: filepath.Dir(file.Name())}
	defer data.close()
	if err := f.sourceData(data, st, dir); err != nil {
		return Info{}, err
	}
	var ctl bytes.Buffer
	tw := tar.NewWriter(&ctl)
	if err := addMember(tw, "./control", tar.TypeReg, 0o644, time.Unix(0, 0), control); err != nil {
		return Info{}, err
	}
	if err := tw.Close(); err != nil {
		return Info{}, err
	}
	packed, err := data.reader()
	if err != nil {
		return Info{}, err
	}
	sum := newSummer(file)
	if err := writeOuter(sum, time.Unix(0, 0), ctl.Bytes(), packed, data.size); err != nil {
		return Info{}, err
	}
	return sum.info(), file.Chmod(0o644)
}

// sourceData writes the data.tar.gz of a source.
func (f *Feed) sourceData(w io.Writer, st *deb822.Stanza, dir string) error {
	// The files are packed already: the quickest level does what can be done.
	gz := fasts.Get().(*gzip.Writer)
	defer fasts.Put(gz)
	gz.Reset(w)
	tw := tar.NewWriter(gz)
	made := "./"
	own := st.Get("Package") + "-" + policy.WithoutEpoch(st.Get("Version"))
	for _, part := range []string{"", "usr/", "src/", own + "/"} {
		made += part
		if err := addMember(tw, made, tar.TypeDir, 0o755, time.Unix(0, 0), nil); err != nil {
			return err
		}
	}
	files, err := paper.Files(st, paper.Short, paper.SHA256)
	if err != nil {
		return errSkip{err}
	}
	for _, x := range files {
		if err := addFile(tw, made+x.Name, filepath.Join(f.Root, dir, x.Name), x.Size, x.SHA256); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	return gz.Close()
}

func addFile(tw *tar.Writer, name, from string, size int64, sha string) error {
	f, err := regular.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644,
		ModTime: time.Unix(0, 0), Uname: "root", Gname: "root", Format: tar.FormatGNU}); err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(tw, h), f)
	if err == nil && (n != size || hex.EncodeToString(h.Sum(nil)) != sha) || err == tar.ErrWriteTooLong {
		return fmt.Errorf("%s is not what its index says; run packmill archive check", from)
	}
	return err
}
