//go:build system

package policy

import "testing"

func TestAllWildcardsAgainstDpkg(t *testing.T) {
	archMatchesAgainstDpkg(t, `"any-$cpu", "$os-any", "$libc-any-any", "$libc-$os-any", "any-any-$cpu", "any-$os-$cpu", "$abi-any-any-any", "any-$libc-$os-any", "$abi-any-any-$cpu"`)
}
