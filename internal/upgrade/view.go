package upgrade

import (
	"fmt"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// Rest is how long the present process of every member must have supported the next version before
// the leader raises it by itself.
const Rest = time.Hour

// View is what a node sees of the way to the next cluster version.
type View struct {
	// Version is that of the cluster.
	Version uint64

	// Members are the members of the cluster, in the order of their names.
	Members []Member
}

// Member is what a node sees of a member.
type Member struct {
	// ID is the node ID, and Name is for people.
	ID, Name string

	// Session is the number of the member's session. 0: it is away.
	Session uint64

	// Supports is the newest cluster version that its present process supports. 0: not known.
	Supports uint64

	// Since is when this leader has first seen that process. Zero: this node does not lead.
	Since time.Time
}

// Of returns what a member supports, and since when the leader has seen that.
func (v View) Of(id string) (supports uint64, since time.Time) {
	for _, m := range v.Members {
		if m.ID == id {
			return m.Supports, m.Since
		}
	}
	return 0, time.Time{}
}

// Blocked returns a phrase for each member that is in the way of the next version. It begins with
// the member's name.
func (v View) Blocked() (all []string) {
	for _, m := range v.Members {
		if why := m.blocks(v.Version + 1); why != "" {
			all = append(all, m.Name+", which "+why)
		}
	}
	return all
}

// blocks says why the member is in the way of a version, empty if it is not.
func (m Member) blocks(version uint64) string {
	switch {
	case m.Session == 0:
		return "is away"
	case m.Supports == 0:
		return "has not said what it supports"
	case m.Supports < version:
		return fmt.Sprintf("supports %d", m.Supports)
	}
	return ""
}

// Newest returns the newest version that any member supports.
func (v View) Newest() (newest uint64) {
	for _, m := range v.Members {
		newest = max(newest, m.Supports)
	}
	return newest
}

// left returns how long the leader waits until it raises the version by itself. It is free to do so
// if this node leads and nobody is in the way.
func (v View) left(now time.Time) (left time.Duration, free bool) {
	for _, m := range v.Members {
		if m.blocks(v.Version+1) != "" || m.Since.IsZero() {
			return 0, false
		}
		left = max(left, m.Since.Add(Rest).Sub(now))
	}
	return left, len(v.Members) > 0
}

// Text says what the next version waits for. If no member supports a later one, it only says which
// version there is.
func (v View) Text(now time.Time) string {
	text := fmt.Sprintf("version %d", v.Version)
	if v.Newest() <= v.Version {
		return text
	}
	text += fmt.Sprintf("; version %d ", v.Version+1)
	if blocked := v.Blocked(); len(blocked) > 0 {
		return text + "waits for " + strings.Join(blocked, "; ")
	}
	left, free := v.left(now)
	if !free {
		return text + "comes when all have supported it for an hour"
	}
	minutes := max(1, int(left.Round(time.Minute).Minutes()))
	return text + fmt.Sprintf("comes in %d min", minutes)
}

// change returns the command that raises the version.
func (v View) change() state.RaiseVersion {
	c := state.RaiseVersion{To: v.Version + 1}
	for _, m := range v.Members {
		c.Sessions = append(c.Sessions, state.SessionOf{Node: m.ID, Number: m.Session})
	}
	return c
}
