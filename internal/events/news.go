package events

import (
	"cmp"
	"fmt"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// News records what entries did, and returns it. It does neither before Begin.
func (l *Log) News(news []state.News) []state.News {
	if !l.current.Load() {
		return nil
	}
	for _, n := range news {
		l.Add(l.ofNews(n))
	}
	return news
}

// ofNews returns the event for what an entry did.
func (l *Log) ofNews(n state.News) event.Event {
	e := event.Event{
		Kind: n.Kind, Subject: l.name(n.Node, n.Name), Cause: n.Cause, Outage: n.Outage, Severity: event.Info,
		Key: fmt.Sprintf("%d/%s/%s", n.Index, n.Kind, cmp.Or(n.Role, n.Node)),
	}
	switch n.Kind {
	case event.SessionOpened:
		e.Text = "the node takes part from now on"
	case event.SessionSuspected:
		e.Text = "the leader has not heard of the node lately"
	case event.SessionCleared:
		e.Text = "the leader has heard of the node again"
	case event.SessionEnded:
		e.Text = "the node holds nothing any more"
		if n.Unplanned {
			e.Severity = event.Warn
		}
		if n.Outage > 0 {
			e.Cause = "it was silent for " + n.Outage.Round(time.Millisecond).String()
			e.Outage = 0
		}
	case event.RoleMoved:
		e.Subject, e.From, e.To = n.Role, l.name(n.From, ""), l.name(n.Node, "")
		switch {
		case n.Node == "":
			e.Text = "nobody holds the role any more"
		case n.From == "" || n.From == n.Node:
			e.Text = e.To + " holds the role"
		default:
			e.Text = "the role has moved from " + e.From + " to " + e.To
		}
	case event.RoleHeldDown:
		e.Subject, e.From = n.Role, l.name(n.Node, "")
		e.Text = "the role waits until nothing of its last holder can be seen"
	case event.MemberAdded:
		e.Text = "the node is a member from now on"
	case event.MemberRemoved:
		e.Text = "the node is no member any more"
	case event.VoteGiven:
		e.Text = "the node votes from now on"
	case event.VoteTaken:
		e.Text = "the node votes no more"
	case event.VersionRaised:
		e.Text = "the cluster version was raised: every node supports it"
	case event.TicketsDropped:
		e.Text = "all session tickets are worthless from now on"
	case event.KeysReplaced:
		e.Text = "a step of replacing secrets or data keys is done"
	case event.NodeEvicted:
		e.Text = "the node is evicted"
	}
	return e
}

// Leader records that a node was elected, which this node has learned, or is itself. Outage is for
// how long this node has known of no leader, 0 if it knew none before. It does nothing if the
// leader is the one of the term before, found again. Before Begin it does nothing about others.
func (l *Log) Leader(id string, own bool, term uint64, outage time.Duration) {
	if l.term.Swap(term) == term || !own && !l.current.Load() {
		return
	}
	l.Add(event.Event{
		Kind: event.LeaderElected, Subject: l.name(id, ""), Text: "the node leads the cluster", Outage: outage,
		Key: fmt.Sprintf("term/%d", term),
	})
}

// name returns the name of a node by its ID, or else what is known of it. It is empty for no ID.
func (l *Log) name(id, known string) string {
	if id == "" {
		return ""
	}
	return cmp.Or(l.nameOf(id), known, plaintext.ShortID(id))
}
