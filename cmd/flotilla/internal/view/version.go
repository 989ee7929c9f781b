package view

import (
	"fmt"
	"slices"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/upgrade"
)

// versions returns what the nodes know of the cluster version, and false if none of those that have
// answered knows anything: they run older programs. A leader of an older program knows nothing of
// it.
func (c *Cluster) versions() (upgrade.View, bool) {
	best := new(flotilla.Status)
	for _, n := range c.Nodes {
		if n.Status != nil && n.Status.Version != 0 && (best.Version == 0 || better(n.Status, best)) {
			best = n.Status
		}
	}
	v := upgrade.View{Version: best.Version}
	for _, m := range best.Members {
		one := upgrade.Member{ID: m.ID, Name: c.NameOf(m.ID), Supports: m.Supports, Since: m.Since}
		if m.Present {
			one.Session = 1 // its number does not matter here
		}
		v.Members = append(v.Members, one)
	}
	return v, v.Version != 0
}

// versionColumn returns the head of the column with the versions that nodes support, and what
// stands in it. There is such a column while the nodes run different programs.
func (c *Cluster) versionColumn() (head []string, cell func(*Node) []any) {
	v, _ := c.versions()
	if !slices.ContainsFunc(v.Members, func(m upgrade.Member) bool { return m.Supports != v.Newest() }) || v.Newest() <= v.Version {
		return nil, func(*Node) []any { return nil }
	}
	return []string{"SUPPORTS"}, func(n *Node) []any {
		supports, _ := v.Of(n.ID)
		if supports == 0 {
			return []any{""}
		}
		return []any{fmt.Sprint("version ", supports)}
	}
}
