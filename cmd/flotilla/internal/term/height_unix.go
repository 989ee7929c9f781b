//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package term

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Height returns how many lines the terminal w has, 0 if that is not known.
func Height(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Row)
}
