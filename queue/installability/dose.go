package installability

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"packmill/internal/policy"
)

// program is Debian's package of the same name.
const program = "dose-builddebcheck"

// HaveDose reports whether dose-builddebcheck is installed.
func HaveDose() bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// Dose judges with dose-builddebcheck, which follows every dependency and
// conflict. tmp is a directory for files that are gone when it returns. The
// answers are in the order of the jobs. After an error nothing is known of any
// job: change nothing, and try again later.
//
// An index without build-essential is one of a suite that has its own way to
// build; then none is asked for.
func Dose(ctx context.Context, x *Index, jobs []Job, tmp string) (answers []Answer, err error) {
	answers = make([]Answer, len(jobs))
	u := universe{x: x, seen: make(map[string]bool)}
	sources, count, err := u.questions(jobs, answers)
	if err != nil {
		return nil, err
	}
	if count == 0 {
		return answers, nil
	}
	dir, err := os.MkdirTemp(tmp, "installability-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := os.RemoveAll(dir); e != nil && err == nil {
			answers, err = nil, e
		}
	}()
	packagesFile, sourcesFile := filepath.Join(dir, "Packages"), filepath.Join(dir, "Sources")
	if err := os.WriteFile(packagesFile, u.packages(), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(sourcesFile, sources, 0o600); err != nil {
		return nil, err
	}
	out, err := runDose(ctx, x.Arch, packagesFile, sourcesFile)
	if err != nil {
		return nil, err
	}
	all, err := readReport(out, x.Arch, count)
	if err != nil {
		return nil, err
	}
	if err := answer(answers, all); err != nil {
		return nil, err
	}
	return answers, nil
}

// questions is the text of a Sources file that asks dose about the jobs, and how many
// entries it has. The universe then needs what they need. A job whose relations cannot
// be read is not asked about: its answer says so.
func (u *universe) questions(jobs []Job, answers []Answer) (text []byte, count int, err error) {
	var sources bytes.Buffer
	for i := range jobs {
		j := &jobs[i]
		if err := u.x.fits(j); err != nil {
			return nil, 0, err
		}
		if depends, conflicts, err := j.Relations(u.x.Arch); err != nil {
			answers[i].Why = err.Error()
		} else {
			question(&sources, "build", i, depends, conflicts)
			u.need(depends)
			count++
		}
		if j.Waits == "" {
			continue
		}
		if waits, err := j.waits(); err != nil {
			answers[i].Wait = err.Error()
		} else {
			question(&sources, "wait", i, waits, nil)
			u.need(waits)
			count++
		}
	}
	return sources.Bytes(), count, nil
}

// answer writes what is broken into the answers to the questions.
func answer(answers []Answer, all map[string]broken) error {
	for name, b := range all {
		kind, number, _ := strings.Cut(name, "-")
		i, err := strconv.Atoi(number)
		if err != nil || i < 0 || i >= len(answers) {
			return fmt.Errorf("%s: answer for %q, of which nobody asked", program, name)
		}
		switch kind {
		case "build":
			answers[i].Why = b.why
		case "wait":
			answers[i].Wait = b.why
		}
		answers[i].miss(b.missing)
	}
	return nil
}

// question writes the entry of a Sources file that stands for a job. Its name
// is the job's number: the same source may be asked about twice.
func question(w *bytes.Buffer, kind string, i int, depends, conflicts policy.Relations) {
	fmt.Fprintf(w, "Package: %s-%d\nVersion: 1\nArchitecture: any\n", kind, i)
	if len(depends) > 0 {
		fmt.Fprintf(w, "Build-Depends: %s\n", depends)
	}
	if len(conflicts) > 0 {
		fmt.Fprintf(w, "Build-Conflicts: %s\n", conflicts)
	}
	w.WriteByte('\n')
}

// runDose returns the report. Exit status 0 says that all is well, 1 that
// something is broken, 64 and above that dose could not judge.
func runDose(ctx context.Context, arch, packages, sources string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, "--failures", "--explain", "--quiet", "--deb-emulate-sbuild",
		"--deb-native-arch="+arch, packages, sources)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err == nil || errors.As(err, &exit) && exit.Exited() && exit.ExitCode() < 64 {
		return out.Bytes(), nil
	}
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("run %s: not found; install the Debian package of that name: %w", program, err)
	}
	text, _ := io.ReadAll(io.LimitReader(&errs, 500)) // of memory: does not fail
	return nil, fmt.Errorf("run %s: %w: %q", program, err, strings.Join(strings.Fields(string(text)), " "))
}

// universe is the part of an index that the jobs can reach: dose takes seconds
// for all of Debian's.
type universe struct {
	x     *Index
	seen  map[string]bool
	names []string // to be followed
	kept  []string // stanzas
}

func (u *universe) need(r policy.Relations) {
	for _, or := range r {
		for i := range or {
			u.name(or[i].Name)
		}
	}
}

func (u *universe) name(name string) {
	if !u.seen[name] {
		u.seen[name] = true
		u.names = append(u.names, name)
	}
}

// packages returns the text of a Packages file.
func (u *universe) packages() []byte {
	u.name("build-essential")
	for _, p := range u.x.packages {
		if p.essential {
			u.name(p.name)
		}
	}
	for len(u.names) > 0 {
		name := u.names[len(u.names)-1]
		u.names = u.names[:len(u.names)-1]
		if p, ok := u.x.packages[name]; ok {
			u.keep(p)
		}
		for _, p := range u.x.provides[name] {
			u.name(p.by.name)
		}
	}
	if !u.x.satisfies(&policy.Relation{Name: "build-essential"}) {
		u.kept = append(u.kept, "Package: build-essential\nVersion: 0\nArchitecture: "+u.x.Arch+"\n\n")
	}
	sort.Strings(u.kept) // the same question gives the same answer
	return []byte(strings.Join(u.kept, ""))
}

// keep writes a package's stanza and follows what it depends on. A package
// with a field that dpkg could not read is left out, as if it were not there:
// one such package must not stop dose.
func (u *universe) keep(p *pkg) {
	var b strings.Builder
	fmt.Fprintf(&b, "Package: %s\nVersion: %s\nArchitecture: %s\n", p.name, p.version, p.arch)
	if p.multiArch != "" {
		fmt.Fprintf(&b, "Multi-Arch: %s\n", p.multiArch)
	}
	if p.essential {
		b.WriteString("Essential: yes\n")
	}
	var follow policy.Relations
	for _, f := range []struct {
		name, value string
		follow      bool
	}{{"Depends", p.depends, true}, {"Pre-Depends", p.preDepends, true}, {"Conflicts", p.conflicts, false},
		{"Breaks", p.breaks, false}, {"Provides", p.provides, false}} {
		if f.value == "" {
			continue
		}
		r, err := policy.ParseRelations(f.value)
		if err != nil {
			return
		}
		if r = r.For(u.x.Arch, nil); len(r) == 0 {
			continue
		}
		fmt.Fprintf(&b, "%s: %s\n", f.name, r)
		if f.follow {
			follow = append(follow, r...)
		}
	}
	b.WriteByte('\n')
	u.kept = append(u.kept, b.String())
	u.need(follow)
}

// broken is what the report says of a question.
type broken struct {
	why     string // lines
	missing policy.Relations
}

// readReport reads dose's report: YAML of one shape, a list of packages, each
// with a list of reasons of nested keys. It returns what is broken. A report of another shape, or
// one that is not of count sources or not
// complete, is an error.
func readReport(out []byte, arch string, count int) (map[string]broken, error) {
	all := make(map[string]broken)
	sources, told := -1, -1
	root, err := readTree(strings.Split(string(out), "\n"))
	if err != nil {
		return nil, err
	}
	for _, n := range root.children {
		switch n.key {
		case "source-packages", "broken-packages":
			v, err := strconv.Atoi(n.value)
			if err != nil {
				return nil, fmt.Errorf("%s: %s is %q", program, n.key, n.value)
			}
			if n.key == "source-packages" {
				sources = v
			} else {
				told = v
			}
		case "report":
			for _, item := range n.children {
				if item.text("status") != "broken" {
					continue
				}
				name := item.text("package")
				if name == "" {
					return nil, fmt.Errorf("%s: broken package without a name", program)
				}
				var b broken
				var why []string
				for _, reason := range item.child("reasons").items() {
					text, missing, err := explain(reason, name, arch)
					if err != nil {
						return nil, fmt.Errorf("%s: reason for %s: %w", program, name, err)
					}
					b.missing = append(b.missing, missing...)
					if !slices.Contains(why, text) {
						why = append(why, text)
					}
				}
				if why == nil {
					return nil, fmt.Errorf("%s: no reason why %s is broken", program, name)
				}
				b.why = strings.Join(why, "\n")
				all[name] = b
			}
		}
	}
	if sources != count || told != len(all) {
		return nil, fmt.Errorf("%s: judged %d of %d sources and told of %d of %d broken ones",
			program, sources, count, len(all), told)
	}
	return all, nil
}

// explain makes a sentence of a reason, and returns the relation that nothing
// satisfies, if it is one of those.
func explain(reason *node, question, arch string) (string, policy.Relations, error) {
	begin := "build-depends on "
	if strings.HasPrefix(question, "wait-") {
		begin = "waits for "
	}
	if m := reason.child("missing"); m != nil {
		pkg := m.child("pkg")
		relation := plain(pkg.text("unsat-dependency"), arch)
		if relation == "" {
			return "", nil, errors.New("no relation")
		}
		missing, err := policy.ParseRelations(relation)
		if err != nil {
			return "", nil, err
		}
		text := begin + chain(m.child("depchains"), question)
		if needs := pkg.text("package"); needs != question {
			text += needs + ", which depends on "
		}
		return text + "missing " + relation, missing, nil
	}
	c := reason.child("conflict")
	if c == nil {
		return "", nil, errors.New("neither missing nor in conflict")
	}
	// One side has the field. The source itself may be that one.
	one, other := c.child("pkg1"), c.child("pkg2")
	first, second := one.text("package"), other.text("package")
	if first == "" || second == "" {
		return "", nil, errors.New("conflict of nothing")
	}
	relation := plain(one.text("unsat-conflict"), arch)
	if relation == "" {
		relation = second
	}
	if first == question {
		return "build-conflicts with " + relation + ", but " + begin + chain(c.child("depchain2"), question) +
			second, nil, nil
	}
	return begin + chain(c.child("depchain1"), question) + first + ", which conflicts with " + relation +
		", but " + begin + chain(c.child("depchain2"), question) + second, nil, nil
}

// chain says by which packages the question leads to the trouble: of several
// ways the first.
func chain(chains *node, question string) string {
	if chains == nil || len(chains.children) == 0 {
		return ""
	}
	steps := chains.children[0].child("depchain").items()
	text := ""
	for _, step := range steps {
		if step.text("package") == question {
			continue
		}
		text += step.text("package") + ", which depends on "
	}
	return text
}

// plain writes a relation of the report as people write it: without the
// native architecture, each alternative once, << for dose's <.
func plain(relation, arch string) string {
	var out []string
	for alt := range strings.SplitSeq(relation, " | ") {
		alt = strings.Replace(alt, ":"+arch, "", 1)
		alt = strings.Replace(alt, "(< ", "(<< ", 1)
		alt = strings.Replace(alt, "(> ", "(>> ", 1)
		if !slices.Contains(out, alt) {
			out = append(out, alt)
		}
	}
	return strings.Join(out, " | ")
}
