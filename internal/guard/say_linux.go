package guard

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// say writes a sentence to standard error if that does not block. A full pipe must not keep a guard
// from its work.
func say(format string, args ...any) {
	line := fmt.Sprintf("flotilla guard (process %d): %s\n", os.Getpid(), fmt.Sprintf(format, args...))
	if len(line) > 512 { // POSIX: a pipe takes that much in one piece
		line = line[:508] + "...\n"
	}
	fds := []unix.PollFd{{Fd: 2, Events: unix.POLLOUT}}
	if n, err := unix.Poll(fds, 0); err == nil && n == 1 && fds[0].Revents&unix.POLLOUT != 0 {
		io.WriteString(os.Stderr, line)
	}
}
