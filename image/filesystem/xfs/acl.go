package xfs

import (
	"encoding/binary"

	"varve/image/filesystem"
)

// aclNames are the attributes that are access control lists, and what Linux calls them.
var aclNames = map[string]string{
	"SGI_ACL_FILE":    "system.posix_acl_access",
	"SGI_ACL_DEFAULT": "system.posix_acl_default",
}

// linuxACL makes of an access control list as it is on the disk (count 4, then entries: tag 4, user or group 4, permissions 2, 2;
// big-endian) the one that Linux hands out (version 4, then entries: tag 2, permissions 2, user or group 4; little-endian).
func linuxACL(disk []byte) ([]byte, error) {
	be, le := binary.BigEndian, binary.LittleEndian
	const entry = 12
	if len(disk) < 4 || uint64(be.Uint32(disk))*entry > uint64(len(disk)-4) {
		return nil, filesystem.Corrupt("it is broken off")
	}
	count := int(be.Uint32(disk))
	value := le.AppendUint32(make([]byte, 0, 4+8*count), 2)
	for i := range count {
		e := disk[4+i*entry:]
		tag, id := be.Uint32(e), be.Uint32(e[4:])
		const user, group = 2, 8
		if tag != user && tag != group {
			id = 0xffffffff // of nobody in particular
		}
		value = le.AppendUint16(value, uint16(tag))
		value = le.AppendUint16(value, be.Uint16(e[8:]))
		value = le.AppendUint32(value, id)
	}
	return value, nil
}
