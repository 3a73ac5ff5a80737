package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"packmill/internal/deb822"
	"packmill/internal/durable"
)

// ReadOverrides reads a file of overrides as deb-override(5) has it: package,
// priority and section a line, "-" for what stays; "src:NAME" is a source
// package. Lines that begin with # are comments.
func ReadOverrides(name string) (map[string]Override, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	out := map[string]Override{}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		w := deb822.Words(strings.TrimRight(string(line), "\n"))
		if len(w) == 0 || strings.HasPrefix(w[0], "#") {
			continue
		}
		if len(w) < 3 {
			return nil, fmt.Errorf("%s:%d: write package, priority and section, with - for what stays", name, n)
		}
		if _, ok := out[w[0]]; ok {
			return nil, fmt.Errorf("%s:%d: %s stands here a second time; remove one line", name, n, w[0])
		}
		var o Override
		if w[1] != "-" {
			o.Priority = w[1]
		}
		if w[2] != "-" {
			o.Section = w[2]
		}
		out[w[0]] = o
	}
	return out, nil
}

// WriteOverride changes or adds one line of such a file and leaves the others
// as they are. What o does not say stays as the line has it.
func WriteOverride(name, pkg string, o Override) error {
	data, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	var out bytes.Buffer
	done := false
	for line := range bytes.Lines(data) {
		if w := deb822.Words(strings.TrimRight(string(line), "\n")); len(w) >= 3 && w[0] == pkg && !done {
			if o.Priority == "" {
				o.Priority = w[1]
			}
			if o.Section == "" {
				o.Section = w[2]
			}
			fmt.Fprintf(&out, "%s\t%s\t%s\n", pkg, o.Priority, o.Section)
			done = true
			continue
		}
		out.Write(line)
	}
	if !done {
		if b := out.Bytes(); len(b) > 0 && b[len(b)-1] != '\n' {
			out.WriteByte('\n')
		}
		fmt.Fprintf(&out, "%s\t%s\t%s\n", pkg, dash(o.Priority), dash(o.Section))
	}
	return durable.WriteFile(name, out.Bytes(), 0o644)
}
