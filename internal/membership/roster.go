package membership

import (
	"slices"
	"time"
)

const (
	// MaxVoters is how many members vote. Further members stay non-voters and serve all the same.
	MaxVoters = 5

	// MinVoters is how many voters the leader leaves: with fewer, it removes none that may come back.
	MinVoters = 3

	// SteadyTime is how long a member must have been there before it gets a vote.
	SteadyTime = 10 * time.Second

	// RemoveDead is how long a member must have been gone before it is removed, by default.
	RemoveDead = 24 * time.Hour

	goneTime   = 10 * time.Second // how long a voter is gone before another one votes in its place
	silentTime = time.Minute      // the same if the process cannot come back, but may be cut off
)

// Member is what a leader sees of a member.
type Member struct {
	ID      string // node ID
	Zone    string // its failure domain; empty: one of its own
	Witness bool   // it does not lead
	Demoted bool   // an operator has demoted it: it is not to vote
	Votes   bool   // it is a voter
	Leads   bool   // it is the leader itself
	Absent  bool   // it has no session, and was not heard of within the last lease
	Refused bool   // its port refuses
	Current bool   // it is there, and has what the leader has
	Lost    bool   // it has no directory, so it cannot come back once its process has ended
	Ended   bool   // another process was seen at its address
	Former  bool   // a new node says that it was this one; it may also be a copy of it
}

// Change is a change of the membership.
type Change struct {
	Kind ChangeKind // what becomes of the member
	ID   string     // of the member
	Why  string     // for people
}

// ChangeKind is what a change does to a member.
type ChangeKind int

// The changes.
const (
	Promote ChangeKind = iota + 1 // the member votes from now on
	Demote                        // a member that is gone votes no more
	Dismiss                       // a member that an operator has demoted votes no more
	Spread                        // a member that is there votes no more: the others spread better
	Remove                        // the member is none any more
)

// roster decides which members vote and which are removed. It looks again and again at what the
// leader sees, by the leader's clock, and decides on one change at a time. No change leaves the
// voters that are there without a majority. A member that is there is not removed. It keeps its
// vote, unless an operator demotes it, or the others survive more without it: see voters.go.
type roster struct {
	removeDead time.Duration        // not positive: never
	absent     map[string]time.Time // since when a member has been gone
	steady     map[string]time.Time // since when a member has been there and current
}

func newRoster(removeDead time.Duration) *roster {
	return &roster{removeDead: removeDead, absent: make(map[string]time.Time), steady: make(map[string]time.Time)}
}

// look takes what the leader sees.
func (r *roster) look(now time.Time, members []Member) {
	since := func(times map[string]time.Time, id string, is bool) {
		if _, known := times[id]; !is {
			delete(times, id)
		} else if !known {
			times[id] = now
		}
	}
	known := make(map[string]bool)
	for _, m := range members {
		known[m.ID] = true
		since(r.absent, m.ID, m.Absent && !m.Leads)
		since(r.steady, m.ID, m.Current)
	}
	for _, times := range []map[string]time.Time{r.absent, r.steady} {
		for id := range times {
			if !known[id] {
				delete(times, id)
			}
		}
	}
}

// next returns the change that is due, if there is one. A dead voter goes before its substitute
// votes: then no majority ever depends on the newcomer.
func (r *roster) next(now time.Time, members []Member) (Change, bool) {
	r.look(now, members)
	if !canDoWithout(members, "") {
		return Change{}, false
	}
	voting := make([]Member, 0, MaxVoters)
	var ready []Member
	for _, m := range members {
		if m.Votes {
			voting = append(voting, m)
		} else if at, ok := r.steady[m.ID]; ok && now.Sub(at) >= SteadyTime && !m.Demoted {
			ready = append(ready, m)
		}
	}
	voters := len(voting)
	longest := func(atLeast func(Member) time.Duration) (Member, bool) {
		var found Member
		for _, m := range members {
			at, gone := r.absent[m.ID]
			if gone && now.Sub(at) >= atLeast(m) && (found.ID == "" || at.Before(r.absent[found.ID])) {
				found = m
			}
		}
		return found, found.ID != ""
	}
	const never = 1<<63 - 1
	if m, ok := longest(func(m Member) time.Duration {
		switch {
		case !m.Lost && !m.Former:
			return never
		case m.Refused || m.Ended:
			return goneTime
		}
		return silentTime
	}); ok {
		return Change{Remove, m.ID, "it cannot come back"}, true
	}
	for _, m := range voting {
		if m.Demoted && mayDismiss(members, m) {
			return Change{Dismiss, m.ID, "an operator has demoted it"}, true
		}
	}
	if m, ok := longest(func(m Member) time.Duration {
		if m.Votes {
			return goneTime
		}
		return never
	}); ok {
		// Four voters survive no more failures than three of them do: whenever a majority of the four
		// is there, so is one of the three.
		spare := voters%2 == 0 && voters > MinVoters
		rest := slices.Concat(slices.DeleteFunc(slices.Clone(voting), func(v Member) bool { return v.ID == m.ID }), ready)
		switch {
		case len(ready) > 0 && len(choose(rest)) >= min(voters, MinVoters):
			return Change{Demote, m.ID, "it is gone, and another one can vote in its place"}, true
		case spare:
			return Change{Demote, m.ID, "it is gone, and the others survive more without it"}, true
		}
	}
	if c, ok := r.improve(members, voting, ready); ok {
		return c, true
	}
	if m, ok := longest(func(m Member) time.Duration {
		if r.removeDead <= 0 || m.Votes && voters <= MinVoters {
			return never
		}
		return r.removeDead
	}); ok {
		return Change{Remove, m.ID, "it has been gone for " + r.removeDead.String()}, true
	}
	return Change{}, false
}

// improve returns the next step towards voters that survive more, if there are such. A substitute
// votes before a living voter ceases to, unless five vote already.
func (r *roster) improve(members, voting, ready []Member) (Change, bool) {
	if len(ready) == 0 && !slices.ContainsFunc(voting, func(m Member) bool { return m.Zone != "" }) {
		return Change{}, false // fewer survive no more, as long as none is in the same zone as another
	}
	wanted := choose(slices.Concat(voting, ready))
	if !strengthOf(wanted).exceeds(strengthOf(voting)) {
		return Change{}, false
	}
	if len(voting) < MaxVoters {
		for _, m := range wanted {
			if !m.Votes {
				return Change{Promote, m.ID, "it has been there for long enough"}, true
			}
		}
	}
	for _, m := range voting {
		if !has(wanted, m.ID) && maySpread(members, m) {
			return Change{Spread, m.ID, "the other voters survive the loss of a zone better without it"}, true
		}
	}
	return Change{}, false
}

// mayDismiss reports whether a voter that an operator has demoted can cease to vote. An operator
// may go below MinVoters.
func mayDismiss(members []Member, m Member) bool {
	return m.Demoted && !m.Leads && canDoWithout(members, m.ID)
}

// maySpread reports whether a living voter can cease to vote for the sake of the zones. That can
// wait until all voters are well.
func maySpread(members []Member, m Member) bool {
	voters := 0
	for _, other := range members {
		if !other.Votes {
			continue
		}
		if voters++; other.Absent || other.Refused || !other.Current && !other.Leads {
			return false
		}
	}
	return !m.Leads && voters > MinVoters
}

// canDoWithout reports whether enough voters are there without a member: a majority of those that
// would be left.
func canDoWithout(members []Member, id string) bool {
	left, there := 0, 0
	for _, m := range members {
		if m.Votes && m.ID != id {
			left++
			if !m.Absent && !m.Refused {
				there++
			}
		}
	}
	return there > left/2
}
