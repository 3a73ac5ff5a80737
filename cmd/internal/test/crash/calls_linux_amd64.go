//go:build linux && amd64

package crash

import "golang.org/x/sys/unix"

// A verb says what a system call does to a tree.
type verb int

const (
	vOpen verb = iota + 1
	vWrite
	vTruncate
	vAllocate
	vSync
	vSyncFS
	vSyncRange
	vRename
	vLink
	vSymlink
	vUnlink
	vRmdir
	vMkdir
	vMknod
	vMode
	vOwner
	vTimes
	vAttr
	vClone
)

// A shape tells where a system call keeps the objects that it changes. The
// numbers are argument positions; none is -1.
type shape struct {
	name   string
	verb   verb
	dir    int // directory descriptor of path
	path   int
	dir2   int // the same of the second path (rename, link)
	path2  int
	fd     int // the descriptor that is written, synced or changed
	off    int // argument with a file offset
	offPtr bool
	size   int // argument with a length that can be cut short
	flags  int
}

func one(name string, v verb, dir, path int) shape {
	return shape{name: name, verb: v, dir: dir, path: path, dir2: -1, path2: -1, fd: -1, off: -1, size: -1, flags: -1}
}

func two(name string, v verb, dir, path, dir2, path2 int) shape {
	s := one(name, v, dir, path)
	s.dir2, s.path2 = dir2, path2
	return s
}

func onFD(name string, v verb, fd int) shape {
	s := one(name, v, -1, -1)
	s.fd = fd
	return s
}

func (s shape) withFlags(n int) shape { s.flags = n; return s }
func (s shape) withSize(n int) shape  { s.size = n; return s }
func (s shape) withOff(n int, ptr bool) shape {
	s.off, s.offPtr = n, ptr
	return s
}

// shapes lists every system call of linux/amd64 that changes a tree, by number.
var shapes = map[uint64]shape{
	unix.SYS_OPEN:    one("open", vOpen, -1, 0).withFlags(1),
	unix.SYS_OPENAT:  one("openat", vOpen, 0, 1).withFlags(2),
	unix.SYS_OPENAT2: one("openat2", vOpen, 0, 1).withFlags(2),
	unix.SYS_CREAT:   one("creat", vOpen, -1, 0),

	unix.SYS_WRITE:           onFD("write", vWrite, 0).withSize(2),
	unix.SYS_PWRITE64:        onFD("pwrite64", vWrite, 0).withSize(2).withOff(3, false),
	unix.SYS_WRITEV:          onFD("writev", vWrite, 0),
	unix.SYS_PWRITEV:         onFD("pwritev", vWrite, 0).withOff(3, false),
	unix.SYS_PWRITEV2:        onFD("pwritev2", vWrite, 0).withOff(3, false),
	unix.SYS_SENDFILE:        onFD("sendfile", vWrite, 0).withSize(3),
	unix.SYS_SPLICE:          onFD("splice", vWrite, 2).withSize(4).withOff(3, true),
	unix.SYS_COPY_FILE_RANGE: onFD("copy_file_range", vWrite, 2).withSize(4).withOff(3, true),
	unix.SYS_IOCTL:           onFD("ioctl(FICLONE)", vClone, 0),

	unix.SYS_TRUNCATE:  one("truncate", vTruncate, -1, 0).withOff(1, false),
	unix.SYS_FTRUNCATE: onFD("ftruncate", vTruncate, 0).withOff(1, false),
	unix.SYS_FALLOCATE: onFD("fallocate", vAllocate, 0),

	unix.SYS_FSYNC:           onFD("fsync", vSync, 0),
	unix.SYS_FDATASYNC:       onFD("fdatasync", vSync, 0),
	unix.SYS_SYNCFS:          onFD("syncfs", vSyncFS, 0),
	unix.SYS_SYNC_FILE_RANGE: onFD("sync_file_range", vSyncRange, 0),

	unix.SYS_RENAME:    two("rename", vRename, -1, 0, -1, 1),
	unix.SYS_RENAMEAT:  two("renameat", vRename, 0, 1, 2, 3),
	unix.SYS_RENAMEAT2: two("renameat2", vRename, 0, 1, 2, 3).withFlags(4),
	unix.SYS_LINK:      two("link", vLink, -1, 0, -1, 1),
	unix.SYS_LINKAT:    two("linkat", vLink, 0, 1, 2, 3).withFlags(4),
	unix.SYS_SYMLINK:   one("symlink", vSymlink, -1, 1),
	unix.SYS_SYMLINKAT: one("symlinkat", vSymlink, 1, 2),
	unix.SYS_UNLINK:    one("unlink", vUnlink, -1, 0),
	unix.SYS_UNLINKAT:  one("unlinkat", vUnlink, 0, 1).withFlags(2),
	unix.SYS_RMDIR:     one("rmdir", vRmdir, -1, 0),
	unix.SYS_MKDIR:     one("mkdir", vMkdir, -1, 0),
	unix.SYS_MKDIRAT:   one("mkdirat", vMkdir, 0, 1),
	unix.SYS_MKNOD:     one("mknod", vMknod, -1, 0),
	unix.SYS_MKNODAT:   one("mknodat", vMknod, 0, 1),

	unix.SYS_CHMOD:     one("chmod", vMode, -1, 0),
	unix.SYS_FCHMOD:    onFD("fchmod", vMode, 0),
	unix.SYS_FCHMODAT:  one("fchmodat", vMode, 0, 1),
	unix.SYS_FCHMODAT2: one("fchmodat2", vMode, 0, 1),
	unix.SYS_CHOWN:     one("chown", vOwner, -1, 0),
	unix.SYS_LCHOWN:    one("lchown", vOwner, -1, 0),
	unix.SYS_FCHOWN:    onFD("fchown", vOwner, 0),
	unix.SYS_FCHOWNAT:  one("fchownat", vOwner, 0, 1),
	unix.SYS_UTIME:     one("utime", vTimes, -1, 0),
	unix.SYS_UTIMES:    one("utimes", vTimes, -1, 0),
	unix.SYS_FUTIMESAT: one("futimesat", vTimes, 0, 1),
	unix.SYS_UTIMENSAT: one("utimensat", vTimes, 0, 1),

	unix.SYS_SETXATTR:     one("setxattr", vAttr, -1, 0),
	unix.SYS_LSETXATTR:    one("lsetxattr", vAttr, -1, 0),
	unix.SYS_FSETXATTR:    onFD("fsetxattr", vAttr, 0),
	unix.SYS_REMOVEXATTR:  one("removexattr", vAttr, -1, 0),
	unix.SYS_LREMOVEXATTR: one("lremovexattr", vAttr, -1, 0),
	unix.SYS_FREMOVEXATTR: onFD("fremovexattr", vAttr, 0),
}

const (
	ficlone      = 0x40049409
	ficloneRange = 0x4020940d

	// openChanges are the flags that make an open worth a stop.
	openChanges = unix.O_ACCMODE | unix.O_CREAT | unix.O_TRUNC | (unix.O_TMPFILE &^ unix.O_DIRECTORY)
)

// filter is a seccomp program that stops at the calls of shapes and lets all
// others run at full speed. With reads it also stops at opens for reading.
func filter(reads bool) []unix.SockFilter {
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		set   = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		ret   = unix.BPF_RET | unix.BPF_K
		nr    = 0 // offsets in struct seccomp_data
		arch  = 4
		args  = 16
	)
	allow := unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW}
	trace := unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_TRACE}
	p := []unix.SockFilter{
		{Code: load, K: arch},
		{Code: equal, K: unix.AUDIT_ARCH_X86_64, Jt: 1},
		allow,
		{Code: load, K: nr},
	}
	for n, s := range shapes {
		switch {
		case n == unix.SYS_IOCTL:
			p = append(p,
				unix.SockFilter{Code: equal, K: uint32(n), Jf: 5},
				unix.SockFilter{Code: load, K: args + 8},
				unix.SockFilter{Code: equal, K: ficlone, Jt: 2},
				unix.SockFilter{Code: equal, K: ficloneRange, Jt: 1},
				allow, trace)
		case (n == unix.SYS_OPEN || n == unix.SYS_OPENAT) && !reads:
			p = append(p,
				unix.SockFilter{Code: equal, K: uint32(n), Jf: 4},
				unix.SockFilter{Code: load, K: args + 8*uint32(s.flags)},
				unix.SockFilter{Code: set, K: openChanges, Jt: 1},
				allow, trace)
		default:
			p = append(p, unix.SockFilter{Code: equal, K: uint32(n), Jf: 1}, trace)
		}
	}
	return append(p, allow)
}
