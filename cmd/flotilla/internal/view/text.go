package view

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
)

// Write prints the whole cluster.
func (c *Cluster) Write(w io.Writer, s term.Style, now time.Time) {
	c.writeHead(w, s)
	fmt.Fprintln(w)
	c.writeNodes(w, s)
	if len(c.Best.Roles) > 0 {
		fmt.Fprintln(w)
		c.writeRoles(w, s, now)
	}
	if all, serving := c.Certificates(); len(all) > 0 {
		fmt.Fprintln(w)
		writeCertificates(w, s, all, serving)
	}
	if t := c.Best.Tickets; t.Key != "" {
		age := term.Span(time.Duration(t.AgeSeconds) * time.Second)
		fmt.Fprintf(w, "\nsession ticket key %s  %s old  earlier keys accepted: %d\n", t.Key, age, t.Previous)
	}
	if v, ok := c.versions(); ok {
		fmt.Fprintf(w, "\n%s\n", term.Wrap("cluster "+term.Safe(v.Text(now))))
	}
	if b := c.Best.Backup; b != nil && !b.Time.IsZero() {
		fmt.Fprintf(w, "\nlast backup %s, %s old, by %s\n", term.Safe(b.Name), term.Span(now.Sub(b.Time)), term.Safe(b.Node))
	}
	if remarks := c.remarks(now); len(remarks) > 0 {
		fmt.Fprintln(w)
		for _, r := range remarks {
			fmt.Fprintln(w, s.Paint(term.Wrap(r), term.Odd))
		}
	}
}

func (c *Cluster) writeHead(w io.Writer, s term.Style) {
	if c.Best.Cluster == "" {
		fmt.Fprintln(w, "no cluster yet")
		return
	}
	leader := s.Paint("none", term.Bad)
	if c.HasLeader() {
		leader = term.Safe(c.NameOf(c.Best.Leader))
	}
	all, there := c.voters()
	fmt.Fprintf(w, "cluster %s  leader %s  term %d  entry %d  voters there: %d of %d\n",
		term.ShortID(c.Best.Cluster), leader, c.Best.Term, c.Best.Index, there, all)
}

func (c *Cluster) writeNodes(w io.Writer, s term.Style) {
	zones, zone := c.zoneColumn()
	versions, version := c.versionColumn()
	t := term.NewTable(slices.Concat([]string{"NODE", "STATE", "RAFT", "LEASE", "ID", "ADDRESS"}, zones, versions)...)
	for _, n := range c.Nodes {
		state, h := n.State()
		lease := ""
		if n.Status != nil {
			lease = "none"
			if n.Status.Lease.Held {
				lease = fmt.Sprintf("%d ms", n.Status.Lease.LeftMillis)
			}
		}
		t.Row(slices.Concat([]any{n.Name, state, h, c.raft(&n), lease, term.ShortID(n.ID), n.Addr}, zone(&n), version(&n))...)
	}
	t.Write(w, s)
}

// WriteMembers prints the members with their whole IDs, and what hinders those that should vote.
func (c *Cluster) WriteMembers(w io.Writer, s term.Style) {
	zones, zone := c.zoneColumn()
	versions, version := c.versionColumn()
	t := term.NewTable(slices.Concat([]string{"NODE", "STATE", "RAFT", "ID", "ADDRESS"}, zones, versions)...)
	for _, n := range c.Nodes {
		state, h := n.State()
		t.Row(slices.Concat([]any{n.Name, state, h, c.raft(&n), n.ID, n.Addr}, zone(&n), version(&n))...)
	}
	t.Write(w, s)
	for _, n := range c.Nodes {
		if n.Why != "" {
			fmt.Fprintf(w, "%s: %s\n", term.Safe(n.Name), n.Why)
		}
	}
	if all, there := c.voters(); all > 0 {
		fmt.Fprintf(w, "%d of %d voters are there, so %s\n", there, all, tolerance(c.Tolerates()))
		if zones := c.zoneTolerance(); zones != "" {
			fmt.Fprintln(w, zones)
		}
	}
}

// tolerance says how many more nodes may fail.
func tolerance(more int) string {
	switch {
	case more < 0:
		return "there is no majority, and writes wait"
	case more == 0:
		return "no other may fail"
	case more == 1:
		return "one more may fail"
	}
	return fmt.Sprintf("%d more may fail", more)
}

// raft returns the part that a node plays in raft.
func (c *Cluster) raft(n *Node) string {
	switch {
	case n.ID == c.Best.Leader:
		return "leads"
	case n.Voter && n.Witness:
		return "witness"
	case n.Voter:
		return "votes"
	case n.Demoted:
		return "demoted"
	case c.Best.Cluster == "":
		return ""
	}
	return "follows"
}

func writeCertificates(w io.Writer, s term.Style, all []Certificate, serving int) {
	t := term.NewTable("CERTIFICATE", "DAYS LEFT", "ISSUER", "NODES", "NOTE")
	for _, c := range all {
		note, h := c.State()
		days := ""
		if !c.NotAfter.IsZero() {
			days = fmt.Sprint(c.DaysLeft)
		}
		if note == "" && c.Err != "" {
			note = "see below"
		}
		nodes := "all"
		if len(c.Nodes) < serving {
			nodes = strings.Join(c.Nodes, ",")
		}
		t.Row(c.Name, days, h, c.Issuer, nodes, note, h)
	}
	t.Write(w, s)
}
