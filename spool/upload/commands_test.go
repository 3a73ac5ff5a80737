package upload_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"packmill/internal/openpgp"
	"packmill/spool/upload"
)

func TestParseCommands(t *testing.T) {
	w := theWorld()
	const file = "alice-1763731234.commands"
	rows := []struct {
		text string
		list []upload.Command
		want string // pattern of the finding
	}{
		{"rm  hello_1.0-1_source.changes",
			[]upload.Command{{Verb: upload.Remove, Pattern: "hello_1.0-1_source.changes", Delayed: -1}}, ""},
		{"rm --searchdirs a_1.dsc b_*.deb", []upload.Command{
			{Verb: upload.Remove, Pattern: "a_1.dsc", Delayed: -1, Search: true},
			{Verb: upload.Remove, Pattern: "b_*.deb", Delayed: -1, Search: true}}, ""},
		{"rm DELAYED/3-day/a_1.dsc", []upload.Command{{Verb: upload.Remove, Pattern: "a_1.dsc", Delayed: 3}}, ""},
		{"cancel a_1_source.changes", []upload.Command{{Verb: upload.Cancel, Pattern: "a_1_source.changes", Delayed: -1}},
			""},
		{"reschedule a_1_source.changes 15-day",
			[]upload.Command{{Verb: upload.Reschedule, Pattern: "a_1_source.changes", Delayed: -1, Days: 15}}, ""},
		{"reschedule a_1_source.changes 0-day\n rm a_1.dsc", []upload.Command{
			{Verb: upload.Reschedule, Pattern: "a_1_source.changes", Delayed: -1},
			{Verb: upload.Remove, Pattern: "a_1.dsc", Delayed: -1}}, ""},

		{"reschedule a_1_source.changes 16-day", nil, `15 days are the most`},
		{"reschedule a_1_source.changes soon", nil, `is not of the form`},
		{"reschedule a_1_source.changes", nil, `is not of the form`},
		{"rm", nil, `names no file`},
		{"rm ../../etc/passwd", nil, `names a file that none here can be named`},
		{"rm /etc/passwd", nil, `names a file`},
		{"rm DELAYED/3-day/../../x", nil, `names a file`},
		{"rm DELAYED/99-day/x_1", nil, `names a file`},
		{"rm .", nil, `names a file`},
		{"rm ..", nil, `names a file`},
		{"rm .hidden", nil, `names a file`},
		{"rm -rf *", nil, `an option that is not known`},
		{"rm [", nil, `names a file`},
		{"rm a_$(id)", nil, `names a file`},
		{"cancel a_1.dsc", nil, `does not name a \.changes`},
		{"cancel", nil, `names no file`},
		{"cancel *.changes", nil, `does not name a \.changes`},
		{"mv a_1 b_1", nil, `is not known; rm, cancel and reschedule are`},
		{"rm \x9b2J_1", nil, `not UTF-8`},
		{"\u202e rm a_1", nil, `"\\u202e rm a_1" is not known`},
		{strings.Repeat("rm a_1\n ", 201), nil, `more than 200 commands`},
		{".", nil, `"\." is not known`},
	}
	for _, r := range rows {
		dir := t.TempDir()
		data, err := w.Ann.Clearsign([]byte("Archive: upload.example.org\nUploader: Ann <ann@example.org>\nCommands:\n "+r.text+"\n"), now)
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, file), data)
		got, findings, err := upload.ParseCommands(dir, file, w.Context())
		if err != nil {
			t.Fatalf("%q: %v", r.text, err)
		}
		if r.want == "" {
			if len(findings) > 0 || got.Uploader == nil || got.Uploader.Name != "ann" || got.Archive != "upload.example.org" ||
				len(got.Hash) != 64 {
				t.Errorf("%q: got %+v, %v", r.text, got, findings)
			}
			if diff := cmp.Diff(r.list, got.List); diff != "" {
				t.Errorf("%q: -want +got:\n%s", r.text, diff)
			}
			continue
		}
		if upload.Worst(findings) != upload.Error || !regexp.MustCompile(r.want).MatchString(fmt.Sprint(findings)) {
			t.Errorf("%q: got %v, want %s", r.text, findings, r.want)
		}
		for _, c := range fmt.Sprint(findings) {
			if c < 0x20 || c > 0x7e {
				t.Errorf("%q: a finding holds %q", r.text, c)
			}
		}
	}
	if !(upload.Command{Verb: upload.Remove, Pattern: "a_*"}).Matches("a_1.dsc") ||
		(upload.Command{Verb: upload.Cancel, Pattern: "a_*"}).Matches("a_1.dsc") {
		t.Error("Matches: a pattern counts with rm, and with rm only")
	}
}

// TestCommandsWho: commands obey the same rules about who as uploads do.
func TestCommandsWho(t *testing.T) {
	w := theWorld()
	text := []byte("Commands:\n rm a_1.dsc\n")
	sign := func(s *openpgp.Signer, at time.Time) []byte {
		data, err := s.Clearsign(text, at)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	rows := []struct {
		name    string
		data    []byte
		file    string
		account string
		seen    bool
		want    string // "" for good
	}{
		{name: "signed", data: sign(w.Bob, now)},
		{name: "unsigned", data: text, want: "signature: .*no OpenPGP signature"},
		{name: "unsigned, trusted account", data: text, account: "dora"},
		{name: "unsigned, account that must sign", data: text, account: "emil", want: "signature: "},
		{name: "stranger", data: sign(w.Stranger, now), want: "signature: .*not known here"},
		{name: "stranger in a trusted account",
			data: sign(w.Stranger, now), account: "dora", want: "signature: .*not known here"},
		{name: "nobody's key", data: sign(w.Carl, now), want: "rights: .*belongs to no uploader"},
		{name: "old", data: sign(w.Bob, now.Add(-25*time.Hour)), want: "signature-age: .*more than a day ago"},
		{name: "replayed", data: sign(w.Bob, now), seen: true, want: "replay: .*were here before"},
		{name: "no commands", data: []byte("Archive: x\n"), account: "dora", want: "fields: .*no field Commands"},
		{name: "name as a path", data: text, account: "dora", file: "../x.commands", want: "commands-name: "},
		{name: "hidden name", data: text, account: "dora", file: ".x.commands", want: "commands-name: "},
		{name: "dak-commands", data: sign(w.Bob, now), file: "x-1.dak-commands",
			want: "commands: .*for dak are not carried out here"},
	}
	for _, r := range rows {
		dir := t.TempDir()
		if r.file == "" {
			r.file = "x-1.commands"
		}
		if upload.IsCommands(r.file) {
			put(t, filepath.Join(dir, r.file), r.data)
		}
		c := w.Context()
		c.Account = r.account
		c.Seen = func(string) (string, bool) { return "carried out on 2026-11-20", r.seen }
		_, findings, err := upload.ParseCommands(dir, r.file, c)
		if err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		var texts []string
		for _, f := range findings {
			texts = append(texts, f.Check+": "+f.Text)
		}
		all := strings.Join(texts, "\n")
		if r.want == "" && all != "" || !regexp.MustCompile(r.want).MatchString(all) {
			t.Errorf("%s: got %q, want %s", r.name, all, r.want)
		}
	}
	// A link or a FIFO of that name is not followed and blocks nothing.
	for _, make := range []func(path string) error{
		func(path string) error { return os.Symlink("/etc/passwd", path) },
		func(path string) error { return unix.Mkfifo(path, 0o644) },
	} {
		dir := t.TempDir()
		if err := make(filepath.Join(dir, "x-1.commands")); err != nil {
			t.Fatal(err)
		}
		c := w.Context()
		c.Account = "dora"
		if _, findings, err := upload.ParseCommands(dir, "x-1.commands", c); err != nil ||
			upload.Worst(findings) != upload.Error {
			t.Errorf("no regular file: got %v, %v", findings, err)
		}
	}
}

// TestDcut: what dput-ng's dcut makes is read.
func TestDcut(t *testing.T) {
	t.Parallel()
	home, err := os.MkdirTemp("/tmp", "dcut") // gpg's socket needs a short path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	key, err := openpgp.Generate("Dcut User", "dcut@example.org", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "HOME="+home, "GNUPGHOME="+home+"/gnupg", "DEBEMAIL=dcut@example.org",
		"DEBFULLNAME=Dcut User", "LC_ALL=C")
	run := func(stdin string, args ...string) {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env, cmd.Stdin = env, strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s(install gnupg and dput-ng if they are missing)", args, err, out)
		}
	}
	for _, d := range []string{"gnupg", "incoming", ".dput.d/profiles"} {
		if err := os.MkdirAll(filepath.Join(home, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		cmd := exec.Command("gpgconf", "--kill", "all")
		cmd.Env = env
		_ = cmd.Run()
	}()
	run(string(key.Secret()), "gpg", "--batch", "--import")
	put(t, filepath.Join(home, ".dput.d/profiles/here.json"), fmt.Appendf(nil,
		`{"method": "local", "fqdn": "localhost", "incoming": %q, "allow_dcut": true, "hooks": [], "valid_commands": ["rm", "cancel", "reschedule"]}`, home+"/incoming"))

	for _, r := range []struct {
		args []string
		want upload.Command
	}{
		{[]string{"rm", "-f", "a_1.dsc"}, upload.Command{Verb: upload.Remove, Pattern: "a_1.dsc", Delayed: -1}},
		{[]string{"rm", "--searchdirs", "-f", "a_1.dsc"},
			upload.Command{Verb: upload.Remove, Pattern: "a_1.dsc", Delayed: -1, Search: true}},
		{[]string{"cancel", "-f", "a_1_source.changes"},
			upload.Command{Verb: upload.Cancel, Pattern: "a_1_source.changes", Delayed: -1}},
		{[]string{"reschedule", "-f", "a_1_source.changes", "-d", "7"},
			upload.Command{Verb: upload.Reschedule, Pattern: "a_1_source.changes", Delayed: -1, Days: 7}},
	} {
		run("", append([]string{"dcut", "here"}, r.args...)...)
		files, err := filepath.Glob(filepath.Join(home, "incoming", "*.commands"))
		if err != nil || len(files) != 1 {
			t.Fatalf("%v: dcut left %q, %v", r.args, files, err)
		}
		keyring, err := openpgp.ReadKeyring(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		ctx := &upload.Context{Now: time.Now(), Keyring: keyring,
			Uploaders: []*upload.Uploader{{Name: "d", Fingerprints: []string{key.Fingerprint()}}}}
		got, findings, err := upload.ParseCommands(filepath.Join(home, "incoming"), filepath.Base(files[0]), ctx)
		if err != nil || len(findings) > 0 {
			t.Errorf("%v: got %v, %v", r.args, findings, err)
		}
		if diff := cmp.Diff([]upload.Command{r.want}, got.List); diff != "" {
			t.Errorf("%v: -want +got:\n%s", r.args, diff)
		}
		if err := os.Remove(files[0]); err != nil {
			t.Fatal(err)
		}
	}
}
