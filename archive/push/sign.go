package push

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Credentials of S3-compatible storage.
type Credentials struct {
	Access, Secret string
	Token          string // of temporary credentials, else ""
}

// sign signs a request with AWS Signature Version 4 ("Authenticating Requests:
// Using the Authorization Header", Amazon S3 API Reference). payload is the
// SHA-256 of the body in hexadecimal.
func (c Credentials) sign(req *http.Request, region, payload string, now time.Time) {
	stamp := now.UTC().Format("20060102T150405Z")
	day := stamp[:8]
	req.Header.Set("x-amz-date", stamp)
	req.Header.Set("x-amz-content-sha256", payload)
	if c.Token != "" {
		req.Header.Set("x-amz-security-token", c.Token)
	}
	names := []string{"host"}
	values := map[string]string{"host": req.Host}
	if req.Host == "" {
		values["host"] = req.URL.Host
	}
	for name, v := range req.Header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-amz-") || name == "range" || name == "date" {
			names = append(names, name)
			values[name] = strings.Join(v, ",")
		}
	}
	slices.Sort(names)
	var headers strings.Builder
	for _, n := range names {
		fmt.Fprintf(&headers, "%s:%s\n", n, strings.TrimSpace(values[n]))
	}
	signed := strings.Join(names, ";")
	canonical := strings.Join([]string{req.Method, escape(req.URL.Path, true), query(req.URL.Query()), headers.String(), signed, payload}, "\n")
	scope := day + "/" + region + "/s3/aws4_request"
	sum := sha256.Sum256([]byte(canonical))
	text := "AWS4-HMAC-SHA256\n" + stamp + "\n" + scope + "\n" + hex.EncodeToString(sum[:])
	key := []byte("AWS4" + c.Secret)
	for _, part := range []string{day, region, "s3", "aws4_request", text} {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(part))
		key = h.Sum(nil)
	}
	req.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s,SignedHeaders=%s,Signature=%x", c.Access, scope, signed, key))
}

// query is the canonical form of a query: sorted, every byte escaped that is
// not unreserved.
func query(v url.Values) string {
	var parts []string
	for k, vs := range v {
		for _, one := range vs {
			parts = append(parts, escape(k, false)+"="+escape(one, false))
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, "&")
}

// escape is the URI encoding of the signature's definition: '+' and '~' differ
// from what net/url does.
func escape(s string, slashes bool) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 || c == '/' && slashes {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
