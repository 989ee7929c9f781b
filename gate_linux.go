package flotilla

import (
	"math"
	"net"

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

// unsent returns how many bytes written to conn its peer has not acknowledged (tcp(7), SIOCOUTQ).
func unsent(conn net.Conn) int {
	sc := clientOf(conn)
	if sc == nil {
		return 0
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return n
}
