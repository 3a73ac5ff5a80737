// Bench measures Packmill beside the raw system calls or the programs that do
// the same work, in one run on one machine, and says which goals are met.
//
//	scripts/bench [AREA ...] [--json] [--dir DIR] [--packages N,...] [--architectures ARCH,...] [--ssh N]
//	              [--build-time TIME] [--patience TIME]
//
// Without an area all are measured. --json prints one object a line: name,
// value, unit, versus (what it is beside), ratio, goal, met. DIR is on the file
// system that is measured (default: the directory for temporary files). N is how
// many packages the archive's figures are of, how many sources the distribution's, and how many real ones the area
// sources builds. A program beside us that takes longer than TIME is stopped, and its line says so. A goal that is not
// met stays in the list as not met. --help says what the archive's figures compare.
//
// An area is a function in a file of its own, named in areas below:
//
//	func intake(b *bench) error {
//		...
//		b.figure(Figure{Name: "intake.uploads", Value: perSecond, Unit: "1/s",
//			Versus: "sha256sum of the same files", Ratio: r, Goal: "ratio >= 0.5", Met: r >= 0.5})
//
// Exit status: 0 measured, whether goals were met or not; 1 an area could not
// be measured; 100 wrong use.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"packmill/queue/runner"

	"github.com/alecthomas/kong"
)

// An area is a part of the system and the function that measures it.
type area struct {
	name    string
	measure func(*bench) error
}

var areas = []area{
	{"engine", engine},
	{"intake", intake},
	{"build", buildFigures},
	{"sources", sourcesFigures},
	{"farm", farmFigures},
	{"archive", archiveFigures},
	{"queue", queueFigures},
	{"pages", pageFigures},
	{"distribution", distributionFigures},
}

// A Figure is one line of the result.
type Figure struct {
	Name   string  `json:"name"` // area.what
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Versus string  `json:"versus"` // what it is beside; empty: an absolute goal
	Ratio  float64 `json:"ratio"`  // to that; 0: there is none
	Goal   string  `json:"goal"`   // empty: none
	Met    bool    `json:"met"`    // true if there is no goal
}

// A bench is one run: where to work and where figures go.
type bench struct {
	dir  string // empty, removed afterwards
	emit func(Figure)

	packages      []int
	architectures []string
	days          int           // of the distribution's month
	buildTime     time.Duration // of its average build
	patience      time.Duration
	sessions      int
}

// sizes are what --packages says, or these.
func (b *bench) sizes(or ...int) []int {
	if len(b.packages) > 0 {
		return b.packages
	}
	return or
}

// figure gives out a result as soon as it is known.
func (b *bench) figure(f Figure) {
	if f.Goal == "" {
		f.Met = true
	}
	b.emit(f)
}

// progress tells a person what takes time now.
func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

type flags struct {
	Areas []string `arg:"" optional:"" name:"area" help:"What to measure: ${areas}. All if none is named."`
	JSON  bool     `name:"json" help:"One JSON object a line."`
	Dir   string   `help:"Where to work: on the file system that is measured." placeholder:"DIR"`

	Packages  []int         `help:"${sizes}" placeholder:"N"`
	Archs     []string      `name:"architectures" help:"The distribution's." default:"${archs}" placeholder:"ARCH"`
	SSH       int           `name:"ssh" help:"In the area farm also so many idle builders by real ssh (as root)." placeholder:"N"`
	BuildTime time.Duration `help:"How long the distribution's average build takes from nothing: each as the size of its source." placeholder:"TIME"`

	Patience time.Duration `help:"How long a program beside us may take." default:"3m"`
}

func main() {
	runner.Reexec()
	for _, process := range []func([]string) (bool, error){accountProcess, archiveProcess, listProcess} {
		if done, err := process(os.Args[1:]); done {
			if err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
				os.Exit(1)
			}
			return
		}
	}
	var names []string
	for _, a := range areas {
		names = append(names, a.name)
	}
	var f flags
	k, err := kong.New(&f, kong.Name("bench"),
		kong.Description("Measure Packmill beside the raw system calls or the programs that do the same work.\n\n"+compared),
		kong.Vars{"areas": strings.Join(names, ", "),
			"sizes": "How many packages the archive's figures are of (1000,10000,63440), the distribution's sources " +
				"(1000), or the real ones that are built (20).",
			"archs": "amd64,arm64,armel,armhf,i386,mips64el,mipsel,ppc64el,s390x"})
	if err == nil {
		_, err = k.Parse(os.Args[1:])
	}
	for _, a := range f.Areas {
		if err == nil && !slices.Contains(names, a) {
			err = fmt.Errorf("no area %q; there are: %s", a, strings.Join(names, ", "))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(100)
	}
	if err := run(os.Stdout, &f); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures the areas one after the other; one that fails does not stop
// the rest.
func run(w io.Writer, f *flags) error {
	var failed error
	line := func(name, value, unit, versus, ratio, goal, met string) {
		text := fmt.Sprintf("%-42s  %8s  %-12s  %-24s  %5s  %-14s  %s", name, value, unit, versus, ratio, goal, met)
		fmt.Fprintln(w, strings.TrimRight(text, " "))
	}
	if !f.JSON {
		line("FIGURE", "VALUE", "UNIT", "VERSUS", "RATIO", "GOAL", "MET")
	}
	emit := func(g Figure) {
		if f.JSON {
			line, _ := json.Marshal(g) // a Figure of finite numbers always can be
			fmt.Fprintf(w, "%s\n", line)
			return
		}
		ratio, met := "", "no"
		if g.Ratio != 0 {
			ratio = fmt.Sprintf("%.2f", g.Ratio)
		}
		if g.Met {
			met = "yes"
		}
		if g.Goal == "" {
			met = ""
		}
		line(g.Name, fmt.Sprintf("%.4g", g.Value), g.Unit, g.Versus, ratio, g.Goal, met)
	}
	for _, a := range areas {
		if len(f.Areas) > 0 && !slices.Contains(f.Areas, a.name) {
			continue
		}
		dir, err := os.MkdirTemp(f.Dir, "packmill-bench-")
		if err != nil {
			return err
		}
		b := &bench{dir: dir, emit: emit, packages: f.Packages, architectures: f.Archs, days: 30,
			buildTime: f.BuildTime, patience: f.Patience, sessions: f.SSH}
		start := time.Now()
		err = a.measure(b)
		b.progress("%s: %s", a.name, time.Since(start).Round(100*time.Millisecond))
		if rerr := os.RemoveAll(dir); err == nil {
			err = rerr
		}
		if err != nil {
			failed = fmt.Errorf("%s: %w", a.name, err)
			fmt.Fprintln(os.Stderr, "bench:", failed)
		}
	}
	return failed
}
