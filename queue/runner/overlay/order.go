// Package overlay is what the overlay runner does in a build's namespaces: it
// makes a root of a chroot, a layer of build-dependencies and an empty upper
// layer, installs what is missing with apt, and runs dpkg-buildpackage.
//
// Its process is a cage's warden. The programs that it runs are root or a user
// of a further user namespace, which has the ids of one build and nothing else:
// they cannot mount, and have no right over the namespaces that they are in.
package overlay

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"packmill/queue/runner/cage"
)

// Verb is the name of Run among a warden's verbs.
const Verb = "overlay"

// Order is what the runner tells the namespace. The names of directories are
// the machine's; all text is checked by the daemon.
type Order struct {
	Root     string   // the chroot's directory
	Layers   []string // directories with installed build-dependencies above Root, the uppermost first
	Ask      bool     // say which packages such a directory would have, and end
	Make     *Layer   // make such a directory and end
	Install  bool     // install the build-dependencies in the build's own layer
	Note     string   // what the log says of build-dependencies that are installed
	Upper    string   // directory for the upper layer; empty: in memory
	Size     int64    // bytes of the file system in memory; 0: half of the memory
	Sources  []string // names of the warden's files
	Source   string   // source package, for the name of the build's directory
	Dsc      string
	Path     string // build directory; empty: /build/<source>
	Suite    string
	Binary   string // dpkg-buildpackage's -b, -B or -A
	Profiles []string
	Env      []string
	Network  bool              // leave it on in maintainer scripts and the build
	Update   bool              // apt-get update
	List     string            // apt lines of further repositories
	Pin      string            // of the one of them that the build is for; empty: none
	Keys     map[string]string // path in the chroot: key
	Archives []string          // local archives to mount, by number
	Depends  string            // build-dependencies, first alternatives only
	Conflict string
	Changes  string // text before the changelog, for a binNMU
	Header   string // first lines of the log
	Ccache   *Ccache
}

// Layer is what is to be in a layer beside what is below it.
type Layer struct {
	Packages []string // as Report's: nothing is installed if apt would do anything else
	Files    []string
	Exactly  bool // install these packages, and not the build-dependencies
}

// ArchiveMount is where a local archive is seen in the chroot.
func ArchiveMount(i int) string { return fmt.Sprintf("/packmill-archive%d", i) }

// BuildUID is the user inside that dpkg-buildpackage runs as.
const BuildUID = 1000

// Lines of the log, in sbuild's form.
const (
	BoxLine = "+------------------------------------------------------------------------------+"
	EndRule = "\n--------------------------------------------------------------------------------\n"
)

// section begins a part of the log.
func section(name string) {
	fmt.Printf("\n%s\n| %-77s|\n%s\n\n", BoxLine, name, BoxLine)
}

// build is a build in its namespaces.
type build struct {
	Order
	w      *cage.Warden
	report *cage.Report
	root   *os.Root // "/", which links do not lead out of
	work   string   // the source's directory
	cut    bool     // the network is off
	begin  time.Time

	cacheEnv []string // Env with the compiler cache; nil: there is none
}

// parent is where sources and results lie.
func (b *build) parent() string { return filepath.Dir(b.work) }

// Run does what an order of this verb says.
func Run(w *cage.Warden) error {
	b := &build{w: w, report: &w.Report, begin: time.Now()}
	if err := json.Unmarshal(w.Detail, &b.Order); err != nil {
		return fmt.Errorf("build order: %w", err)
	}
	if b.work = b.Path; b.work == "" {
		b.work = "/build/" + b.Source
	}
	fmt.Print(b.Header)
	if err := b.enter(); err != nil {
		return fmt.Errorf("build namespace: %w", err)
	}
	if b.Upper == "" {
		defer func() { b.report.Disk = cage.Used("/") }()
	}
	if err := b.populate(); err != nil {
		return err
	}
	if b.Ask || b.Make != nil {
		return b.makeLayer()
	}
	return b.buildPackage()
}

// makeLayer resolves the build-dependencies, or installs what a layer shall have and leaves it in the upper one.
func (b *build) makeLayer() error {
	b.report.Spent = time.Since(b.begin)
	b.sayDepends()
	if ok, err := b.install(); err != nil || !ok {
		if err == nil {
			b.summary(0, 0)
		}
		return err
	}
	return b.tidy()
}

// buildPackage installs what is missing, builds, and hands out the results.
func (b *build) buildPackage() error {
	if err := b.placeSources(); err != nil {
		return err
	}
	b.beginCache()
	b.report.Spent = time.Since(b.begin)
	b.sayDepends()
	start, ok := time.Now(), true
	if b.Install {
		var err error
		if ok, err = b.install(); err != nil {
			return err
		}
	} else if b.Header != "" {
		fmt.Println(b.Note)
	}
	installed, built := time.Since(start), time.Duration(0)
	if ok {
		start = time.Now()
		section("Build")
		if err := b.compile(); err != nil {
			return err
		}
		built = time.Since(start)
		b.countCache()
	}
	if b.report.Stage == "" {
		b.succeed()
	}
	b.summary(installed, built)
	return nil
}

// sayDepends begins the section of the build-dependencies, unless the making of
// their layer has written it.
func (b *build) sayDepends() {
	if b.Header != "" {
		section("Install package build dependencies")
		fmt.Printf("Build-Depends: %s\nBuild-Conflicts: %s\n", b.Depends, b.Conflict)
	}
}

// succeed hands the results out. The daemon sees what is missing.
func (b *build) succeed() {
	b.report.Status = "successful"
	start := time.Now()
	if err := b.results(); err != nil {
		fmt.Printf("E: results: %v\n", err)
	} else {
		b.endCache()
	}
	b.report.Spent += time.Since(start)
}

// summary is the end of the log.
func (b *build) summary(installed, built time.Duration) {
	section("Summary")
	fmt.Printf("Build-Space: %d\n", cage.Used("/")>>10)
	fmt.Printf("Build-Time: %.1f\n", built.Seconds())
	if n := b.report.Hits + b.report.Misses; n > 0 {
		fmt.Printf("Ccache: %d hits of %d, %d %%\n", b.report.Hits, n, 100*b.report.Hits/n)
	}
	fmt.Printf("Distribution: %s\n", b.Suite)
	if b.report.Stage != "" {
		fmt.Printf("Fail-Stage: %s\n", b.report.Stage)
	}
	fmt.Printf("Install-Time: %.1f\nPackage: %s\nPackage-Time: %.1f\nStatus: %s",
		installed.Seconds(), b.Source, time.Since(b.begin).Seconds(), b.report.Status)
	fmt.Printf("%sFinished at %s\n", EndRule, time.Now().UTC().Format(time.RFC3339))
}
