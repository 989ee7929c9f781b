package labnode

import (
	"net/netip"

	"github.com/flotilla-ha/flotilla"
)

// Units are addresses that stay together, one group for each node. Without faults group k is at
// node k.
type Units [][]netip.Prefix

// variable is the environment variable with the spec of a node.
const variable = "NETLAB_FLOTILLA_NODE"

// spec is what one node needs to know.
type spec struct {
	Timing               flotilla.Timing
	Units                Units
	Spread               bool
	Keep, NoGuard, Probe bool
	NoFence, Steps       bool
	Number               int
	Name, Dir            string
	Addr, Secret, Health string
	Peers                []string
}

func leaderFile(dir string) string { return dir + ".leader" }
