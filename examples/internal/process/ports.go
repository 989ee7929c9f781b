package process

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Both ranges are below the ports that common systems give to outgoing connections. So no
// connection gets the port of a node that is down. Tests that run at the same time use both.
const (
	firstClaimed, lastClaimed = 10000, 19999 // of ClaimPorts
	firstFree, lastFree       = 20000, 29999 // of FreePorts
)

// Loopback returns the loopback address of node number i.
func Loopback(i int) net.IP { return net.IPv4(127, 0, 0, byte(2+i)) }

// HostPort joins an address and a port.
func HostPort(ip net.IP, port int) string { return net.JoinHostPort(ip.String(), strconv.Itoa(port)) }

// LoopbackAvailable returns an error if this system has no loopback addresses besides 127.0.0.1.
func LoopbackAvailable() error {
	ln, err := net.Listen("tcp", HostPort(Loopback(2), 0))
	if err != nil {
		return fmt.Errorf("this system has no loopback addresses besides 127.0.0.1: %w", err)
	}
	return ln.Close()
}

// ClaimPorts returns n TCP ports that are free on 127.0.0.1 and on the loopback addresses of so
// many nodes. No other caller gets them before release is called. A claim is a listener at
// 127.0.0.250, where no node is.
func ClaimPorts(n, nodes int) (ports []int, release func(), err error) {
	var claims []net.Listener
	release = func() {
		for _, c := range claims {
			c.Close()
		}
	}
	for range 1000 {
		if len(ports) == n {
			return ports, release, nil
		}
		port := firstClaimed + rand.IntN(lastClaimed-firstClaimed+1)
		var claim net.Listener
		if claim, err = net.Listen("tcp", HostPort(net.IPv4(127, 0, 0, 250), port)); err != nil {
			continue
		}
		if err = free(port, nodes); err != nil {
			claim.Close()
			continue
		}
		claims, ports = append(claims, claim), append(ports, port)
	}
	release()
	return nil, nil, fmt.Errorf("fewer than %d of the ports %d to %d are free: %w", n, firstClaimed, lastClaimed, err)
}

// FreePorts returns n TCP ports that are free on 127.0.0.1. It needs no other loopback address, and
// claims nothing: another program may take a port before a node does, and the node then fails.
func FreePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for _, i := range rand.Perm(lastFree - firstFree + 1) {
		if len(ports) == n {
			return ports, nil
		}
		if free(firstFree+i, 0) == nil {
			ports = append(ports, firstFree+i)
		}
	}
	return nil, fmt.Errorf("fewer than %d of the ports %d to %d of 127.0.0.1 are free", n, firstFree, lastFree)
}

// free returns an error if somebody listens at the port of 127.0.0.1 or of a node.
func free(port, nodes int) error {
	for i := -1; i < nodes; i++ { // 127.0.0.1 first
		ln, err := net.Listen("tcp", HostPort(Loopback(i), port))
		if err != nil {
			return err
		}
		ln.Close()
	}
	return nil
}
