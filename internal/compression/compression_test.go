package compression

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// packers are the tools that write what is read here; for zstd the window of its highest
// level, without the seconds that the level takes.
var packers = map[Kind][]string{
	Plain: {"cat"}, Zstd: {"zstd", "-q", "-1", "--long=27"}, Gzip: {"gzip", "-9"}, Xz: {"xz", "-9"}, Bzip2: {"bzip2"},
}

func packed(t *testing.T, k Kind, text string) []byte {
	t.Helper()
	if len(packers[k]) == 0 {
		t.Fatalf("%s: say in packers which tool writes it", k)
	}
	cmd := exec.Command(packers[k][0], packers[k][1:]...)
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", packers[k], err)
	}
	return out
}

// read unpacks and closes; what it gets is kept up to an error.
func read(z io.ReadCloser, err error) (string, error) {
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(z)
	return string(text), errors.Join(err, z.Close())
}

// TestEveryKind: each row reads what its tool writes at the highest level, twice in
// a row with the same reader, two streams in one file, by name and by magic.
func TestEveryKind(t *testing.T) {
	text := strings.Repeat("Package: hello\nVersion: 2.10-3\n\n", 1000)
	for _, k := range Kinds() {
		data := packed(t, k, text)
		two := append(bytes.Clone(data), data...)
		for _, tc := range []struct {
			data []byte
			want string
		}{{data, text}, {two, text + text}} {
			if got, err := read(k.Reader(bytes.NewReader(tc.data))); err != nil || got != tc.want {
				t.Errorf("%s: Reader: %d bytes, %v; want %d", k, len(got), err, len(tc.want))
			}
			if got, err := read(Sniff(bytes.NewReader(tc.data))); err != nil || got != tc.want {
				t.Errorf("%s: Sniff: %d bytes, %v; want %d", k, len(got), err, len(tc.want))
			}
		}
		if rest, got := Cut("x.tar" + k.Suffix()); rest != "x.tar" || got != k {
			t.Errorf("Cut(%q) = %q, %q", "x.tar"+k.Suffix(), rest, got)
		}
	}
	if got, err := read(Sniff(strings.NewReader("BZ"))); err != nil || got != "BZ" {
		t.Errorf("Sniff of two bytes: %q, %v", got, err)
	}
	if _, err := Lzma.Reader(strings.NewReader("")); err == nil {
		t.Error("lzma is read")
	}
}

// TestFaults: every row tells a truncated stream from a damaged one, and those
// that keep a dictionary refuse one that is too large.
func TestFaults(t *testing.T) {
	text := strings.Repeat("0123456789abcdef", 1<<16)
	for _, k := range Kinds() {
		if k == Plain {
			continue
		}
		data := packed(t, k, text)
		if _, err := read(k.Reader(bytes.NewReader(data[:len(data)-9]))); !EndsEarly(err) || TooLarge(err) {
			t.Errorf("%s: nine bytes too few: %v", k, err)
		}
		bad := bytes.Clone(data)
		bad[len(bad)/2] ^= 0x55
		if _, err := read(k.Reader(bytes.NewReader(bad))); err == nil || TooLarge(err) {
			t.Errorf("%s: flipped bits: %v", k, err)
		}
		if k != Xz && k != Zstd {
			continue
		}
		if _, err := read(k.ReaderWithin(bytes.NewReader(data), 64<<10)); !TooLarge(err) || EndsEarly(err) {
			t.Errorf("%s: a dictionary over the bound: %v", k, err)
		}
	}
}
