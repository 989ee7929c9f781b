package view

import (
	"slices"
	"time"

	"github.com/flotilla-ha/flotilla/status"
)

// Check is one thing that was looked at.
type Check struct {
	// What was looked at: a node, the cluster, its state, or a certificate.
	What string

	// Text is "ok", a warning, or the fault.
	Text string

	// Healthy is false for a fault.
	Healthy bool

	// Grade says how bad it is. A fault is Odd or Bad.
	Grade Grade
}

func fault(what, text string, grade Grade) Check {
	return Check{What: what, Text: text, Grade: grade}
}

// Health checks the cluster and all its nodes.
func (c *Cluster) Health(now time.Time) []Check {
	var out []Check
	if text := c.Fault(); text != "" {
		out = append(out, fault("cluster", text, Bad))
	}
	for _, n := range c.Nodes {
		out = append(out, n.check())
	}
	for _, s := range c.Space() {
		switch warning := s.Warning(); {
		case s.Full():
			out = append(out, fault("state", warning, Bad))
		case warning != "":
			out = append(out, Check{What: "state", Text: "ok, but " + warning, Healthy: true, Grade: Odd})
		}
	}
	if late := c.lateBackup(now); late != "" {
		out = append(out, fault("backup", late, Odd))
	}
	if open := c.openEviction(); open != "" {
		out = append(out, fault("eviction", open, Bad))
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
		return Check{What: n.Name, Text: "ok", Healthy: true, Grade: Good}
	}
	return fault(n.Name, text, n.faultGrade())
}

// faultGrade says how bad the fault of the node is. A node may be ready, and have one.
func (n *Node) faultGrade() Grade {
	_, grade := n.State()
	return max(grade, Odd)
}

// spaceGrade says how bad it is that a budget is nearly full.
func spaceGrade(s status.Space) Grade {
	if s.Full() {
		return Bad
	}
	return Odd
}

// expired returns a fault for each certificate that has expired.
func expired(all []Certificate) []Check {
	var out []Check
	for _, c := range all {
		if c.Expired() {
			text, grade := c.State()
			out = append(out, fault("certificate "+c.Name, text, grade))
		}
	}
	return out
}
