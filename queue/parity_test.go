package queue

import (
	"os"
	"strings"
	"testing"

	"packmill/spool"
)

// beside is wanna-build's and buildd's word beside ours, a row each: of a state its name
// there, of an operation from which state, by whom and to where, of a mail its word, of
// buildd's settings a field of ours, of wanna-build's options a word or an option of wb or a
// setting, of those of its list those of packmill ls; "-" is what one of the two does not have. Where we differ the last column says why.
const beside = `
state      Needs-Build        needs-build
state      BD-Uninstallable   bd-uninstallable
state      Dep-Wait           dep-wait
state      Building           building
state      Built              built
state      Build-Attempted    build-attempted
state      Uploaded           uploaded
state      Installed          installed
state      Failed             failed
state      Not-For-Us         not-for-us
state      Auto-Not-For-Us    auto-not-for-us
state      Failed-Removed     -                  the attic has it, with its history
state      Dep-Wait-Removed   -                  the attic has it, with its history
state      Install-Wait       -                  dropped there too
state      Reupload-Wait      -                  requeue of what archived refused
take       needs-build        other    building
take       building           owner    same
take       building           other    refused
take       building           override same               taken over, where it is
take       built              other    refused
take       built              override building
take       build-attempted    override building
take       failed             other    refused
take       failed             override building
take       not-for-us         override refused
take       dep-wait           other    refused
take       bd-uninstallable   other    refused
take       uploaded           other    refused
take       installed          override refused
take       auto-not-for-us    override refused            there it can be taken: a hole
built      building           owner    built
built      build-attempted    owner    built
built      building           other    refused
attempted  building           owner    build-attempted
attempted  building           other    refused
uploaded   building           owner    uploaded
uploaded   built              owner    uploaded
uploaded   build-attempted    owner    uploaded
uploaded   needs-build        owner    refused
fail       building           owner    failed
fail       built              owner    failed
fail       build-attempted    owner    failed
fail       dep-wait           other    failed
fail       needs-build        other    failed
fail       bd-uninstallable   other    failed
fail       uploaded           other    failed
fail       failed             other    same
fail       installed          override refused
dw         building           owner    dep-wait
dw         needs-build        other    dep-wait
dw         bd-uninstallable   other    dep-wait
dw         failed             other    dep-wait
dw         dep-wait           other    same
dw         installed          override refused
dw         not-for-us         override refused
gb         building           owner    needs-build
gb         built              owner    needs-build
gb         build-attempted    owner    needs-build
gb         failed             other    refused
gb         failed             override needs-build
gb         dep-wait           override needs-build
gb         bd-uninstallable   override needs-build
gb         uploaded           override needs-build
gb         not-for-us         override needs-build
gb         installed          override refused            nmu rebuilds what is published
nfu        needs-build        other    not-for-us
nfu        building           other    not-for-us
nfu        failed             other    not-for-us
nfu        not-for-us         other    failed
nfu        installed          other    refused            archive rm first, or it would be there and not for us
nmu        installed          other    same
nmu        building           other    refused            there the merge sorts it out
nmu        needs-build        other    same
bp         needs-build        other    same
bp         building           other    same
bp         installed          other    refused            its next version has Build-Priority
extra-depends   needs-build   other    bd-uninstallable
extra-depends   failed        other    same
extra-conflicts dep-wait      other    same
cancel     building           owner    attic              there it is "forget", which deletes
info       installed          other    same
mail       fail               fail
mail       retry              retry
mail       dep-wait           dep-wait
mail       giveback           giveback
mail       manual             manual
mail       not-for-us         not-for-us
mail       newvers            newvers
mail       purge              purge
mail       upload-rem         upload-rem
setting    no_auto_build              Not-Packages
setting    weak_no_auto_build         Last
setting    no_build_regex             Not-Packages
setting    build_regex                Packages
setting    take_from_dists            Suites
setting    min_free_space             Reserve
setting    nice_level                 Nice
setting    sbuild_chroot              Chroots
setting    sign_with                  Key
setting    admin_mail                 Email
setting    logs_mailed_to             To
setting    warning_age                Remind
setting    build_log_keep             Keep-Logs
setting    EXIT-DAEMON-PLEASE         Stop
setting    DEB_BUILD_OPTIONS          Options
setting    DEB_BUILD_PROFILES         Profiles
setting    idle_sleep_time            -        a builder is woken by what comes
setting    delay_after_give_back      -        a minute, then longer; giveback leaves it to another builder
setting    max_sbuild_fails           -        three packages in a row, whose builds a probe tells from a broken builder
setting    secondary_daemon_threshold -        a builder takes what its settings let it, whoever else runs
setting    should_build_msgs          -        nobody is asked whether to build after a failure: the job says it
setting    statistics_mail            -        packmill status, and what each build took in logs/DAY/SUITE/builds
setting    daemon_log_rotate          -        the supervisor keeps the daemon's log
setting    dupload_to                 -        archived publishes; packmill archive push brings it elsewhere
setting    NO-DAEMON-PLEASE           -        the supervisor stops it
option     --message          --message
option     --override         --override
option     --simulate         --dry-run
option     --extra-depends    --extra-depends
option     --extra-conflicts  extra-conflicts
option     --binNMU           nmu
option     --build-priority   bp
option     --permanent-build-priority  Build-Priority
option     --no-build         nfu
option     --forget           cancel
option     --info             info
option     --pretend-avail    -                  the next merge sees what is there; gb --override is for who knows better
option     --dist             -                  the third part of wb's own grammar: . SUITE
option     --arch             -                  its second part: . ARCH
option     --user             -                  the system knows who asks
option     --merge-v3         -                  master-buildd merges by itself when an archive changes
option     --export           -                  the tree is the database: cp, or packmill backup
option     --import           -                  packmill archive import, of any archive
option     --manual-edit      -                  mv, and an editor on the ticket
option     --create-maintenance-lock  -          each job has a lock of its own
option     --distribution-architectures  -       control/suites says it
option     --verbose          -                  packmill why
list       --list=STATE       --state
list       --arch             --arch
list       --dist             --suite
list       --min-age          --older
list       --format           --json
list       --max-age          -                  the list is in the order of its time
list       --order            -                  a queue's names are in the order in which it is built
list       --user             -                  packmill why says who has a job; --json too
list       --category         -                  there are no categories; a failure's text says what it was
`

// page is a page of the documentation, whose settings and options other tests hold against
// the code.
func page(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Each row is what the specification says, and each difference has a reason.
func TestBesideWannaBuild(t *testing.T) {
	seen, states := map[Op]bool{}, map[string]bool{}
	settings, readme, wb := page(t, "../doc/settings.md"), page(t, "../README.md"), page(t, "../cmd/internal/wb/order.go")
	for line := range strings.Lines(beside) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		switch kind, ours := f[0], f[2]; kind {
		case "state":
			states[ours] = true
			differs := ours == "-" || f[1] == "-"
			if s := spool.Standard.Named(ours); (s == nil) != (ours == "-") || differs && len(f) < 4 {
				t.Errorf("%s: ours is %v, and no reason", line, s)
			}
		case "mail":
			if w := WordAt(ByMail, f[1]); (w == nil) != (ours == "-") || ours == "-" && len(f) < 4 {
				t.Errorf("%s: ours is %v, and no reason", line, w)
			}
		case "setting":
			if ours == "-" && len(f) < 4 || ours != "-" && !strings.Contains(settings, "`"+ours+"`") {
				t.Errorf("%s: no such setting, and no reason", line)
			}
		case "option":
			known := WordAt(AtWb, ours) != nil || strings.Contains(wb, `"`+ours+`"`) ||
				strings.Contains(settings, "`"+ours+"`")
			if ours != "-" && !known || ours == "-" && len(f) < 4 {
				t.Errorf("%s: wb has no such word or option, and there is no reason", line)
			}
		case "list":
			if ours == "-" && len(f) < 4 || ours != "-" && !strings.Contains(readme, ours) {
				t.Errorf("%s: README.md has no such option, and there is no reason", line)
			}
		default:
			op := Op(kind)
			seen[op] = true
			got := "refused"
			if s := SpecOf(spool.Standard.Named(f[1]), op, Role(ours)); !s.Refused() {
				got = s.To.String()
			} else if s.Say == "" {
				t.Errorf("%s: refused without a word", line)
			}
			if got != f[3] {
				t.Errorf("%s: ours is %s", line, got)
			}
		}
	}
	for _, s := range spool.Standard.ArchStates() {
		if !states[s.Name] {
			t.Errorf("the state %s has no row; one that wanna-build lacks: state - %s and the reason", s, s)
		}
	}
	for _, op := range Ops {
		if !seen[op] && op != Profiles && op != Options && op != Manual { // by hand there, or none
			t.Errorf("the operation %s has no row", op)
		}
	}
}
