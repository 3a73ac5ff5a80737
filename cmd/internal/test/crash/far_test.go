//go:build linux && amd64

package crash

import (
	"os"
	"path/filepath"
	"testing"
)

// The programs of a builder on another machine, whose directories are in outsideDir. Its ssh is a script that starts
// the master's end of a session, and ends the builder when nothing is left to build.
var farPrograms = map[string]string{
	"far-builder": `#!/bin/sh
# far-builder --tree TREE
exec "${0%/*}/buildd" --tree "$2/` + outsideDir + `/far" --work "$2/` + outsideDir + `/work" --master here \
	--ssh "${0%/*}/far-call $2"
`,
	"far-call": `#!/bin/sh
# far-call TREE ...
"${0%/*}/buildd" --tree "$1" --builder far --serve --once
[ -z "$(ls "$1/queue/sid/amd64/building")" ] || exit 1
# What still waits then has been put off, or there was no place for it.
if [ -n "$(ls "$1/queue/sid/amd64/needs-build")" ] && ! [ -e "$1.calls/4" ]; then
	mkdir -p "$1.calls"
	for n in 1 2 3 4; do
		mkdir "$1.calls/$n" 2>/dev/null && exit 1
	done
fi
rm -rf "$1.calls"
[ "$PPID" -le 1 ] || kill -TERM "$PPID"
`,
}

// farSite is a master with jobs for a builder on another machine, and that.
func farSite(t testing.TB) *site {
	t.Helper()
	s := queued(t, "together", "hello", "broken", "waiting")
	for name, text := range farPrograms {
		if err := os.WriteFile(filepath.Join(s.bin, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	key := "\nFingerprint: " + builderKey(t) + "\nKey: private/builder.key\n"
	s.write("control/builders", "Name: far\nArchitectures: amd64 all\nRunner: remote\nJobs: 3\nLease: 2s"+key)
	s.mkdir(outsideDir)
	if _, err := s.plain(filepath.Join(s.tree, outsideDir, "far"), "packmill", "init"); err != nil {
		t.Fatal(err)
	}
	s.write(outsideDir+"/far/control/builders",
		"Name: me\nArchitectures: amd64 all\nJobs: 3\nRunner: exec "+filepath.Join(s.bin, builderName)+"\n")
	return s
}

func builderKey(t testing.TB) string {
	t.Helper()
	k, err := keys()
	if err != nil {
		t.Fatal(err)
	}
	return k[1].Fingerprint()
}
