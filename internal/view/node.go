package view

import (
	"fmt"
	"strings"

	"github.com/flotilla-ha/flotilla/status"
)

// Node is one member of a cluster, or the node that was asked.
type Node struct {
	status.Member

	// Status is what the node has said. Nil means nothing.
	Status *status.Status

	why string // it has not answered or is not ready; empty: neither
}

// The states of a node.
const (
	stateReady      = "ready"
	stateDrained    = "drained"
	stateDraining   = "draining"
	stateNotReady   = "not ready"
	stateSuspect    = "suspect"
	stateSilent     = "silent"
	stateAbsent     = "absent"
	stateFailed     = "failed"
	stateClockWrong = "clock wrong"
)

// State returns the state of the node in a word or two, and how bad it is.
func (n *Node) State() (string, Grade) {
	switch s := n.Status; {
	case s == nil && n.Present && !n.Suspect:
		return stateSilent, Odd
	case s == nil && n.Suspect:
		return stateSuspect, Odd
	case s == nil:
		return stateAbsent, Bad
	case s.Err != "":
		return stateFailed, Bad
	case s.Drained:
		return stateDrained, Odd
	case s.Draining:
		return stateDraining, Odd
	case !s.Ready:
		return stateNotReady, Bad
	case n.Suspect:
		return stateSuspect, Odd
	case s.Clock != "":
		return stateClockWrong, Odd
	}
	return stateReady, Good
}

// Fault returns why the node is not as it should be, or "".
func (n *Node) Fault() string {
	switch state, _ := n.State(); state {
	case stateReady:
		return n.differs()
	case stateClockWrong:
		return n.Status.Clock
	case stateFailed:
		if n.Status.Retries {
			return "it takes no part in the cluster for now: " + n.Status.Err
		}
		return "it takes no part in the cluster any more: " + n.Status.Err
	case stateDrained:
		return "an operator has drained it (flotilla undrain undoes that)"
	case stateDraining:
		return "it is shutting down"
	case stateNotReady:
		return "it is not ready: " + n.why
	case stateSuspect:
		if n.Status == nil {
			return "the leader has not heard from it lately, and it does not answer: " + n.why
		}
		return "the leader has not heard from it lately"
	}
	return "it does not answer: " + n.why
}

// differs returns how the configuration of the node differs from that of others, or "".
func (n *Node) differs() string {
	var all []string
	for _, p := range n.Status.Peers {
		for _, d := range p.Differs {
			all = append(all, d+" ("+p.Name+")")
		}
	}
	if len(all) == 0 {
		return ""
	}
	return "its configuration differs from that of others: " + strings.Join(all, "; ")
}

// Lease returns how long the node may still hold its roles, by what it has said: "540 ms", or
// "none". It returns "" if the node has said nothing.
func (n *Node) Lease() string {
	switch {
	case n.Status == nil:
		return ""
	case !n.Status.Lease.Held:
		return "none"
	}
	return fmt.Sprintf("%d ms", n.Status.Lease.LeftMillis)
}
