package main

import (
	"fmt"
	"io"
	"reflect"
	"strings"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/desk"
	"packmill/cmd/internal/doctor"
	"packmill/cmd/internal/farm"
	"packmill/cmd/internal/rebuild"
	"packmill/cmd/internal/survey"
	"packmill/cmd/internal/usage"
	"packmill/cmd/internal/wb"
	"packmill/queue/buildlog"
	"packmill/queue/logs"
)

// schemas are the objects that commands print with --json, one a line.
var schemas = []struct {
	commands string
	object   any
}{
	{"errors, on standard error", failed{}},
	{"status", survey.Count{}},
	{"ls, build ls", survey.Row{}},
	{"show", survey.Item{}},
	{"why", survey.Answer{}},
	{"wait", survey.Progress{}},
	{"review", desk.Waiting{}},
	{"review show", desk.Report{}},
	{"review accept, reject, hold, ask; requeue", acted{}},
	{"wb, cancel, build sign, fail, retry, dep-wait, giveback, not-for-us", wb.Line{}},
	{"log", logs.Log{}},
	{"log ls", buildlog.Build{}},
	{"log grep", logs.Hit{}},
	{"rebuild", rebuild.Answer{}},
	{"builder ls", farm.Row{}},
	{"doctor", doctor.Finding{}},
	{"config show", control.Stanza{}},
	{"archive ls", entry{}},
	{"archive cruft", cruft{}},
}

// writeSchemas says for each object its fields and what is in them.
func writeSchemas(w io.Writer) {
	for _, s := range schemas {
		fmt.Fprintf(w, "%s: %s\n", s.commands, strings.Join(usage.Fields(reflect.TypeOf(s.object)), ", "))
	}
}
