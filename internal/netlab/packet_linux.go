package netlab

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// packetSocket sends and receives whole frames of one protocol on one interface.
type packetSocket struct{ *os.File }

// newPacketSocket opens a socket in the namespace of the calling thread.
func newPacketSocket(name string, protocol uint16, index int) (*packetSocket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol<<8 | protocol>>8, Ifindex: index})
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &packetSocket{os.NewFile(uintptr(fd), name)}, nil
}

// Read reads the next frame. It waits while the interface is down.
func (s *packetSocket) Read(b []byte) (int, error) {
	for {
		n, err := s.File.Read(b)
		if !errors.Is(err, unix.ENETDOWN) {
			return n, err
		}
	}
}

// send sends a frame. A frame is lost without an error while the interface is down or has no
// carrier.
func (s *packetSocket) send(frame []byte) error {
	_, err := s.Write(frame)
	if errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENOBUFS) {
		return nil
	}
	return err
}
