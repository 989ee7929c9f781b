package netlab

import (
	"net"
	"net/netip"

	"github.com/flotilla-ha/flotilla/internal/netlab/frame"
	"github.com/flotilla-ha/flotilla/internal/netlab/freezer"
)

// Host is a network namespace with one interface.
type Host struct {
	// Name identifies the host in the lab: "node0", "client1".
	Name string
	// Addr4 is its own IPv4 address.
	Addr4 netip.Addr
	// Addr6 is its own IPv6 address.
	Addr6 netip.Addr
	// MAC is the hardware address of its interface.
	MAC net.HardwareAddr

	index    int // in all hosts of the lab
	link     *link
	faults   *faults // of the lab
	programs *programs
}

func newHost(id identity, index int, l *link, f *faults, group freezer.Group) *Host {
	return &Host{
		Name: id.name, Addr4: id.addr4, Addr6: id.addr6, MAC: id.mac,
		index: index, link: l, faults: f, programs: newPrograms(id.name, l.ns, group),
	}
}

// Do runs f on a thread that is in the host's namespace. Sockets that f opens stay in the
// namespace. Goroutines that f starts are not in it.
func (h *Host) Do(f func() error) error { return h.link.ns.Do(f) }

// AddAddr adds an address to the host, without duplicate address detection.
func (h *Host) AddAddr(p netip.Prefix) error { return h.link.add(p) }

// DelAddr removes an address from the host.
func (h *Host) DelAddr(p netip.Prefix) error { return h.link.remove(p) }

// Announce tells the other hosts that addresses are here, whether or not they are.
func (h *Host) Announce(addrs ...netip.Addr) error {
	s, err := h.link.openPacket(frame.EtherARP)
	if err != nil {
		return err
	}
	defer s.Close()
	mac := frame.MAC(h.MAC)
	for _, a := range addrs {
		f := frame.Unsolicited(mac, a, 0x20, true)
		if a.Is4() {
			f = frame.Gratuitous(mac, a, frame.GratuitousRequest)
		}
		if err := s.send(f); err != nil {
			return err
		}
	}
	return nil
}
