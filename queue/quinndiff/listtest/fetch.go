package listtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"packmill/internal/deb822"
)

// Fetch lets apt get Sources and Packages of amd64 of the main component of the Debian release that the machine runs,
// from where the machine gets its packages, into a new directory below dir.
func Fetch(dir string) (sources, packages string, err error) {
	out, err := exec.Command("apt-get", "indextargets", "--format",
		"$(ORIGIN) $(COMPONENT) $(RELEASE) $(CODENAME) $(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return "", "", fmt.Errorf("apt-get indextargets: %w", err)
	}
	uri, release := "", ""
	for line := range strings.Lines(string(out)) {
		w := strings.Fields(line)
		if len(w) == 5 && w[0] == "Debian" && w[1] == "main" && w[2] == w[3] && !strings.Contains(w[2], "-") {
			release, uri = w[2], w[4]
			break
		}
	}
	if uri == "" {
		return "", "", errors.New("apt has no lists of Debian's main; run apt-get update, on a Debian stable release")
	}
	if dir, err = os.MkdirTemp(dir, "lists-"); err != nil {
		return "", "", err
	}
	from := " [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg arch=amd64] " + uri + " " + release + " main\n"
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "lists/partial"), 0o755), os.Mkdir(filepath.Join(dir, "cache"), 0o755),
		os.WriteFile(filepath.Join(dir, "sources.list"), []byte("deb"+from+"deb-src"+from), 0o644)); err != nil {
		return "", "", err
	}
	cmd := exec.Command("apt-get", "update", "-q", "--error-on=any",
		"-o", "Dir::State::Lists="+filepath.Join(dir, "lists"), "-o", "Dir::Cache="+filepath.Join(dir, "cache"),
		"-o", "Dir::Etc::SourceList="+filepath.Join(dir, "sources.list"), "-o", "Dir::Etc::SourceParts=/dev/null",
		"-o", "Acquire::Languages=none", "-o", "Acquire::GzipIndexes=false", "-o", "APT::Sandbox::User=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("apt-get update: %w: %s", err, out)
	}
	for pattern, path := range map[string]*string{"*_main_source_Sources": &sources,
		"*_main_binary-amd64_Packages": &packages} {
		found, err := filepath.Glob(filepath.Join(dir, "lists", pattern))
		if err != nil || len(found) != 1 {
			return "", "", fmt.Errorf("apt-get update: %d lists as %s, %w", len(found), pattern, err)
		}
		*path = found[0]
	}
	return sources, packages, nil
}

// EachStanza calls do with each stanza of a list, until its error.
func EachStanza(path string, do func(*deb822.Stanza) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sc := deb822.NewScanner(f)
	for sc.Next() {
		st, err := sc.Stanza()
		if err == nil {
			err = do(st)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return sc.Err()
}
