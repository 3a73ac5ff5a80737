package usage

import (
	"reflect"
	"slices"
	"strings"
	"time"
)

// Fields are those of an object: "NAME TYPE", with ? if it may be missing.
func Fields(t reflect.Type) (out []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if f.Anonymous && name == "" {
			out = append(out, Fields(f.Type)...)
			continue
		}
		if name == "" {
			name = f.Name
		}
		if slices.Contains(strings.Split(options, ","), "omitempty") {
			name += "?"
		}
		out = append(out, name+" "+kindOf(f.Type))
	}
	return out
}

// kindOf is what JSON has of a type.
func kindOf(t reflect.Type) string {
	if t == reflect.TypeFor[time.Time]() {
		return "time (RFC 3339)"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return kindOf(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Slice:
		return "list of " + kindOf(t.Elem())
	case reflect.Struct:
		return "{" + strings.Join(Fields(t), ", ") + "}"
	case reflect.Map:
		return "object"
	}
	return "number"
}
