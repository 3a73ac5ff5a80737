//go:build system

package remote

func init() { step = 1 }
