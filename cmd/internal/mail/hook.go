package mail

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"packmill/cmd/internal/control"
	"packmill/spool"
)

// About is the package that a message is about, for programs.
type About struct {
	Source  string `json:"source,omitempty"`
	Version string `json:"version,omitempty"`
	Suite   string `json:"suite,omitempty"`
	Arch    string `json:"arch,omitempty"` // of a build
}

// call is the body of a hook's request.
type call struct {
	Event string `json:"event"`
	Item  string `json:"item"`
	About
	Time    time.Time `json:"time"`
	Subject string    `json:"subject"`
	Text    string    `json:"text"`
}

// hook is the message for a program that hears of the event.
func (m *Message) hook(n control.Notice) (*outgoing, error) {
	when := m.Of
	if when.IsZero() {
		when = m.Date
	}
	body, err := json.Marshal(call{m.Event, m.Item, m.About, when.UTC(), spool.OneLine(m.Subject), m.Body})
	return &outgoing{Via: n.Hook, ID: "msg_" + m.id(m.Event+" "+m.Key), text: body}, err
}

// hookOf is the notice that names a hook, or nil.
func hookOf(notices []control.Notice, url string) *control.Notice {
	for i := range notices {
		if url != "" && notices[i].Hook == url {
			return &notices[i]
		}
	}
	return nil
}

// hookPatience is how long a hook may take to answer: it notes what it hears and works later. A round waits so long
// for each that is silent, and everybody's mail with it.
const hookPatience = 15 * time.Second

// request calls the hook, signed as Standard Webhooks has it. A repetition
// has the same webhook-id. Every answer but 2xx is an error.
func (o *outgoing) request(ctx context.Context, secret []byte) error {
	ctx, cancel := context.WithTimeout(ctx, hookPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.Via, bytes.NewReader(o.text))
	if err != nil {
		return err
	}
	at := strconv.FormatInt(time.Now().Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "%s.%s.%s", o.ID, at, o.text)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "packmill")
	req.Header.Set("webhook-id", o.ID)
	req.Header.Set("webhook-timestamp", at)
	req.Header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	// What was signed for one place goes to no other.
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s answers %s", o.Via, resp.Status)
	}
	return nil
}

// HookSecret reads the secret of a hook: a line of text, or whsec_ and base64.
func HookSecret(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	text := strings.TrimSpace(string(data))
	if packed, ok := strings.CutPrefix(text, "whsec_"); ok {
		if data, err = base64.StdEncoding.DecodeString(packed); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		text = string(data)
	}
	if text == "" {
		return nil, fmt.Errorf("%s is empty; make a secret with: openssl rand -hex 32", path)
	}
	return []byte(text), nil
}
