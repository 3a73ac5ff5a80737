// Package metrics tells Prometheus of a tree: how long the queues are and how old what waits
// there is, how long builds took and how they ended, when suites were published and until when
// that counts, how long keys sign, which builders run, and how full the disk is.
//
// The labels are suites, architectures and states of the settings, and never packages or
// versions: how much there is to tell does not grow with the archive.
package metrics

import (
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sys/unix"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/survey"
	"packmill/queue/builders"
	"packmill/spool"
)

// Site is what is told of. Its functions may be called at any time, from several goroutines.
type Site struct {
	Tree     *spool.Tree
	Settings func() *control.Settings
	// Look is what is where, and as of when: nothing walks the tree because somebody asks.
	Look      func() ([]survey.Count, time.Time)
	Shown     func(suite string) bool // nil: every suite is
	Listeners func() int              // of events; nil: none
	Log       *slog.Logger
}

// Handler answers with the site's metrics, and those of the process.
func Handler(s *Site) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector(s), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector())
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 2,
		Timeout:             20 * time.Second,
	})
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("packmill_"+name, help, labels, nil)
}

var (
	items     = desc("items", "Packages and jobs in a state.", "suite", "arch", "state")
	oldest    = desc("oldest_item_timestamp_seconds", "When the oldest of them was let in.", "suite", "arch", "state")
	work      = desc("queue_work_seconds", "How long the builds that wait may take, by those before.", "suite", "arch")
	looked    = desc("view_timestamp_seconds", "As of when the counts are.")
	builds    = desc("builds_total", "Attempts to build, by how they ended.", "suite", "arch", "outcome")
	took      = desc("build_duration_seconds", "How long attempts took that ended with a verdict.", "suite", "arch")
	waited    = desc("build_wait_seconds", "How long jobs waited for a builder.", "suite", "arch")
	published = desc("suite_published_timestamp_seconds", "When the suite was published last.", "suite")
	valid     = desc("suite_valid_until_timestamp_seconds", "Until when apt takes what was published.", "suite")
	keyEnds   = desc("key_expires_timestamp_seconds", "When a key stops to sign; none that never does.",
		"use", "name", "fingerprint")
	builder    = desc("builder_up", "Build daemons that run.", "daemon", "builder")
	refuses    = desc("builder_refuses", "Whether a build daemon takes nothing now.", "daemon", "builder")
	diskFree   = desc("disk_free_bytes", "Free space of the tree's file system.")
	diskSize   = desc("disk_size_bytes", "Size of the tree's file system.")
	diskInodes = desc("disk_free_inodes", "Free inodes of the tree's file system.")
	reserve    = desc("disk_reserve_bytes", "Free space below which nothing is begun.")
	listeners  = desc("event_listeners", "Pages that are told of changes.")
)

// collector is one look at what the site is now.
type collector struct {
	*Site
	records *records
	papers  *papers
}

func newCollector(s *Site) *collector {
	c := &collector{Site: s, records: newRecords(s.Tree.Path(spool.LogsDir)),
		papers: &papers{releases: map[string]released{}, keys: map[string]keys{}}}
	go c.records.read() // the first time is long, where there are years of them
	return c
}

// Describe says nothing: what there is depends on the settings.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// shown reports whether a suite may be told of.
func (c *collector) shown(suite string) bool { return c.Shown == nil || c.Shown(suite) }

// kept reports whether a suite and architecture are a suite's of the settings: names of
// others come from whoever wrote a file.
func (c *collector) kept(suite, arch string) bool {
	x, ok := c.Settings().Suite(suite)
	return ok && x.Name == suite && (arch == "all" || slices.Contains(x.Architectures, arch))
}

// settled reports that of the place of an item: "" stands for where a source lies, which is of no
// architecture.
func (c *collector) settled(suite, arch string) bool {
	if arch == "" || arch == spool.SourceArch {
		x, ok := c.Settings().Suite(suite)
		return ok && x.Name == suite
	}
	return c.kept(suite, arch)
}

// Collect sends what there is to tell.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	c.counts(gauge)
	c.builds(out)
	c.suites(gauge)
	c.builders(gauge)
	c.disk(gauge)
	if c.Listeners != nil {
		gauge(listeners, float64(c.Listeners()))
	}
}

// tell sends a gauge.
type tell func(d *prometheus.Desc, v float64, labels ...string)

// seconds is a time as Prometheus has it.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func (c *collector) counts(gauge tell) {
	counts, at := c.Look()
	if !at.IsZero() {
		gauge(looked, seconds(at))
	}
	for _, n := range counts {
		if c.Tree.Named(n.State) == nil || n.Suite != "" && (!c.shown(n.Suite) || !c.settled(n.Suite, n.Arch)) {
			continue
		}
		gauge(items, float64(n.Items), n.Suite, n.Arch, n.State)
		if n.Oldest != nil {
			gauge(oldest, seconds(*n.Oldest), n.Suite, n.Arch, n.State)
		}
		if n.State == spool.NeedsBuild.Name {
			gauge(work, n.Work, n.Suite, n.Arch)
		}
	}
}

func (c *collector) builders(gauge tell) {
	daemons, err := builders.Read(c.Tree.Path(spool.BuildersDir))
	if err != nil {
		c.Log.Warn("the builders cannot be read", "err", err)
		return
	}
	seen := map[[2]string]bool{}
	for _, d := range daemons {
		// Copies of one daemon have one name.
		if name := [2]string{d.Daemon, d.Builder}; !seen[name] && len(seen) < 1000 {
			seen[name] = true
			gauge(builder, 1, d.Daemon, d.Builder)
			no := 0.0
			if d.Refuses != "" {
				no = 1
			}
			gauge(refuses, no, d.Daemon, d.Builder)
		}
	}
}

func (c *collector) disk(gauge tell) {
	gauge(reserve, float64(c.Settings().General.ReserveBytes))
	var st unix.Statfs_t
	if err := unix.Statfs(c.Tree.Root(), &st); err != nil {
		c.Log.Warn("the disk does not tell", "err", err)
		return
	}
	gauge(diskFree, float64(st.Bavail)*float64(st.Bsize))
	gauge(diskSize, float64(st.Blocks)*float64(st.Bsize))
	gauge(diskInodes, float64(st.Ffree))
}
