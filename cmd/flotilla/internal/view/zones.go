package view

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
)

// zoneColumn returns the head of the column with the zones, and what stands in it. Without zones
// there is no such column.
func (c *Cluster) zoneColumn() (head []string, cell func(*Node) []any) {
	if !slices.ContainsFunc(c.Nodes, func(n Node) bool { return n.Zone != "" }) {
		return nil, func(*Node) []any { return nil }
	}
	return []string{"ZONE"}, func(n *Node) []any { return []any{n.Zone} }
}

// FatalZones returns the zones whose loss would leave no majority of the voters, by name. Nodes
// that are not there now do not count. It returns nil if no voter has a zone.
func (c *Cluster) FatalZones() []string {
	all, there := c.voters()
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

// zoneTolerance says what the loss of a zone means. It returns "" if no voter has a zone, or if
// there is no majority now.
func (c *Cluster) zoneTolerance() string {
	if c.Tolerates() < 0 || !slices.ContainsFunc(c.Nodes, func(n Node) bool { return n.Voter && n.Zone != "" }) {
		return ""
	}
	fatal := c.FatalZones()
	if len(fatal) == 0 {
		return "any one zone may be lost"
	}
	var names []string
	for _, zone := range fatal {
		names = append(names, term.Safe(zone))
	}
	return fmt.Sprintf("no majority is left if one of these zones is lost: %s", strings.Join(names, ", "))
}
