package corpus

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"regexp"
	"strings"
)

// relist makes the lists of a .dsc or .changes fit other contents of a file.
func relist(text, name string, data []byte) string {
	for _, l := range sums(data) {
		re := regexp.MustCompile(fmt.Sprintf(`(?m)^ [0-9a-f]{%d} [0-9]+( .*)?%s$`, len(l), regexp.QuoteMeta(" "+name)))
		if !re.MatchString(text) {
			panic("no line of " + name + " in:\n" + text)
		}
		text = re.ReplaceAllString(text, fmt.Sprintf(" %s %d$1 %s", l, len(data), name))
	}
	return text
}

// List adds a file to the lists of a .dsc or .changes. extra is section and
// priority with a blank behind, or empty.
func List(text, name string, data []byte, extra string) string {
	s := sums(data)
	for i, field := range []string{"Files:\n", "Checksums-Sha1:\n", "Checksums-Sha256:\n"} {
		if !strings.Contains(text, field) {
			panic("no " + field)
		}
		e := ""
		if i == 0 {
			e = extra
		}
		text = strings.Replace(text, field, fmt.Sprintf("%s %s %d %s%s\n", field, s[i], len(data), e, name), 1)
	}
	return text
}

func sums(data []byte) []string {
	return []string{
		fmt.Sprintf("%x", md5.Sum(data)),
		fmt.Sprintf("%x", sha1.Sum(data)),
		fmt.Sprintf("%x", sha256.Sum256(data)),
	}
}
