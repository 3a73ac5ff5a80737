package queue

import (
	"fmt"
	"strings"
)

// None, as the only word of profiles or options, says that there are none,
// whatever the suite has.
const None = "none"

// CheckProfile says what is wrong with the name of a build profile.
func CheckProfile(word string) error {
	if word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789+-.") != "" {
		return fmt.Errorf("%q is no build profile: only a-z, 0-9, +, - and . are in one, such as nocheck or stage1", word)
	}
	return nil
}

// CheckOption says what is wrong with a word for DEB_BUILD_OPTIONS (Policy 4.9.1).
func CheckOption(word string) error {
	name, _, _ := strings.Cut(word, "=")
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" ||
		strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.,_=") != "" {
		return fmt.Errorf("%q is no word for DEB_BUILD_OPTIONS; write such as nocheck or parallel=4", word)
	}
	return nil
}

func checkWords(text string, check func(string) error) error {
	for _, w := range strings.Fields(text) {
		if err := check(w); err != nil {
			return err
		}
	}
	return nil
}
