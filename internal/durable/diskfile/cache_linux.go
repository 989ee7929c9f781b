package diskfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// ReadFromDisk makes the next reads of a file come from the disk. After a failed fsync the kernel
// keeps pages that are not on the disk and takes them for written
// (https://wiki.postgresql.org/wiki/Fsync_Errors). Reads from the disk see what a power cut would
// leave.
func ReadFromDisk(f *os.File) error {
	if err := f.Sync(); err != nil {
		return err
	}
	// Some file systems know no such advice, and have no such cache.
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	return nil
}
