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

// receiveBuffer is how many bytes of frames may wait to be read: some thousand SYNs with the
// kernel's overhead.
const receiveBuffer = 4 << 20

// allProtocols makes a socket receive frames before the hooks where nftables drops those of a muted
// address. A socket for one protocol receives them after the hooks (__netif_receive_skb_core in
// net/core/dev.c).
const allProtocols = unix.ETH_P_ALL

// openSocket returns a packet socket of an interface. The socket can send. It receives the frames
// of a protocol that pass the filter, and nothing if there is no filter.
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
			// The filter drops outgoing frames in any case. This option, since Linux 4.20, saves a
			// copy of each.
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
			// SO_RCVBUFFORCE needs CAP_NET_ADMIN.
			if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
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

// hardwareAddr returns the present hardware address of the interface. That of a bond can change.
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

// passing reports whether a socket can still be read after err, because the interface is only down.
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
