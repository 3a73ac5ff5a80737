package queue

import (
	"strings"
	"testing"

	"packmill/spool"
)

// beside is wanna-build's and buildd's word beside ours, a row each: of a state its name
// there, of an operation from which state, by whom and to where, of a mail its word. Where
// we differ the last column says why.
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
mail       newvers            -                  the queues know the newest version; nobody is asked
mail       purge              -                  a builder keeps nothing that could be purged
mail       upload-rem         -                  gb of what is on its way takes it back
`

// Each row is what the specification says, and each difference has a reason.
func TestBesideWannaBuild(t *testing.T) {
	seen := map[Op]bool{}
	for line := range strings.Lines(beside) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		switch kind, ours := f[0], f[2]; kind {
		case "state":
			if s := spool.Standard.Named(ours); (s == nil) != (ours == "-") || ours == "-" && len(f) < 4 {
				t.Errorf("%s: ours is %v, and no reason", line, s)
			}
		case "mail":
			if w := WordAt(ByMail, f[1]); (w == nil) != (ours == "-") || ours == "-" && len(f) < 4 {
				t.Errorf("%s: ours is %v, and no reason", line, w)
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
		if !strings.Contains(beside, " "+s.Name+"\n") {
			t.Errorf("the state %s has no row", s)
		}
	}
	for _, op := range Ops {
		if !seen[op] && op != Profiles && op != Options && op != Manual { // by hand there, or none
			t.Errorf("the operation %s has no row", op)
		}
	}
}
