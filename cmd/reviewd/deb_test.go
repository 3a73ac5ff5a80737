package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"packmill/internal/deb/debtest"
	"packmill/spool/upload"
)

func TestInspect(t *testing.T) {
	rows := []struct {
		name string
		deb  debtest.Deb
		bend func([]byte) []byte
		want string // pattern of all sentences; "" for none
	}{
		{name: "good", deb: debtest.Deb{Name: "hello", Version: "1.0-1"}},
		{name: "good, another name and version",
			deb: debtest.Deb{Name: "hello", Version: "7", Source: "hello (1.0-1)",
				Fields: "Depends: libc6 (>= 2.36), a | b:any\nProvides: x (= 1)\n"}},
		{name: "another source", deb: debtest.Deb{Name: "hello", Version: "1.0-1", Source: "other"}, want: `is built from other 1.0-1, but hello_1.0-1_amd64.changes is of hello 1.0-1`},
		{name: "another version of the source", deb: debtest.Deb{Name: "hello", Version: "1.0-1", Source: "hello (0.9)"}, want: `is built from hello 0.9`},
		{name: "bad relation", deb: debtest.Deb{Name: "hello", Version: "1.0-1", Fields: "Depends: libc6 (>= )\n"}, want: `Depends: relation "libc6 \(>= \)"`},
		{name: "cut off", deb: debtest.Deb{Name: "hello", Version: "1.0-1"}, bend: func(b []byte) []byte { return b[:len(b)-40] }, want: `hello_1.0-1_amd64.deb`},
		{name: "garbage", deb: debtest.Deb{Name: "hello", Version: "1.0-1"}, bend: func([]byte) []byte { return []byte("garbage") }, want: `hello_1.0-1_amd64.deb`},
	}
	for _, r := range rows {
		data := r.deb.Bytes()
		if r.bend != nil {
			data = r.bend(data)
		}
		path := filepath.Join(t.TempDir(), r.deb.FileName())
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		u := &upload.Upload{Name: "hello_1.0-1_amd64.changes",
			Changes: &upload.Changes{Source: "hello", Version: "1.0-1", SourceVersion: "1.0-1"}}
		texts, err := inspect(t.Context(), filepath.Dir(path), u, upload.File{Name: filepath.Base(path)})
		if err != nil {
			t.Errorf("%s: %v", r.name, err)
		}
		got := strings.Join(texts, "\n")
		if r.want == "" && got != "" || !regexp.MustCompile(r.want).MatchString(got) {
			t.Errorf("%s: got %q, want %q", r.name, got, r.want)
		}
	}
	path := filepath.Join(t.TempDir(), "a_1_all.deb")
	if err := os.WriteFile(path, (debtest.Deb{Name: "hello", Version: "1.0-1"}).Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	u := &upload.Upload{Changes: &upload.Changes{Source: "hello", SourceVersion: "1.0-1"}}
	if err := os.Rename(path, filepath.Join(filepath.Dir(path), "a_1_all.deb")); err != nil {
		t.Fatal(err)
	}
	if texts, err := inspect(t.Context(), filepath.Dir(path), u, upload.File{Name: "a_1_all.deb"}); err != nil ||
		len(texts) != 1 {
		t.Errorf("another file name: got %q, %v", texts, err)
	}
	if _, err := inspect(t.Context(), t.TempDir(), u, upload.File{Name: "gone_1_all.deb"}); err == nil {
		t.Error("a file that is gone is no error")
	}
}
