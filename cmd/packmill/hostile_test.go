package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"packmill/cmd/internal/desk"
	"packmill/internal/clean"
	"packmill/internal/durable"
	"packmill/internal/policy"
	"packmill/queue/buildlog"
	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// hostile sets a terminal's title, overwrites, turns text around and hides it, in
// seven and eight bits; quiet is what of it passes the readers of fields.
const (
	hostile = "\x1b]0;t\x07b\rc\u202ed\u2066e\u009b31mf\x9b\u200b\x7f\x1b[8mj"
	quiet   = "a\u202ed\u2066e\u009b31mf\u200bh\u2028j"
)

// readers are all commands that print what others wrote, with arguments; of the
// others mutes says why they print nothing of it.
var readers = map[string]string{
	"status": "", "ls": "", "show": "evil", "why": "evil", "wait": "evil --timeout 1ms", "fsck": "",
	"quinn-diff": "stable", "complete": "-- show ''",
	"review ls": "", "review show": "--no-lintian evil", "review accept": "nosuch", "review reject": "evil -m x",
	"review hold": "evil -m x", "review ask": "evil -m x",
	"build ls": "", "build show": "evil", "build sign": "evil", "build fail": "evil -m x", "build retry": "evil",
	"build dep-wait": "evil -m x", "build giveback": "evil", "build not-for-us": "evil",
	"wb": "info evil . amd64 . stable", "cancel": "evil amd64", "requeue": "--dry-run evil",
	"log show": "evil amd64", "log ls": "", "log grep": "it", "rebuild": "--check evil",
	"archive ls": "stable", "archive cruft": "stable", "archive show": "stable evil", "archive diff": "stable stable",
	"archive check": "", "archive gc": "--dry-run", "archive rm": "--dry-run stable evil",
	"archive copy": "--dry-run stable stable evil", "archive move": "--dry-run stable stable evil",
	"archive include": "--dry-run stable HOSTILE", "archive snapshot ls": "",
	"archive override": "stable evil --section x", "archive export": "stable OUT",
	"archive import": "stable http://127.0.0.1:9/HOSTILE x",
	"archive push":   "stable ./HOSTILE", "chroot ls": "", "builder ls": "", "doctor": "--offline",
	"config check": "", "config show": "",
	"mail": "--maildir MAILDIR",
}

// mutes are the commands that print nothing that others wrote.
var mutes = regexp.MustCompile(`^(setup|backup|uploader .*|init|chroot (create|update|rm)|builder (add|rm|pause|drain|resume)|serve-builder|key .*|completion|manual|archive (sources|opkg-conf|serve|key .*|rollback|snapshot (create|rm)|opkg.*))$`)

// hostileTree has an item in every state, one that can be read and one that
// cannot, with something hostile in each of its files and fields.
func hostileTree(t *testing.T) *desktop {
	x := newDesktop(t)
	now := time.Now().UTC()
	x.waits(uploadtest.Package{Source: "evil", Version: "1.0", Signer: signer(t), Distribution: "stable",
		Debian: func(f map[string]string) { f[quiet] = hostile; f["evil.postinst"] = hostile; f["changelog"] += hostile }},
		quiet)
	line := func(words ...string) string { return strings.Join(words, "\t") + "\n" }
	for i, s := range spool.Standard.States {
		dir := strings.NewReplacer("SUITE", "stable", "ARCH", "amd64", "HASH", policy.PoolPrefix("evil")).Replace(s.Dir)
		if s.Dir == "spool/incoming" {
			continue
		}
		for j, ticket := range []string{
			fmt.Sprintf("Source: evil\nVersion: 1.%d\nDistribution: stable\nComponent: %[2]s\nSection: %[2]s\n"+
				"Urgency: %[2]s\nUploader: %[2]s\nAccount: %[2]s\nEmail: %[2]s\nMaintainer: %[2]s\n"+
				"Changed-By: %[2]s\nReceived: %[3]s\nRemarks: %[2]s\n warning: %[2]s\nBuild-Architecture: amd64\n"+
				"Builder: %[2]s\nBuilt-By: %[2]s\nSuspect: %[2]s\nTaken-By: %[2]s\nCancelled-By: %[2]s\n"+
				"Dep-Wait: %[2]s\nBinary: %[2]s\nBinary-NMU: 1\nBinary-NMU-Changelog: %[2]s\nExtra-Depends: %[2]s\n"+
				"Result: evil_1.0_amd64.changes\nDsc: evil_1.0.dsc\nChanges: evil_1.0_source.changes\nPrevious-Failure: %[2]s\n",
				i, quiet, now.Format(time.RFC3339)),
			"Source: " + hostile + "\n",
		} {
			name := spool.NewName(spool.NormalClass, now.Add(time.Duration(i)*time.Second), "evil", fmt.Sprintf("1.%d", i+100*j))
			item := filepath.Join(dir, name.String())
			for file, text := range map[string]string{
				spool.TicketFile: ticket, spool.ReasonFile: "why: " + hostile + "\n" + hostile + "\n",
				spool.HistoryFile: line(now.Format(time.RFC3339Nano), hostile, hostile, hostile, hostile) +
					line(now.Format(time.RFC3339Nano), quiet, dir, quiet, quiet),
				desk.OpinionsFile: line(now.Format(time.RFC3339), hostile, "accept", hostile) +
					line(now.Format(time.RFC3339), quiet, "hold", hostile),
				buildlog.LogFile:        "it " + hostile + "\nmake: *** " + hostile + "\n",
				buildlog.BuildsFile:     fmt.Sprintf(`{"source":"evil","version":"1.0","suite":"stable","arch":"amd64","builder":%q,"start":%q,"outcome":"good","reason":%q}`, quiet, now.Format(time.RFC3339), quiet) + "\n",
				buildlog.FirstErrorFile: hostile + "\n", hostile: hostile,
				"result/evil_1.0_amd64.changes":    "Format: 1.8\nSource: " + quiet + "\n",
				"result/" + hostile + ".buildinfo": hostile, "evil_1.0_amd64.buildinfo": hostile,
			} {
				path := x.tree.Path(item, file)
				if err := durable.MkdirAll(filepath.Dir(path), 0o775); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o664); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, p := range []string{"spool/incoming/" + hostile, "queue/" + hostile, "queue/stable/" + hostile,
		"spool/review/" + hostile, "archive/pool/" + hostile, "archive/dists/" + hostile, "attic/" + hostile,
		"builders/" + hostile, "tmp/" + hostile} {
		if err := durable.MkdirAll(x.tree.Path(p, hostile), 0o775); err != nil {
			t.Fatal(err)
		}
		x.write(filepath.Join(p, "file"+hostile), hostile)
	}
	x.write("builders/buildd-amd64", fmt.Sprintf("{\"daemon\":%q,\"refuses\":%q}\n", quiet, quiet))
	x.write("archive/pool/"+hostile+".deb", hostile)
	if err := x.tree.LearnNames(); err != nil {
		t.Fatal(err)
	}
	return x
}

// TestHostileText: nothing that somebody wrote into a field, a file or a name acts
// on a terminal or hides, whichever command prints it, to a person or as JSON.
func TestHostileText(t *testing.T) {
	x := hostileTree(t)
	parser, err := grammar(&cli{}, "")
	if err != nil {
		t.Fatal(err)
	}
	maildir := filepath.Join(t.TempDir(), "Maildir")
	for _, d := range []string{"new", "cur"} {
		if err := os.MkdirAll(filepath.Join(maildir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(maildir, "new", hostile),
		[]byte("From: "+hostile+"\nAuto-Submitted: "+hostile+"\nSubject: "+hostile+"\n\n"+hostile+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, n := range parser.Model.Leaves(false) {
		verb := strings.TrimPrefix(leafPath(n), "packmill ")
		known[verb] = true
		if _, ok := readers[verb]; !ok && !mutes.MatchString(verb) {
			t.Errorf("packmill %s: say whether it prints what others wrote", verb)
		}
	}
	said := 0
	for _, verb := range slices.Sorted(func(yield func(string) bool) {
		for v := range readers {
			if !yield(v) {
				return
			}
		}
	}) {
		if !known[verb] && verb != "complete" {
			t.Errorf("there is no packmill %s", verb)
		}
		args := append(strings.Fields(verb),
			strings.Fields(strings.NewReplacer("HOSTILE", hostile, "MAILDIR", maildir, "OUT", t.TempDir(), "''",
				"").Replace(readers[verb]))...)
		for _, more := range [][]string{nil, {"--json"}} {
			out := x.within(slices.Concat(more, args)...)
			if got := string(clean.Escape(nil, []byte(out))); got != out {
				t.Errorf("packmill %q: got %q", slices.Concat(more, args), out)
			}
			if strings.Contains(out, "202e") || strings.Contains(out, "31mf") {
				said++
			}
		}
		if slices.Contains([]string{"ls", "show", "why", "review ls", "review show"}, verb) {
			out, _ := x.at80x24([]string{"TERM=xterm"}, args...)
			out = sgr.ReplaceAllString(out, "")
			if got := string(clean.Escape(nil, []byte(out))); got != out || strings.Contains(out, "\x1b[8m") {
				t.Errorf("packmill %q at a terminal: got %q", args, out)
			}
		}
	}
	if said < 20 {
		t.Errorf("only %d outputs have something of it: the test tries too little", said)
	}
}

// within is run in this process: many commands start quicker so.
func (x *desktop) within(args ...string) string {
	x.t.Helper()
	f, err := os.CreateTemp(x.t.TempDir(), "")
	if err != nil {
		x.t.Fatal(err)
	}
	defer f.Close()
	stdout, stderr := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = f, f
	run(append([]string{"--tree", x.tree.Root()}, args...))
	os.Stdout, os.Stderr = stdout, stderr
	out, err := os.ReadFile(f.Name())
	if err != nil {
		x.t.Fatal(err)
	}
	return string(out)
}

func leafPath(n *kong.Node) string {
	return strings.Join(strings.Fields(regexp.MustCompile(`\([^)]*\)|<[^>]*>`).ReplaceAllString(n.FullPath(), "")), " ")
}
