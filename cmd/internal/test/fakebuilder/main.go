// Command fakebuilder is a builder for tests: it makes the packages that a source
// names, in process, in milliseconds, so that a test can run a distribution's
// worth of builds through real daemons. It keeps the contract of Runner: exec.
//
// Its own directory holds what a test wants of it:
//
//	tree      a link to the tree: build-dependencies must be in its archive,
//	          or in what apt fetched of its Base, or the build ends with 3 and
//	          says what is missing
//	script/   SOURCE_VERSION_ARCH, a line an order: "fail TEXT", "dep-wait
//	          RELATION", "trouble", "sleep 2s", "eat MEGABYTES", "forge", "also PACKAGE", "only PACKAGES", "print FILE" (its
//	          bytes), "wait FILE" (until it is there)
//	debs/     SOURCE, what a source makes, in the Binary field's place: stanzas as in Packages, but with Package-List's
//	          architectures and dpkg's ${binary:Version} and ${source:Version}. Version, where it is not the source's,
//	          is that of the source's version Of. Whether anything is missing is not looked at then
//	builds    a line for each beginning and each end of a build
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"packmill/archive"
	"packmill/internal/deb/debtest"
	"packmill/internal/deb822"
	"packmill/internal/durable"
	"packmill/internal/paper"
	"packmill/internal/policy"
	"packmill/queue/installability"
	"packmill/spool/upload"
)

// The exit statuses of the contract.
const (
	good      = 0
	attempted = 2
	missing   = 3
	trouble   = 9
)

func main() {
	status, err := run()
	if err != nil {
		fmt.Println("fakebuilder:", err)
		status = trouble
	}
	os.Exit(status)
}

func run() (int, error) {
	b, err := begin()
	if err != nil {
		return 0, err
	}
	if err := b.note("begin"); err != nil {
		return 0, err
	}
	defer b.note("end")
	fmt.Println("building", b.id, "for", b.suite, "with",
		"profiles="+os.Getenv("DEB_BUILD_PROFILES"), "options="+os.Getenv("DEB_BUILD_OPTIONS"))
	orders, _ := os.ReadFile(filepath.Join(b.home, "script", strings.ReplaceAll(b.id, ":", "%3a")))
	for line := range strings.Lines(string(orders)) {
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if status, err := b.obey(verb, rest); err != nil || status != good {
			return status, err
		}
	}
	debs, err := b.written()
	if err != nil || debs != nil {
		return good, errors.Join(err, b.pack(debs))
	}
	absent, err := lacking(filepath.Join(b.home, "tree"), b.suite, b.arch, b.dsc)
	if err != nil {
		return 0, err
	}
	if len(absent) > 0 {
		fmt.Println("missing:", absent)
		var text string
		for _, l := range absent {
			text += policy.Relations{l}.String() + "\n"
		}
		return missing, b.depWait(text)
	}
	return good, b.packages()
}

// build is one build, and what the orders make of it.
type build struct {
	home                string // where this program lies
	dsc                 *upload.Dsc
	arch, suite, result string
	id                  string // SOURCE_VERSION_ARCH
	forge               bool
	depends             string
	also                []string // more packages
}

// begin learns of the environment what is to be built.
func begin() (*build, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(os.Getenv("PACKMILL_DSC"))
	if err != nil {
		return nil, err
	}
	dsc, err := readDsc(data)
	if err != nil {
		return nil, err
	}
	b := &build{
		home: filepath.Dir(self), dsc: dsc,
		arch: os.Getenv("PACKMILL_ARCH"), suite: os.Getenv("PACKMILL_SUITE"), result: os.Getenv("PACKMILL_RESULT"),
	}
	b.id = fmt.Sprintf("%s_%s_%s", dsc.Source, dsc.Version, b.arch)
	return b, nil
}

// note writes a line into builds.
func (b *build) note(what string) error {
	line := fmt.Sprintf("%s %s %s %d\n", time.Now().UTC().Format(time.RFC3339Nano), what, b.id, os.Getpid())
	return durable.Append(filepath.Join(b.home, "builds"), []byte(line), 0o644)
}

func (b *build) depWait(relations string) error {
	return os.WriteFile(filepath.Join(b.result, "dep-wait"), []byte(relations), 0o644)
}

// obey does what one order says; a status other than good ends the build.
func (b *build) obey(verb, rest string) (int, error) {
	switch verb {
	case "fail":
		fmt.Println("error:", rest)
		return attempted, nil
	case "trouble":
		return trouble, nil
	case "dep-wait":
		return missing, b.depWait(rest + "\n")
	case "hold":
		for there := error(nil); there == nil; time.Sleep(10 * time.Millisecond) {
			_, there = os.Stat(filepath.Join(b.home, "hold"))
		}
	case "print":
		f, err := os.Open(rest)
		if err != nil {
			return 0, err
		}
		_, err = io.Copy(os.Stdout, f)
		return good, errors.Join(err, f.Close())
	case "sleep":
		d, err := time.ParseDuration(rest)
		time.Sleep(d)
		return good, err
	case "wait":
		for missing := os.ErrNotExist; missing != nil; time.Sleep(10 * time.Millisecond) {
			_, missing = os.Lstat(rest)
		}
	case "eat": // and have it for a while
		n, err := strconv.Atoi(rest)
		eaten := bytes.Repeat([]byte{1}, n<<20)
		time.Sleep(time.Minute)
		fmt.Println("ate", len(eaten))
		return good, err
	case "forge":
		b.forge = true
	case "only":
		b.dsc.Binary = strings.Fields(rest)
	case "also":
		b.also = append(b.also, rest)
	case "depends":
		b.depends = "Depends: " + rest + "\n"
	}
	return good, nil
}

// version is what the build makes of a version: that of a binNMU, if it is one.
func version(of string) string {
	if n := os.Getenv("PACKMILL_BINNMU"); n != "" {
		of += "+b" + n
	}
	return of
}

// packages writes what the build has made.
func (b *build) packages() error {
	if os.Getenv("PACKMILL_BINNMU") != "" {
		fmt.Println("binNMU by", os.Getenv("PACKMILL_BINNMU_BY"))
	}
	var debs []debtest.Deb
	for _, name := range append(b.dsc.Binary, b.also...) {
		debs = append(debs, debtest.Deb{Name: name, Version: version(b.dsc.Version), Arch: b.arch, Fields: b.depends})
	}
	return b.pack(debs)
}

// written is what debs/SOURCE says of this architecture; nil if there is no such file.
func (b *build) written() (debs []debtest.Deb, err error) {
	data, err := os.ReadFile(filepath.Join(b.home, "debs", b.dsc.Source))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	stanzas, err := deb822.Parse("debs", data, deb822.Hostile)
	if err != nil {
		return nil, err
	}
	debs = []debtest.Deb{}
	for _, st := range stanzas {
		if !policy.BuildsOn(deb822.Words(st.Get("Architecture")), b.arch) {
			continue
		}
		d := debtest.Deb{Name: st.Get("Package"), Version: version(b.dsc.Version), Arch: b.arch}
		if v := st.Get("Version"); v != "" {
			d.Version = version(v + strings.TrimPrefix(b.dsc.Version, st.Get("Of")))
		}
		for _, f := range []string{"Package", "Architecture", "Version", "Of"} {
			st.Del(f)
		}
		d.Fields = strings.NewReplacer("${binary:Version}", d.Version, "${source:Version}", b.dsc.Version).
			Replace(string(st.Append(nil)))
		debs = append(debs, d)
	}
	return debs, nil
}

// pack writes packages, and the .changes that lists them.
func (b *build) pack(debs []debtest.Deb) error {
	dsc, version := b.dsc, version(b.dsc.Version)
	u := debtest.Upload{
		Source: debtest.Source{Name: dsc.Source, Version: dsc.Version}, NoSource: true, Distribution: b.suite,
	}
	for _, d := range debs {
		d.Packing = "gz"
		if d.Name != dsc.Source || d.Version != dsc.Version {
			d.Source = dsc.Source
			if d.Version != dsc.Version {
				d.Source += " (" + dsc.Version + ")"
			}
		}
		u.Debs = append(u.Debs, d)
	}
	if b.forge {
		u.Source.Name = "another"
	}
	if version != dsc.Version {
		u.Source.Version, u.Of = version, dsc.Version
	}
	_, err := u.Write(b.result)
	return err
}

// readDsc reads a .dsc of an accepted item, whose signature reviewd verified.
func readDsc(data []byte) (*upload.Dsc, error) {
	return upload.ParseDsc("dsc", paper.Text(data))
}

// lacking returns the build-dependencies that the tree's archive cannot
// satisfy. What is called build-essential or debhelper is always there.
func lacking(tree, suite, arch string, dsc *upload.Dsc) (policy.Relations, error) {
	root, err := filepath.EvalSymlinks(tree)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if arch == "all" {
		arch = "amd64"
	}
	deps, err := policy.ParseRelations(dsc.Stanza.Get("Build-Depends"))
	if err != nil {
		return nil, err
	}
	extra, err := policy.ParseRelations(os.Getenv("PACKMILL_EXTRA_DEPENDS"))
	if err != nil {
		return nil, err
	}
	deps = append(deps, extra...)
	deps = slices.DeleteFunc(deps, func(or []policy.Relation) bool { return strings.HasPrefix(or[0].Name, "debhelper") })
	a, err := archive.Open(filepath.Join(root, "archive"))
	if err != nil {
		return nil, err
	}
	files, err := a.IndexFiles(suite, arch)
	if err != nil && !errors.Is(err, archive.ErrNoSuite) {
		return nil, err
	}
	var paths []string
	for _, f := range files {
		paths = append(paths, f.Path)
	}
	base, err := filepath.Glob(filepath.Join(root, "archive/cache/base", suite, arch, "lists/*_Packages"))
	if err != nil {
		return nil, err
	}
	x, err := installability.ReadIndex(arch, append(paths, base...)...)
	if err != nil {
		return nil, err
	}
	return x.Unsatisfied(installability.FirstAlternatives(deps.For(arch,
		strings.Fields(os.Getenv("DEB_BUILD_PROFILES"))))), nil
}
