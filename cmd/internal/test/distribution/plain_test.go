//go:build system

package distribution

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"packmill/spool"
)

// plainBuild is what plain sbuild made of a source.
type plainBuild struct {
	Good bool
	Took float64 // seconds
	Says string  // its last words, if it is not good
	Debs []string
}

// plain lets sbuild as it comes build the first sources, and those that are not published here.
func (d *distribution) plain() {
	d.Helper()
	for i, s := range d.chosen {
		o := d.results[s.name]
		if bad := o.first != nil && !o.first.published || o.second != nil && !o.second.published; i >= *beside && !bad {
			continue
		}
		record := filepath.Join(d.dir, "plain", s.name+"_"+s.version+".json")
		if data, err := os.ReadFile(record); err == nil {
			o.plain = &plainBuild{}
			d.must(json.Unmarshal(data, o.plain))
			continue
		}
		if d.over() {
			continue
		}
		o.plain = d.sbuild(s)
		data, err := json.Marshal(o.plain)
		d.must(err)
		d.must(os.MkdirAll(filepath.Dir(record), 0o755))
		d.must(os.WriteFile(record, data, 0o644))
		d.say("sbuild of %s: good %v, %.0f s", s.name, o.plain.Good, o.plain.Took)
	}
}

// sbuild builds with sbuild's own defaults and the tarball of the same chroot, without our suite.
func (d *distribution) sbuild(s *source) *plainBuild {
	d.Helper()
	ch, err := d.chroots.Lookup(suite, "amd64")
	d.must(err)
	dir, err := os.MkdirTemp(d.dir, "sbuild-")
	d.must(err)
	defer exec.Command("rm", "-rf", dir).Run()
	who := credential(d, spool.UserBuild)
	d.must(os.Chmod(dir, 0o755))
	d.must(os.Chown(dir, int(who.Uid), int(who.Gid)))
	rc := filepath.Join(dir, "rc")
	d.must(os.WriteFile(rc, []byte(fmt.Sprintf("$unshare_tmpdir_template = '%s/tmp.sbuild.XXXXXXXXXX';\n$log_dir = '%[1]s';\n1;\n",
		dir)), 0o644))
	cmd := exec.Command("sbuild", "--chroot-mode=unshare", "--chroot="+ch.Tarball(), "--dist="+suite, "--arch-any", "--arch-all",
		"--no-run-lintian", "--nolog", "--build-dir="+dir, filepath.Join(d.kept, d.dsc(s)))
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "SBUILD_CONFIG=" + rc, "HOME=" + dir, "USER=" + spool.UserBuild,
		"LOGNAME=" + spool.UserBuild, "LC_ALL=C.UTF-8", "DEB_BUILD_OPTIONS=parallel=2"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	start := time.Now()
	out, err := cmd.CombinedOutput()
	p := &plainBuild{Good: err == nil, Took: time.Since(start).Seconds()}
	if err != nil {
		p.Says = string(out[max(0, len(out)-1500):])
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	d.must(err)
	for _, deb := range debs {
		p.Debs = append(p.Debs, filepath.Base(deb))
	}
	return p
}

// install makes a machine of the chroot's tarball, whose apt has our suite over Debian's, and installs all packages of
// each source that can be installed beside those before. The others must be installable by themselves.
func (d *distribution) install() {
	d.Helper()
	root := filepath.Join(d.dir, "machine")
	gone := func() { exec.Command("rm", "-rf", "--one-file-system", root).Run() }
	gone()
	defer gone()
	ch, err := d.chroots.Lookup(suite, "amd64")
	d.must(err)
	d.must(os.Mkdir(root, 0o755))
	d.sh("/", "tar", "-C", root, "--numeric-owner", "--exclude=./dev/*", "-xf", ch.Tarball())
	m := &machine{d, root}
	server := m.prepare()
	defer server.Close()
	m.sh("apt-get -q update")
	ours := d.ours()
	var all []string
	for _, s := range d.chosen {
		o := d.results[s.name]
		if len(ours[s.name]) == 0 {
			continue
		}
		with := append(append([]string{}, all...), ours[s.name]...)
		if _, err := m.try("apt-get -s -q install " + strings.Join(with, " ")); err == nil {
			all, o.install = with, "installed"
		} else if out, err := m.try("apt-get -s -q install " + strings.Join(ours[s.name], " ")); err == nil {
			o.install = "alone"
		} else if out2, err := m.oneByOne(ours[s.name]); err == nil {
			o.install = "one by one"
		} else {
			o.install = "not installable"
			d.Errorf("%s cannot be installed:\n%s\n%s", s.name, out, out2)
		}
	}
	if len(all) == 0 {
		return
	}
	d.say("installing %d packages", len(all))
	if out, err := m.try("apt-get -q -y install " + strings.Join(all, " ")); err != nil {
		d.Errorf("apt-get install: %v\n%s", err, out[max(0, len(out)-4000):])
	}
	have, _ := m.try("dpkg-query -W -f '${Package}=${Version} ${db:Status-Status}\\n'")
	for _, p := range all {
		if !strings.Contains("\n"+have, "\n"+p+" installed\n") {
			d.Errorf("%s is not installed", p)
		}
	}
	if out, err := m.try("dpkg --audit && apt-get -q check"); err != nil {
		d.Errorf("after the installation: %v\n%s", err, out)
	}
}
