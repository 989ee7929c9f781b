package view

import (
	"slices"
	"time"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
)

// Check is one thing that was looked at.
type Check struct {
	// What was looked at: a node, the cluster, its state, or a certificate.
	What string

	// Text is "ok", a warning, or the fault.
	Text string

	// Healthy is false for a fault.
	Healthy bool

	// Hue says how bad a fault is.
	Hue term.Hue
}

func fault(what, text string, hue term.Hue) Check {
	return Check{What: what, Text: text, Hue: hue}
}

// Health checks the cluster and all its nodes.
func (c *Cluster) Health(now time.Time) []Check {
	var out []Check
	if text := c.Fault(); text != "" {
		out = append(out, fault("cluster", text, term.Bad))
	}
	for _, n := range c.Nodes {
		out = append(out, n.check())
	}
	for _, s := range c.Space() {
		switch warning := s.Warning(); {
		case s.Full():
			out = append(out, fault("state", warning, term.Bad))
		case warning != "":
			out = append(out, Check{What: "state", Text: "ok, but " + warning, Healthy: true, Hue: term.Odd})
		}
	}
	if late := c.lateBackup(now); late != "" {
		out = append(out, fault("backup", late, term.Odd))
	}
	if open := c.openEviction(); open != "" {
		out = append(out, fault("eviction", open, term.Bad))
	}
	all, _ := c.Certificates()
	return append(out, expired(all)...)
}

// NodeHealth checks a node and the certificates that it serves.
func (c *Cluster) NodeHealth(n Node) []Check {
	all, _ := c.Certificates()
	all = slices.DeleteFunc(all, func(cert Certificate) bool { return !slices.Contains(cert.Nodes, n.Name) })
	return append([]Check{n.check()}, expired(all)...)
}

func (n *Node) check() Check {
	text := n.Fault()
	if text == "" {
		return Check{What: n.Name, Text: "ok", Healthy: true, Hue: term.Good}
	}
	_, hue := n.State()
	return fault(n.Name, text, hue)
}

// expired returns a fault for each certificate that has expired.
func expired(all []Certificate) []Check {
	var out []Check
	for _, c := range all {
		if c.Expired() {
			text, hue := c.State()
			out = append(out, fault("certificate "+c.Name, text, hue))
		}
	}
	return out
}
