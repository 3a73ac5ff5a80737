//go:build system

package distribution

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"packmill/queue/quinndiff/listtest"
	"packmill/queue/runner"
)

var (
	long = flag.Int("distribution.long", 0,
		"so many real sources of this Debian release are built, built again, compared and installed: scripts/test distribution")
	budget = flag.Duration("distribution.for", 0,
		"begin nothing new after so long; the next run goes on. Builds in the background end with it. 0: to the end")
	beside = flag.Int("distribution.sbuild", 30, "of so many the outcome is compared to plain sbuild's")
	jobs   = flag.Int("distribution.jobs", 1, "builds at the same time")
)

// suite is the name that the chroots of tests have.
const suite = "sid"

// bin is where TestMain built the programs.
var bin string

func TestMain(m *testing.M) {
	runner.Reexec()
	flag.Parse()
	if *long == 0 {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "packmill-distribution-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		bin = dir
		var out []byte
		cmd := exec.Command("go", "build", "-o", dir+"/", "packmill/cmd/reviewd", "packmill/cmd/master-buildd",
			"packmill/cmd/buildd", "packmill/cmd/archived", "packmill/cmd/packmill")
		if out, err = cmd.CombinedOutput(); err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the programs:", err)
		os.Exit(1)
	}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// TestRealDistribution: a closed set of Debian's own sources goes through signed uploads, review by rule, builds and
// publication, each daemon as its account; what is built for an architecture is built once more against the result; all
// is installed by apt. None is lost: each is published, or has ended with a reason, and then plain sbuild does not build
// it either. Bits are compared to Debian's. All that was reached is kept in the tests' cache, and the next run goes on
// there, with more sources if it is told to.
func TestRealDistribution(t *testing.T) {
	if *long == 0 {
		t.Skip("long: scripts/test distribution")
	}
	if os.Getuid() != 0 {
		t.Skip("only root can run the daemons as different users")
	}
	cache := os.Getenv("PACKMILL_TEST_CACHE")
	if cache == "" {
		t.Fatal("no PACKMILL_TEST_CACHE: run scripts/test distribution")
	}
	d := openDistribution(t, cache)
	defer d.report()
	d.daemons()
	d.bring()
	d.settle("built", func(o *outcome) bool { return o.first != nil })
	d.again()
	d.settle("built against themselves", func(o *outcome) bool { return o.first != nil && (o.second != nil || !o.twice()) })
	d.stop()
	d.fsck()
	d.bits()
	if !d.over() {
		d.install()
	}
	d.plain()
	d.judge()
}

// distribution is one run, and what earlier ones left.
type distribution struct {
	*testing.T
	*mill
	dir     string // tree, chroots and all that was found out
	kept    string // sources, and what else is fetched once
	apt     []string
	lists   *lists
	chosen  []*source
	results map[string]*outcome
	end     time.Time       // zero: none
	asked   context.Context // ended when somebody asks for an end
	began   time.Time
}

// openDistribution makes what is missing.
func openDistribution(t *testing.T, cache string) *distribution {
	t.Helper()
	d := &distribution{T: t, dir: filepath.Join(cache, "distribution"), kept: filepath.Join(cache, "sources"),
		results: map[string]*outcome{}, began: time.Now()}
	if *budget > 0 {
		d.end = d.began.Add(*budget)
	}
	var stop func()
	d.asked, stop = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	t.Cleanup(stop)
	for _, dir := range []string{d.dir, d.kept, filepath.Join(d.dir, "lists")} {
		d.must(os.MkdirAll(dir, 0o755))
	}
	lists, err := filepath.Glob(filepath.Join(d.dir, "lists/lists-*/lists/*_Sources"))
	d.must(err)
	if len(lists) == 0 { // one run and the next have the same, or the set would be another
		path, _, err := listtest.Fetch(filepath.Join(d.dir, "lists"))
		d.must(err)
		lists = append(lists, path)
	}
	state := filepath.Dir(filepath.Dir(lists[0]))
	d.apt = []string{"-qq", "-o", "Dir::State::Lists=" + state + "/lists", "-o", "Dir::Cache=" + state + "/cache",
		"-o", "Dir::Etc::SourceList=" + state + "/sources.list", "-o", "Dir::Etc::SourceParts=/dev/null",
		"-o", "APT::Sandbox::User="}
	d.lists, err = readLists(lists[0], strings.Replace(lists[0], "_source_Sources", "_binary-amd64_Packages", 1))
	d.must(err)
	d.chosen = d.lists.choose(*long, d.fetch)
	if len(d.chosen) < *long {
		d.Fatalf("only %d sources are to be had", len(d.chosen))
	}
	d.mill = newMill(d)
	return d
}

func (d *distribution) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

// say tells a person who waits.
func (d *distribution) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6s  %s\n", time.Since(d.began).Round(time.Second), fmt.Sprintf(format, args...))
}

// over reports whether the time is, or somebody pressed ^C.
func (d *distribution) over() bool {
	return d.asked.Err() != nil || !d.end.IsZero() && time.Now().After(d.end)
}

// run runs a program and gives what it printed.
func run(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out[max(0, len(out)-2000):])
	}
	return string(out), err
}

func (d *distribution) sh(dir, name string, args ...string) string {
	d.Helper()
	out, err := run(dir, name, args...)
	d.must(err)
	return out
}
