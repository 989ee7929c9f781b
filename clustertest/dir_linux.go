package clustertest

import (
	"os"
	"syscall"
)

// memoryDir makes a directory in memory, for a test in virtual time: it need not wait for a disk,
// since that takes no virtual time. It returns an empty name if TMPDIR names another place, or if
// there is little room.
func memoryDir() (string, error) {
	const memory, room = "/dev/shm", 1 << 30 // bytes
	var fs syscall.Statfs_t
	if os.Getenv("TMPDIR") != "" || syscall.Statfs(memory, &fs) != nil || int64(fs.Bavail)*fs.Bsize < room {
		return "", nil
	}
	return os.MkdirTemp(memory, "clustertest")
}
