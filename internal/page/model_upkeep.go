package page

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/view"
	"github.com/flotilla-ha/flotilla/status"
)

// certificates is the table of certificates, those that end first in front.
type certificates struct {
	Rows     []certificate
	More     int
	OnDemand int
}

// certificate is a row of the table.
type certificate struct {
	Key     string
	Name    text
	Days    string
	Grade   view.Grade
	State   text
	Life    *life
	Issuer  text
	Nodes   text
	Expires moment
	Renewal moment
	Staple  moment
	Next    moment
	Err     text
	Refused int
}

// life is a bar from the issue of a certificate to its end.
type life struct {
	Passed  string // in percent
	Renewal string // in percent; empty: it is not known
	Title   string
}

func newCertificates(c *view.Cluster, now time.Time) certificates {
	all, serving := c.Certificates()
	slices.SortStableFunc(all, func(a, b view.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	some, more := first(all, maxCertificates)
	out := certificates{More: more, OnDemand: c.Best.OnDemand}
	for _, cert := range some {
		state, grade := cert.State()
		one := certificate{
			Key: key(cert.Name, cert.Serial, cert.Err), Name: cut(cert.Name, maxName), State: cut(state, maxNote),
			Grade: grade, Issuer: cut(cert.Issuer, maxName), Nodes: text{Short: "all"},
			Expires: day(cert.NotAfter, now), Renewal: at(cert.Renewal, now), Staple: at(cert.OCSPNextUpdate, now),
			Next: at(cert.Next, now), Err: cut(cert.Err, maxNote), Refused: cert.Failures, Life: lifeOf(cert.Certificate, now),
		}
		if !cert.NotAfter.IsZero() {
			one.Days = fmt.Sprint(cert.DaysLeft)
		}
		if len(cert.Nodes) < serving {
			one.Nodes = cut(strings.Join(cert.Nodes, ", "), maxName)
		}
		out.Rows = append(out.Rows, one)
	}
	return out
}

// lifeOf returns the bar of a certificate, or nil if its beginning or end is not known.
func lifeOf(c status.Certificate, now time.Time) *life {
	whole := c.NotAfter.Sub(c.NotBefore)
	if c.NotBefore.IsZero() || whole <= 0 {
		return nil
	}
	out := &life{
		Passed: percent(float64(now.Sub(c.NotBefore)), float64(whole)),
		Title:  "issued on " + c.NotBefore.UTC().Format(time.DateOnly),
	}
	if !c.Renewal.IsZero() {
		out.Renewal = percent(float64(c.Renewal.Sub(c.NotBefore)), float64(whole))
		out.Title += ", to be renewed on " + c.Renewal.UTC().Format(time.DateOnly)
	}
	out.Title += ", valid until " + c.NotAfter.UTC().Format(time.DateOnly)
	return out
}

// upkeep is what else there is to know: the key of session tickets, the room in the state, backups.
type upkeep struct {
	Ticket  text
	Age     string // of the key
	Earlier int

	Space []space

	Backup *backup
}

// space is a budget of the state.
type space struct {
	Key   string
	What  text
	Share string // in percent
	Grade view.Grade
	Used  string
	Limit string
}

// backup is the last backup.
type backup struct {
	Name, Node text // empty: there was none
	At         moment
	Size       string
	Every      string
	Stopped    bool // no node is to make any
	Late       bool
	Failing    []text
}

func newUpkeep(c *view.Cluster, now time.Time) upkeep {
	t := c.Best.Tickets
	out := upkeep{
		Ticket: cut(t.Key, maxName), Earlier: t.Previous,
		Age: plaintext.Span(time.Duration(t.AgeSeconds) * time.Second),
	}
	some, _ := first(c.Space(), maxSpace)
	for _, s := range some {
		one := space{
			Key: key(s.What), What: cut(s.What, maxName), Used: plaintext.Size(s.Bytes),
			Share: percent(float64(s.Bytes), float64(s.Limit)),
		}
		if s.Limit > 0 {
			one.Limit = fmt.Sprintf("%d %% of %s", s.Percent(), plaintext.Size(s.Limit))
		}
		switch {
		case s.Full():
			one.Grade = view.Bad
		case s.Warning() != "":
			one.Grade = view.Odd
		}
		out.Space = append(out.Space, one)
	}
	out.Backup = newBackup(c, now)
	return out
}

// newBackup returns the last backup, or nil if no node has been told to make any.
func newBackup(c *view.Cluster, now time.Time) *backup {
	var last *status.Backup
	out := backup{Stopped: true}
	for _, n := range c.Nodes {
		if n.Status == nil || n.Status.Backup == nil {
			continue
		}
		b := n.Status.Backup
		if last == nil || b.Time.After(last.Time) {
			last = b
		}
		if !b.Makes {
			continue
		}
		out.Stopped = false
		out.Late = out.Late || b.Late(now)
		if b.Err != "" && len(out.Failing) < maxNodes {
			out.Failing = append(out.Failing, cut(n.Name+": "+b.Err, maxNote))
		}
	}
	last = cmp.Or(c.Best.Backup, last) // "flotilla status" shows that of the description to believe
	if last == nil {
		return nil
	}
	if !last.Time.IsZero() {
		out.Name, out.Node = cut(last.Name, maxName), cut(last.Node, maxName)
		out.At = at(last.Time, now)
		if last.Size > 0 {
			out.Size = plaintext.Size(last.Size)
		}
	}
	if last.Every > 0 {
		out.Every = plaintext.Span(last.Every)
	}
	return &out
}
