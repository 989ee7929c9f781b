package page

import (
	"slices"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/view"
)

// hour is how far the time lines go back.
const hour = time.Hour

// maxParts is how many changes of a role in an hour are shown, the newest.
const maxParts = 100

// spanKind says what a part of a time line shows.
type spanKind string

const (
	held     spanKind = "held"
	nobody   spanKind = "nobody"    // held it
	heldDown spanKind = "held-down" // nobody held it: its holder was gone, and not yet out of sight
	unknown  spanKind = "unknown"
)

// span is a part of the time line of a role.
type span struct {
	from, to time.Time
	kind     spanKind
	node     string // that held it
}

// change is what is known of a role from a time on.
type change struct {
	at   time.Time
	kind spanKind
	node string
	// before is who had it until then, if the change says so.
	before *change
}

// owned is a change to a node, or to nobody if the name is empty.
func owned(at time.Time, node string) change {
	if node == "" {
		return change{at: at, kind: nobody}
	}
	return change{at: at, kind: held, node: node}
}

// changesOf returns the changes of all roles in the last hour, by the name of the role.
func changesOf(happened []event.Event, now time.Time) map[string][]change {
	out := make(map[string][]change)
	for _, e := range happened {
		if e.Time.Before(now.Add(-hour)) || e.Time.After(now) {
			continue
		}
		switch e.Kind {
		case event.RoleMoved:
			before := owned(time.Time{}, e.From)
			out[e.Subject] = append(out[e.Subject], idle(e.Time, e.Outage, owned(e.Time, e.To), &before)...)
		case event.RoleHeldDown:
			out[e.Subject] = append(out[e.Subject], change{at: e.Time, kind: heldDown})
		}
	}
	return out
}

// idle is a change with the time before it in which nobody held the role.
func idle(at time.Time, outage time.Duration, to change, before *change) []change {
	if outage <= 0 {
		to.before = before
		return []change{to}
	}
	return []change{{at: at.Add(-outage), kind: nobody, before: before}, to}
}

// timeLine returns who held a role in the last hour, from the oldest to now. There are no gaps.
//
// Events say what has changed, as far as a node has seen it. The status says who holds the role now
// and since when, even if no event of that is left.
func timeLine(r *view.Role, changes []change, now time.Time) []span {
	begin := now.Add(-hour)
	changes = slices.Clone(changes)
	if r.Holder != "" && r.Since.UnixNano() > 0 && !r.Since.After(now) {
		changes = append(changes, idle(r.Since, r.Outage, owned(r.Since, r.HolderName), nil)...)
	}
	slices.SortStableFunc(changes, func(a, b change) int { return a.at.Compare(b.at) })
	changes = changes[max(0, len(changes)-maxParts):]

	last := span{from: begin, kind: unknown}
	if len(changes) == 0 && r.Holder != "" {
		last.kind, last.node = held, r.HolderName
	}
	for _, c := range changes {
		if c.before != nil {
			last.kind, last.node = c.before.kind, c.before.node
		}
		if c.before != nil || c.kind == held {
			break
		}
	}
	var out []span
	for _, c := range changes {
		switch {
		case !c.at.After(last.from):
			last.kind, last.node = c.kind, c.node // it replaces what came before it
		case c.kind != last.kind || c.node != last.node:
			last.to = c.at
			out = append(out, last)
			last = span{from: c.at, kind: c.kind, node: c.node}
		}
	}
	last.to = now
	return append(out, last)
}
