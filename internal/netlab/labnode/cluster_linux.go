package labnode

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/netlab"
)

// Cluster runs the program on the nodes of a lab. Set its fields before the first Start.
type Cluster struct {
	// Lab is the laboratory.
	Lab *netlab.Lab
	// Dir is a directory for the files of the nodes.
	Dir string
	// Timing is that of the cluster.
	Timing flotilla.Timing
	// Units are the addresses.
	Units Units
	// Spread spreads the addresses by their group. Otherwise priorities place them.
	Spread bool
	// Keep, NoGuard and Probe are as in vip.Config.
	Keep, NoGuard, Probe bool
	// Steps makes the nodes log what package steps reads.
	Steps bool
	// NoFence makes the kernel refuse nftables.
	NoFence bool
	// Health serves the health port at [HealthAddr] of each node.
	Health bool

	secret string // made by the first Start
}

// Start starts the program on node i, and returns when it answers. The program is the running one,
// so its TestMain must call Main. Start must not be called concurrently.
func (c *Cluster) Start(i int) (*netlab.Process, error) {
	if c.secret == "" {
		c.secret = flotilla.NewSecret().Encode()
	}
	node := c.Lab.Nodes[i]
	s := spec{
		Timing: c.Timing, Units: c.Units, Spread: c.Spread,
		Keep: c.Keep, NoGuard: c.NoGuard, Probe: c.Probe, NoFence: c.NoFence, Steps: c.Steps,
		Number: i, Name: node.Name, Dir: c.nodeDir(i), Addr: addressOf(node), Secret: c.secret,
	}
	if c.Health {
		s.Health = HealthAddr(node)
	}
	for _, n := range c.Lab.Nodes {
		s.Peers = append(s.Peers, addressOf(n))
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), variable+"="+string(text))
	return node.StartReady(cmd)
}

// HealthAddr is the address of the health port of a node.
func HealthAddr(h *netlab.Host) string { return h.Addr4.String() + ":8081" }

func addressOf(h *netlab.Host) string { return h.Addr4.String() + ":7373" }

func (c *Cluster) nodeDir(i int) string { return filepath.Join(c.Dir, c.Lab.Nodes[i].Name) }

// Leader returns the number of the leader that node i knew last; -1 if it knew none.
func (c *Cluster) Leader(i int) int {
	name, err := os.ReadFile(leaderFile(c.nodeDir(i)))
	if err != nil {
		return -1
	}
	for k, n := range c.Lab.Nodes {
		if n.Name == string(name) {
			return k
		}
	}
	return -1
}

// IsGuard returns true if a process is a guard.
func IsGuard(r netlab.Running) bool {
	return len(r.Args) > 0 && strings.Contains(r.Args[0], "flotilla guard")
}
