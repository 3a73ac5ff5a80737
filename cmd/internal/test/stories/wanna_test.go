package stories

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"packmill/spool"
	"packmill/spool/upload/uploadtest"
)

// step runs daemons once each, in that order.
func (m *mill) step(daemons ...string) string {
	m.Helper()
	for _, d := range daemons {
		m.once(d)
	}
	return m.where()
}

// What a person says is not for an architecture holds for every version of it,
// until it is taken back.
func TestNotForUsHolds(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	m := newMill(t, "Publish: source-first", "Architectures: amd64 i386")
	m.upload(uploadtest.Package{Source: "app", Version: "1.0"})
	m.step("reviewd", "master-buildd")
	m.wb("nfu app . i386 -m its compiler lacks the instructions")
	for _, v := range []string{"1.1", "1.2"} {
		m.upload(uploadtest.Package{Source: "app", Version: v})
		got := m.settle()
		m.has(got, "installed amd64 app_"+v, "not-for-us i386 app_"+v)
		m.lacks(got, "master source app_"+v)
	}
	if n := strings.Count(m.where(), "not-for-us i386"); n != 1 {
		t.Errorf("%d jobs in not-for-us, want the newest alone\n%s", n, m.where())
	}
	if why := m.packmill("show", "app_1.2"); !strings.Contains(why, "its compiler lacks the instructions") {
		t.Errorf("the reason is gone:\n%s", why)
	}
	m.touch("stable")
	m.lacks(m.settle(), "needs-build i386 app_1.2")
	m.wb("nfu app . i386")
	m.wb("gb app . i386 --override")
	m.has(m.settle(), "installed i386 app_1.2")
	m.upload(uploadtest.Package{Source: "app", Version: "1.3"})
	m.has(m.settle(), "installed i386 app_1.3")
	m.sound()
}

// Packages-arch-specific is asked at fan-out and at each merge: of sources and of
// binaries, when a line comes and when it goes.
func TestSpecificFollows(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	m := newMill(t, "Publish: source-first", "Architectures: amd64 i386")
	m.control("packages-arch-specific", "bin: !i386")
	for _, s := range []string{"app", "bin"} {
		m.upload(uploadtest.Package{Source: s, Version: "1.0"})
	}
	// Of this one there is a package only with a build profile.
	m.upload(uploadtest.Package{Source: "only", Version: "1.0", Dsc: func(text string) string {
		return strings.Replace(text, " arch=any", " arch=any profile=pkg.only.more", 1)
	}})
	m.has(m.step("reviewd", "master-buildd", "archived"), "needs-build i386 app_1.0", "auto-not-for-us i386 bin_1.0",
		"needs-build amd64 bin_1.0", "auto-not-for-us i386 only_1.0", "auto-not-for-us amd64 only_1.0")
	m.control("packages-arch-specific", "bin: !i386\n%app: !i386")
	m.has(m.step("master-buildd"), "auto-not-for-us i386 app_1.0", "needs-build amd64 app_1.0")
	got := m.settle()
	m.has(got, "installed amd64 app_1.0", "installed amd64 bin_1.0", "auto-not-for-us i386 app_1.0")
	if n := len(m.builds()); n != 2 {
		t.Errorf("%d builds: %v", n, m.builds())
	}
	m.control("packages-arch-specific", "# nothing")
	m.control("suites", m.suites()+"Profiles: pkg.only.more")
	got = m.settle()
	m.has(got, "installed i386 app_1.0", "installed i386 bin_1.0", "installed i386 only_1.0", "installed amd64 only_1.0")
	m.lacks(got, "auto-not-for-us i386 app_1.0", "auto-not-for-us i386 bin_1.0")
	m.sound()
}

// A transition as Debian asks for it: binNMUs of several packages at once, which
// wait until the new library is there, all with one number and one time.
func TestTransition(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	m := newMill(t, "Publish: source-first", "Architectures: amd64 i386")
	for _, s := range []string{"libfoo", "app", "tool"} {
		m.upload(uploadtest.Package{Source: s, Version: "1.0"})
	}
	m.settle()
	m.wb("nmu 3 app . amd64 . stable . -m too early")
	m.packmill("wb", "nmu", "5", "app", ".", "amd64", ".", "stable", ".", "-m", "rebuild", "--extra-depends",
		"libfoo (>= 2)")
	list := filepath.Join(t.TempDir(), "transition")
	m.must(os.WriteFile(list,
		[]byte("# libfoo 2\nnmu 5 app . i386 . stable . -m \"rebuild\" --extra-depends 'libfoo (>= 2)'\n"+
			"nmu 5 tool . ANY . stable . -m \"rebuild\" --extra-depends 'libfoo (>= 2)'\n"), 0o644))
	m.packmill("wb", "--file", list)
	got := m.settle()
	m.has(got, "bd-uninstallable amd64 app_1.0", "bd-uninstallable i386 app_1.0", "bd-uninstallable amd64 tool_1.0",
		"bd-uninstallable i386 tool_1.0")
	if strings.Count(got, "bd-uninstallable") != 4 {
		t.Errorf("more than four wait:\n%s", got)
	}
	times := map[string]bool{}
	tickets, err := filepath.Glob(filepath.Join(m.tree, "queue/stable/*/bd-uninstallable/*app*/ticket"))
	m.must(err)
	for _, path := range tickets {
		text, err := os.ReadFile(path)
		m.must(err)
		times[regexp.MustCompile(`(?m)^Binary-NMU-Time: .*$`).FindString(string(text))] = true
		if !strings.Contains(string(text), "Binary-NMU: 5\n") {
			t.Errorf("not the fifth: %s", text)
		}
	}
	if len(tickets) != 2 || len(times) != 1 {
		t.Errorf("%d jobs with the times %v, want two with one", len(tickets), times)
	}
	if why := m.packmill("why", "app"); !strings.Contains(why, "libfoo (>= 2)") {
		t.Errorf("why app:\n%s", why)
	}
	m.upload(uploadtest.Package{Source: "libfoo", Version: "2.0"})
	got = m.settle()
	m.lacks(got, "bd-uninstallable amd64 app_1.0", "bd-uninstallable i386 tool_1.0")
	for _, deb := range []string{"a/app/app_1.0+b5_amd64.deb", "a/app/app_1.0+b5_i386.deb", "t/tool/tool_1.0+b5_amd64.deb",
		"t/tool/tool_1.0+b5_i386.deb"} {
		if _, err := os.Stat(filepath.Join(m.tree, "archive/pool/main", deb)); err != nil {
			t.Error(err)
		}
	}
	if debs, _ := filepath.Glob(filepath.Join(m.tree, "archive/pool/main/a/app/*+b3*")); len(debs) > 0 {
		t.Errorf("the one that was replaced is published: %v", debs)
	}
	m.sound()
}

// An order on a build that runs ends it first, for who means it: fail, give back,
// no-build, dep-wait and take.
func TestOrdersOnRunningBuilds(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	text, err := os.ReadFile(filepath.Join(m.tree, "control/builders"))
	m.must(err)
	m.control("builders", strings.Replace(string(text), "Jobs: 2", "Jobs: 6", 1))
	orders := map[string]string{"fail": "failed", "nfu": "not-for-us", "dw": "dep-wait", "take": "building",
		"gb": "building"}
	never := filepath.Join(m.home, "never")
	for op := range orders {
		m.script("x"+op+"_1.0_amd64", "wait "+never)
		m.upload(uploadtest.Package{Source: "x" + op, Version: "1.0"})
	}
	m.step("reviewd", "master-buildd")
	m.start("buildd-amd64")
	m.until("all are being built", func() bool { return len(m.builds()) == len(orders) })
	m.refused("fail xfail . amd64 -m no", "--override ends the build")
	m.refused("bp 10 xgb . amd64", "changes nothing")
	for op, state := range orders {
		line := op + " x" + op + " . amd64 --override -m libnowhere"
		m.wb(line)
		if op == "gb" {
			m.until("it is built again", func() bool { return m.builds()["xgb_1.0_amd64"] == 2 })
		}
		m.has(m.where(), state+" amd64 x"+op+"_1.0")
	}
	if got := m.packmill("show", "xtake"); !strings.Contains(got, "Taken-By: ") {
		t.Errorf("who took it is not in the ticket:\n%s", got)
	}
	m.must(os.WriteFile(never, nil, 0o644))
}

// First in, first out, unless the settings or a person say otherwise; a build
// priority changes the place, or says that it does not.
func TestOrder(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Build-Priority: fast* 30\n slow* -7")
	for _, s := range []string{"zebra", "slow1", "alpha", "fast1"} {
		m.upload(uploadtest.Package{Source: s, Version: "1.0", Urgency: "high"})
		m.once("reviewd")
	}
	m.once("master-buildd")
	order := func() string {
		names, err := filepath.Glob(filepath.Join(m.tree, "queue/stable/amd64/needs-build/*"))
		m.must(err)
		var out []string
		for _, n := range names {
			out = append(out, strings.Split(filepath.Base(n), "_")[1])
		}
		return strings.Join(out, " ")
	}
	if got, want := order(), "fast1 zebra alpha slow1"; got != want {
		t.Errorf("the order is %s, want %s", got, want)
	}
	m.wb("bp 5 alpha . amd64")
	if got, want := order(), "fast1 alpha zebra slow1"; got != want {
		t.Errorf("after bp 5: %s, want %s", got, want)
	}
	if out := m.wb("bp 1 alpha . amd64"); !strings.Contains(out, "its place stays as it is") {
		t.Errorf("bp to where it is: %s", out)
	}
	m.control("suites", strings.TrimSpace(m.suites())+"\nWeights: wanna-build")
	m.upload(uploadtest.Package{Source: "weighed", Version: "1.0"})
	m.step("reviewd", "master-buildd")
	if got := m.item(spool.NeedsBuild, "weighed"); !strings.HasPrefix(filepath.Base(got), "28-") {
		t.Errorf("with wanna-build's weights: %s", got)
	}
}

// Why a version failed is told with the next ones until one is good, also where one
// that nobody built lies between, and when the attic has been swept.
func TestFailureIsTold(t *testing.T) {
	t.Parallel()
	m := newMill(t)
	m.script("app_1.0_amd64", "fail undefined reference")
	m.upload(uploadtest.Package{Source: "app", Version: "1.0"})
	m.settle()
	m.wb("fail app . amd64 -m does not link, bug 4711")
	for _, v := range []string{"1.1", "1.2"} {
		m.upload(uploadtest.Package{Source: "app", Version: v})
		m.step("reviewd", "master-buildd")
		m.must(os.RemoveAll(filepath.Join(m.tree, "attic")))
		m.must(os.MkdirAll(filepath.Join(m.tree, "attic"), 0o775))
		for _, out := range []string{m.packmill("show", "app_"+v), m.packmill("ls", "app_"+v)} {
			if !strings.Contains(out, "bug 4711") {
				t.Errorf("%s is not told of the failure:\n%s", v, out)
			}
		}
	}
	if out := m.wb("take app . amd64"); !strings.Contains(out, "a version before failed") {
		t.Errorf("take: %s", out)
	}
	sink := m.sink()
	m.control("notify", "Event: failed\nTo: ann@example.org\nVia: "+sink+"/sendmail")
	m.script("app_1.2_amd64", "fail it again")
	m.wb("gb app . amd64")
	m.settle()
	if sent := m.letters(sink); len(sent) != 1 || !strings.Contains(sent[0].text, "bug 4711") {
		t.Errorf("the mail of its failure does not tell of the one before: %v", sent)
	}
	if log := m.packmill("log", "app_1.2"); !strings.Contains(log, "bug 4711") {
		t.Errorf("the log of a build does not tell of the failure before:\n%s", log)
	}
	m.script("app_1.2_amd64", "")
	m.wb("gb app . amd64")
	m.settle()
	m.upload(uploadtest.Package{Source: "app", Version: "1.3"})
	m.step("reviewd", "master-buildd")
	if out := m.packmill("show", "app_1.3"); strings.Contains(out, "bug 4711") {
		t.Errorf("after a good one:\n%s", out)
	}
}

// A ring of three sources that need each other's packages is broken with the build
// profile that one of them has for that, and that one is rebuilt whole.
func TestRingBroken(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	t.Parallel()
	m := newMill(t, "Publish: source-first", "Options: nodoc", "Package-Options: cc* parallel=3")
	m.upload(uploadtest.Package{Source: "cc", Version: "1.0", BuildDepends: "libc (>= 1.0) <!stage1>"})
	m.upload(uploadtest.Package{Source: "libc", Version: "1.0", BuildDepends: "headers (>= 1.0)"})
	m.upload(uploadtest.Package{Source: "headers", Version: "1.0", BuildDepends: "cc (>= 1.0)"})
	got := m.settle()
	if strings.Contains(got, "installed amd64") {
		t.Fatalf("something of the ring is built:\n%s", got)
	}
	m.wb("profiles cc . amd64 -m stage1")
	got = m.settle()
	m.has(got, "installed amd64 cc_1.0", "installed amd64 libc_1.0", "installed amd64 headers_1.0")
	m.wb("nmu cc . amd64 -m rebuild without stage1")
	m.settle()
	if _, err := os.Stat(filepath.Join(m.tree, "archive/pool/main/c/cc/cc_1.0+b1_amd64.deb")); err != nil {
		t.Error(err)
	}
	logs := m.packmill("log", "grep", "building cc_1.0")
	for _, want := range []string{"profiles=stage1 options=parallel=3", "profiles= options=parallel=3"} {
		if !strings.Contains(logs, want) {
			t.Errorf("no build with %q:\n%s", want, logs)
		}
	}
	for id, n := range m.builds() {
		if n > 2 {
			t.Errorf("%s was tried %d times", id, n)
		}
	}
	m.sound()
}

// What quinn-diff prints: with -i nothing of what is for all, with -w also where newer
// binaries are there, which the line itself does not say.
func TestQuinnDiffOptions(t *testing.T) {
	t.Parallel()
	m := newMill(t, "Publish: source-first")
	m.upload(uploadtest.Package{Source: "app", Version: "1.0"})
	m.upload(uploadtest.Package{Source: "docs", Version: "1.0", Architecture: "all"})
	m.step("reviewd", "master-buildd", "archived")
	for args, want := range map[string]string{
		"stable":      "amd64:\nmisc/app_1.0.dsc [optional:uncompiled]\nall:\nmisc/docs_1.0.dsc [optional:uncompiled]\n",
		"stable -i":   "amd64:\nmisc/app_1.0.dsc [optional:uncompiled]\n",
		"-i -a all":   "",
		"-w -a amd64": "misc/app_1.0.dsc [optional:uncompiled]\n",
	} {
		if got := m.packmill(append([]string{"quinn-diff"}, strings.Fields(args)...)...); got != want {
			t.Errorf("quinn-diff %s: got %q, want %q", args, got, want)
		}
	}
	dir := t.TempDir()
	m.must(os.WriteFile(filepath.Join(dir, "Sources"),
		[]byte("Package: app\nBinary: app\nVersion: 1\nArchitecture: any\nSection: misc\nPriority: optional\n"), 0o644))
	m.must(os.WriteFile(filepath.Join(dir, "Packages"),
		[]byte("Package: app\nVersion: 2\nArchitecture: amd64\n"), 0o644))
	files := []string{"quinn-diff", "--sources", dir + "/Sources", "--packages", dir + "/Packages", "-a", "amd64"}
	if got := m.packmill(files...); got != "" {
		t.Errorf("newer binaries without -w: %q", got)
	}
	if got, want := m.packmill(append(files, "-w")...),
		"packmill: amd64: 2 is there of app, and the source is of 1\n"; got != want {
		t.Errorf("with -w: got %q, want %q", got, want)
	}
}
