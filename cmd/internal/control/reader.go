package control

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"packmill/internal/deb822"
	"packmill/internal/near"
)

// reader takes the fields of one stanza and remembers which it took, so that a
// misspelt one does not pass in silence.
type reader struct {
	st    *deb822.Stanza
	used  map[string]string // lower case -> as written in the code
	shown []Field
	errs  []error
}

func (r *reader) fail(field, format string, args ...any) {
	r.errs = append(r.errs, r.st.Errorf(field, format, args...))
}

func (r *reader) str(name, def string) string {
	r.used[strings.ToLower(name)] = name
	if f, ok := r.st.Lookup(name); ok {
		r.note(name, strings.TrimRight(f.Value, " \t\n"), true)
		return strings.TrimSpace(f.Value)
	}
	r.note(name, def, false)
	return def
}

func (r *reader) check(name, value string, check func(string) error) {
	if check == nil {
		return
	}
	if err := check(value); err != nil {
		r.fail(name, "%v", err)
	}
}

func (r *reader) need(name string, check func(string) error) string {
	v := r.str(name, "")
	if v == "" {
		r.fail(name, "the stanza has no %s", name)
		return v
	}
	r.check(name, v, check)
	return v
}

func (r *reader) words(name string, def []string, check func(string) error) []string {
	v := deb822.Words(r.str(name, ""))
	if len(v) == 0 {
		r.note(name, strings.Join(def, " "), false)
		return def
	}
	for _, w := range v {
		r.check(name, w, check)
	}
	return v
}

func (r *reader) commas(name string, def []string) []string {
	var out []string
	for p := range strings.SplitSeq(r.str(name, ""), ",") {
		if p = strings.Join(deb822.Words(p), " "); p != "" {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		r.note(name, strings.Join(def, ", "), false)
		return def
	}
	return out
}

func (r *reader) lines(name string) []string {
	var out []string
	for l := range strings.SplitSeq(r.str(name, ""), "\n") {
		if l = strings.TrimSpace(l); l != "" {
			out = append(out, l)
		}
	}
	return out
}

// pairs reads words of the form a=b, between blanks, commas or both.
func (r *reader) pairs(name, form string) map[string]string {
	out := map[string]string{}
	for _, w := range deb822.Words(strings.ReplaceAll(r.str(name, ""), ",", " ")) {
		k, v, ok := strings.Cut(w, "=")
		if !ok || k == "" || v == "" {
			r.fail(name, "%q: write %s", w, form)
			continue
		}
		if was, twice := out[k]; twice {
			r.fail(name, "%s is there as %s and as %s; write it once", k, was, v)
		}
		out[k] = v
	}
	return out
}

func (r *reader) one(name, def string, of ...string) string {
	v := r.str(name, def)
	r.check(name, v, oneOf(of...))
	return v
}

func oneOf(of ...string) func(string) error {
	return func(v string) error {
		if slices.Contains(of, v) {
			return nil
		}
		return errors.New(strconv.Quote(v) + " is not known; use " + strings.Join(of, " or "))
	}
}

func (r *reader) yes(name string, def bool) bool {
	d := "no"
	if def {
		d = "yes"
	}
	return r.one(name, d, "yes", "no") == "yes"
}

func (r *reader) number(name string, def, low, high int64) int64 {
	v := r.str(name, "")
	if v == "" {
		r.note(name, strconv.FormatInt(def, 10), false)
		return def
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < low || n > high {
		r.fail(name, "%q is not a whole number from %d to %d", v, low, high)
		return def
	}
	return n
}

// span reads a time such as 90s, 30m, 12h, 7d or 2w.
func (r *reader) span(name string, def time.Duration) time.Duration {
	v := r.str(name, "")
	if v == "" {
		r.note(name, spanText(def), false)
		return def
	}
	d, err := Span(v)
	if err != nil {
		r.fail(name, "%v", err)
		return def
	}
	return d
}

// Span reads a time such as 90s, 30m, 12h, 7d or 2w. Its error is a sentence
// for people.
func Span(v string) (time.Duration, error) {
	var unit time.Duration
	if v != "" {
		unit = map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': day, 'w': 7 * day}[v[len(v)-1]]
	}
	if unit == 0 {
		return 0, fmt.Errorf("%q is not a time; write a number and s, m, h, d or w, such as 12h", v)
	}
	n, err := strconv.ParseInt(v[:len(v)-1], 10, 32)
	if err != nil || n < 0 || n > int64((1<<62)/unit) {
		return 0, fmt.Errorf("%q is not a time; write a number and s, m, h, d or w, such as 12h", v)
	}
	return time.Duration(n) * unit, nil
}

// size reads bytes such as 512M or 20G (powers of 1024).
func (r *reader) size(name string, def int64) int64 {
	v := r.str(name, "")
	if v == "" {
		r.note(name, sizeText(def), false)
		return def
	}
	digits, shift := v, 0
	if i := strings.IndexByte("KMGT", v[len(v)-1]); i >= 0 {
		digits, shift = v[:len(v)-1], 10*(i+1)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > (1<<62)>>shift {
		r.fail(name, "%q is not a size; write a number of bytes, or one with K, M, G or T, such as 512M", v)
		return def
	}
	return n << shift
}

// finish reports the errors, and the fields that nobody asked for.
func (r *reader) finish() []error {
	for _, f := range r.st.Fields {
		if _, ok := r.used[strings.ToLower(f.Name)]; ok {
			continue
		}
		if known := r.nearest(f.Name); known != "" {
			r.fail(f.Name, "there is no field %s here; is %s meant?", f.Name, known)
		} else {
			r.fail(f.Name, "there is no field %s here; doc/settings.md and packmill(5) list the settings", f.Name)
		}
	}
	return r.errs
}

// nearest finds the field that was meant, as it is written: "" if none is near.
func (r *reader) nearest(name string) string {
	return r.used[near.To(strings.ToLower(name), slices.Collect(maps.Keys(r.used)))]
}
