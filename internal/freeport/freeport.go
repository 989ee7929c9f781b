// Package freeport finds ports for nodes that listen later, or again.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// The ports are below those that common systems give to outgoing connections. Such a connection
// could take a port before its node does.
const first, last = 10000, 31999

// Addrs returns n TCP addresses on loopback whose ports are free now. All of them are different.
// Another program may listen at one of them before the caller does.
func Addrs(n int) (addrs []string, err error) {
	for try := 0; len(addrs) < n; try++ {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(last-first+1)))
		if err != nil {
			if try < 100*n {
				continue
			}
			return nil, fmt.Errorf("looking for free ports: %w", err)
		}
		defer ln.Close() // all are open at once, so all are different
		addrs = append(addrs, ln.Addr().String())
	}
	return addrs, nil
}
