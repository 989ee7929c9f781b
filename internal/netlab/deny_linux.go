package netlab

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DenyNetlink makes the kernel refuse new netlink sockets of a protocol, to this process and to
// those that it starts, for ever. With EPROTONOSUPPORT the kernel seems to be built without the
// protocol.
func DenyNetlink(protocol uint32, refusal syscall.Errno) error {
	// Offsets in struct seccomp_data: the number of the call, and the lower halves of its
	// arguments. They depend on the byte order of the machine.
	const number = 0
	argument := func(n uint32) uint32 {
		offset := 16 + 8*n
		if one := uint16(1); *(*byte)(unsafe.Pointer(&one)) == 0 {
			offset += 4
		}
		return offset
	}
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	unless := func(value uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: skip, K: value}
	}
	answer := func(value uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value}
	}
	filter := []unix.SockFilter{
		load(number), unless(unix.SYS_SOCKET, 5),
		load(argument(0)), unless(unix.AF_NETLINK, 3),
		load(argument(2)), unless(protocol, 1),
		answer(unix.SECCOMP_RET_ERRNO | uint32(refusal)),
		answer(unix.SECCOMP_RET_ALLOW),
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("refuse new privileges: %w", err)
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	culprit, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return fmt.Errorf("filter system calls: %w", errno)
	}
	if culprit != 0 {
		return errors.New("the filter of system calls does not apply to all threads")
	}
	return nil
}
