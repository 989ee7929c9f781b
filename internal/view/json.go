package view

import "github.com/flotilla-ha/flotilla/status"

// JSON is a cluster for programs.
type JSON struct {
	// Nodes are by name.
	Nodes []NodeJSON

	// Tolerates is how many more voters may fail before there is no majority. It is negative if there
	// is none now.
	Tolerates int

	// FatalZones are the zones whose loss would leave no majority of the voters, by name.
	FatalZones []string `json:",omitempty"`
}

// NodeJSON is a node for programs.
type NodeJSON struct {
	status.Member

	// State is that of the table.
	State string

	// Why says why the node is not as it should be.
	Why string `json:",omitempty"`

	// Status is what the node itself says. Null means that it has not answered.
	Status *status.Status
}

// JSON returns the cluster for programs.
func (c *Cluster) JSON() JSON {
	out := c.MembersJSON()
	for i, n := range c.Nodes {
		out.Nodes[i].Status = n.Status
	}
	return out
}

// MembersJSON is JSON without what the nodes themselves say.
func (c *Cluster) MembersJSON() JSON {
	out := JSON{Nodes: []NodeJSON{}, Tolerates: c.Tolerates(), FatalZones: c.FatalZones()}
	for _, n := range c.Nodes {
		state, _ := n.State()
		out.Nodes = append(out.Nodes, NodeJSON{Member: n.Member, State: state, Why: n.Fault()})
	}
	return out
}
