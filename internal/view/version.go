package view

import (
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/upgrade"
	"github.com/flotilla-ha/flotilla/status"
)

// versions returns what the nodes know of the cluster version, and false if none of those that have
// answered knows anything: they run older programs. A leader of an older program knows nothing of
// it.
func (c *Cluster) versions() (upgrade.View, bool) {
	best := new(status.Status)
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

// Version says in a line which version the cluster has, and how far it is on the way to the next.
// It returns "" if no node has said. The text is safe to print.
func (c *Cluster) Version(now time.Time) string {
	v, ok := c.versions()
	if !ok {
		return ""
	}
	return "cluster " + plaintext.Safe(v.Text(now))
}

// Supports returns which version each node supports, by its ID: "version 2", or "" if that is not
// known. It returns nil unless the nodes run different programs.
func (c *Cluster) Supports() map[string]string {
	v, _ := c.versions()
	if !slices.ContainsFunc(v.Members, func(m upgrade.Member) bool { return m.Supports != v.Newest() }) || v.Newest() <= v.Version {
		return nil
	}
	out := make(map[string]string)
	for _, m := range v.Members {
		if m.Supports != 0 {
			out[m.ID] = fmt.Sprint("version ", m.Supports)
		}
	}
	return out
}
