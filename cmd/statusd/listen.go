package main

import (
	"net"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"

	"packmill/cmd/internal/daemon"
)

// standard is where statusd answers if nobody says anything else.
const standard = "127.0.0.1:8077"

// listen opens the addresses: without any the sockets of systemd, or else the standard
// one.
func listen(addresses []string) (out []net.Listener, err error) {
	if len(addresses) == 0 {
		given, err := activation.Listeners()
		if err != nil {
			return nil, err
		}
		for _, l := range given {
			if l != nil {
				out = append(out, l)
			}
		}
		if len(out) > 0 {
			return out, nil
		}
		addresses = []string{standard}
	}
	for _, a := range addresses {
		network := "tcp"
		if path, ok := strings.CutPrefix(a, "unix:"); ok {
			network, a = "unix", path
			if c, err := net.Dial(network, a); err == nil {
				c.Close() // another one answers there: to listen says so
			} else if info, err := os.Lstat(a); err == nil && info.Mode().Type() == os.ModeSocket {
				os.Remove(a) // what a killed one left
			}
		}
		l, err := net.Listen(network, a)
		if err != nil {
			return nil, daemon.Wrong{Err: err}
		}
		out = append(out, l)
	}
	return out, nil
}
