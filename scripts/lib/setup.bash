# shellcheck shell=bash
# shellcheck disable=SC2034 # used by those who source it
# What scripts/quickstart, scripts/test and scripts/bench share: words to the person, the clock,
# and a look at the machine. Source it; it changes nothing by itself.
#
# Each check that fails ends the program with a sentence that says what to do.

# The source tree.
src=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# Go's own rules for files and the system's for tools, whatever the caller's are.
umask 022
export LC_ALL=C.UTF-8
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
	terminal=1 bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m' wipe=$'\r\e[K'
else
	terminal='' bold='' dim='' red='' green='' plain='' wipe=''
fi

# ---- words and the clock

# now: seconds with three decimals.
now() {
	local t=$EPOCHREALTIME
	printf '%s' "${t%???}"
}

# took START: the seconds since START, as 12.3.
took() {
	local ms=$((10#$(now | tr -d .,) - 10#$(printf '%s' "$1" | tr -d .,)))
	printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100))
}

steps=() step_name='' step_start='' run_start=$(now)

# step NAME: a part begins; the part before it is over.
step() {
	step_end
	step_name=$1 step_start=$(now)
	printf '%s%s%s\n' "$bold" "$1" "$plain"
}

# step_end: prints how long the part took.
step_end() {
	[ -n "$step_name" ] || return 0
	local t
	t=$(took "$step_start")
	steps+=("$(printf '%8s s  %s' "$t" "$step_name")")
	printf '  %s%s s%s\n' "$dim" "$t" "$plain"
	step_name=''
}

# say TEXT: what goes on inside a part.
say() {
	printf '  %s\n' "$1"
}

# passing TEXT: overwritten by the next line, and only on a terminal.
passing() {
	[ -z "$terminal" ] || printf '%s  %s%.100s%s' "$wipe" "$dim" "$1" "$plain"
}
passed() {
	printf '%s' "$wipe"
}

# quietly LOG COMMAND...: its words go to LOG; a terminal shows the last of them.
quietly() {
	local log=$1 watcher='' status=0
	shift
	if [ -n "$terminal" ]; then
		while kill -0 $$ 2>/dev/null; do
			passing "$(tail -n 1 "$log" 2>/dev/null | tr -cd '[:print:]')"
			sleep 0.3
		done &
		watcher=$!
	fi
	"$@" >>"$log" 2>&1 </dev/null || status=$?
	if [ -n "$watcher" ]; then
		kill "$watcher" 2>/dev/null
		wait "$watcher" 2>/dev/null || true
		passed
	fi
	return "$status"
}

# die TEXT: what is wrong and what to do about it.
die() {
	passed
	printf '%s%s: %s%s\n' "$red" "${program:-packmill}" "$1" "$plain" >&2
	exit 1
}

# fail LOG TEXT: the same after the last lines of a log.
fail() {
	passed
	tail -n 8 "$1" 2>/dev/null | cut -c1-300 | sed 's/^/    /' >&2
	die "$2 (the lines above are the end of $1)"
}

# ---- root

# as_root COMMAND...: as root, by sudo if need be.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		sudo -- "$@"
	fi
}

# need_root WHY: root or a working sudo, else the end.
need_root() {
	[ "$(id -u)" = 0 ] && return
	command -v sudo >/dev/null ||
		die "$1 needs root, and sudo is not installed: run this as root, or have an administrator install sudo and allow you to use it"
	sudo -v || die "$1 needs root, and sudo refused: run this as root, or ask an administrator for sudo rights"
}

# ---- the machine

# check_debian: Debian 12, 13 or newer; sets $codename.
check_debian() {
	local ID='' VERSION_ID='' VERSION_CODENAME=''
	# shellcheck source=/dev/null
	[ ! -r /etc/os-release ] || . /etc/os-release
	codename=$VERSION_CODENAME
	[ "$ID" = debian ] ||
		die "this is ${PRETTY_NAME:-no Debian}; it needs Debian 12 or 13: use such a machine or container"
	[ -z "$VERSION_ID" ] || [ "$VERSION_ID" -ge 12 ] ||
		die "this is Debian $VERSION_ID; sbuild and util-linux are too old there: use Debian 12 or 13"
	[ -n "$codename" ] || die "/etc/os-release names no VERSION_CODENAME, so the suite to build on is not known: use a stable release of Debian"
}

# check_disk DIR MEGABYTES: room in DIR, or where it will be.
check_disk() {
	local d=$1 free
	while [ ! -d "$d" ]; do d=$(dirname "$d"); done
	free=$(($(stat -f -c '%a * %S' "$d") / 1048576))
	[ "$free" -ge "$2" ] ||
		die "only $free MB are free in $d and $2 MB are needed: make room there or choose another place"
}

# packages GROUP...: the names of lib/packages for these groups.
packages() {
	local name group rest
	while read -r name group rest; do
		case $name in '' | \#*) continue ;; esac
		case " $* " in *" $group "*) printf '%s\n' "$name" ;; esac
	done <"$src/scripts/lib/packages"
}

# missing PACKAGE...: those that are not installed.
missing() {
	local p
	for p in "$@"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || printf '%s\n' "$p"
	done
}

# install_packages GROUP...: what is missing of lib/packages, by apt. Services
# that come with it (sshd on port 22) are not started. LOG gets apt's words.
install_packages() {
	local all want log=${LOG:-/dev/null}
	mapfile -t all < <(packages "$@")
	mapfile -t want < <(missing "${all[@]}")
	if [ ${#want[@]} = 0 ]; then
		say "all of the ${#all[@]} packages are there already"
		return
	fi
	say "installing ${#want[@]} of ${#all[@]} packages: ${want[*]}"
	need_root "Installing packages"
	if [ -z "$(missing dput)" ]; then
		case " ${want[*]} " in *' dput-ng '*)
			die "the package dput is installed, it conflicts with dput-ng, and it cannot upload over sftp: apt-get install dput-ng (it replaces dput), then run this again" ;;
		esac
	fi
	quietly "$log" as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update ||
		fail "$log" "apt-get update fails: check the network and /etc/apt/sources.list"
	(
		policy=/usr/sbin/policy-rc.d
		if [ ! -e "$policy" ]; then
			trap 'as_root rm -f "$policy"' EXIT
			printf '#!/bin/sh\n# for the time of an installation: no new service starts\nexit 101\n' |
				as_root install -m 755 /dev/stdin "$policy"
		fi
		quietly "$log" as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-remove --no-install-recommends \
			install "${want[@]}"
	) || fail "$log" "apt-get install fails: mend what apt says there, then run this again"
	case " ${want[*]} " in *' openssh-server '*)
		if [ -d /run/systemd/system ]; then
			as_root systemctl disable -q ssh.service ssh.socket >>"$log" 2>&1 || true
			say "openssh-server is new here; its own service on port 22 stays off (systemctl enable --now ssh turns it on)"
		fi ;;
	esac
}

# find_go: puts a Go that can build this source into PATH. Go 1.21 and newer
# fetch the toolchain that go.mod asks for by themselves.
find_go() {
	local want d
	want=$(sed -n 's/^go //p' "$src/go.mod")
	for d in '' /usr/local/go/bin "/usr/lib/go-${want%.*}/bin" /usr/lib/go/bin "$HOME/go/bin" "$HOME/sdk/go$want/bin"; do
		[ -z "$d" ] || PATH=$PATH:$d
		command -v go >/dev/null && break
	done
	command -v go >/dev/null ||
		die "Go is not installed: unpack Go $want or newer from https://go.dev/dl to /usr/local/go (on Debian 13 'apt install golang-go/trixie-backports' will do), then run this again"
	(cd "$src" && go version) >/dev/null 2>&1 ||
		die "$(command -v go) is $(cd / && go env GOVERSION 2>/dev/null || echo unusable) and cannot fetch Go $want: install Go $want or newer from https://go.dev/dl, or let it (GOTOOLCHAIN=auto, a network, and a GOPROXY that answers)"
	go_version=$(cd "$src" && go env GOVERSION)
	# Debian 12's Go 1.19 knows nothing of toolchains and would only fail later.
	[ "$(printf '%s\n%s\n' "$want" "${go_version#go}" | sort -V | head -n 1)" = "$want" ] ||
		die "$(command -v go) is $go_version and go.mod asks for $want: install Go $want or newer from https://go.dev/dl"
}

# run_as USER COMMAND...: as that user with nothing of our environment but
# HOME, PATH and what RUN_ENV lists; as ourselves if that is who we are.
run_as() {
	local u=$1
	shift
	if [ "$(id -un)" = "$u" ]; then
		env -C / "${RUN_ENV[@]}" "$@"
	else
		setpriv --reuid "$u" --regid "$(id -g "$u")" --init-groups --inh-caps=-all -- \
			env -C / -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
			USER="$u" LOGNAME="$u" HOME="$(getent passwd "$u" | cut -d: -f6)" "${RUN_ENV[@]}" "$@"
	fi
}
RUN_ENV=()

# test_user: what root builds as in tests and measurements, made if it is missing, and where its chroots lie.
test_user() {
	export PACKMILL_BUILD_USER=packmill-test PACKMILL_TEST_CACHE=${PACKMILL_TEST_CACHE:-/var/cache/packmill-test}
	id packmill-test >/dev/null 2>&1 ||
		useradd --system --user-group --create-home --home-dir /var/lib/packmill-test --shell /usr/sbin/nologin \
			--comment "Packmill's tests" packmill-test
	install -d -o packmill-test -g packmill-test "$PACKMILL_TEST_CACHE"
}

# give_subids USER [N]: subordinate user and group ids for N builds at a time (1),
# 65536 for each, if it has less.
give_subids() {
	local f kind from ids=$((65536 * ${2:-1}))
	for kind in uid gid; do
		f=/etc/sub$kind
		[ "$(awk -F: -v name="$1" -v id="$(id -u "$1")" '$1 == name || $1 == id { n += int($3 / 65536) } END { print n * 65536 }' "$f" 2>/dev/null || echo 0)" -lt "$ids" ] || continue
		need_root "Giving $1 subordinate ids in $f"
		[ -e "$f" ] || as_root touch "$f"
		# Above every range that is given out already.
		from=$(awk -F: 'BEGIN { top = 100000 } $2 + $3 > top { top = $2 + $3 } END { print top }' "$f")
		as_root usermod --add-sub"$kind"s "$from-$((from + ids - 1))" "$1" ||
			die "usermod could not give $1 subordinate ids in $f: add the line '$1:$from:$ids' to $f by hand"
		say "gave $1 the subordinate ${kind}s $from to $((from + ids - 1))"
	done
}

# check_userns USER: the user can make a namespace with its subordinate ids.
check_userns() {
	local why
	why=$(run_as "$1" unshare --user --map-root-user true 2>&1) ||
		die "$1 may not make user namespaces ($why): as root, sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000 (and kernel.apparmor_restrict_unprivileged_userns=0 where it exists); in a container, start that with them allowed"
	why=$(run_as "$1" unshare --user --map-auto --map-root-user true 2>&1) ||
		die "$1 cannot use its subordinate ids ($why): /etc/subuid and /etc/subgid each need a line '$1:N:65536', and newuidmap must be setuid root (apt-get install --reinstall uidmap)"
	why=$(run_as "$1" unshare --user --map-auto --map-root-user --mount --pid --fork mount -t proc proc /proc 2>&1) ||
		die "$1 cannot mount /proc in a namespace of its own ($why), which a clean chroot needs: in a container, start that with an unmasked /proc (docker: --security-opt systempaths=unconfined --security-opt seccomp=unconfined)"
}

# debian_lines: the machine's own Debian sources for its release, as one-line
# apt sources without the word deb in front: URI SUITE COMPONENT.
debian_lines() {
	# shellcheck disable=SC2016 # apt's variables
	apt-get indextargets --format '$(ORIGIN)|$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		sed -n 's/^Debian|//p' |
		awk -v c="$codename" '($2 == c || $2 == c "-updates" || $2 == c "-security") && $3 == "main" && !seen[$0]++'
}
