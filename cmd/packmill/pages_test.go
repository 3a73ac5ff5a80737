package main

import (
	"context"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"packmill/cmd/internal/control"
	"packmill/cmd/internal/pages"
	"packmill/cmd/internal/usage"
	"packmill/cmd/internal/view"
	"packmill/cmd/internal/view/viewtest"
)

// TestPagesCommands: every page of statusd names a command that shows the same, and it is one of ours.
func TestPagesCommands(t *testing.T) {
	tree, err := viewtest.Make(filepath.Join(t.TempDir(), "tree"), viewtest.Size{Packages: 12, Archs: viewtest.Archs[:1],
		Building: 1})
	if err != nil {
		t.Fatal(err)
	}
	set, err := control.NewStore(tree.Path("control"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	v := view.New(tree, set, slog.New(slog.DiscardHandler))
	site, err := pages.New(v, slog.New(slog.DiscardHandler), "statusd")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	defer func() { stop(); <-done }()
	<-v.Ready()
	server := httptest.NewServer(site.Handler())
	defer server.Close()
	said := regexp.MustCompile(`On the command line: <code>(.*?)</code>`)
	link := regexp.MustCompile(`href="(/[^"#]*)"`)
	todo, seen := []string{"/", "/list?suite=sid&arch=amd64", "/search/logs?q=x", "/diff"}, map[string]bool{}
	for n := 0; len(todo) > 0 && n < 120; n++ {
		at := todo[0]
		todo = todo[1:]
		w, err := http.Get(server.URL + at)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(w.Body)
		w.Body.Close()
		if err != nil || w.StatusCode != http.StatusOK || !strings.HasPrefix(w.Header.Get("Content-Type"), "text/html") {
			continue
		}
		commands := said.FindAllStringSubmatch(string(body), -1)
		if len(commands) == 0 {
			t.Errorf("%s names no command", at)
		}
		for _, m := range commands {
			words := strings.Fields(strings.ReplaceAll(html.UnescapeString(m[1]), "'", ""))
			var c cli
			if _, err := c.parse(words[1:]); words[0] != "packmill" || err != nil {
				t.Errorf("%s: %s: %v", at, m[1], usage.Of(err))
			}
		}
		for _, m := range link.FindAllStringSubmatch(string(body), -1) {
			if next := html.UnescapeString(m[1]); !seen[next] && !strings.HasPrefix(next, "/static/") {
				seen[next] = true
				todo = append(todo, next)
			}
		}
	}
}
