package show

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/view"
)

// Status prints the whole cluster.
func Status(w io.Writer, s term.Style, c *view.Cluster, now time.Time) {
	writeHead(w, s, c)
	fmt.Fprintln(w)
	writeNodes(w, s, c)
	if roles := c.Roles(); len(roles) > 0 {
		fmt.Fprintln(w)
		writeRoles(w, s, roles, now)
	}
	if all, serving := c.Certificates(); len(all) > 0 {
		fmt.Fprintln(w)
		writeCertificates(w, s, all, serving)
	}
	if t := c.Best.Tickets; t.Key != "" {
		age := plaintext.Span(time.Duration(t.AgeSeconds) * time.Second)
		fmt.Fprintf(w, "\nsession ticket key %s  %s old  earlier keys accepted: %d\n", t.Key, age, t.Previous)
	}
	if version := c.Version(now); version != "" {
		fmt.Fprintf(w, "\n%s\n", term.Wrap(version))
	}
	if b := c.Best.Backup; b != nil && !b.Time.IsZero() {
		age := plaintext.Span(now.Sub(b.Time))
		fmt.Fprintf(w, "\nlast backup %s, %s old, by %s\n", plaintext.Safe(b.Name), age, plaintext.Safe(b.Node))
	}
	if remarks := c.Remarks(now); len(remarks) > 0 {
		fmt.Fprintln(w)
		for _, r := range remarks {
			fmt.Fprintln(w, s.Paint(term.Wrap("remark: "+r.String()), term.Odd))
		}
	}
}

func writeHead(w io.Writer, s term.Style, c *view.Cluster) {
	if c.Best.Cluster == "" {
		fmt.Fprintln(w, "no cluster yet")
		return
	}
	leader := s.Paint("none", term.Bad)
	if c.HasLeader() {
		leader = plaintext.Safe(c.NameOf(c.Best.Leader))
	}
	all, there := c.Voters()
	fmt.Fprintf(w, "cluster %s  leader %s  term %d  entry %d  voters there: %d of %d\n",
		plaintext.ShortID(c.Best.Cluster), leader, c.Best.Term, c.Best.Index, there, all)
}

func writeNodes(w io.Writer, s term.Style, c *view.Cluster) {
	last := lastColumns(c)
	t := term.NewTable(slices.Concat([]string{"NODE", "STATE", "RAFT", "LEASE", "ID", "ADDRESS"}, last.head)...)
	for _, n := range c.Nodes {
		state, grade := n.State()
		t.Row(slices.Concat([]any{n.Name, state, Hue(grade), c.Raft(&n), n.Lease(), plaintext.ShortID(n.ID), n.Addr}, last.cells(&n))...)
	}
	t.Write(w, s)
}

func writeCertificates(w io.Writer, s term.Style, all []view.Certificate, serving int) {
	t := term.NewTable("CERTIFICATE", "DAYS LEFT", "ISSUER", "NODES", "NOTE")
	for _, c := range all {
		note, grade := c.State()
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
		t.Row(c.Name, days, Hue(grade), c.Issuer, nodes, note, Hue(grade))
	}
	t.Write(w, s)
}

// Hue returns the colour of a grade.
func Hue(g view.Grade) term.Hue {
	switch g {
	case view.Good:
		return term.Good
	case view.Odd:
		return term.Odd
	}
	return term.Bad
}
