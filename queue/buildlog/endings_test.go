package buildlog

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// endings are logs of builds that were broken on purpose, of Debian's packages and of small
// ones for what those do not use: as dpkg-buildpackage and apt wrote them, without
// a network. "== NAME" begins each in testdata/SET.txt.gz; testdata/SET.want has, for each
// name, the line at which a person would point, or several with " | " between that serve
// as well.
var endings = []struct {
	set       string
	right, of int // at least so many
}{
	{"endings", 69, 69},
	// Nobody had looked at these while writing the rules, and 26 were right then.
	{"endings-unseen", 31, 32},
	// Nor at these, of other languages and tools: 29 were right then.
	{"endings-third", 40, 40},
	{"endings-fourth", 30, 30}, // 26 then, with what the third had taught
	{"endings-fifth", 30, 30},  // 28 then
}

func TestEndings(t *testing.T) {
	for _, e := range endings {
		t.Run(e.set, func(t *testing.T) {
			logs := readEndings(t, e.set)
			wants, err := os.ReadFile("testdata/" + e.set + ".want")
			if err != nil {
				t.Fatal(err)
			}
			n, right := 0, 0
			for line := range strings.Lines(string(wants)) {
				name, want, _ := strings.Cut(strings.TrimSpace(line), ": ")
				log, ok := logs[name]
				if !ok {
					t.Errorf("there is no log of %s", name)
				}
				n++
				found, err := Find(bytes.NewReader(log))
				if err != nil {
					t.Fatal(err)
				}
				if found != nil && slices.ContainsFunc(strings.Split(want, " | "), func(w string) bool {
					return strings.HasPrefix(found.Text, w)
				}) {
					right++
					continue
				}
				t.Logf("%s: found %+v, want %s", name, found, want)
			}
			if n < e.of || n != len(logs) || right*e.of < e.right*n {
				t.Errorf("%d of %d are right, want %d of %d; there are %d logs", right, n, e.right, e.of, len(logs))
			}
			t.Logf("%d of %d are right", right, n)
		})
	}
}

// readEndings are the logs of a set, by name.
func readEndings(t *testing.T, set string) map[string][]byte {
	t.Helper()
	f, err := os.Open("testdata/" + set + ".txt.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	logs := map[string][]byte{}
	heads := regexp.MustCompile(`(?m)^== ([a-z0-9-]+)\n`).FindAllSubmatchIndex(data, -1)
	for i, h := range heads {
		end := len(data)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		logs[string(data[h[2]:h[3]])] = data[h[1]:end]
	}
	return logs
}
