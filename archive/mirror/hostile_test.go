package mirror

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// endless never ends, and comes as fast as it is taken.
func endless(w http.ResponseWriter) {
	for line := []byte(strings.Repeat("X: y\n", 10000)); ; {
		if _, err := w.Write(line); err != nil {
			return
		}
	}
}

// drip sends some bytes again and again, and never enough.
func drip(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		io.WriteString(w, "X: y\n")
		http.NewResponseController(w).Flush()
		time.Sleep(time.Millisecond)
	}
}

// packed is what a .gz of the text is.
func packed(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestHostileRepository: a repository that says it is huge, that never ends, or
// lets wait, is refused for that before it has cost much.
func TestHostileRepository(t *testing.T) {
	t.Parallel()
	const index = "main/binary-amd64/Packages"
	line := func(text string, size int64, name string) string {
		return fmt.Sprintf(" %x %d %s\n", sha256.Sum256([]byte(text)), size, name)
	}
	exact := func(text, name string) string { return line(text, int64(len(text)), name) }
	bomb := packed(t, strings.Repeat("\n", 10<<20))
	large := strings.Replace(aBinary, "Size: 5", "Size: 99999999999999", 1)
	for _, x := range []struct {
		name    string
		release string // the lines of SHA256
		serve   func(w http.ResponseWriter, r *http.Request)
		want    string
	}{
		{"a Release that never ends", "", nil, "InRelease is larger than"},
		{"an index of a terabyte", line("", 1<<40, index), nil, "Release says that it has 1099511627776 bytes"},
		{"an index that unpacks to a terabyte", line("", 1<<40, index) + exact("x", index+".gz"), nil,
			"Release says that it has 1 bytes, and 1099511627776 unpacked"},
		{"an index that never ends", line("x", 1000, index), func(w http.ResponseWriter, _ *http.Request) { endless(w) },
			"not the one that Release names"},
		{"one that never ends, compressed",
			line("x", 10<<20, index+".gz"), func(w http.ResponseWriter,
				_ *http.Request) {
				w.Write([]byte(bomb))
				endless(w)
			}, "not the one that Release names"},
		{"one that drips", line("x", 100<<20, index), drip, "the server takes too long: less than 1048576 bytes in"},
		{"one that never begins", line("x", 1000, index), func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}, "the server takes too long"},
		{"one that is cut", line("x", 1000, index), func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, aBinary[:30])
		}, "not the one that Release names"},
		{"a bomb", exact(bomb, index+".gz") + line("", 1000, index), func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, bomb)
		}, "it unpacks to more"},
		{"a package of a hundred terabytes", exact(large, index), func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, large)
		}, "has 99999999999999 bytes, and a file may have"},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.HasSuffix(r.URL.Path, "Release") && x.release == "":
					endless(w)
				case strings.HasSuffix(r.URL.Path, "Release"):
					fmt.Fprintf(w, "Components: main\nArchitectures: amd64\nSHA256:\n%s", x.release)
				case x.serve == nil:
					t.Errorf("it is asked for %s", r.URL.Path)
				default:
					x.serve(w, r)
				}
			}))
			defer web.Close()
			defer web.CloseClientConnections()
			// A machine that has much to do is no slow server.
			patience := time.Minute
			if strings.Contains(x.want, "too long") {
				patience = 2 * time.Second
			}
			repo, err := Open(context.Background(), Source{URL: web.URL, Suite: "sid", Unsigned: true, Patience: patience},
				time.Now())
			if err == nil {
				_, err = repo.Uploads(context.Background())
				err = errors.Join(append(repo.Odd, err)...)
			}
			if !strings.Contains(fmt.Sprint(err), x.want) {
				t.Errorf("got %v, want %s", err, x.want)
			}
		})
	}
}
