package buildlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"packmill/internal/clean"
	"packmill/internal/durable"
	"packmill/internal/regular"
)

// The files of an item that tell of its builds.
const (
	LogFile        = "log"         // of the last attempt, plain, as it is written; earlier ones are log.1 and so on
	BuildsFile     = "builds"      // a line of JSON for each attempt, a Build
	FirstErrorFile = "first-error" // of a failed one: FirstError.Lines, escaped
)

// Outcomes beside those of package build.
const (
	Good      = "good"      // runner.Good
	Attempted = "attempted" // runner.Attempted
	Lost      = "lost"      // its builder died
	Cancelled = "cancelled" // a person ended it
	Running   = "running"   // it has not ended; only in lists
)

// Build is one attempt to build a package: what it was, what came of it and
// what it took. It is a line of JSON in the item (BuildsFile) and in the cold
// store. Seconds are fractions, sizes are bytes; zero is unknown.
type Build struct {
	Source  string    `json:"source"`
	Version string    `json:"version"` // of the binaries: with +bN
	Suite   string    `json:"suite"`
	Arch    string    `json:"arch"`
	Builder string    `json:"builder,omitempty"`
	Start   time.Time `json:"start"` // when a builder took it
	Outcome string    `json:"outcome"`
	Reason  string    `json:"reason,omitempty"`

	Wait     float64 `json:"wait_s"` // between needs-build and Start
	Wall     float64 `json:"wall_s"` // between Start and the end
	CPU      float64 `json:"cpu_s"`  // user and system
	Overhead float64 `json:"overhead_s"`
	Memory   int64   `json:"memory"` // highest use
	Disk     int64   `json:"disk"`   // highest use
	Size     int64   `json:"log_size"`

	// Of what was compiled, as the build says, what its compiler cache had and what it had not.
	CacheHits   int64 `json:"ccache_hits,omitempty"`
	CacheMisses int64 `json:"ccache_misses,omitempty"`

	Error *FirstError `json:"error,omitempty"` // without its surroundings
	Log   string      `json:"log,omitempty"`   // in the cold store; "" where it could not be kept
}

// ID is the package as people say it.
func (b *Build) ID() string { return b.Source + "_" + b.Version }

// CacheRate says how often the compiler cache had what was compiled, such as "12 of 30, 40 %"; "": it was not asked.
func (b Build) CacheRate() string {
	n := b.CacheHits + b.CacheMisses
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d, %d %%", b.CacheHits, n, 100*b.CacheHits/n)
}

// line is the build as a line of JSON.
func (b *Build) line() ([]byte, error) {
	c := *b
	if c.Error != nil {
		c.Error = &FirstError{Kind: c.Error.Kind, Line: c.Error.Line, Text: c.Error.Text}
	}
	data, err := json.Marshal(&c)
	if err != nil {
		return nil, fmt.Errorf("record of a build: %w", err)
	}
	return append(data, '\n'), nil
}

// AddTo appends the build to the record of the item that lies at dir.
func (b *Build) AddTo(dir string) error {
	line, err := b.line()
	if err != nil {
		return err
	}
	return durable.Append(filepath.Join(dir, BuildsFile), line, 0o664)
}

// maxRecord bounds what is read of an item's record.
const maxRecord = 4 << 20

// Builds reads the record of an item, oldest first. A root stays the item's
// when the item is moved. A missing record is an empty one; lines that are torn are
// passed over.
func Builds(item *os.Root) ([]Build, error) {
	data, err := small(item, BuildsFile)
	if err != nil {
		return nil, err
	}
	var out []Build
	for line := range bytes.Lines(data) {
		var b Build
		if json.Unmarshal(line, &b) == nil && b.Source != "" {
			out = append(out, b)
		}
	}
	return out, nil
}

// BuildsAt is Builds of the item that lies at dir.
func BuildsAt(dir string) ([]Build, error) {
	item, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer item.Close()
	return Builds(item)
}

// small reads a file of an item; a missing one is empty.
func small(item *os.Root, name string) ([]byte, error) {
	f, err := regular.OpenRoot(item, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxRecord))
}

// FindIn is Find of the log at path, compressed or not.
func FindIn(path string) (*FirstError, error) {
	r, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return Find(r)
}

// Lines is the error with its surroundings for people, escaped: a headline,
// then the lines of the log, the one that counts marked with ">".
func (e *FirstError) Lines() string {
	var b strings.Builder
	fmt.Fprintf(&b, "first error (%s), line %d of the log:\n", e.Kind, e.Line)
	for _, l := range e.Before {
		fmt.Fprintf(&b, "    %s\n", strings.TrimRight(l, " \t"))
	}
	fmt.Fprintf(&b, "  > %s\n", e.Text)
	for _, l := range e.After {
		fmt.Fprintf(&b, "    %s\n", strings.TrimRight(l, " \t"))
	}
	if hint := e.Hint(); hint != "" {
		fmt.Fprintf(&b, "%s: what it fetches must come with the source or from a build-dependency (Build-Network: "+
			"yes of the suite allows it)\n", hint)
	}
	return b.String()
}

// Hint says what the error's line does not: why it is one here. "" if there is nothing.
func (e *FirstError) Hint() string {
	if e.Kind == "network" {
		return "builds have no network"
	}
	return ""
}

// ErrorAt reads the first error of the item that lies at dir, as Lines writes
// it and escaped once more: "" if there is none.
func ErrorAt(dir string) string {
	item, err := os.OpenRoot(dir)
	if err != nil {
		return ""
	}
	defer item.Close()
	data, err := small(item, FirstErrorFile)
	if err != nil {
		return ""
	}
	return string(clean.Escape(nil, data))
}

// Before begins the line in which a log tells of the failure of a version before: what it
// says then is not of this build.
const Before = "Packmill: a version before did not build here"
