//go:build darwin || freebsd || linux

package diskfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// Free returns how many bytes this process could still write to the file system of a directory. The
// error wraps errors.ErrUnsupported on a system that does not say.
func Free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}
