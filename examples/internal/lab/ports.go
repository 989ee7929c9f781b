package lab

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are claimed from this range. It lies below those that the common systems pick from for whoever asks for any port, so that nobody is
// given a node's port while it is down, and beside the quickstart's, whose tests run at the same time.
const firstPort, lastPort = 10000, 19999

// Loopback returns the loopback address of node number i.
func Loopback(i int) net.IP { return net.IPv4(127, 0, 0, byte(2+i)) }

// HostPort joins an address and a port.
func HostPort(ip net.IP, port int) string { return net.JoinHostPort(ip.String(), strconv.Itoa(port)) }

// ClaimPorts returns n TCP ports at which nobody listens on the loopback addresses of so many nodes, nor on 127.0.0.1. Nobody else who claims is
// given them before release is called: a claim is a listener at 127.0.0.250, where no node is.
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
		port := firstPort + rand.IntN(lastPort-firstPort+1)
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
	return nil, nil, fmt.Errorf("fewer than %d of the ports %d to %d are free: %w", n, firstPort, lastPort, err)
}

// free is nil if nobody listens at port.
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
