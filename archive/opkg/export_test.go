package opkg

import (
	"os"

	"packmill/internal/deb"
)

// What the tests of other readers look at.
var (
	ReadPackage = readPackage
	ParseKey    = parseKey
)

// Repack is repack to a file of that name.
func Repack(debPath, dst string, opt Options) (*deb.Package, Info, error) {
	f, err := os.OpenFile(dst, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, Info{}, err
	}
	defer f.Close()
	return repack(debPath, f, opt)
}
