package clean

import (
	"bytes"
	"encoding/json"
	"io"
	"testing"
	"unicode/utf8"
)

func TestEscape(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"plain text\n\ttab\n", "plain text\n\ttab\n"},
		{"über «quoted» 日本 é\n", "über «quoted» 日本 é\n"},
		{"\x1b[31;1mred\x1b[0m\x1b[K", "red"},
		{"\x1b]0;title\x07", `\x1b]0;title\x07`},
		{"\x1b[2J\x1b[H", `\x1b[2J\x1b[H`},
		{"dos\r\nover\rwritten", `dos` + "\n" + `over\x0dwritten`},
		{"\x00\x08\x7f", `\x00\x08\x7f`},
		{"\u009b31m", `\u{9b}31m`},
		{"\x9b31m", `\x9b31m`},
		{"a\u202eb\u2066c\u200bd\ufeff", `a\u{202e}b\u{2066}c\u{200b}d\u{feff}`},
		{"x\u2028y\u2029z", `x\u{2028}y\u{2029}z`},
		{"\xff\xfe", `\xff\xfe`},
		{"\xc3", `\xc3`},
	} {
		if got := string(Escape(nil, []byte(c.in))); got != c.want {
			t.Errorf("Escape(%q) = %q, want %q", c.in, got, c.want)
		}
		// Cut anywhere, a stream gives the same.
		for cut := 0; cut <= len(c.in); cut++ {
			var b bytes.Buffer
			e := NewEscaper(&b)
			io.WriteString(e, c.in[:cut])
			io.WriteString(e, c.in[cut:])
			e.Close()
			if b.String() != c.want {
				t.Errorf("%q cut at %d: %q, want %q", c.in, cut, b.String(), c.want)
			}
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add([]byte("\x1b[31m\xc3\xa9\u202e\r\n"), 3)
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		out := Escape(nil, in)
		if !utf8.Valid(out) {
			t.Errorf("%q: not UTF-8: %q", in, out)
		}
		for _, r := range string(out) {
			if r != '\n' && r != '\t' && (r < ' ' || r == 0x7f || hidden(r)) {
				t.Errorf("%q: %q gets through", in, r)
			}
		}
		if cut < 0 || cut > len(in) {
			return
		}
		var b bytes.Buffer
		e := NewEscaper(&b)
		e.Write(in[:cut])
		e.Write(in[cut:])
		e.Close()
		if !bytes.Equal(b.Bytes(), out) {
			t.Errorf("%q cut at %d: %q, want %q", in, cut, b.Bytes(), out)
		}
	})
}

// Hostile is what a test feeds to whatever shows text: it sets a title, overwrites,
// turns around, hides, and is no UTF-8.
const hostile = "a\x1b]0;t\x07b\rc\u202ed\u2066e\u009b31mf\x9bg\u200bh\x7fi\U000e0041j\u2028k"

func TestLine(t *testing.T) {
	if got, want := Line("Äñ 日本\n"+hostile), "Äñ 日本 a ]0;t b c d e 31mf g h i j k"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestJSON(t *testing.T) {
	data, err := json.Marshal(map[string]string{"Ä": hostile})
	if err != nil {
		t.Fatal(err)
	}
	out := JSON(data)
	if got := Escape(nil, out); !bytes.Equal(got, out) {
		t.Errorf("it is not clean: %q", out)
	}
	var was, is map[string]string
	if err := json.Unmarshal(data, &was); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &is); err != nil || is["Ä"] != was["Ä"] {
		t.Errorf("got %q, %v, want %q", is, err, was)
	}
}

// A line that never ends goes through in little memory.
func TestEndless(t *testing.T) {
	e := NewEscaper(io.Discard)
	for range 1000 {
		if _, err := e.Write(bytes.Repeat([]byte("\x00\x1b]0;"), 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if cap(e.rest)+cap(e.out) > 1<<20 {
		t.Errorf("buffers of %d bytes", cap(e.rest)+cap(e.out))
	}
}
