package control

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"packmill/queue/runner/slurm"
)

const cluster = "Name: farm\nArchitectures: amd64 all\nShared: /srv/jobs\n"

// TestSlurmSettings: what Slurm is told of a job, and the node of how it builds.
func TestSlurmSettings(t *testing.T) {
	s, err := Load(control(t, map[string]string{"suites": suite, "builders": cluster +
		"Runner: slurm overlay\nLayers: 3G\nCcache: 1G\nSlurm:\n partition=build cpus=2\n arch=arm64 constraint=a&b\n" +
		" suite=sid package=lib* partition=big memory=8G tmp=1G qos=low account=x reservation=y\n"}))
	if err != nil {
		t.Fatal(err)
	}
	b := &s.Builders[0]
	for _, x := range []struct {
		suite, arch, source string
		want                slurm.Options
	}{
		{"stable", "amd64", "hello", slurm.Options{Partition: "build", CPUs: 2}},
		{"stable", "arm64", "libx", slurm.Options{Partition: "build", CPUs: 2, Constraint: "a&b"}},
		{"sid", "amd64", "libx", slurm.Options{Partition: "big", CPUs: 2, Memory: 8 << 30, Tmp: 1 << 30, QOS: "low",
			Account: "x", Reservation: "y"}},
	} {
		got := b.SlurmOf(x.suite, x.arch, x.source)
		if diff := cmp.Diff(x.want, got); diff != "" {
			t.Errorf("%s %s %s: -want +got\n%s", x.suite, x.arch, x.source, diff)
		}
		said, err := b.Inside(got)
		if err != nil {
			t.Fatal(err)
		}
		n, cpus, err := BuilderInside(said)
		if err != nil || n.Runner != "overlay" || n.Layers != 3<<30 || n.Ccache != 1<<30 || cpus != 2 || n.Clustered() {
			t.Errorf("the node builds as %+v, %d, %v", n, cpus, err)
		}
	}
	if !b.Away() || b.OwnChroots() || len(b.ChrootsOf(&s.Suites[0])) > 0 {
		t.Error("a cluster's builder has chroots on this machine")
	}
	c, err := b.Cluster()
	if err != nil || c.Dir != "/srv/jobs" || !filepath.IsAbs(c.Program) || len(c.All) != 3 {
		t.Errorf("cluster %+v, %v", c, err)
	}
}

func TestSlurmWrong(t *testing.T) {
	for text, want := range map[string]string{
		cluster + "Runner: slurm pbuilder\n":                "builders:4: slurm pbuilder is not known",
		cluster + "Runner: slurm exec relative\n":           "builders:4: slurm exec relative is not known",
		cluster + "Runner: slurm\nSlurm: partition\n":       `builders:5: "partition": write a word, = and a value`,
		cluster + "Runner: slurm\nSlurm: nice=3\n":          `builders:5: "nice=3" is not known; there are suite, arch`,
		cluster + "Runner: slurm\nSlurm: cpus=many\n":       `builders:5: "cpus=many" is not known`,
		cluster + "Runner: slurm\nSlurm: package=[ qos=a\n": `builders:5: "[" is not a pattern`,
		cluster + "Runner: slurm\nCross-From: amd64\n":      "builders:5: the overlay runner does not cross-build",
		cluster + "Runner: slurm sbuild\nCcache: 1G\n":      "builders:5: only the overlay runner keeps compiler caches",
		cluster: "builders:3: it is of a cluster",
		"Name: b\nArchitectures: amd64\nRunner: slurm\n":               "name the directory that the nodes see",
		"Name: b\nArchitectures: amd64\nRunner: slurm\nShared: jobs\n": "builders:4: \"jobs\": name the directory",
	} {
		dir := control(t, map[string]string{"builders": text})
		_, err := Load(dir)
		if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), dir+"/", ""), want) {
			t.Errorf("%q:\ngot  %v\nwant %s", text, err, want)
		}
	}
}
