package view

import (
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
)

// remarks returns what an operator should know, the most important first.
func (c *Cluster) remarks() []string {
	var out []string
	add := func(parts ...string) { out = append(out, "remark: "+strings.Join(parts, ": ")) }
	if fault := c.Fault(); fault != "" {
		add(fault)
	}
	for _, n := range c.Nodes {
		if fault := n.Fault(); fault != "" {
			add(term.Safe(n.Name), term.Safe(fault))
		}
	}
	for _, s := range c.Space() {
		if warning := s.Warning(); warning != "" {
			add(warning)
		}
	}
	for _, n := range c.Nodes {
		if n.Status == nil {
			continue
		}
		for _, r := range n.Status.Roles {
			if r.Remark != "" {
				add(term.Safe(n.Name), term.Safe(r.Name), term.Safe(r.Remark))
			}
		}
	}
	all, _ := c.Certificates()
	for _, cert := range all {
		if cert.Err == "" {
			continue
		}
		next := ""
		if !cert.Next.IsZero() {
			next = "; next try at " + cert.Next.UTC().Format(time.DateTime) + " UTC"
		}
		add("certificate "+term.Safe(cert.Name)+" ("+strings.Join(cert.Nodes, ", ")+")", term.Safe(cert.Err)+next)
	}
	return out
}
