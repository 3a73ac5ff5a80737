// Package pattern holds regular expressions until they are asked for: a program
// that lives for some milliseconds needs few of those that it has.
package pattern

import (
	"regexp"
	"sync"
)

// Lazy is the expression, which the first call compiles. It panics then if the
// expression cannot be compiled, as regexp.MustCompile does.
func Lazy(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}
