package page

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/view"
)

// The greatest lengths of the lists.
const (
	maxProblems     = 100
	maxNodes        = 200
	maxRoles        = 100
	maxCertificates = 100
	maxSpace        = 20
	maxEvents       = 256
	newestEvents    = 20 // those that are not folded
)

// model is what the page says, in words and in shares of a width.
type model struct {
	Title   string
	Cluster string // the heading of the page
	Asked   text   // the node that was asked
	At      moment

	Summary      string // of the problems
	Calm         string // said when there are none
	Grade        view.Grade
	Problems     []problem
	MoreProblems int

	Facts     []fact
	Sentences []string // about the cluster as a whole

	Nodes        nodes
	Roles        roles
	Certificates certificates
	Upkeep       upkeep
	Events       events
}

// problem is a remark of the view.
type problem struct {
	Key, Word string
	Grade     view.Grade
	Subject   text
	Text      text
}

// fact is one of the figures of the cluster.
type fact struct {
	Name  string
	Value text
	Grade view.Grade
}

// newModel returns what the page of a node says. The events are in the order of their times.
func newModel(c *view.Cluster, happened []event.Event, self string, now time.Time) model {
	m := model{Asked: cut(c.NameOf(self), maxName), At: at(now, now), Cluster: "No cluster yet"}
	if id := c.Best.Cluster; id != "" {
		m.Cluster = "Cluster " + plaintext.Safe(plaintext.ShortID(id))
		m.Facts = facts(c)
	}
	m.addProblems(c.Remarks(now))
	m.Calm = calm(c)
	for _, s := range []string{c.Tolerance(), c.ZoneTolerance(), c.Version(now)} {
		if s != "" {
			m.Sentences = append(m.Sentences, sentence(s))
		}
	}
	m.Nodes = newNodes(c, self, now)
	m.Roles = newRoles(c, happened, now)
	m.Certificates = newCertificates(c, now)
	m.Upkeep = newUpkeep(c, now)
	m.Events = newEvents(happened, now)
	return m
}

// failedModel returns what the page says when there is no cluster to show.
func failedModel(err error, happened []event.Event, self string, now time.Time) model {
	m := model{Asked: cut(plaintext.ShortID(self), maxName), At: at(now, now), Cluster: "Unknown cluster"}
	m.addProblems([]view.Remark{{Text: plaintext.Safe(err.Error()), Grade: view.Bad}})
	m.Events = newEvents(happened, now)
	return m
}

// addProblems lists the remarks, and counts them in the summary and in the title.
func (m *model) addProblems(remarks []view.Remark) {
	do, look := 0, 0
	for i, r := range remarks {
		m.Grade = max(m.Grade, r.Grade)
		if r.Grade == view.Bad {
			do++
		} else {
			look++
		}
		if i < maxProblems {
			m.Problems = append(m.Problems, problem{
				Key: key(r.Subject, r.Text), Word: words(r.Grade), Grade: r.Grade,
				Subject: cut(r.Subject, 2*maxName), Text: cut(r.Text, maxText),
			})
		}
	}
	m.MoreProblems = len(remarks) - len(m.Problems)
	var parts []string
	if do > 0 {
		parts = append(parts, count(do, "thing to do", "things to do"))
	}
	if look > 0 {
		parts = append(parts, count(look, "thing worth a look", "things worth a look"))
	}
	m.Summary = strings.Join(parts, ", ")
	problems := count(len(remarks), "problem", "problems")
	if len(remarks) == 0 {
		m.Summary, problems = "Nothing to do", "No problems"
	}
	m.Title = problems + " – " + strings.ToLower(m.Cluster[:1]) + m.Cluster[1:] + " – flotilla"
}

// calm says that all is well. It is shown only when there is no remark.
func calm(c *view.Cluster) string {
	if len(c.Nodes) == 1 {
		return "The only node is ready."
	}
	return fmt.Sprintf("All %d nodes are ready.", len(c.Nodes))
}

// facts are the figures in the first line of "flotilla status".
func facts(c *view.Cluster) []fact {
	leader := fact{Name: "Leader", Value: text{Short: "none"}, Grade: view.Bad}
	if c.HasLeader() {
		leader = fact{Name: "Leader", Value: cut(c.NameOf(c.Best.Leader), maxName)}
	}
	all, there := c.Voters()
	voters := fact{Name: "Voters there", Value: text{Short: fmt.Sprintf("%d of %d", there, all)}}
	more := c.Tolerates()
	tolerance := fact{Name: "Failures tolerated", Value: text{Short: fmt.Sprint(max(more, 0))}}
	switch {
	case more < 0:
		voters.Grade, tolerance.Grade = view.Bad, view.Bad
	case there < all:
		voters.Grade = view.Odd
	}
	return []fact{
		leader,
		{Name: "Term", Value: text{Short: fmt.Sprint(c.Best.Term)}},
		{Name: "Entry", Value: text{Short: fmt.Sprint(c.Best.Index)}},
		voters, tolerance,
	}
}

// events are the newest events, the newest first.
type events struct {
	Newest, Older []happening
}

// happening is an event in words.
type happening struct {
	Key      string
	At       moment
	Severity string
	Grade    view.Grade
	Node     text
	Subject  text
	Text     text
	Cause    text
}

func newEvents(happened []event.Event, now time.Time) events {
	happened = happened[max(0, len(happened)-maxEvents):]
	var all []happening
	for _, e := range slices.Backward(happened) {
		one := happening{
			Key: key(e.Node, fmt.Sprint(e.Number), e.Time.String()), At: at(e.Time, now),
			Severity: string(event.Error), Grade: view.Bad,
			Node: cut(e.Node, maxName), Subject: cut(e.Subject, maxName),
			Text: cut(e.Text, maxNote), Cause: cut(e.Cause, maxNote),
		}
		switch e.Severity {
		case event.Info:
			one.Severity, one.Grade = string(event.Info), view.Good
		case event.Warn:
			one.Severity, one.Grade = string(event.Warn), view.Odd
		}
		all = append(all, one)
	}
	var out events
	out.Newest, _ = first(all, newestEvents)
	out.Older = all[len(out.Newest):]
	return out
}
