package control

import (
	"strconv"
	"strings"
)

// Stanza is one stanza as it is in force: what is written in it, and the defaults of what is not.
type Stanza struct {
	File   string  `json:"file"` // suites, builders ...
	Fields []Field `json:"fields"`
}

// Field is one setting.
type Field struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	Default bool   `json:"default,omitempty"` // nobody wrote it
}

// String is the stanza as a file has it, its defaults as comments.
func (s *Stanza) String() string {
	var b strings.Builder
	for _, f := range s.Fields {
		if f.Default {
			b.WriteString("# ")
		}
		b.WriteString(f.Name + ":")
		if !strings.Contains(f.Value, "\n") {
			b.WriteString(" ")
		}
		b.WriteString(strings.ReplaceAll(f.Value, "\n", "\n ") + "\n")
	}
	return b.String()
}

// note keeps what a field is in force as; a later note of the same field counts.
func (r *reader) note(name, value string, written bool) {
	for i := range r.shown {
		if r.shown[i].Name == name {
			r.shown[i] = Field{name, value, !written}
			return
		}
	}
	r.shown = append(r.shown, Field{name, value, !written})
}

// stanza is what was noted, but for fields that are not there and have no default.
func (r *reader) stanza(file string) Stanza {
	st := Stanza{File: file}
	for _, f := range r.shown {
		if f.Value != "" {
			st.Fields = append(st.Fields, f)
		}
	}
	return st
}

// sizeText is how a file has a number of bytes.
func sizeText(n int64) string {
	for i, word := range []string{"T", "G", "M", "K"} {
		if unit := int64(1) << (10 * (4 - i)); n >= unit && n%unit == 0 {
			return strconv.FormatInt(n/unit, 10) + word
		}
	}
	return strconv.FormatInt(n, 10)
}
