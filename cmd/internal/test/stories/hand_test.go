package stories

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// handEnds is what becomes of what a person's mv brings from each state to each other,
// when all daemons have done what there is to do. A row is where it lay, a source first
// and then a job of amd64 ("taken": building, by a person); a column is where mv brought
// it ("alien": another suite's needs-build, "all": another architecture's). A cell is
// where it ends, by handWords; "=" where it lay already.
const handEnds = `
      ik rv ac rj ma nb bd dw bg bt ba fa nf an up in at xx al
s-rv  rv  = in rj in rj rj rj rj rj rj rj rj rj in rj at rj rj
s-ac  in rv  = rj in rj rj rj rj rj rj rj rj rj in rj at rj rj
s-rj  rv rv in  = in rj rj rj rj rj rj rj rj rj in rj at rj rj
s-ma  in rv in rj  = in rj rj rj rj rj rj rj rj in rj at rj rj
s-up  in rv in rj in rj rj rj rj rj rj rj rj rj  = rj at rj rj
s-in  rj rj rj rj rj rj rj rj rj rj rj rj rj rj rj  = at rj rj
s-at  rj rv in rj in rj rj rj rj rj rj rj rj rj in rj  = rj rj
j-nb  ba ba ba ba in  = in in in ba ba fa nf at ba ba at ba ba
j-bd  ba ba ba ba bd dw  = dw dw ba ba fa nf at ba ba at ba ba
j-dw  ba ba ba ba dw in bd  = in ba ba fa nf at ba ba at ba ba
j-tk  ba ba ba ba bg in in in  = ba ba fa nf at ba ba at ba ba
j-bg  ba ba ba ba in in in in  = ba ba fa nf at ba ba at ba ba
j-bt  ba ba ba ba bt bt bt bt bt  = ba fa nf at ba ba at ba ba
j-ba  ba ba ba ba ba ba ba ba ba ba  = fa nf at ba ba at ba ba
j-fa  ba ba ba ba ba ba ba ba ba ba ba  = nf at ba ba at ba ba
j-nf  ba ba ba ba ba in in in in ba ba fa  = at nf ba at ba ba
j-an  an an an an an an an an an an an an nf  = an an at an an
j-up  ba ba ba ba ba in in in in bt ba fa nf at  = ba at ba ba
j-in  in in in in in in in in in in in in nf at in  = at in in
j-at  ba ba ba ba ba in in in in ba ba fa nf at ba ba  = ba ba
`

// handWords are the states of handEnds.
var handWords = map[string]spool.State{
	"ik": spool.Intake, "rv": spool.Review, "ac": spool.Accepted, "rj": spool.Rejected, "ma": spool.Master,
	"nb": spool.NeedsBuild, "bd": spool.BDUninstallable, "dw": spool.DepWait, "bg": spool.Building, "bt": spool.Built,
	"ba": spool.BuildAttempted, "fa": spool.Failed, "nf": spool.NotForUs, "an": spool.AutoNotForUs, "up": spool.Uploaded,
	"in": spool.Installed, "at": spool.Attic, "al": nil, "xx": nil,
}

// handOrder are the columns.
var handOrder = strings.Fields("ik rv ac rj ma nb bd dw bg bt ba fa nf an up in at xx al")

// handRows are the rows: where it lies, s of a source and j of a job; bg is a build that
// runs, tk one of a person.
var handRows = strings.Fields(
	"s-rv s-ac s-rj s-ma s-up s-in s-at j-nb j-bd j-dw j-tk j-bg j-bt j-ba j-fa j-nf j-an j-up j-in j-at")

// hand is a thing that is moved by hand: a source, or a job of it.
type hand struct {
	row, column string
	ino         uint64 // of the item, for life
	packages    []string
}

// sameState reports whether a row's things lie in the state of a column already.
func sameState(row, column string) bool {
	return row[2:] == column || row == "j-tk" && column == "bg"
}

// source is its name.
func (h *hand) source() string { return h.row + "-to-" + h.column }

// TestEveryMoveByHand: whatever a person's mv brings wherever, nothing is deleted; what can
// be there goes on from there, and what cannot lies where somebody finds it, with a REASON.
func TestEveryMoveByHand(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	newMillIn(t, shm(t), "Review: never").everyMoveByHand()
}

func (m *mill) everyMoveByHand() {
	suite := m.suites()
	m.control("suites", suite+"\n"+strings.NewReplacer("Suite: stable", "Suite: desk", "Review: never",
		"Review: always").Replace(suite)+"\n"+strings.Replace(suite, "Suite: stable", "Suite: manual", 1)+"Log-Review: manual\n")
	m.once("archived")
	var all []*hand
	of := map[string][]string{} // the sources of each row
	for _, row := range handRows {
		for _, c := range handOrder {
			if !sameState(row, c) {
				h := &hand{row: row, column: c}
				all, of[row] = append(all, h), append(of[row], h.source())
			}
		}
	}
	m.layOut(of)
	m.moveAll(all, len(of["j-bg"]), len(of["j-tk"]))
	m.settle()
	if m.accounts != nil {
		m.try("fsck", "--repair") // what reviewd may not write in; fsck below says whether more is left
		m.settle()
	}
	m.compare(all)
	m.waitsForSomething()
	m.sound()
}

// uploadRows uploads the sources of rows.
func (m *mill) uploadRows(of map[string][]string, version string, rows ...string) {
	m.Helper()
	for _, row := range rows {
		p := uploadtest.Package{Version: version}
		switch row {
		case "s-rv", "s-rj":
			p.Distribution = "desk"
		case "j-bt":
			p.Distribution = "manual"
		case "j-an":
			p.Architecture = "i386"
		}
		for _, p.Source = range of[row] {
			if row == "j-ba" || row == "j-fa" {
				m.script(p.Source+"_1.0_amd64", "fail it")
			}
			m.upload(p)
		}
	}
}

// builderTakes gives the builder that many jobs at a time, and what it does not take.
func (m *mill) builderTakes(jobs int, not ...string) {
	m.Helper()
	text, err := os.ReadFile(filepath.Join(m.tree, "control/builders"))
	m.must(err)
	lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(text)), "\n"), func(l string) bool {
		return strings.HasPrefix(l, "Jobs:") || strings.HasPrefix(l, "Not-Packages:")
	})
	lines = append(lines, fmt.Sprintf("Jobs: %d", jobs))
	if len(not) > 0 {
		lines = append(lines, "Not-Packages: "+strings.Join(not, "-* ")+"-*")
	}
	m.control("builders", strings.Join(lines, "\n"))
}

// asleep are the rows of which nothing is to be built before they are moved.
var asleep = []string{"s-ma", "s-at", "j-nb", "j-bd", "j-dw", "j-tk", "j-nf", "j-at"}

// layOut takes the sources of each row to where its name says; but for j-bg.
func (m *mill) layOut(of map[string][]string) {
	m.Helper()
	m.builderTakes(2, append(asleep, "j-bg")...)
	m.uploadRows(of, "1.0", append(asleep, "j-bg", "j-bt", "j-ba", "j-fa", "s-in", "j-in")...)
	m.step("reviewd", "master-buildd", "buildd-amd64", "master-buildd", "archived")
	var words strings.Builder
	for row, word := range map[string]string{"j-bd": "extra-depends . -m 's-in-to-ik (>= 9)'", "j-dw": "dw . -m libnowhere",
		"j-tk": "take . ", "j-nf": "nfu . -m no", "j-at": "cancel . -m no", "j-fa": "fail . -m no"} {
		verb, rest, _ := strings.Cut(word, " . ")
		fmt.Fprintf(&words, "%s %s . amd64 . stable . %s\n", verb, strings.Join(of[row], " "), rest)
	}
	list := filepath.Join(m.home, "words")
	m.must(os.WriteFile(list, []byte(words.String()), 0o644))
	m.packmill("wb", "--file", list)
	m.uploadRows(of, "1.0", "s-up", "j-up", "j-an")
	m.uploadRows(of, "1.1", "s-at")
	m.step("reviewd", "master-buildd", "buildd-amd64", "master-buildd")
	m.uploadRows(of, "1.0", "s-rv", "s-rj", "s-ac")
	m.once("reviewd")
	m.packmill(append([]string{"review", "reject", "-m", "no"}, of["s-rj"]...)...)
}

// moveAll moves each while as many builds run, which end after that, and as many are
// taken by a person.
func (m *mill) moveAll(all []*hand, builds, taken int) {
	m.Helper()
	for _, h := range all {
		if h.row == "j-bg" {
			m.script(h.source()+"_1.0_amd64", "hold")
		}
	}
	m.must(os.WriteFile(filepath.Join(m.home, "hold"), nil, 0o644))
	m.builderTakes(builds, asleep...)
	builder := m.start("buildd-amd64")
	m.until("all are being built", func() bool {
		return len(m.found("", spool.Building)) == builds+taken
	})
	lies := map[string]spool.Found{}
	for _, f := range m.found("") {
		if kind := "s "; f.Name.Version == "1.0" {
			if f.IsJob() {
				kind = "j "
			}
			lies[kind+f.Name.Source] = f
		}
	}
	for _, h := range all {
		f, ok := lies[h.row[:1]+" "+h.source()]
		if want := handWords[strings.Replace(h.row[2:], "tk", "bg", 1)]; !ok || f.Place.State != want {
			m.Fatalf("%s lies in %v", h.source(), f.Place)
		}
		m.moveByHand(h, f)
	}
	m.must(os.Remove(filepath.Join(m.home, "hold")))
	m.until("the builds have ended", func() bool {
		return !slices.ContainsFunc(m.found("", spool.Building), func(f spool.Found) bool {
			return strings.HasPrefix(f.Name.Source, "j-bg")
		})
	})
	builder.cmd.Process.Signal(syscall.SIGTERM)
	builder.cmd.Wait()
	m.builderTakes(2)
}

// moveByHand is the mv, of an item whose packages and inode are noted before.
func (m *mill) moveByHand(h *hand, f spool.Found) {
	m.Helper()
	from := filepath.Join(m.tree, f.Dir())
	st, err := os.Stat(from)
	m.must(err)
	h.ino, h.packages = st.Sys().(*syscall.Stat_t).Ino, packagesIn(from)
	suite := f.Place.Suite
	if suite == "" { // rejected, attic
		suite = map[bool]string{true: "desk", false: "stable"}[h.row == "s-rj"]
	}
	arch := "amd64"
	to := handWords[h.column]
	switch {
	case h.column == "al" || h.column == "xx":
		to = spool.NeedsBuild
		if h.column == "al" {
			arch = "all"
		} else {
			suite = map[bool]string{true: "stable", false: "desk"}[suite == "desk"]
		}
	case to == spool.Installed && h.row[0] == 's':
		arch = spool.SourceArch
	}
	dir := filepath.Join(m.tree, spool.In(to, suite, arch).Of(f.Name.Source).Dir())
	m.makeAsAbove(dir)
	// A source and its job have one name: where the one lies mv takes the other to nowhere.
	if err := os.Rename(from, filepath.Join(dir, filepath.Base(from))); err != nil && !errors.Is(err, fs.ErrExist) {
		m.Fatal(err)
	}
}

// makeAsAbove makes a directory that is not there yet as the one above it is, as daemons do.
func (m *mill) makeAsAbove(dir string) {
	m.Helper()
	if _, err := os.Lstat(dir); err == nil {
		return
	}
	m.makeAsAbove(filepath.Dir(dir))
	above, err := os.Stat(filepath.Dir(dir))
	m.must(err)
	owner := above.Sys().(*syscall.Stat_t)
	m.must(os.Mkdir(dir, 0o775))
	m.must(os.Lchown(dir, int(owner.Uid), int(owner.Gid)))
	m.must(os.Chmod(dir, above.Mode()))
}

// packagesIn are the names of the packages below a directory.
func packagesIn(dir string) (names []string) {
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && (strings.HasSuffix(path, ".deb") || strings.Contains(path, ".tar.")) {
			names = append(names, d.Name())
		}
		return nil
	})
	return names
}

// compare holds where each ends against handEnds, and looks for what it had.
func (m *mill) compare(all []*hand) {
	m.Helper()
	at := map[uint64]spool.Found{}
	for _, f := range m.found("") {
		st, err := os.Stat(filepath.Join(m.tree, f.Dir()))
		m.must(err)
		at[st.Sys().(*syscall.Stat_t).Ino] = f
	}
	pool := packagesIn(filepath.Join(m.tree, "archive/pool"))
	got := "\n      " + strings.Join(handOrder, " ") + "\n"
	next := all
	for _, row := range handRows {
		got += row + " "
		for _, c := range handOrder {
			if sameState(row, c) {
				got += "  ="
				continue
			}
			h := next[0]
			next = next[1:]
			f, ok := at[h.ino]
			if !ok {
				m.Errorf("%s is gone", h.source())
				continue
			}
			for word, s := range handWords {
				if s == f.Place.State {
					got += " " + word
				}
			}
			dir := filepath.Join(m.tree, f.Dir())
			for _, p := range h.packages {
				if !slices.Contains(pool, p) && !slices.Contains(packagesIn(dir), p) {
					m.Errorf("%s: %s is gone; it ended in %s", h.source(), p, f.Place)
				}
			}
			if s := f.Place.State; (s == spool.Rejected || s == spool.BuildAttempted || s == spool.Failed) &&
				spool.ReadReason(dir) == "" {
				m.Errorf("%s lies in %s without a REASON", h.source(), f.Place)
			}
		}
		got += "\n"
	}
	if got != handEnds {
		m.Errorf("got:%s\nwant:%s", got, handEnds)
	}
}

// waitsForSomething: no source waits for a job that no state has.
func (m *mill) waitsForSomething() {
	m.Helper()
	open := map[string]bool{}
	for _, f := range m.found("", spool.Standard.Are(spool.Jobs|spool.Active)...) {
		if f.IsJob() {
			open[f.Name.ID()] = true
		}
	}
	for _, f := range m.found("", spool.Master) {
		if !open[f.Name.ID()] {
			m.Errorf("%s waits for nothing", f.Dir())
		}
	}
	// A source that lies with the reviewers may come back for the jobs that wait for it.
	held := map[string]bool{}
	for _, f := range m.found("", spool.Review, spool.Rejected) {
		held[f.Name.ID()] = true
	}
	for _, f := range m.found("", spool.Uploaded) {
		if held[f.Name.ID()] {
			continue
		}
		m.Errorf("%s waits in the archive queue:\n%s", f.Dir(), m.packmill("why", f.Name.ID()))
	}
}
