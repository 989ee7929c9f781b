package guard

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// variable makes a process a guard if its file 3 is the socket that the variable's value names.
	variable = "FLOTILLA_GUARD_PROCESS"

	socketFD = 3
	memoryFD = 4
	bellFD   = 5
)

// proof is what the variable says.
type proof struct {
	version int
	pid     int    // the program's
	socket  uint64 // the guard's end
	duty    Duty
}

// readProof reads the variable and checks that file 3 is the socket that it names. It returns false
// if the variable has leaked into another process.
func readProof() (proof, bool) {
	value, ok := os.LookupEnv(variable)
	if !ok {
		return proof{}, false
	}
	fields := strings.Split(value, ":")
	if len(fields) < 4 {
		return proof{}, false
	}
	v, err1 := strconv.Atoi(fields[0])
	pid, err2 := strconv.Atoi(fields[1])
	socket, err3 := strconv.ParseUint(fields[2], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return proof{}, false
	}
	id, err := socketID(socketFD)
	return proof{v, pid, socket, Duty(fields[3])}, err == nil && id == socket
}

// socketID returns the kernel's number of a socket. It fails for sockets of another kind than the
// one between program and guard.
func socketID(fd int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return 0, errors.New("it is not a socket")
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return 0, err
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return 0, err
	}
	if domain != unix.AF_UNIX || kind != unix.SOCK_SEQPACKET {
		return 0, errors.New("it is another kind of socket")
	}
	return st.Ino, nil
}

// IsGuard reports whether this process was started as a guard with that duty. An environment
// variable must say so, and file 3 must be the very socket that it names. A variable that has
// leaked into another process is therefore ignored.
func IsGuard(d Duty) bool {
	p, ok := readProof()
	return ok && p.duty == d
}
