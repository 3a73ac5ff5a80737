package upload_test

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"packmill/internal/openpgp"
	"packmill/spool/upload"
	"packmill/spool/upload/corpus"
	"packmill/spool/upload/uploadtest"
)

var update = flag.Bool("update", false, "write testdata/corpus.txt anew, for a person to read")

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

type pkg = uploadtest.Package

var theWorld = sync.OnceValue(func() *corpus.World { return corpus.NewWorld(now) })

func told(
	t *testing.T, rows []corpus.Row, check func(t *testing.T, r corpus.Row, up *upload.Upload, findings []upload.Finding),
) string {
	w := theWorld()
	var out strings.Builder
	seen := map[string]bool{}
	for _, r := range rows {
		if seen[r.Name] {
			t.Fatalf("two rows are named %s", r.Name)
		}
		seen[r.Name] = true
		dir := t.TempDir()
		name, err := r.Package(w).Write(dir)
		if err != nil {
			t.Fatalf("%s: %v", r.Name, err)
		}
		c := w.Context()
		if r.World != nil {
			r.World(c)
		}
		up, findings, err := upload.Read(t.Context(), dir, name, c)
		if err != nil {
			t.Errorf("%s: %v", r.Name, err)
			continue
		}
		check(t, r, up, findings)
		fmt.Fprintf(&out, "%s\n", r.Name)
		for _, f := range findings {
			fmt.Fprintf(&out, "    %s %s: %s\n", f.Level, f.Check, f.Text)
			for _, ch := range f.Text {
				if ch < 0x20 || ch > 0x7e {
					t.Errorf("%s: text holds %q: %q", r.Name, ch, f.Text)
				}
			}
		}
	}
	s := out.String()
	for who, signer := range map[string]*openpgp.Signer{"ANN": w.Ann, "BOB": w.Bob, "CARL": w.Carl,
		"STRANGER": w.Stranger} {
		s = strings.ReplaceAll(s, signer.Fingerprint(), who)
	}
	// Compressors differ between versions of Go; so do checksums and sizes then.
	return regexp.MustCompile(`[0-9a-f]{32,64}`).ReplaceAllString(s, "CHECKSUM")
}

// TestCorpus: every upload of the corpus is judged as testdata/corpus.txt says, sentence by
// sentence; that file is for reading.
func TestCorpus(t *testing.T) {
	t.Parallel()
	if len(corpus.Good) < 20 || len(corpus.Bad) < 120 {
		t.Errorf("%d good and %d bad uploads, want 20 and 120", len(corpus.Good), len(corpus.Bad))
	}
	got := "# Uploads that pass, with what is told about them.\n" +
		told(t, corpus.Good, func(t *testing.T, r corpus.Row, up *upload.Upload, findings []upload.Finding) {
			if upload.Worst(findings) >= upload.Error {
				t.Errorf("good upload %q is refused: %v", r.Name, findings)
			}
			if up.Suite == nil || up.Uploader == nil || up.Dsc == nil || up.Component == "" {
				t.Errorf("good upload %q: got %+v", r.Name, up)
			}
		}) + "\n# Uploads that are refused.\n" +
		told(t, corpus.Bad, func(t *testing.T, r corpus.Row, _ *upload.Upload, findings []upload.Finding) {
			if upload.Worst(findings) < upload.Error {
				t.Errorf("bad upload %q passes", r.Name)
			}
		})
	const file = "testdata/corpus.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("-want +got:\n%s\nif that is meant: go test ./spool/upload -run TestCorpus -update", diff)
	}
}

// TestEveryCheckSpeaks: each check of the table is heard in the corpus.
func TestEveryCheckSpeaks(t *testing.T) {
	text, err := os.ReadFile("testdata/corpus.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range upload.Checks() {
		if !regexp.MustCompile(`(?m)^    \w+ ` + regexp.QuoteMeta(c.Name) + `: `).Match(text) {
			t.Errorf("no upload of the corpus makes the check %s speak", c.Name)
		}
		if c.About == "" {
			t.Errorf("check %s is not described", c.Name)
		}
	}
}

// TestLevels: each check that a suite may set speaks with the level that the
// suite gives it, and not at all where it is off; a fixed one does not listen.
func TestLevels(t *testing.T) {
	t.Parallel()
	w := theWorld()
	left := map[string]upload.CheckInfo{}
	for _, c := range upload.Checks() {
		left[c.Name] = c
	}
	for _, r := range slices.Concat(corpus.Good, corpus.Bad) {
		p := r.Package(w)
		if p.Distribution == "lenient" {
			continue // it has set some already
		}
		dir := t.TempDir()
		name, err := p.Write(dir)
		if err != nil {
			t.Fatal(err)
		}
		heard := func(check string, level upload.Level) map[string]upload.Level {
			c := w.Context()
			if r.World != nil {
				r.World(c)
			}
			for _, s := range c.Suites {
				if check != "" {
					s.Checks = map[string]upload.Level{check: level}
				}
			}
			_, findings, err := upload.Read(t.Context(), dir, name, c)
			if err != nil {
				t.Fatalf("%s: %v", r.Name, err)
			}
			out := map[string]upload.Level{}
			for _, f := range findings {
				out[f.Check] = f.Level
			}
			return out
		}
		for check, got := range heard("", 0) {
			c, ok := left[check]
			if !ok {
				continue
			}
			delete(left, check)
			if got != c.Level {
				t.Errorf("%s speaks with %v, and Checks says %v", check, got, c.Level)
			}
			for _, level := range []upload.Level{upload.Off, upload.Remark, upload.Warning, upload.Error} {
				want := level
				if c.Fixed {
					want = c.Level
				}
				if got := heard(check, level)[check]; got != want {
					t.Errorf("%s set to %v (fixed: %v): got %v, want %v", check, level, c.Fixed, got, want)
				}
			}
		}
		if len(left) == 0 {
			return
		}
	}
	for check := range left {
		t.Errorf("%s was not heard", check)
	}
}
