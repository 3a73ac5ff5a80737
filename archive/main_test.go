package archive

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// Most of these tests wait: for apt, for the disk, for the network. So four run
// at a time. With pushEnv this program is not a test, but a push.
func TestMain(m *testing.M) {
	if arg := os.Getenv(pushEnv); arg != "" {
		if err := pushProcess(arg); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
