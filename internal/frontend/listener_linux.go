package frontend

import (
	"encoding/binary"
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// dropSYN makes the kernel drop segments that would begin a connection to ln. It attaches a classic
// BPF filter to the listening socket (socket(7), SO_ATTACH_FILTER), which needs no privilege on
// most kernels, and CAP_NET_ADMIN on some. The filter sees a segment from its TCP header on. Byte
// 13 has the flags. The ACK that completes a handshake passes. Accepted sockets inherit the filter,
// and never get a SYN.
func dropSYN(ln *net.TCPListener) error {
	const syn, ack = 0x02, 0x10
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: syn | ack},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: syn, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
	}
	return control(ln, func(fd int) error {
		// On a Multipath TCP socket the kernel would take the filter and never run it.
		if proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || proto != unix.IPPROTO_TCP {
			return errors.Join(errors.New("not a plain TCP socket"), err)
		}
		filter := &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
		err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, filter)
		return os.NewSyscallError("setsockopt", err)
	})
}

// acceptQueue returns how many connections to ln are complete and not accepted. For a listening
// socket tcpi_unacked has that number (tcp_get_info in net/ipv4/tcp.c).
func acceptQueue(ln *net.TCPListener) (int, error) {
	var n int
	err := control(ln, func(fd int) error {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			n = int(info.Unacked)
		}
		return os.NewSyscallError("getsockopt", err)
	})
	return n, err
}

// halfOpen returns how many handshakes with the port of ln have begun and are not complete. It asks
// the kernel for the sockets in state SYN_RECV, by sock_diag(7).
func halfOpen(ln *net.TCPListener) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	port := ln.Addr().(*net.TCPAddr).Port
	total := 0
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		// a dual-stack socket has handshakes of both
		n, err := countSynRecv(fd, family, uint16(port))
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// countSynRecv asks for one address family over fd, a sock_diag socket, and counts the answers.
func countSynRecv(fd int, family uint8, port uint16) (int, error) {
	const (
		sockDiagByFamily   = 20
		synRecv, newSynRec = 1 << 3, 1 << 12 // TCP_SYN_RECV and TCP_NEW_SYN_RECV, as masks
	)
	// struct nlmsghdr, then struct inet_diag_req_v2, in linux/netlink.h and linux/inet_diag.h.
	req := make([]byte, unix.SizeofNlMsghdr+56)
	ne := binary.NativeEndian
	ne.PutUint32(req[0:], uint32(len(req)))
	ne.PutUint16(req[4:], sockDiagByFamily)
	ne.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := req[unix.SizeofNlMsghdr:]
	body[0], body[1] = family, unix.IPPROTO_TCP
	ne.PutUint32(body[4:], synRecv|newSynRec)
	binary.BigEndian.PutUint16(body[8:], port)
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, os.NewSyscallError("sendto", err)
	}
	n := 0
	for buf := make([]byte, 32<<10); ; {
		size, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, os.NewSyscallError("recvfrom", err)
		}
		for b := buf[:size]; len(b) >= unix.SizeofNlMsghdr; {
			length := int(ne.Uint32(b))
			if length < unix.SizeofNlMsghdr || length > len(b) {
				return 0, errors.New("malformed answer of the kernel")
			}
			switch ne.Uint16(b[4:]) {
			case unix.NLMSG_DONE:
				return n, nil
			case unix.NLMSG_ERROR:
				if length >= unix.SizeofNlMsghdr+4 {
					return 0, os.NewSyscallError("sock_diag", unix.Errno(-int32(ne.Uint32(b[unix.SizeofNlMsghdr:]))))
				}
				return 0, errors.New("malformed error of the kernel")
			default:
				n++
			}
			b = b[min((length+3)&^3, len(b)):]
		}
	}
}

// control runs f with the descriptor of ln.
func control(ln *net.TCPListener, f func(fd int) error) error {
	raw, err := ln.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}
