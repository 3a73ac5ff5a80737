package pages

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
)

// answer is a page as it is sent: to each who asks for it within one change the same bytes, which are
// packed once.
type answer struct {
	kind    string
	body    []byte
	etag    string
	number  uint64    // of the view that it shows
	at      time.Time // when it was made
	changed time.Time // when the first of those was made that are the same

	zstd, gzip packing
}

// packing is an answer's body in a coding, once somebody has asked for it.
type packing struct {
	once sync.Once
	body []byte
}

// worthPacking is how long a body must be.
const worthPacking = 1000

// room is what an answer takes of the cache, its packed forms with it.
func (a *answer) room() int { return len(a.body) + len(a.body)/2 }

var zstdWriter = sync.OnceValues(func() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(512<<10),
		zstd.WithLowerEncoderMem(true))
})

// coded is the body in the best coding that the client takes, and its name: "" is none.
func (a *answer) coded(accepts string) (body []byte, coding string) {
	switch {
	case len(a.body) < worthPacking:
	case takes(accepts, "zstd"):
		a.zstd.once.Do(func() {
			if w, err := zstdWriter(); err == nil {
				a.zstd.body = w.EncodeAll(a.body, nil)
			}
		})
		if a.zstd.body != nil {
			return a.zstd.body, "zstd"
		}
	case takes(accepts, "gzip"):
		a.gzip.once.Do(func() {
			var b bytes.Buffer
			w := gzip.NewWriter(&b)
			if _, err := w.Write(a.body); err == nil && w.Close() == nil {
				a.gzip.body = b.Bytes()
			}
		})
		if a.gzip.body != nil {
			return a.gzip.body, "gzip"
		}
	}
	return a.body, ""
}

// takes reports whether Accept-Encoding names a coding (RFC 9110, 12.5.3), and not to refuse it.
func takes(accepts, coding string) bool {
	for part := range strings.SplitSeq(accepts, ",") {
		name, weight, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(name), coding) {
			q, err := strconv.ParseFloat(strings.TrimPrefix(strings.ReplaceAll(weight, " ", ""), "q="), 32)
			return err != nil || q > 0
		}
	}
	return false
}

// send sends a page, or that the client has it already.
func (a *answer) send(w http.ResponseWriter, r *http.Request) {
	h, tag := w.Header(), a.etag
	body, coding := a.coded(r.Header.Get("Accept-Encoding"))
	if coding != "" {
		tag += packed + "-" + coding
		h.Set("Content-Encoding", coding)
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	h.Set("Content-Type", a.kind)
	h.Set("Cache-Control", "no-cache")
	h.Set("Vary", "Accept-Encoding")
	h.Set("ETag", `"`+tag+`"`)
	if wantsJSON(r) {
		forAll(h)
	}
	http.ServeContent(w, r, "", a.changed, bytes.NewReader(body))
}
