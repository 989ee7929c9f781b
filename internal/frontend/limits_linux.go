package frontend

import (
	"math"
	"syscall"

	"golang.org/x/sys/unix"
)

// openFiles returns how many descriptors this process may have. Package os has raised the number to
// the hard limit.
func openFiles() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(l.Cur, math.MaxInt32))
}

// maxUnsent is what a connection keeps in the kernel beyond what is on its way to the client:
// enough to send without a pause.
const maxUnsent = 128 << 10

// wakeWriters is for net.ListenConfig. It makes the kernel wake a writer as soon as less than half
// of maxUnsent is unsent (tcp(7), TCP_NOTSENT_LOWAT). Connections inherit that from their listener.
// By default the kernel may wait until a third of its buffer is free, which can be more than a
// megabyte: more than a slow client takes within the stall timeout, and all that memory stays in
// use.
func wakeWriters(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) {
		// an improvement only
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent)
	})
}
