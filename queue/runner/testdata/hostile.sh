#!/bin/sh
# What a hostile package does in a build: it walks all that it can see, and
# writes, escapes and listens wherever it may. It says BREACH for each thing
# that is not of the build, and at its end who it was.
#
# usage: hostile.sh MARK SOCKET KEY HOSTPATH...
mark=$1 socket=$2 key=$3
shift 3
who=$(id -u)
breach() { echo "BREACH ($who): $*"; }

# Who it is.
[ "$(id -G | wc -w)" = 1 ] || breach "groups: $(id -G)"
echo "IDS $who $(sed -n 1p /proc/self/uid_map | tr -s ' ')"
grep -q ':/$' /proc/self/cgroup && ! grep -vq ':/$' /proc/self/cgroup || breach "control group: $(cat /proc/self/cgroup)"

# Every descriptor, directory and root of every process that is to be seen.
for p in /proc/[0-9]*; do
	for link in "$p"/fd/* "$p"/cwd "$p"/root; do
		to=$(readlink "$link" 2>/dev/null) || continue
		case $to in
		*' (deleted)') ;;
		/*) # a path of this root, or not of it at all
			if [ -e "$link" ] && ! [ "$to" -ef "$link" ]; then breach "$link is $to, which is not in this root"; fi
			if [ -d "$link/." ]; then
				[ "$link/../../../../../../../../../../../.." -ef / ] || breach "$link leads out of the root"
				for up in . .. ../.. ../../.. ../../../..; do
					(: >"$link/$up/$mark") 2>/dev/null
				done
			fi ;;
		esac
	done
	for path; do
		! grep -qF -- "$path" "$p/mountinfo" 2>/dev/null || breach "$p/mountinfo names $path: $(grep -F -- "$path" "$p/mountinfo" | head -n 3)"
	done
done
for path; do
	[ ! -e "$path" ] || breach "sees $path"
	! grep -qsF -- "$path" /proc/1/cmdline /proc/1/environ || breach "the command line or the environment of process 1 names $path"
done

# What is mounted of the machine. (sbuild mounts the archive in root's own
# namespace, who may take that away, and has a directory of the build there.)
for path in /packmill-archive0 "$@"; do (: >"$path/$mark") 2>/dev/null && breach "wrote to $path"; done

# /sys, devices, shared memory, message queues.
[ -z "$(find /sys -type f ! -path '/sys/devices/system/cpu/*' 2>/dev/null | head -n 1)" ] || breach "/sys: $(find /sys -type f | head -n 3)"
[ -z "$(find /dev -type b 2>/dev/null)" ] || breach "block devices"
[ "$(wc -l </proc/sysvipc/shm)" = 1 ] || breach "shared memory: $(cat /proc/sysvipc/shm)"

# The old root, by chroot; a new mount; what lies below one; a way out by a
# namespace of its own.
cat >/tmp/escape.$who.pl <<'PL'
my ($mark, $socket, $key, @paths) = @ARGV;
mkdir "/tmp/jail.$>"; chroot "/tmp/jail.$>"; chdir ".." for 1..64; chroot ".";
for (@paths) { print "BREACH ($>): $_ after chroot\n" if -e $_ }
PL
cat >/tmp/reach.$who.pl <<'PL'
use Socket;
my ($mark, $socket, $key) = @ARGV;
socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die;
print "BREACH ($>): an abstract socket of the machine\n" if connect($s, pack_sockaddr_un("\0$socket"));
my ($type, $none) = ("user", 0);
my $found = syscall(249, $type, $key, 0, 0);
print "BREACH ($>): a key of the machine: $found\n" if $found >= 0;
PL
perl /tmp/escape.$who.pl "$mark" "$socket" "$key" "$@"
perl /tmp/reach.$who.pl "$mark" "$socket" "$key"
try() { # a namespace is of no use either
	mount -o remount,rw / ; umount -l /proc ; umount -l /sys ; umount -l /dev/null ; umount -l / 
	mount -t proc proc /proc ; mount --bind / /mnt ; chroot /proc/1/root true
} 2>/dev/null
unshare --user --map-root-user --mount --pid --fork sh -c '
	mount -o remount,rw /; umount -l /sys; umount -l /proc; umount -l /packmill-archive0; umount -l /mnt; umount -l /dev
	for path; do [ ! -e "$path" ] || echo "BREACH: $path in a namespace of its own"; done' sh "$@" 2>/dev/null
if [ "$who" = 0 ]; then
	umount -l /sys 2>/dev/null; umount -l /packmill-archive0 2>/dev/null; umount -l /mnt 2>/dev/null
	for path; do [ ! -e "$path" ] || breach "$path after umount"; done
fi

# Everything that can be written to gets a file; as root, programs that later
# builds would run.
for dir in $(find / -xdev -type d -writable ! -path '/proc/*' 2>/dev/null | head -n 3000); do (: >"$dir/$mark") 2>/dev/null; done
if [ "$who" = 0 ]; then
	printf '#!/bin/sh\necho BREACH: a program of an earlier build\nexec /usr/bin/dpkg-gencontrol "$@"\n' >/usr/local/bin/dpkg-gencontrol.$mark
	chmod 755 /usr/local/bin/dpkg-gencontrol.$mark
	echo "# $mark" >>/etc/profile; echo "$mark" >>/bin/$mark; echo "# $mark" >>/usr/bin/dpkg-gencontrol
	ln -sfn /proc/self/fd /build/$mark 2>/dev/null
fi
# Process 1 is one of the build's own, as sbuild's is, or out of its reach.
if ! [ /proc/1/root -ef / ]; then
	for p in /proc/1/fd /proc/1/cwd /proc/1/root; do (ls "$p/" >/dev/null) 2>/dev/null && breach "looks into $p"; done
	kill -9 1 2>/dev/null; kill -STOP 1 2>/dev/null; kill -TERM 1 2>/dev/null
fi
# Something that stays.
setsid sh -c "exec sleep 92.4" >/dev/null 2>&1 </dev/null &
echo "WALKED as $who"
exit 0
