package flotilla

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
)

// dialable is an address at which peers may find a listener, if nothing better is given.
func dialable(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return a.String()
	}
	ip := net.IPv4(127, 0, 0, 1)
	// No packet is sent: connecting a UDP socket only asks for the route out.
	if c, err := net.Dial("udp", "192.0.2.1:9"); err == nil {
		ip = c.LocalAddr().(*net.UDPAddr).IP
		c.Close()
	} else if addrs, err := net.InterfaceAddrs(); err == nil {
		ip = reachable(addrs, ip)
	}
	return (&net.TCPAddr{IP: ip, Port: tcp.Port}).String()
}

// reachable returns the address that peers on the same network can dial where there is no route
// out: the first of an interface, of IPv4 if there is one, that shares its subnet with others, as
// no floating address does.
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

func machineName() string {
	name, err := os.Hostname()
	if err != nil {
		return "node"
	}
	return name
}

// checkHostPort checks the form of an address.
func checkHostPort(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%q is not a port", port)
	}
	return nil
}

// listenRemedy says what to do about the error of a listener.
func listenRemedy(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return ", where another process listens; stop it, or choose another address"
	case errors.Is(err, syscall.EACCES):
		return ": ports below 1024 need the right to bind them, as by AmbientCapabilities=CAP_NET_BIND_SERVICE of systemd"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return ", which is no address of this machine"
	}
	return ""
}
