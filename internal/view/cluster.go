package view

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/status"
)

// Cluster is a cluster as its nodes describe it.
type Cluster struct {
	// Nodes are the members, and the node that was asked, by name.
	Nodes []Node

	// Best is the description to believe about the cluster as a whole.
	Best status.Status
}

// New returns the cluster that a reply describes.
func New(reply remote.StatusReply) (*Cluster, error) {
	c := new(Cluster)
	for _, n := range reply.Nodes {
		one := Node{Member: status.Member{ID: n.ID, Name: n.Name, Addr: n.Addr}, why: n.Why}
		if len(n.Status) > 0 {
			one.Status = new(status.Status)
			if err := json.Unmarshal(n.Status, one.Status); err != nil {
				return nil, fmt.Errorf("the status of %s is malformed; "+
					"it runs another version of flotilla: upgrade the older of the two", plaintext.Safe(n.Name))
			}
			if c.Best.ID == "" || better(one.Status, &c.Best) {
				c.Best = *one.Status
			}
		}
		c.Nodes = append(c.Nodes, one)
	}
	for i := range c.Nodes {
		n := &c.Nodes[i]
		for _, m := range c.Best.Members {
			if m.ID == n.ID {
				n.Voter, n.Present, n.Suspect, n.Why = m.Voter, m.Present, m.Suspect, m.Why
				n.Supports = m.Supports
				n.Zone, n.Witness, n.Demoted = m.Zone, m.Witness, m.Demoted
			}
		}
	}
	slices.SortFunc(c.Nodes, func(a, b Node) int { return strings.Compare(a.Name+"\x00"+a.ID, b.Name+"\x00"+b.ID) })
	return c, nil
}

// better reports whether a is to be believed rather than b.
func better(a, b *status.Status) bool {
	rank := func(s *status.Status) []uint64 {
		leads := uint64(0)
		if s.Leader == s.ID && s.ID != "" {
			leads = 1
		}
		return []uint64{leads, s.Term, s.Index}
	}
	return slices.Compare(rank(a), rank(b)) > 0
}

// NameOf returns the name of a node, or the beginning of its ID if it has none.
func (c *Cluster) NameOf(id string) string {
	for _, n := range c.Nodes {
		if n.ID == id && n.Name != "" {
			return n.Name
		}
	}
	return plaintext.ShortID(id)
}

// Find returns the node that an operator means by its name, its ID, or the beginning of its ID.
func (c *Cluster) Find(text string) (Node, error) {
	var found []Node
	for _, n := range c.Nodes {
		if n.ID == text {
			return n, nil
		}
		if n.Name == text {
			found = append(found, n)
		}
	}
	for _, n := range c.Nodes {
		if len(found) == 0 && len(text) >= 4 && strings.HasPrefix(n.ID, text) {
			found = append(found, n)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	var names, ids []string
	for _, n := range c.Nodes {
		names = append(names, plaintext.Safe(n.Name))
		ids = append(ids, n.ID)
	}
	if len(found) > 0 {
		return Node{}, fmt.Errorf("several nodes are called %s; give one of the IDs %s",
			plaintext.Safe(text), strings.Join(ids, ", "))
	}
	return Node{}, fmt.Errorf("there is no node %s; the nodes are %s", plaintext.Safe(text), strings.Join(names, ", "))
}

// HasLeader reports whether a leader has answered, or the other nodes know one.
func (c *Cluster) HasLeader() bool { return c.Best.Leader != "" }

// OthersReady reports whether a node other than that of the ID is ready to serve.
func (c *Cluster) OthersReady(id string) bool {
	return slices.ContainsFunc(c.Nodes, func(n Node) bool {
		state, _ := n.State()
		return n.ID != id && state == stateReady && !n.Witness
	})
}

// Raft returns the part that a node plays in raft, in a word. It returns "" if there is no cluster.
func (c *Cluster) Raft(n *Node) string {
	switch {
	case n.ID == c.Best.Leader:
		return "leads"
	case n.Voter && n.Witness:
		return "witness"
	case n.Voter:
		return "votes"
	case n.Demoted:
		return "demoted"
	case c.Best.Cluster == "":
		return ""
	}
	return "follows"
}

// Fault returns what is wrong with the cluster as a whole, or "".
func (c *Cluster) Fault() string {
	if c.HasLeader() {
		return ""
	}
	all, there := c.Voters()
	if all == 0 {
		return "" // there is no cluster yet: the node says what it waits for
	}
	if most := all/2 + 1; there < most {
		return fmt.Sprintf("the cluster has no leader: %d of its %d voters must run, and %d answered; "+
			"start those that are missing", most, all, there)
	}
	return "the cluster has no leader at this moment, although enough voters answer; " +
		"if that lasts, check whether they can reach one another"
}

// NoLeader returns the error of a command that needs a leader.
func (c *Cluster) NoLeader() error {
	text := c.Fault()
	if text == "" {
		text = "the node that was asked is in no cluster yet"
	}
	return &remote.UnreachableError{Err: errors.New(text)}
}

// Space returns how full the state is. Limits may differ, so each figure is that of the node with
// the least room.
func (c *Cluster) Space() []status.Space {
	var out []status.Space
	place := make(map[string]int)
	for _, n := range c.Nodes {
		if n.Status == nil {
			continue
		}
		for _, s := range n.Status.Space {
			i, known := place[s.What]
			if !known {
				place[s.What] = len(out)
				out = append(out, s)
			} else if s.Percent() > out[i].Percent() {
				out[i] = s
			}
		}
	}
	return out
}
