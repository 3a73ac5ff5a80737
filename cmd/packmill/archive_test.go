package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"packmill/archive/deb/debtest"
)

func TestMain(m *testing.M) {
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
	})
}

func TestArchiveScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/archive", RequireUniqueNames: true})
}
