package flotilla

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
)

// dialable returns an address at which peers can probably reach a listener, for a node without
// Config.Advertise.
func dialable(a net.Addr) string {
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

// listenRemedy returns the remedy for a listener's error, to be appended to a message.
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
