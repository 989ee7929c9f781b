package view

import (
	"strings"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
)

// Node is one member of a cluster, or the node that was asked.
type Node struct {
	flotilla.Member

	// Status is what the node has said. Nil means nothing.
	Status *flotilla.Status

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

// State returns the state of the node in a word or two.
func (n *Node) State() (string, term.Hue) {
	switch s := n.Status; {
	case s == nil && n.Present && !n.Suspect:
		return stateSilent, term.Odd
	case s == nil && n.Suspect:
		return stateSuspect, term.Odd
	case s == nil:
		return stateAbsent, term.Bad
	case s.Err != "":
		return stateFailed, term.Bad
	case s.Drained:
		return stateDrained, term.Odd
	case s.Draining:
		return stateDraining, term.Odd
	case !s.Ready:
		return stateNotReady, term.Bad
	case n.Suspect:
		return stateSuspect, term.Odd
	case s.Clock != "":
		return stateClockWrong, term.Odd
	}
	return stateReady, term.Good
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
