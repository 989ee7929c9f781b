package self

import "net"

// Dialable returns an address at which peers can probably reach a listener, for a node that was
// given no address to advertise.
func Dialable(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return a.String()
	}
	ip := net.IPv4(127, 0, 0, 1)
	// Connecting a UDP socket sends no packet. It only looks up the outgoing route.
	if c, err := net.Dial("udp", "192.0.2.1:9"); err == nil {
		ip = c.LocalAddr().(*net.UDPAddr).IP
		c.Close()
	} else if addrs, err := net.InterfaceAddrs(); err == nil {
		ip = reachable(addrs, ip)
	}
	return (&net.TCPAddr{IP: ip, Port: tcp.Port}).String()
}

// reachable returns the address that peers on the same network can dial if there is no route out.
// It is the first address of an interface that shares its subnet with others, which excludes
// floating addresses. IPv4 is preferred.
func reachable(addrs []net.Addr, otherwise net.IP) net.IP {
	best := otherwise
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || !n.IP.IsGlobalUnicast() {
			continue
		}
		if ones, bits := n.Mask.Size(); ones == bits {
			continue
		}
		if n.IP.To4() != nil {
			return n.IP
		}
		if best.Equal(otherwise) {
			best = n.IP
		}
	}
	return best
}
