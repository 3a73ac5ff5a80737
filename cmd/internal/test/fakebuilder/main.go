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
//	          RELATION", "trouble", "sleep 2s", "forge", "also PACKAGE", "print FILE" (its
//	          bytes), "wait FILE" (until it is there)
//	builds    a line for each beginning and each end of a build
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/archive"
	"packmill/internal/deb/debtest"
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
	home, err := os.Executable()
	if err != nil {
		return 0, err
	}
	home = filepath.Dir(home)
	data, err := os.ReadFile(os.Getenv("PACKMILL_DSC"))
	if err != nil {
		return 0, err
	}
	dsc, err := readDsc(data)
	if err != nil {
		return 0, err
	}
	arch, suite, result := os.Getenv("PACKMILL_ARCH"), os.Getenv("PACKMILL_SUITE"), os.Getenv("PACKMILL_RESULT")
	id := fmt.Sprintf("%s_%s_%s", dsc.Source, dsc.Version, arch)
	note := func(what string) error {
		line := fmt.Sprintf("%s %s %s %d\n", time.Now().UTC().Format(time.RFC3339Nano), what, id, os.Getpid())
		return durable.Append(filepath.Join(home, "builds"), []byte(line), 0o644)
	}
	if err := note("begin"); err != nil {
		return 0, err
	}
	defer note("end")
	fmt.Println("building", id, "for", suite, "with", "profiles="+os.Getenv("DEB_BUILD_PROFILES"), "options="+os.Getenv("DEB_BUILD_OPTIONS"))
	version := dsc.Version
	if n := os.Getenv("PACKMILL_BINNMU"); n != "" {
		version += "+b" + n
	}
	forge, depends := false, ""
	var also []string
	orders, _ := os.ReadFile(filepath.Join(home, "script", strings.ReplaceAll(id, ":", "%3a")))
	for line := range strings.Lines(string(orders)) {
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch verb {
		case "fail":
			fmt.Println("error:", rest)
			return attempted, nil
		case "trouble":
			return trouble, nil
		case "dep-wait":
			return missing, os.WriteFile(filepath.Join(result, "dep-wait"), []byte(rest+"\n"), 0o644)
		case "hold":
			for held := error(nil); held == nil; time.Sleep(10 * time.Millisecond) {
				_, held = os.Stat(filepath.Join(home, "hold"))
			}
		case "print":
			f, err := os.Open(rest)
			if err != nil {
				return 0, err
			}
			_, err = io.Copy(os.Stdout, f)
			if err = errors.Join(err, f.Close()); err != nil {
				return 0, err
			}
		case "sleep":
			d, err := time.ParseDuration(rest)
			if err != nil {
				return 0, err
			}
			time.Sleep(d)
		case "wait":
			for {
				if _, err := os.Lstat(rest); err == nil {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
		case "forge":
			forge = true
		case "also":
			also = append(also, rest)
		case "depends":
			depends = "Depends: " + rest + "\n"
		}
	}
	if lacks, err := lacking(filepath.Join(home, "tree"), suite, arch, dsc); err != nil {
		return 0, err
	} else if len(lacks) > 0 {
		fmt.Println("missing:", lacks)
		var text string
		for _, l := range lacks {
			text += policy.Relations{l}.String() + "\n"
		}
		return missing, os.WriteFile(filepath.Join(result, "dep-wait"), []byte(text), 0o644)
	}
	u := debtest.Upload{Source: debtest.Source{Name: dsc.Source, Version: dsc.Version}, NoSource: true, Distribution: suite}
	for _, b := range append(dsc.Binary, also...) {
		d := debtest.Deb{Name: b, Version: version, Arch: arch, Packing: "gz", Fields: depends}
		if b != dsc.Source || version != dsc.Version {
			d.Source = dsc.Source
			if version != dsc.Version {
				d.Source += " (" + dsc.Version + ")"
			}
		}
		u.Debs = append(u.Debs, d)
	}
	if forge {
		u.Source.Name = "another"
	}
	if version != dsc.Version {
		u.Source.Version, u.Of = version, dsc.Version
	}
	_, err = u.Write(result)
	return good, err
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
	return x.Unsatisfied(installability.FirstAlternatives(deps.For(arch, strings.Fields(os.Getenv("DEB_BUILD_PROFILES"))))), nil
}
