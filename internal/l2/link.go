package l2

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/mdlayher/packet"
)

// writeTimeout bounds the sending of one frame, in case the interface's queue stands still.
const writeTimeout = time.Second

// Link sends and receives frames on an Ethernet interface. Its methods may be called from several
// goroutines.
type Link struct {
	ifi    net.Interface
	conn   *packet.Conn // sends, receives nothing
	closed atomic.Bool
}

// Open returns the link of an interface. The interface may be down; frames can be sent when it is
// up. If the process lacks CAP_NET_RAW the error wraps fs.ErrPermission and names the remedy.
func Open(ifi *net.Interface) (*Link, error) {
	conn, err := openSocket(ifi, 0, nil)
	if err != nil {
		return nil, err
	}
	if _, err := hardwareAddr(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: %w", ifi.Name, err)
	}
	return &Link{ifi: *ifi, conn: conn}, nil
}

// Close closes the link. Relays and probes that it has begun go on.
func (l *Link) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	return l.conn.Close()
}

// Announce tells all stations on the link that the addresses are at this interface from now on,
// with one frame for each. The caller should repeat it, because frames get lost. The kernel must
// accept packets for the addresses before. For IPv6 that is a little later than the address is
// added, even without duplicate address detection: its route in the table "local" comes later. If
// the frame of one address cannot be sent, the others are still announced.
func (l *Link) Announce(addrs ...netip.Addr) error {
	if l.closed.Load() {
		return net.ErrClosed
	}
	self, err := hardwareAddr(l.conn)
	if err != nil {
		return fmt.Errorf("%s: %w", l.ifi.Name, err)
	}
	var errs []error
	for _, addr := range addrs {
		a, err := plain(addr)
		if err == nil {
			err = send(l.conn, announcement(self, a))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot announce %v on %s: %w", addr, l.ifi.Name, err))
		}
	}
	return errors.Join(errs...)
}

// Ask asks where a neighbour is, in the name of an address of the same family that this interface
// has. The kernel hears the answer, and takes it if it waits for it.
func (l *Link) Ask(from, neighbour netip.Addr) error {
	if l.closed.Load() {
		return net.ErrClosed
	}
	self, err := hardwareAddr(l.conn)
	if err != nil {
		return fmt.Errorf("%s: %w", l.ifi.Name, err)
	}
	a, err := plain(neighbour)
	if err == nil && a.Is4() != from.Is4() {
		err = fmt.Errorf("%v is of another family", from)
	}
	if err == nil {
		err = send(l.conn, question(self, from, a))
	}
	if err != nil {
		return fmt.Errorf("cannot ask for %v on %s: %w", neighbour, l.ifi.Name, err)
	}
	return nil
}

// Probe asks which station on the link has addr. It asks at least once, at most tries times, and
// waits for answers for the time wait after each. The owner is another station that answers,
// announces the address, or probes for it at the same time (RFC 5227, section 2.1.1; RFC 4862,
// section 5.4). It is nil if there is none. Frames of this interface do not count. After an error
// nothing is known.
//
// A switch with MLD snooping may hide another station's simultaneous probe for an IPv6 address. It
// does not hide answers and announcements.
func (l *Link) Probe(
	ctx context.Context, addr netip.Addr, tries int, wait time.Duration,
) (owner net.HardwareAddr, err error) {
	a, err := plain(addr)
	if err != nil {
		return nil, err
	}
	conn, err := openSocket(&l.ifi, allProtocols, append(guard(), probeFilter()...))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	self, err := hardwareAddr(conn)
	if err == nil && a.Is6() {
		err = join(conn, multicast(allNodes()), multicast(solicited(a)))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot probe for %v on %s: %w", addr, l.ifi.Name, err)
	}
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, maxFrame)
	for range max(tries, 1) {
		if err := send(conn, probe(self, a)); err != nil {
			return nil, fmt.Errorf("cannot probe for %v on %s: %w", addr, l.ifi.Name, err)
		}
		for end := time.Now().Add(wait); ; {
			conn.SetReadDeadline(end)
			if ctx.Err() != nil { // its deadline may have been replaced by this one
				return nil, context.Cause(ctx)
			}
			n, _, err := conn.ReadFrom(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				break
			}
			if err != nil {
				return nil, fmt.Errorf("cannot probe for %v on %s: %w", addr, l.ifi.Name, err)
			}
			h := parse(buf[:n])
			if (h.kind == claimed || h.kind == probed) && h.addr == a && h.mac != self && h.source != self {
				return net.HardwareAddr(h.mac[:]), nil
			}
		}
	}
	return nil, nil
}

// send sends a frame.
func send(conn *packet.Conn, frame []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := conn.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]})
	return err
}

// join makes the interface receive frames to groups.
func join(conn *packet.Conn, groups ...mac) error {
	for _, g := range groups {
		if err := conn.JoinGroup(g[:]); err != nil {
			return err
		}
	}
	return nil
}
