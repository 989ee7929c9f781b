package frontend

import (
	"math"
	"syscall"

	"golang.org/x/sys/unix"
)

// openFiles returns how many descriptors this process may have, as package os has raised the number.
func openFiles() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(l.Cur, math.MaxInt32))
}

// unsentMost is what a connection keeps in the kernel beyond what is on its way to the client: enough to be on the way without a pause.
const unsentMost = 128 << 10

// wakeWriters is for net.ListenConfig. The connections of a listener inherit that a writer is woken as soon as half of unsentMost is on its way
// (tcp(7), TCP_NOTSENT_LOWAT). Else the kernel may do so only when a third of its buffer is free, which is more than a megabyte: more than a
// slow client takes within any patience, and with it all that memory stays taken.
func wakeWriters(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentMost) // one that cannot does without
	})
}
