package l2

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/rights"
)

// receiveBuffer is how many bytes of frames may wait for a reader: some thousand SYNs with what the kernel counts for each.
const receiveBuffer = 4 << 20

// allProtocols has a socket receive frames before the hooks where nftables drops those of a muted address: frames of a protocol are
// delivered after them (__netif_receive_skb_core in net/core/dev.c).
const allProtocols = unix.ETH_P_ALL

// openSocket returns a packet socket of the interface that sends, and receives what is of a protocol and passes the filter; nothing without one.
func openSocket(ifi *net.Interface, protocol int, filter []bpf.Instruction) (*packet.Conn, error) {
	var cfg packet.Config
	if filter != nil {
		raw, err := bpf.Assemble(filter)
		if err != nil {
			return nil, err
		}
		cfg.Filter = raw
	} else {
		protocol = 0
	}
	conn, err := packet.Listen(ifi, packet.Raw, protocol, &cfg)
	switch {
	case errors.Is(err, unix.EAFNOSUPPORT):
		return nil, fmt.Errorf("this kernel has no packet sockets, which frames of %s need: %w", ifi.Name, err)
	case err != nil:
		return nil, rights.Explain("open a packet socket of "+ifi.Name, err, rights.NetRaw)
	}
	if filter != nil {
		err = control(conn, func(fd int) error {
			// The filter drops them in any case; this spares the kernel a copy of each. Kernels before 4.20 do not know it.
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
			if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil { // needs CAP_NET_ADMIN
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
			}
			return nil
		})
		if err != nil {
			conn.Close()
			return nil, err
		}
	}
	return conn, nil
}

// hardwareAddr returns the address that the interface has now: a bond's changes as long as it lives.
func hardwareAddr(conn *packet.Conn) (mac, error) {
	var m mac
	err := control(conn, func(fd int) error {
		sa, err := unix.Getsockname(fd)
		if err != nil {
			return os.NewSyscallError("getsockname", err)
		}
		sll, ok := sa.(*unix.SockaddrLinklayer)
		if !ok || sll.Ifindex <= 0 {
			return errors.New("the interface is gone")
		}
		if sll.Hatype != unix.ARPHRD_ETHER || sll.Halen != 6 {
			return errors.New("not an Ethernet interface")
		}
		m = mac(sll.Addr[:6])
		return nil
	})
	return m, err
}

// passing reports whether a socket can be read again after err: the interface was down, or is.
func passing(err error) bool { return errors.Is(err, unix.ENETDOWN) }

// control runs f with the descriptor of conn.
func control(conn *packet.Conn, f func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}
