package metrics

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"packmill/internal/regular"
	"packmill/queue/buildlog"
	"packmill/queue/runner"
)

// The records of builds are kept for ever, so what is counted of them goes on where it was when
// statusd is started again, and Prometheus sees no reset.

// minute and the rest are the bounds of the histograms, in seconds.
const minute, hour = 60.0, 3600.0

var bounds = []float64{30, minute, 2 * minute, 5 * minute, 10 * minute, 20 * minute, 40 * minute, 80 * minute, 3 * hour,
	6 * hour, 12 * hour, 24 * hour}

// verdicts are the outcomes that say something of the package; the others' length says nothing.
var verdicts = []string{runner.Good.String(), runner.Attempted.String()}

// outcomes are all that there are.
var outcomes = []string{runner.Good.String(), runner.Attempted.String(), runner.GiveBack.String(),
	runner.DepWait.String(), runner.Uninstallable.String(), runner.Quarantined.String(), buildlog.Lost, buildlog.Cancelled}

// maxWheres bounds what is counted of suites and architectures that the settings may not have.
const maxWheres = 10_000

// where is a suite and an architecture.
type where struct{ suite, arch string }

// histogram counts in bounds, each with those below it.
type histogram struct {
	count  uint64
	sum    float64
	within []uint64
}

func (h *histogram) add(v float64) {
	if h.within == nil {
		h.within = make([]uint64, len(bounds))
	}
	h.count++
	h.sum += v
	for i, b := range bounds {
		if v <= b {
			h.within[i]++
		}
	}
}

func (h *histogram) metric(d *prometheus.Desc, at where) prometheus.Metric {
	buckets := make(map[float64]uint64, len(bounds))
	for i, n := range h.within {
		buckets[bounds[i]] = n
	}
	return prometheus.MustNewConstHistogram(d, h.count, h.sum, buckets, at.suite, at.arch)
}

// records is what the store of logs has of builds, as far as it was read.
type records struct {
	dir string

	ready atomic.Bool // all was read once

	mu    sync.Mutex
	ends  map[string]int64 // of files, how far they were read
	ended map[where]map[string]uint64
	took  map[where]*histogram
	wait  map[where]*histogram
}

func newRecords(dir string) *records {
	return &records{dir: dir, ends: map[string]int64{}, ended: map[where]map[string]uint64{}, took: map[where]*histogram{},
		wait: map[where]*histogram{}}
}

// read takes in what was added since the last time: a day's directory has a directory of each
// suite, and that a file to which lines are appended.
func (r *records) read() {
	r.mu.Lock()
	defer r.mu.Unlock()
	files, err := filepath.Glob(filepath.Join(r.dir, "????-??-??", "*", buildlog.BuildsFile))
	if err != nil {
		return
	}
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil || st.Size() == r.ends[f] {
			continue
		}
		data, err := since(f, r.ends[f])
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue // the next look may read it
		}
		whole := bytes.LastIndexByte(data, '\n') + 1
		r.ends[f] += int64(whole)
		for line := range bytes.Lines(data[:whole]) {
			var b buildlog.Build
			if json.Unmarshal(line, &b) == nil {
				r.add(&b)
			}
		}
	}
	r.ready.Store(true)
}

// since is a file from an offset on.
func since(path string, from int64) ([]byte, error) {
	f, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}

func (r *records) add(b *buildlog.Build) {
	if !slices.Contains(outcomes, b.Outcome) {
		return
	}
	at := where{b.Suite, b.Arch}
	if r.ended[at] == nil {
		if len(r.ended) >= maxWheres {
			return
		}
		r.ended[at], r.took[at], r.wait[at] = map[string]uint64{}, &histogram{}, &histogram{}
	}
	r.ended[at][b.Outcome]++
	r.wait[at].add(b.Wait)
	if slices.Contains(verdicts, b.Outcome) {
		r.took[at].add(b.Wall)
	}
}

// builds sends what is counted of builds, once all of it is.
func (c *collector) builds(out chan<- prometheus.Metric) {
	r := c.records
	if !r.ready.Load() {
		return // the first reading goes on
	}
	r.read()
	r.mu.Lock()
	defer r.mu.Unlock()
	for at, ended := range r.ended {
		// What is counted is all there is: the settings may show a suite tomorrow, or hide it.
		if !c.shown(at.suite) || !c.kept(at.suite, at.arch) {
			continue
		}
		for _, o := range outcomes {
			out <- prometheus.MustNewConstMetric(builds, prometheus.CounterValue, float64(ended[o]), at.suite, at.arch, o)
		}
		out <- r.took[at].metric(took, at)
		out <- r.wait[at].metric(waited, at)
	}
}
