package buildlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"packmill/internal/durable"
)

// Store is the cold store of logs: a directory for each day, in it one for
// each suite, and there
//
//	SOURCE_VERSION_ARCH_TIME_OUTCOME.zst   a log, compressed
//	builds                                 a line of JSON for each build, a Build
//
// Day and time are those of the build's beginning, in UTC; the colon of an
// epoch is written %3a. The names say enough to choose logs without opening
// them. Whoever may write there may add; nobody decides by it.
type Store struct{ Dir string }

const (
	dayForm  = "2006-01-02"
	timeForm = "150405.000000Z"
)

// Keep compresses the log at src into the store, notes in b its size and name
// there, and adds b to the day's record. A log that is there already, of the same
// attempt, is replaced. src stays. After an error about the log the record is
// written all the same, without a log.
func (s Store) Keep(src string, b *Build) error {
	dir := filepath.Join(s.Dir, b.Start.UTC().Format(dayForm), b.Suite)
	if err := durable.MkdirAll(dir, 0o775); err != nil {
		return err
	}
	name := strings.Join([]string{b.Source, strings.ReplaceAll(b.Version, ":", "%3a"), b.Arch,
		b.Start.UTC().Format(timeForm), b.Outcome}, "_") + Suffix
	size, _, logErr := Compress(filepath.Join(dir, name), src)
	if logErr == nil {
		b.Size, b.Log = size, filepath.Join(b.Start.UTC().Format(dayForm), b.Suite, name)
	}
	if errors.Is(logErr, fs.ErrNotExist) {
		logErr = nil // there was none
	}
	line, err := b.line()
	if err == nil {
		err = durable.Append(filepath.Join(dir, BuildsFile), line, 0o664)
	}
	return errors.Join(logErr, err)
}

// Filter says which builds are meant. Empty fields mean all.
type Filter struct {
	Source, Version string // of a version without +bN, the binNMUs too
	Suite, Arch     string
	Since           time.Time
	Before          time.Time
	Outcomes        []string
}

// Match reports whether the filter means the build.
func (f *Filter) Match(b *Build) bool {
	return (f.Source == "" || f.Source == b.Source) &&
		(f.Version == "" || f.Version == b.Version || strings.HasPrefix(b.Version, f.Version+"+b")) &&
		(f.Suite == "" || f.Suite == b.Suite) && (f.Arch == "" || f.Arch == b.Arch) &&
		!b.Start.Before(f.Since) && (f.Before.IsZero() || b.Start.Before(f.Before)) &&
		(len(f.Outcomes) == 0 || slices.Contains(f.Outcomes, b.Outcome))
}

// Logs lists the logs that the filter means, the newest first, by their names:
// of each Build it knows Source, Version, Suite, Arch, Start, Outcome and Log. A
// store that is not there is empty.
func (s Store) Logs(f Filter) ([]Build, error) {
	var out []Build
	err := s.days(f, func(day, suite, dir string) error {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if b, ok := parseName(day, suite, e.Name()); ok && f.Match(&b) {
				out = append(out, b)
			}
		}
		return nil
	})
	slices.SortStableFunc(out, func(a, b Build) int { return b.Start.Compare(a.Start) })
	return out, err
}

// parseName reads the name of a log.
func parseName(day, suite, name string) (Build, bool) {
	base, ok := strings.CutSuffix(name, Suffix)
	w := strings.Split(base, "_")
	if !ok || len(w) != 5 || strings.HasPrefix(name, ".") {
		return Build{}, false
	}
	start, err := time.Parse(dayForm+timeForm, day+w[3])
	if err != nil {
		return Build{}, false
	}
	return Build{Source: w[0], Version: strings.ReplaceAll(w[1], "%3a", ":"), Suite: suite, Arch: w[2], Start: start,
		Outcome: w[4],
		Log:     filepath.Join(day, suite, name)}, true
}

// days calls do for each directory of a suite and day that the filter means,
// the newest day first. Its end is do's error, or that of reading the store.
func (s Store) days(f Filter, do func(day, suite, dir string) error) error {
	days, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, d := range slices.Backward(days) {
		day, err := time.Parse(dayForm, d.Name())
		if err != nil || day.AddDate(0, 0, 1).Before(f.Since) || !f.Before.IsZero() && !day.Before(f.Before) {
			continue
		}
		suites, err := os.ReadDir(filepath.Join(s.Dir, d.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, x := range suites {
			if f.Suite != "" && f.Suite != x.Name() || !x.IsDir() {
				continue
			}
			err := do(d.Name(), x.Name(), filepath.Join(s.Dir, d.Name(), x.Name()))
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // swept meanwhile
				return err
			}
		}
	}
	return nil
}

// errEnough ends a walk.
var errEnough = errors.New("enough")

// Builds calls each for the builds that the filter means, of each suite the
// newest first, until it returns false.
func (s Store) Builds(f Filter, each func(*Build) bool) error {
	var mark []byte // in every line that can match: most lines are not parsed
	if f.Source != "" {
		mark = fmt.Appendf(nil, `"source":%q,`, f.Source)
	}
	err := s.days(f, func(_, _, dir string) error {
		data, err := os.ReadFile(filepath.Join(dir, BuildsFile))
		if err != nil {
			return err
		}
		for len(data) > 0 {
			i := bytes.LastIndexByte(data[:len(data)-1], '\n') + 1
			line := data[i:]
			data = data[:i]
			if mark != nil && !bytes.Contains(line, mark) {
				continue
			}
			var b Build
			if json.Unmarshal(line, &b) == nil && b.Source != "" && f.Match(&b) && !each(&b) {
				return errEnough
			}
		}
		return nil
	})
	if err == errEnough {
		return nil
	}
	return err
}

// Path is where a log of the store lies: its name is Build.Log.
func (s Store) Path(log string) string { return filepath.Join(s.Dir, log) }

// Sweep removes the logs of builds that began before a time, and what
// compressions of dead processes left. The records of builds stay: estimates
// come from them. It returns how many logs it removed.
func (s Store) Sweep(before time.Time) (int, error) {
	n := 0
	err := s.days(Filter{}, func(day, suite, dir string) error {
		if day > before.UTC().Format(dayForm) {
			return nil
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			b, ok := parseName(day, suite, e.Name())
			old := ok && b.Start.Before(before)
			if !ok && strings.HasPrefix(e.Name(), ".") {
				info, err := e.Info()
				old = err == nil && info.ModTime().Before(before)
			}
			if !old {
				continue
			}
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if ok {
				n++
			}
		}
		return nil
	})
	return n, err
}
