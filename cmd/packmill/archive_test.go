package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/rogpeppe/go-internal/testscript"

	"packmill/internal/deb/debtest"
)

// The race detector waits a second at the end of each process for races that are
// still to come: longer than most of the hundreds of commands here take.
var noWait = [2]string{"GORACE", "atexit_sleep_ms=0"}

func TestMain(m *testing.M) {
	os.Setenv(noWait[0], noWait[1])
	testscript.Main(m, map[string]func(){
		"packmill": main,
		// mkupload NAME VERSION [DEPENDS]: a source with one package, and
		// one more of its documentation, in the current directory.
		"mkupload": func() {
			name, version := os.Args[1], os.Args[2]
			d := debtest.Deb{Name: name, Version: version}
			if len(os.Args) > 3 {
				d.Fields = "Depends: " + os.Args[3] + "\n"
			}
			u := debtest.Upload{Source: debtest.Source{Name: name, Version: version, Binary: []string{name, name + "-doc"}},
				Debs: []debtest.Deb{d, {Name: name + "-doc", Source: name, Version: version, Arch: "all"}}}
			if _, err := u.Write("."); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		},
		// mkexpired FILE: a secret key that expired yesterday.
		"mkexpired": func() {
			made := time.Now().Add(-48 * time.Hour)
			e, err := openpgp.NewEntity("old", "", "old@example.org",
				&packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Curve: packet.Curve25519,
					KeyLifetimeSecs: 24 * 3600, Time: func() time.Time { return made }})
			if err == nil {
				var secret bytes.Buffer
				err = e.SerializePrivateWithoutSigning(&secret, nil)
				err = errors.Join(err, os.WriteFile(os.Args[1], secret.Bytes(), 0o600))
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		},
	})
}

func TestArchiveScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/archive", RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv(noWait[0], noWait[1])
			return nil
		}})
}
