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

// writeTimeout bounds the sending of one frame, should the interface's queue stand still.
const writeTimeout = time.Second

// Link is one Ethernet interface, for frames. Its methods may be called at the same time.
type Link struct {
	ifi    net.Interface
	conn   *packet.Conn // sends, receives nothing
	closed atomic.Bool
}

// Open returns the link of an interface. It may be down; frames can be sent when it is up.
// The error wraps fs.ErrPermission where the process lacks CAP_NET_RAW, and says how to give it.
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

// Close releases the link. Relays and probes that it began go on.
func (l *Link) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	return l.conn.Close()
}

// Announce tells everybody on the link, with one frame for each address, that it is at this interface from now on. Frames get lost, so it wants to be
// repeated by the caller. The kernel is to take packets for the address before: that an IPv6 address has been added is not enough, its route in the table
// "local" comes a little later, without duplicate address detection too. An address whose frame cannot be sent does not keep the others from being announced.
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

// Probe asks who on the link has addr, tries times at least once, and waits for answers after each: tries times wait, if nobody
// answers. The owner is another station that answers, announces the address, or probes for it at the same time (RFC 5227, section
// 2.1.1; RFC 4862, section 5.4); it is nil if there is none. This interface's own frames do not count: whether this machine has the address is
// its kernel's to say. With an error nothing is known.
//
// Switches that keep multicast from who has not asked for it (MLD snooping) may hide another's simultaneous probe for an IPv6 address, not its answers
// or announcements.
func (l *Link) Probe(ctx context.Context, addr netip.Addr, tries int, wait time.Duration) (owner net.HardwareAddr, err error) {
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
			if ctx.Err() != nil { // its own deadline may have been replaced by that
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
			h := hear(buf[:n])
			if (h.kind == claimed || h.kind == probed) && h.addr == a && h.mac != self && h.source != self {
				return net.HardwareAddr(h.mac[:]), nil
			}
		}
	}
	return nil, nil
}

// send puts a frame on the link.
func send(conn *packet.Conn, frame []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := conn.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]})
	return err
}

// join makes the interface hear frames to the groups.
func join(conn *packet.Conn, groups ...mac) error {
	for _, g := range groups {
		if err := conn.JoinGroup(g[:]); err != nil {
			return err
		}
	}
	return nil
}
