//go:build system

package server

import (
	"strings"
	"testing"
)

// broken is a set-up that cannot work: what breaks a server, what packmill doctor says of it, and what mends the
// machine again. control is put back after each.
type broken struct{ name, does, want, mend string }

// In these, $c is the tree's control, $t the tree, and set FILE SED changes a file of control.
var brokenServers = []broken{
	{"settings are refused", "set suites 's/^Suite:/Siute:/'", "Siute", ""},
	{"no suite", ": >$c/suites", "there is no suite", ""},
	{"no Base", "set builders 's/^Runner:.*/Runner: overlay/'; set suites '/^Base:/d; /^ deb/d'", "it has no Base", ""},
	{"Base without a component", "set suites 's,^ deb .*, deb http://mirror.example sid,'", "which apt does not take", ""},
	{"Base of deb-src", "set suites 's,^ deb , deb-src ,'", "which apt does not take", ""},
	{"a mirror that is down", "set suites 's,^ deb .*, deb http://127.0.0.1:1/debian sid main,'", "127.0.0.1:1/debian", ""},
	{"a slip in Base", "set suites 's,^\\( deb [^ ]*\\) [^ ]*,\\1 bookwrom,'", "answers 404", ""},
	{"no Override file", "echo 'Override: override' >>$c/suites", "override does not exist", ""},
	{"no Sign-With", "set suites /^Sign-With/d", "it has no Sign-With", ""},
	{"no key of the archive", "rm $c/private/archive.key", "archive.key does not exist", ""},
	{"the archive's key is a directory", "rm $c/private/archive.key; mkdir $c/private/archive.key", "is no plain file", ""},
	{"the archive's key is empty", ": >$c/private/archive.key", "Sign-With: ", ""},
	{"the archive's key is public", "cat $c/keys/archive.asc >$c/private/archive.key", "Sign-With: ", ""},
	{"others can read a key", "chmod 644 $c/private/archive.key", "lets others at it", ""},
	{"a key is another account's", "chown packmill-build $c/private/archive.key", "does not belong to packmill-archive", ""},
	{"no key for opkg", "echo 'Opkg-Key: private/feed.sec' >>$c/suites", "feed.sec does not exist", ""},
	{"a key for opkg that is none", "echo 'Opkg-Key: private/archive.key' >>$c/suites", "Opkg-Key: ", ""},
	{"no builder", ": >$c/builders", "no builder builds all", ""},
	{"nobody for all", "set builders 's/^\\(Architectures:.*\\) all/\\1/'", "no builder builds all", ""},
	{"an architecture that nobody builds", "set suites 's/^Architectures:.*/& riscv64/'", "no builder builds riscv64", ""},
	{"a builder of another suite", "echo 'Suites: sdi' >>$c/builders", `there is no suite "sdi"`, ""},
	{"a builder of another architecture", "set builders 's/^Architectures:.*/& s390x/'", "no suite is built for s390x", ""},
	{"no Key", "set builders /^Key/d", "nobody signs what it builds", ""},
	{"no file of Key", "rm $c/private/builder.key", "builder.key does not exist", ""},
	{"no Fingerprint", "set builders /^Fingerprint/d", "it has no Fingerprint", ""},
	{"another's Fingerprint", "set builders 's/^Fingerprint:.*/Fingerprint: '$(sed -n 's/^Fingerprint: //p' $c/uploaders | head -n 1)/",
		"has another", ""},
	{"a builder's key that nobody knows", "rm $c/keys/builder.asc", "control/keys has no key", ""},
	{"a program that is not there", "set builders 's,^Runner:.*,Runner: exec /usr/bin/nothing,'", "cannot be run", ""},
	{"an account that is not there", "echo 'User: packmill-nobody' >>$c/builders", "there is no account packmill-nobody", ""},
	{"builds as root", "set builders 's/^Runner:.*/Runner: overlay/'; echo 'User: root' >>$c/builders", "builds never run as root", ""},
	{"a cluster without its directory", "set builders 's/^Runner:.*/Runner: slurm/'; echo 'Shared: /jobs' >>$c/builders",
		"/jobs is no directory", ""},
	{"a program is missing", "mv /usr/bin/dpkg-source /root/", "dpkg-source: it is not installed",
		"mv /root/dpkg-source /usr/bin/"},
	{"mmdebstrap is missing", "set builders 's/^Runner:.*/Runner: overlay/'; mv /usr/bin/mmdebstrap /root/",
		"mmdebstrap: it is not installed", "mv /root/mmdebstrap /usr/bin/"},
	{"no uploader", ": >$c/uploaders", "nobody may upload", ""},
	{"an uploader without a key", "rm $c/keys/alice.asc", "uploader alice: control/keys has no key", ""},
	{"a key file that is none", "echo nothing >$c/keys/alice.asc", "control/keys", ""},
	{"an uploader of another suite", "set uploaders 's/^Allow:.*/&, suites=sdi/'", "suites=sdi", ""},
	{"an uploader of another component", "set uploaders 's/^Allow:.*/&, components=contirb/'", "components=contirb", ""},
	{"an account without an account", "printf '\\nName: robot\\nAccount: packmill-robot\\n' >>$c/uploaders",
		"there is no account packmill-robot", ""},
	{"an account without a directory", "printf '\\nName: robot\\nAccount: nobody\\n' >>$c/uploaders", "has no directory", ""},
	{"an account's directory is another's", "install -d -o nobody $t/spool/incoming/mallory; useradd -M mallory",
		"does not belong to it", "rmdir $t/spool/incoming/mallory; userdel mallory"},
	{"nobody is told", ": >$c/notify", "nobody hears", ""},
	{"no From", "set notify /^From/d", "it has no From", ""},
	{"no mail system", "echo 'Via: /usr/sbin/nomail' >>$c/notify", "there is no /usr/sbin/nomail", ""},
	{"a hook without its secret", "printf '\\nEvent: *\\nHook: https://example.org/\\nSecret: private/hook\\n' >>$c/notify",
		"the hook is not called", ""},
	{"letters wait", "systemctl stop maild; touch -d '1 hour ago' $t/spool/mail/new/x", "1 letters wait",
		"rm $t/spool/mail/new/x; systemctl start maild"},
	{"no subordinate ids", "set builders 's/^Runner:.*/Runner: overlay/'; cp /etc/subuid /root/; sed -i /packmill-build/d /etc/subuid",
		"/etc/subuid gives it no 65536 ids", "cat /root/subuid >/etc/subuid"},
	{"no chroot", "set builders 's/^Runner:.*/Runner: overlay/'; mv $h/sid-* /root/", "the first build makes it", "mv /root/sid-* $h/"},
	{"an old chroot", "set builders 's/^Runner:.*/Runner: overlay/'; cp -p $h/sid-*/*/info /root/; " +
		"sed -i 's/^Made: .*/Made: 2024-01-01T00:00:00Z/' $h/sid-*/*/info", "0s old", "cat /root/info >$(echo $h/sid-*/*/info)"},
	{"a chroot of another Base", "set builders 's/^Runner:.*/Runner: overlay/'; set suites 's/^ deb .*/&\\n&/'",
		"the suite's Base has changed", ""},
	{"a full disk", "echo 'Reserve: 1000000G' >>$c/general", "are free", ""},
	{"a clock that went back", "touch -d '1 day' $t/archive/dists/sid/InRelease", "which is to come",
		"touch $t/archive/dists/sid/InRelease"},
	{"a unit does not run", "systemctl stop archived", "archived.service: it does not run", "systemctl start archived"},
	{"a unit has failed", "unit reviewd 'Restart=no\\nExecStart=\\nExecStart=/bin/false'",
		"reviewd.service: it has failed", "nounit reviewd"},
	{"a unit fails again and again", "unit reviewd 'RestartSec=60\\nExecStart=\\nExecStart=/bin/false'",
		"reviewd.service: it ends and is started again and again", "nounit reviewd"},
	{"a unit's settings are wrong", "unit archived 'ExecStart=\\nExecStart=/usr/local/bin/archived --nothing'",
		"archived.service: it has failed", "nounit archived"},
	{"sshd knows no uploaders", "mv /etc/ssh/sshd_config.d/packmill.conf /root/; printf '\\nName: ben2\\nAccount: ben\\n' >>$c/uploaders",
		"do not know the group packmill-upload", "mv /root/packmill.conf /etc/ssh/sshd_config.d/"},
	{"others can write above uploaders", "m=$(stat -c %a $t/spool); chmod 777 $t/spool; printf '\\nName: ben2\\nAccount: ben\\n' >>$c/uploaders",
		"can be written by others than root", "chmod $m $t/spool"},
	{"a web server that is not there", "", "http://127.0.0.1:1/", ""},
}

// brokenShell is what the rows are written in.
const brokenShell = `t=/var/lib/packmill c=$t/control h=/var/lib/packmill-build/.cache/packmill/chroots
set_() { sed -i "$2" $c/$1; }
unit() { mkdir -p /run/systemd/system/$1.service.d; printf "[Service]\n$2\n" >/run/systemd/system/$1.service.d/x.conf
	systemctl daemon-reload; systemctl restart --no-block $1; i=0
	while [ $i -lt 600 ] && systemctl is-active -q $1; do i=$((i+1)); sleep 0.1; done
	while [ $i -lt 600 ] && [ "$(systemctl show -P SubState $1)" = start ]; do i=$((i+1)); sleep 0.1; done; }
nounit() { rm -r /run/systemd/system/$1.service.d; systemctl daemon-reload; systemctl reset-failed $1 || :; systemctl restart $1; }
`

// doctors breaks a server that works, in each of the ways, and wants that packmill doctor finds it. before is what
// it says of the good one.
func (c *server) doctors(t *testing.T) {
	look := "packmill doctor --url http://127.0.0.1:1/ || [ $? = 1 ]\n"
	c.sh("cp -a /var/lib/packmill/control /root/control")
	before := c.sh("packmill doctor || [ $? = 1 ]")
	t.Logf("of the server that works it says:\n%s", before)
	found := 0
	for _, b := range brokenServers {
		does := strings.ReplaceAll("; "+b.does, "; set ", "; set_ ")
		out := c.sh(brokenShell + ": " + does + "\n" + look + b.mend +
			"\nfor f in $(ls -A /root/control); do rm -rf $c/$f; cp -a /root/control/$f $c/; done")
		line := ""
		for l := range strings.Lines(out) {
			if strings.Contains(l, b.want) && !strings.Contains(before, strings.TrimSpace(l)) {
				line = l
			}
		}
		if _, cure, _ := strings.Cut(line, "; "); strings.TrimSpace(cure) == "" {
			t.Errorf("%s: packmill doctor says\n%s\nand nothing with %q and a cure", b.name, out, b.want)
			continue
		}
		found++
	}
	if len(brokenServers) < 40 {
		t.Errorf("%d broken servers, want 40 at least", len(brokenServers))
	}
	t.Logf("found %d of %d broken servers", found, len(brokenServers))
	if after := c.sh("packmill doctor || [ $? = 1 ]"); after != before {
		t.Errorf("after all of them doctor says\n%s\nbefore\n%s", after, before)
	}
}
