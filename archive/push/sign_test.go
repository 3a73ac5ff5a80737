package push

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestSign computes the examples of "Authenticating Requests (AWS Signature
// Version 4)", Amazon S3 API Reference.
func TestSign(t *testing.T) {
	c := Credentials{Access: "AKIAIOSFODNN7EXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
	now := time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for _, tt := range []struct {
		name, method, url string
		header            map[string]string
		payload           string
		want              string
	}{
		{"get object", "GET", "https://examplebucket.s3.amazonaws.com/test.txt", map[string]string{"Range": "bytes=0-9"}, empty,
			"f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
		{"put object", "PUT", "https://examplebucket.s3.amazonaws.com/test%24file.text", map[string]string{"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
			"44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072", "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"},
		{"get bucket lifecycle", "GET", "https://examplebucket.s3.amazonaws.com/?lifecycle", nil, empty,
			"fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
		{"list objects", "GET", "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J", nil, empty,
			"34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
	} {
		req, err := http.NewRequest(tt.method, tt.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range tt.header {
			req.Header.Set(k, v)
		}
		c.sign(req, "us-east-1", tt.payload, now)
		if got := req.Header.Get("Authorization"); !strings.HasSuffix(got, "Signature="+tt.want) {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestEscape(t *testing.T) {
	if got, want := escape("/pool/main/g/g++/g++_1.0~rc1+b1_amd64.deb ü", true), "/pool/main/g/g%2B%2B/g%2B%2B_1.0~rc1%2Bb1_amd64.deb%20%C3%BC"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := escape("a/b", false), "a%2Fb"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
