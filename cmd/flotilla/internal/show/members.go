package show

import (
	"fmt"
	"io"
	"slices"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/view"
)

// Members prints the members with their whole IDs, and what hinders those that should vote.
func Members(w io.Writer, s term.Style, c *view.Cluster) {
	last := lastColumns(c)
	t := term.NewTable(slices.Concat([]string{"NODE", "STATE", "RAFT", "ID", "ADDRESS"}, last.head)...)
	for _, n := range c.Nodes {
		state, grade := n.State()
		t.Row(slices.Concat([]any{n.Name, state, Hue(grade), c.Raft(&n), n.ID, n.Addr}, last.cells(&n))...)
	}
	t.Write(w, s)
	for _, n := range c.Nodes {
		if n.Why != "" {
			fmt.Fprintf(w, "%s: %s\n", plaintext.Safe(n.Name), plaintext.Safe(n.Why))
		}
	}
	for _, line := range []string{c.Tolerance(), c.ZoneTolerance()} {
		if line != "" {
			fmt.Fprintln(w, line)
		}
	}
}

// columns are the last columns of a table of nodes: those that not every cluster has.
type columns struct {
	head  []string
	cells func(*view.Node) []any
}

// lastColumns returns columns with the zones and with the versions that nodes support. The first is
// there if a node has a zone, the second while nodes run different programs.
func lastColumns(c *view.Cluster) columns {
	zones, supports := c.HasZones(), c.Supports()
	var head []string
	if zones {
		head = append(head, "ZONE")
	}
	if supports != nil {
		head = append(head, "SUPPORTS")
	}
	return columns{head, func(n *view.Node) (cells []any) {
		if zones {
			cells = append(cells, n.Zone)
		}
		if supports != nil {
			cells = append(cells, supports[n.ID])
		}
		return cells
	}}
}
