package policy

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func FuzzFile(f *testing.F) {
	for _, s := range []string{"hello_2.10-3.dsc", "../a_b", "a_b/..", ".a_", "-x_", "a_\x00", "a_\u202eb", "_", "a_b\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if err := CheckFile(name); err != nil {
			clean(t, err)
			return
		}
		if name != filepath.Base(name) || !filepath.IsLocal(name) || name[0] == '.' || name[0] == '-' || len(name) > MaxFile {
			t.Errorf("CheckFile accepts %q", name)
		}
		for _, c := range []byte(name) {
			if !alnum(c) && !strings.ContainsRune("+-.~_", rune(c)) {
				t.Errorf("CheckFile accepts %q", name)
			}
		}
	})
}

// clean: a message may go to a terminal, a log or a mail.
func clean(t *testing.T, err error) {
	for _, r := range err.Error() {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\ufffd' || r == '\u202e' {
			t.Errorf("message %q contains %q", err, r)
		}
	}
}

func FuzzVersion(f *testing.F) {
	for i, v := range someVersions {
		f.Add(v, someVersions[len(someVersions)-1-i])
	}
	for _, v := range badVersions {
		f.Add(v, "1")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		c, d := CompareVersions(a, b), CompareVersions(b, a)
		if c != -d || CompareVersions(a, a) != 0 {
			t.Errorf("CompareVersions(%q, %q) = %d and back %d", a, b, c, d)
		}
		for _, v := range []string{a, b} {
			if err := CheckVersion(v); err != nil {
				clean(t, err)
				return
			}
			if !strings.HasSuffix(v, WithoutEpoch(v)) || strings.ContainsAny(v, "/ \n_") {
				t.Errorf("CheckVersion accepts %q", v)
			}
		}
	})
}

func FuzzRelations(f *testing.F) {
	for _, s := range []string{
		"", "a", "a | b, c", "foo<!nocheck>", "foo[amd64]",
		"gcc:native (>= 12)[linux-any !amd64]<!nocheck cross><stage1>,\n b:any|c:amd64 (<<1:2-3~)\n ,",
		"a (", "a (= 1", "a [", "a [!]", "a <", "a <>", "|", "a |", "a b", "${misc:Depends}", "a:, b", "a (>= 1) (<< 2)",
		"a (== 1)", "-a", "a\u00a0b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, field string) {
		r, err := ParseRelations(field)
		if err != nil {
			clean(t, err)
			return
		}
		again, err := ParseRelations(r.String())
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("%q is %q is %q, %v", field, r, again, err)
		}
		for _, arch := range []string{"amd64", "all", "hurd-i386"} {
			if got, err := ParseRelations(r.For(arch, []string{"nocheck"}).String()); err != nil || len(got) > len(r) {
				t.Fatalf("For(%s) of %q: %v, %v", arch, field, got, err)
			}
		}
	})
}
