package page

import (
	"fmt"
	"strconv"
	"time"

	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/view"
	"github.com/flotilla-ha/flotilla/status"
)

// maxWaits is how many things a node is shown to wait for.
const maxWaits = 3

// nodes is the table of nodes. A column of which no node has said anything is left out.
type nodes struct {
	Rows           []node
	More           int
	Zones, Version bool
	Scale          string // how long a full bar of a lease is
	ByNode         string // whose clock the clocks are compared with
}

// node is a row of the table.
type node struct {
	Key      string
	Name     text
	Leads    bool
	Asked    bool
	State    string
	Grade    view.Grade
	Raft     string
	Lease    string
	Share    string // of the bar of the lease; empty: no bar
	Lag      string
	Supports string
	Clock    string
	ClockOff view.Grade
	Zone     text
	Addr     text
	ID       text
	Notes    []text
}

func newNodes(c *view.Cluster, self string, now time.Time) nodes {
	var out nodes
	members := make(map[string]status.Member)
	for _, m := range c.Best.Members {
		members[m.ID] = m
	}
	full := fullLease(c)
	out.Scale = lasted(full)
	out.ByNode = plaintext.Safe(c.NameOf(c.Best.ID))
	some, more := first(c.Nodes, maxNodes)
	out.More = more
	for i := range some {
		n := &some[i]
		one := node{
			Key: key(n.ID, n.Name), Name: cut(n.Name, maxName), Asked: n.ID == self && self != "",
			Leads: c.Best.Leader != "" && n.ID == c.Best.Leader,
			Raft:  c.Raft(n), Lease: n.Lease(), Zone: cut(n.Zone, maxName), Addr: cut(n.Addr, maxName),
			ID: text{Short: plaintext.Safe(plaintext.ShortID(n.ID))},
		}
		if n.ID != plaintext.ShortID(n.ID) {
			one.ID.Full = cut(n.ID, maxTitle).Short
		}
		one.State, one.Grade = n.State()
		if n.Supports != 0 {
			one.Supports = strconv.FormatUint(n.Supports, 10)
			out.Version = true
		}
		out.Zones = out.Zones || n.Zone != ""
		one.Clock, one.ClockOff = clock(n, members[n.ID])
		if s := n.Status; s != nil {
			one.Lag = strconv.FormatUint(max(c.Best.Index, s.Index)-s.Index, 10)
			if s.Lease.Held {
				one.Share = percent(float64(s.Lease.LeftMillis), float64(full.Milliseconds()))
			}
		}
		one.Notes = notes(n, now)
		out.Rows = append(out.Rows, one)
	}
	return out
}

// fullLease returns the length of a full bar: the next round length above all leases.
func fullLease(c *view.Cluster) time.Duration {
	longest := time.Duration(0)
	for _, n := range c.Nodes {
		if n.Status != nil && n.Status.Lease.Held {
			longest = max(longest, time.Duration(n.Status.Lease.LeftMillis)*time.Millisecond)
		}
	}
	for _, full := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second} {
		if longest <= full {
			return full
		}
	}
	return longest
}

// clock says how far the clock of a node is from that of the node that describes the cluster.
func clock(n *view.Node, m status.Member) (string, view.Grade) {
	d := m.ClockAhead
	grade := view.Good
	if n.Status != nil && n.Status.Clock != "" {
		grade = view.Odd
	}
	switch {
	case n.Status == nil:
		return "", grade
	case d > 0:
		return plaintext.Span(d) + " ahead", max(grade, view.Odd)
	case d < 0:
		return plaintext.Span(-d) + " behind", max(grade, view.Odd)
	case grade != view.Good:
		return "wrong", grade
	}
	return "right", grade
}

// notes says why the node is not as it should be, why it does not vote, and what it has been
// waiting for.
func notes(n *view.Node, now time.Time) []text {
	var out []text
	for _, s := range []string{n.Fault(), n.Why} {
		if s != "" {
			out = append(out, cut(s, maxNote))
		}
	}
	if n.Status == nil {
		return out
	}
	waits, more := first(n.Status.Waiting, maxWaits)
	for _, w := range waits {
		s := w.What
		if w.Why != "" {
			s += ": " + w.Why
		}
		if !w.Since.IsZero() {
			s += fmt.Sprintf(" (for %s)", plaintext.Span(now.Sub(w.Since)))
		}
		out = append(out, cut(s, maxNote))
	}
	if more > 0 {
		out = append(out, text{Short: fmt.Sprintf("and %d more", more)})
	}
	return out
}
