package netlab

import (
	"fmt"
	"net"
	"net/netip"
)

// identity is the name of a host with its addresses.
type identity struct {
	name         string
	addr4, addr6 netip.Addr
	mac          net.HardwareAddr
}

// identities returns the identities of nodes, then of clients.
func identities(nodes, clients int) (all []identity) {
	for i := range nodes {
		all = append(all, newIdentity(fmt.Sprint("node", i), 11+i))
	}
	for i := range clients {
		all = append(all, newIdentity(fmt.Sprint("client", i), 101+i))
	}
	return all
}

// newIdentity returns an identity whose addresses end in number.
func newIdentity(name string, number int) identity {
	return identity{
		name:  name,
		addr4: netip.AddrFrom4([4]byte{10, 77, 0, byte(number)}),
		addr6: netip.MustParseAddr(fmt.Sprintf("fd77::%d", number)),
		mac:   net.HardwareAddr{0x02, 0x4e, 0x4c, 0, 0, byte(number)},
	}
}

// prefixes returns the addresses with the networks that they are in.
func (id identity) prefixes() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(id.addr4, 24), netip.PrefixFrom(id.addr6, 64)}
}
