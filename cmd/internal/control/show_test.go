package control

import (
	"reflect"
	"strings"
	"testing"
)

// TestShown: what is shown are settings that mean the same, with the defaults as comments or written out.
func TestShown(t *testing.T) {
	files := map[string]string{
		"suites": suite + "Base:\n deb http://mirror.example/debian bookworm main\n deb http://mirror.example/more x main\n" +
			"Valid-For: 90m\nMax-Upload: 1500K\nPackage-Options:\n gcc-* nocheck parallel=4\n",
		"uploaders": "Name: ann\nAccount: ann\nAllow: source, suites=stable\n\nName: ben\nAccount: ben\n",
		"builders":  "Name: b1\nArchitectures: amd64 all\nRunner: exec /usr/bin/build\n\nName: b2\nArchitectures: i386\n",
		"notify":    "Event: *\nTo: signer, archive@example.org\nFrom: Archive <archive@example.org>\n",
		"general":   "Keep-Logs: 2w\n",
	}
	want, err := Load(control(t, files))
	if err != nil {
		t.Fatal(err)
	}
	for name, uncomment := range map[string]string{"as it is": "# ", "with the defaults written out": ""} {
		shown := map[string]string{}
		for i := range want.Stanzas {
			st := &want.Stanzas[i]
			shown[st.File] += strings.ReplaceAll("\n"+st.String(), "\n# ", "\n"+uncomment) + "\n"
		}
		got, err := Load(control(t, shown))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, s := range []*Settings{want, got} {
			for i := range s.Suites {
				s.Suites[i].Stanza = nil
			}
			for i := range s.Builders {
				s.Builders[i].Stanza = nil
			}
		}
		for what, pair := range map[string][2]any{"suites": {got.Suites, want.Suites}, "uploaders": {got.Uploaders, want.Uploaders},
			"builders": {got.Builders, want.Builders}, "notify": {got.Notify, want.Notify}, "general": {got.General, want.General}} {
			if !reflect.DeepEqual(pair[0], pair[1]) {
				t.Errorf("%s: %s: got %+v, want %+v, from\n%s", name, what, pair[0], pair[1], shown[what])
			}
		}
	}
	if text := want.Stanzas[0].String(); !strings.Contains(text, "\nValid-For: 90m\n") ||
		!strings.Contains(text, "\n# Review: always\n") || !strings.Contains(text, "\n# Keep-Rejected: 30d\n") {
		t.Errorf("the suite is shown as\n%s", text)
	}
}
