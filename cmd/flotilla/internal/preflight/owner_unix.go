//go:build unix

package preflight

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// exposed reports whether group or others have rights to a file or directory.
func exposed(fi fs.FileInfo) bool { return fi.Mode().Perm()&0o077 != 0 }

// foreign says to whom a file or directory belongs, if that is another user than this one.
func foreign(fi fs.FileInfo) string {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) == os.Geteuid() {
		return ""
	}
	return fmt.Sprintf("it belongs to the user with the number %d, and the check runs as number %d", st.Uid, os.Geteuid())
}
