package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"packmill/internal/openpgp"
	"packmill/queue"
	"packmill/queue/buildlog"
	"packmill/spool"
	"packmill/spool/statement"
	"packmill/spool/upload"
	"packmill/spool/upload/uploadtest"
)

// programs builds the named commands and returns the directory they are in.
func programs(b *bench, names ...string) (string, error) {
	bin := filepath.Join(b.dir, "bin")
	args := []string{"build", "-o", bin + "/"}
	for _, n := range names {
		args = append(args, "./cmd/"+n)
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build (run scripts/bench): %w: %s", err, out)
	}
	return bin, nil
}

// Sizes of the measure of log grep.
const (
	grepLogs = 32
	grepSize = 8 << 20
	grepWord = "expected declaration before"
)

// logText is text like a build's. The word that is looked for stands in one line
// of 20,000.
func logText(size int, seed int64) []byte {
	r := rand.New(rand.NewSource(seed))
	var b bytes.Buffer
	for i := 0; b.Len() < size; i++ {
		switch r.Intn(4) {
		case 0:
			fmt.Fprintf(&b, "gcc -DHAVE_CONFIG_H -I. -I.. -Wdate-time -D_FORTIFY_SOURCE=2 -g -O2 "+
				"-ffile-prefix-map=/build/hello-%d=. -fstack-protector-strong -Wformat -Werror=format-security -c -o obj%d.o "+
				"obj%d.c\n", seed, i, i)
		case 1:
			fmt.Fprintf(&b, "checking for function_%d... yes\n", r.Intn(1000))
		case 2:
			fmt.Fprintf(&b, "  CC       lib/module-%d/file_%x.lo\n", r.Intn(50), r.Int63())
		default:
			fmt.Fprintf(&b, "Get:%d http://mirror.example/debian sid/main amd64 libfoo%d amd64 1.%d-1 [%d kB]\n",
				i, r.Intn(9), r.Intn(99), r.Intn(9999))
		}
		if i%20000 == 19999 {
			fmt.Fprintf(&b, "foo.c:12:3: error: %s `}' token\n", grepWord)
		}
	}
	return b.Bytes()
}

// grepFigures measures packmill log grep over the cold store, beside zstdgrep
// over the same files with as many processes as there are processors.
func grepFigures(b *bench, bin string) error {
	tree, err := spool.Init(filepath.Join(b.dir, "grep"))
	if err != nil {
		return err
	}
	store := buildlog.Store{Dir: tree.Path(spool.LogsDir)}
	src, total := filepath.Join(b.dir, "log"), 0
	for i := range grepLogs {
		text := logText(grepSize, int64(i))
		if err := os.WriteFile(src, text, 0o644); err != nil {
			return err
		}
		total += len(text)
		build := &buildlog.Build{Source: fmt.Sprintf("package%d", i), Version: "1.0-1", Suite: "sid", Arch: "amd64",
			Outcome: buildlog.Good, Start: time.Now()}
		if err := store.Keep(src, build); err != nil {
			return err
		}
	}
	b.progress("log grep of %d MB in %d compressed logs", total/1e6, grepLogs)
	ours, err := cheapest(filepath.Join(bin, "packmill"), "--tree", tree.Root(), "log", "grep", grepWord)
	if err != nil {
		return err
	}
	theirs, err := cheapest("sh", "-c",
		fmt.Sprintf("find %s -name '*.zst' | xargs -P %d -n 4 zstdgrep '%s'", store.Dir, runtime.NumCPU(), grepWord))
	if err != nil {
		return err
	}
	mb := float64(total) / 1e6
	b.figure(Figure{Name: "build.log-grep", Value: mb / ours.wall.Seconds(), Unit: "MB/s",
		Versus: "zstdgrep, as many at once as processors",
		Ratio:  theirs.wall.Seconds() / ours.wall.Seconds(), Goal: ">= 500 MB/s", Met: mb/ours.wall.Seconds() >= 500})
	// What a machine that others load does not blur.
	b.figure(Figure{Name: "build.log-grep.cpu", Value: mb / ours.cpu.Seconds(), Unit: "MB a CPU second", Goal: ">= 500",
		Met: mb/ours.cpu.Seconds() >= 500})
	return nil
}

// overheadBuilds is how many builds the overhead is measured on.
const overheadBuilds = 21

// overheadFigure measures what buildd adds to a build: from the claim to the
// program's first act, and from its last to the archive queue. The program is
// the instant builder, which notes both.
func overheadFigure(b *bench, bin string) error {
	tree, err := overheadTree(
		filepath.Join(b.dir, "overhead"),
		"Name: b1\nRunner: exec "+filepath.Join(bin, "fakebuilder"),
	)
	if err != nil {
		return err
	}
	if err := overheadJobs(b, tree, bin, overheadBuilds); err != nil {
		return err
	}
	b.progress("%d builds through buildd", overheadBuilds)
	middle, err := overheadOf(tree, bin, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(
			ctx,
			filepath.Join(bin, "buildd"),
			"--tree",
			tree.Root(),
			"--arch",
			"amd64",
			"--once",
		)
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		return output(cmd)
	})
	if err != nil {
		return err
	}
	b.figure(Figure{Name: "build.buildd.overhead", Value: middle.Seconds(), Unit: "s", Goal: "< 0.3 s",
		Met: middle < 300*time.Millisecond})
	return nil
}

// overheadOf lets build build all that waits, and returns what the middle one took beside the instant builder's own
// time.
func overheadOf(tree *spool.Tree, bin string, build func() error) (time.Duration, error) {
	jobs, err := tree.List(spool.In(spool.NeedsBuild, "stable", "amd64"))
	if err != nil {
		return 0, err
	}
	if err := build(); err != nil {
		return 0, err
	}
	acts, err := os.ReadFile(filepath.Join(bin, "builds"))
	if err != nil {
		return 0, err
	}
	did := map[string]time.Time{} // "begin package3_1.0_amd64"
	for line := range strings.Lines(string(acts)) {
		if f := strings.Fields(line); len(f) == 4 {
			if did[f[1]+" "+f[2]], err = time.Parse(time.RFC3339Nano, f[0]); err != nil {
				return 0, err
			}
		}
	}
	found, err := tree.Find("", spool.Uploaded)
	if err != nil {
		return 0, err
	}
	if len(found) != len(jobs) || len(jobs) == 0 {
		return 0, fmt.Errorf("%d of %d builds came to the archive queue", len(found), len(jobs))
	}
	var took []time.Duration
	for _, f := range found {
		events, err := spool.ReadHistory(tree.Path(f.Dir()))
		if err != nil || len(events) < 2 {
			return 0, fmt.Errorf("history of %s: %d lines, %w", f.Name, len(events), err)
		}
		claimed, moved := events[len(events)-2].Time, events[len(events)-1].Time
		id := f.Name.ID() + "_amd64"
		took = append(took, did["begin "+id].Sub(claimed)+moved.Sub(did["end "+id]))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// overheadTree makes a tree with these builders, each of which builds for amd64 and whose results one key signs.
func overheadTree(dir string, builders ...string) (*spool.Tree, error) {
	tree, err := spool.Init(dir)
	if err != nil {
		return nil, err
	}
	signer, err := openpgp.Generate("Bench", "bench@example.org", time.Now().AddDate(-1, 0, 0))
	if err != nil {
		return nil, err
	}
	for i := range builders {
		builders[i] += "\nArchitectures: amd64\nKey: private/key\nFingerprint: " + signer.Fingerprint() + "\n"
	}
	for name, text := range map[string]string{
		"suites":      "Suite: stable\nArchitectures: amd64\n",
		"builders":    strings.Join(builders, "\n"),
		"keys/key":    string(signer.Public()),
		"private/key": string(signer.Secret()),
	} {
		path := tree.Path("control", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return tree, nil
}

// overheadJobs puts n jobs into needs-build.
func overheadJobs(b *bench, tree *spool.Tree, bin string, n int) error {
	for i := range n {
		if err := overheadJob(b, tree, fmt.Sprintf("package%d", i)); err != nil {
			return err
		}
	}
	// buildd takes what was let in: init vouches for all that lies in a tree before reviewd's key is made.
	if err := os.Remove(tree.Path(statement.PublicFile)); err != nil {
		return err
	}
	return output(exec.Command(filepath.Join(bin, "packmill"), "init", "--tree", tree.Root()))
}

// overheadJob puts a job into needs-build.
func overheadJob(b *bench, tree *spool.Tree, source string) error {
	dir, err := os.MkdirTemp(b.dir, "source-")
	if err != nil {
		return err
	}
	changes, err := uploadtest.Package{Source: source, Version: "1.0"}.Write(dir)
	if err != nil {
		return err
	}
	listed, err := upload.Peek(dir, changes)
	if err != nil {
		return err
	}
	t := &queue.Ticket{
		Source:       source,
		Version:      "1.0",
		Suite:        "stable",
		Component:    "main",
		Architecture: []string{"any"},
		Binary:       []string{source},
		Changes:      changes,
	}
	files := map[string]string{}
	for _, f := range listed {
		files[f.Name] = filepath.Join(dir, f.Name)
		if strings.HasSuffix(f.Name, ".dsc") {
			t.Dsc = f.Name
		}
	}
	_, err = queue.Make(tree,
		&queue.Job{Ticket: t, Arch: "amd64", Class: spool.NormalClass, Time: time.Now(), Files: files,
			State: spool.NeedsBuild,
			By:    spool.MasterD, Who: "bench", Reason: "bench"})
	return err
}
