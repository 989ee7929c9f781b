package view

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/plaintext"
)

// Voters counts the voters, and those of them that have answered.
func (c *Cluster) Voters() (all, there int) {
	for _, n := range c.Nodes {
		if n.Voter {
			all++
			if n.Status != nil {
				there++
			}
		}
	}
	return all, there
}

// Tolerates returns how many more voters may fail before there is no majority. It is negative if
// there is none now.
func (c *Cluster) Tolerates() int {
	all, there := c.Voters()
	return there - (all/2 + 1)
}

// Tolerance says in a sentence how many voters are there and how many more may fail. It returns ""
// if there is no cluster.
func (c *Cluster) Tolerance() string {
	all, there := c.Voters()
	if all == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d voters are there, so %s", there, all, tolerance(c.Tolerates()))
}

// tolerance says how many more nodes may fail.
func tolerance(more int) string {
	switch {
	case more < 0:
		return "there is no majority, and writes wait"
	case more == 0:
		return "no other may fail"
	case more == 1:
		return "one more may fail"
	}
	return fmt.Sprintf("%d more may fail", more)
}

// HasZones reports whether a node has a zone.
func (c *Cluster) HasZones() bool {
	return slices.ContainsFunc(c.Nodes, func(n Node) bool { return n.Zone != "" })
}

// FatalZones returns the zones whose loss would leave no majority of the voters, by name. Nodes
// that are not there now do not count. It returns nil if no voter has a zone.
func (c *Cluster) FatalZones() []string {
	all, there := c.Voters()
	lost := make(map[string]int)
	for _, n := range c.Nodes {
		if n.Voter && n.Zone != "" {
			lost[n.Zone] += 0
			if n.Status != nil {
				lost[n.Zone]++
			}
		}
	}
	var fatal []string
	for _, zone := range slices.Sorted(maps.Keys(lost)) {
		if there-lost[zone] <= all/2 {
			fatal = append(fatal, zone)
		}
	}
	return fatal
}

// ZoneTolerance says what the loss of a zone means. It returns "" if no voter has a zone, or if
// there is no majority now.
func (c *Cluster) ZoneTolerance() string {
	if c.Tolerates() < 0 || !slices.ContainsFunc(c.Nodes, func(n Node) bool { return n.Voter && n.Zone != "" }) {
		return ""
	}
	fatal := c.FatalZones()
	if len(fatal) == 0 {
		return "any one zone may be lost"
	}
	var names []string
	for _, zone := range fatal {
		names = append(names, plaintext.Safe(zone))
	}
	return fmt.Sprintf("no majority is left if one of these zones is lost: %s", strings.Join(names, ", "))
}
