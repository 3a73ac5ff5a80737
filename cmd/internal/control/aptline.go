package control

import (
	"slices"
	"strings"
)

// IsAptLine reports whether a line of Base is one that apt takes (sources.list(5)):
// deb [options] URI suite component...
func IsAptLine(line string) bool {
	if strings.ContainsAny(line, "\r\n") {
		return false
	}
	w := strings.Fields(line)
	for len(w) > 1 && strings.HasPrefix(w[1], "[") {
		end := slices.IndexFunc(w, func(s string) bool { return strings.HasSuffix(s, "]") })
		if end < 1 {
			break
		}
		w = append(w[:1], w[end+1:]...)
	}
	return len(w) > 2 && w[0] == "deb" && strings.Contains(w[1], ":") && (strings.HasSuffix(w[2], "/") || len(w) > 3)
}
