// Package near finds what a person meant who mistyped a name.
package near

import "strings"

// To is the known name that is at most two edits from name, the first in
// alphabetical order of the nearest; "" if there is none.
func To(name string, known []string) string {
	best, at := "", 3
	for _, k := range known {
		if d := len(name) - len(k); d > 2 || d < -2 {
			continue // distance is at least that, and what strangers ask for may be long
		}
		if d := distance(name, k); d < at && d < max(len(name), len(k)) || d == at && best != "" && k < best {
			best, at = k, d
		}
	}
	return best
}

// Hint is the question whether the name that is near is meant; "" if none is.
func Hint(name string, known []string) string {
	if k := To(strings.ToLower(name), known); k != "" {
		return "did you mean " + k + "?"
	}
	return ""
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diag, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diag+cost)
		}
	}
	return row[len(b)]
}
