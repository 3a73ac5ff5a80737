package runner

import (
	"bytes"
	"strings"

	"packmill/internal/pattern"
	"packmill/queue/runner/overlay"
)

// footer is the last section of sbuild's log: "Key: value" lines below a box
// with the word Summary.
type footer map[string]string

// summaryBox is the heading; from Debian 13's sbuild on it bears the time.
var summaryBox = pattern.Lazy(`^\n\Q` + overlay.BoxLine + `\E\n\| Summary {38}(?: {31}|[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} [+-][0-9]{4}) \|\n\Q` + overlay.BoxLine + `\E\n\n`)

// parseFooter reads the summary at the end of a log of sbuild. What a build
// prints comes before it, so only the last box counts, and only if nothing
// but the summary and sbuild's closing lines follow. ok is false for a log
// that ends otherwise, as that of a killed sbuild.
func parseFooter(log []byte) (f footer, ok bool) {
	i := bytes.LastIndex(log, []byte("\n"+overlay.BoxLine+"\n| Summary "))
	if i < 0 {
		return nil, false
	}
	box := summaryBox().Find(log[i:])
	if box == nil {
		return nil, false
	}
	body, closing, found := strings.Cut(string(log[i+len(box):]), overlay.EndRule)
	if !found {
		return nil, false
	}
	f = footer{}
	for _, line := range strings.Split(body, "\n") {
		key, value, ok := strings.Cut(line, ": ")
		if !ok || key == "" || strings.Trim(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-") != "" &&
			strings.Trim(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz- ") != "" {
			return nil, false
		}
		if _, twice := f[key]; twice {
			return nil, false
		}
		f[key] = value
	}
	// "Finished at TIME", "Build needed TIME, SIZE disk space", and after a
	// signal lines of sbuild's own.
	lines := strings.Split(strings.TrimRight(closing, "\n"), "\n")
	if len(lines) == 0 || len(lines) > 10 || !strings.HasPrefix(lines[0], "Finished at ") {
		return nil, false
	}
	return f, true
}
