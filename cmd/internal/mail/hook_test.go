package mail

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"packmill/cmd/internal/control"
)

// opensslMAC is the HMAC as another program makes it, in base64.
func opensslMAC(t *testing.T, secret, text string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", `openssl dgst -sha256 -mac HMAC -macopt "hexkey:$1" -binary | base64 -w0`, "sh",
		hex.EncodeToString([]byte(secret)))
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestHook: an event is a signed request; what is not taken is brought again under the
// same id, and never to another place.
func TestHook(t *testing.T) {
	p, _ := newPost(t, "cat >/dev/null")
	var mu sync.Mutex
	var got []*http.Request
	var bodies []string
	answer := http.StatusInternalServerError
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		got, bodies = append(got, r), append(bodies, string(body))
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(answer)
	}))
	defer server.Close()
	settings := fmt.Sprintf("Event: published\nHook: %s/in\nSecret: private/hook.secret\n", server.URL)
	if err := os.WriteFile(p.Tree.Path("control/notify"), []byte(settings), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(p.Tree.Path("control/private"), 0o700); err != nil {
		t.Fatal(err)
	}
	all, err := control.Load(p.Tree.Path("control"))
	if err != nil {
		t.Fatal(err)
	}
	m := &Message{Event: "published", Item: "2026_hello_1.0", Key: "published source", Subject: "hello\n1.0", Body: "It is there.\n",
		Of: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), About: About{Source: "hello", Version: "1.0", Suite: "stable"}}
	if n, err := Send(context.Background(), p.Tree, all.Notify, m); n != 0 || err != nil {
		t.Fatalf("%d addresses, %v", n, err)
	}
	if n, err := Send(context.Background(), p.Tree, all.Notify, &Message{Event: "failed"}); n != 0 || err != nil {
		t.Fatalf("of another event: %d addresses, %v", n, err)
	}
	again := func(want int) {
		t.Helper()
		p.again = nil
		p.Settings, err = control.NewStore(p.Tree.Path("control"), p.Log)
		if err != nil {
			t.Fatal(err)
		}
		p.once(t)
		if left := p.waiting(t); len(left) != want {
			t.Errorf("left: %q, want %d", left, want)
		}
	}
	again(1) // there is no secret
	if len(got) != 0 {
		t.Error("it was called without a secret")
	}
	if err := os.WriteFile(p.Tree.Path("control/private/hook.secret"), []byte("very secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	again(1)
	answer = http.StatusFound
	again(1)
	answer = http.StatusNoContent
	again(0)
	if len(got) != 3 {
		t.Fatalf("%d requests", len(got))
	}
	for i, r := range got {
		if r.Method != "POST" || r.URL.Path != "/in" || r.Header.Get("webhook-id") != got[0].Header.Get("webhook-id") ||
			bodies[i] != bodies[0] {
			t.Errorf("request %d: %s %s %v %s", i, r.Method, r.URL, r.Header, bodies[i])
		}
		signed := r.Header.Get("webhook-id") + "." + r.Header.Get("webhook-timestamp") + "." + bodies[i]
		if want := "v1," + opensslMAC(t, "very secret", signed); r.Header.Get("webhook-signature") != want {
			t.Errorf("signature %q, openssl has %q", r.Header.Get("webhook-signature"), want)
		}
	}
	want := `{"event":"published","item":"2026_hello_1.0","source":"hello","version":"1.0","suite":"stable",` +
		`"time":"2026-11-21T12:00:00Z","subject":"hello 1.0","text":"It is there.\n"}`
	if bodies[0] != want {
		t.Errorf("got  %s\nwant %s", bodies[0], want)
	}
}

// TestSilentHook: a hook that takes its request and never answers does not hold the mail up for ever.
func TestSilentHook(t *testing.T) {
	if testing.Short() {
		t.Skip("long: its patience")
	}
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer server.Close()
	err := (&outgoing{Via: server.URL, text: []byte("{}")}).request(t.Context(), []byte("secret"))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want that it gives up", err)
	}
}

// TestHookIsOfTheSettings: a letter does not say what maild calls.
func TestHookIsOfTheSettings(t *testing.T) {
	p, _ := newPost(t, "cat >/dev/null")
	called := false
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }))
	defer server.Close()
	if err := (&outgoing{Via: server.URL, ID: "msg_1", text: []byte("{}")}).post(p.Tree); err != nil {
		t.Fatal(err)
	}
	if p.once(t); called || len(p.waiting(t)) != 1 {
		t.Errorf("called: %v, left: %q", called, p.waiting(t))
	}
}

// TestHookSecret: text, or what other programs' secrets look like.
func TestHookSecret(t *testing.T) {
	file := t.TempDir() + "/secret"
	for text, want := range map[string]string{"a word\n": "a word", "whsec_aGVsbG8=\n": "hello", "\n": "", "whsec_!\n": "", "whsec_\n": ""} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := HookSecret(file); !bytes.Equal(got, []byte(want)) || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}
