package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// aclName is the extended attribute in which Linux keeps a file's access control list (acl(5)).
const aclName = "system.posix_acl_access"

// lookers is the list of a directory that is the owner's and a group's, as mode says, and that
// the group of number gid may read. The mask is what the mode's group bits show then: they stay
// as they are where the owning group may read.
func lookers(mode fs.FileMode, gid int) []byte {
	const (
		version                            = 2
		owner, group, named, mask, another = 0x01, 0x04, 0x08, 0x10, 0x20
		look                               = 0o5
		nobody                             = ^uint32(0)
	)
	bits := func(shift int) uint16 { return uint16(mode.Perm()>>shift) & 0o7 }
	acl := binary.LittleEndian.AppendUint32(nil, version)
	for _, e := range []struct {
		tag, may uint16
		id       uint32
	}{{owner, bits(6), nobody}, {group, bits(3), nobody}, {named, look, uint32(gid)}, {mask, bits(3) | look, nobody},
		{another, bits(0), nobody}} {
		acl = binary.LittleEndian.AppendUint16(acl, e.tag)
		acl = binary.LittleEndian.AppendUint16(acl, e.may)
		acl = binary.LittleEndian.AppendUint32(acl, e.id)
	}
	return acl
}

// looks reports whether the right needs a list: what everybody may read needs none.
func (r Right) looks() bool { return r.Look && r.Mode&0o005 != 0o005 }

// letLook gives a directory its list. A file system that keeps none leaves it closed, and
// statusd shows nothing of what is there.
func letLook(dir *os.File, r Right) error {
	if !r.looks() {
		return nil
	}
	gid, err := groupID(GroupStatus)
	if err != nil {
		return err
	}
	err = unix.Fsetxattr(int(dir.Fd()), aclName, lookers(r.Mode, gid), 0)
	if err != nil && !errors.Is(err, syscall.ENOTSUP) {
		return &fs.PathError{Op: "setxattr " + aclName, Path: dir.Name(), Err: err}
	}
	return nil
}

// lacksLook reports whether a directory has not the list that it should have. One that is
// missing, or on a file system without lists, lacks nothing.
func (t *Tree) lacksLook(rel string, r Right) bool {
	if !r.looks() {
		return false
	}
	gid, err := groupID(GroupStatus)
	if err != nil {
		return true
	}
	want := lookers(r.Mode, gid)
	got := make([]byte, len(want)+1)
	n, err := unix.Lgetxattr(t.Path(rel), aclName, got)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTSUP) {
		return false
	}
	return err != nil || !bytes.Equal(got[:n], want)
}
