package membership

import "time"

const (
	MaxVoters  = 5                // further members stay non-voters and serve all the same
	MinVoters  = 3                // a voter that may come back is not removed by the leader alone when fewer would be left
	SteadyTime = 10 * time.Second // how long a non-voter must have been there before it votes
	GoneTime   = 10 * time.Second // how long a voter must have been gone before another one votes in its place
	silentTime = time.Minute      // the same for a node that cannot come back, and whose process may only be cut off
	RemoveDead = 24 * time.Hour   // how long a member must have been gone before it is removed, by default
)

// Member is what a leader sees of a member.
type Member struct {
	ID      string
	Votes   bool
	Leads   bool // it is the leader itself
	Absent  bool // it has no session, and was not heard of within the last lease
	Refused bool // its port refuses
	Current bool // it is there, and has what the leader has
	Lost    bool // it cannot come back once its process has ended: it has no directory
	Ended   bool // another process was seen at its address
	Former  bool // it cannot come back: the new node that it is now says so, which may be a copy of it
}

// Change is a change of the membership.
type Change struct {
	Kind ChangeKind
	ID   string
	Why  string
}

type ChangeKind int

const (
	Promote ChangeKind = iota + 1 // let it vote
	Demote                        // let it vote no more
	Remove
)

// roster decides who votes, and who is a member no more. It looks again and again at what the leader sees, by the leader's clock, and
// decides on one change at a time. It says nothing that would leave the voters that are there without a majority, and takes nothing from
// a member that is there.
type roster struct {
	removeDead time.Duration        // not positive: never
	Absent     map[string]time.Time // since when a member has been gone
	Steady     map[string]time.Time // since when a non-voter has been there and current
}

func NewRoster(removeDead time.Duration) *roster {
	return &roster{removeDead: removeDead, Absent: make(map[string]time.Time), Steady: make(map[string]time.Time)}
}

// Look notes what the leader sees.
func (r *roster) Look(now time.Time, members []Member) {
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
		since(r.Absent, m.ID, m.Absent && !m.Leads)
		since(r.Steady, m.ID, m.Current && !m.Votes)
	}
	for _, times := range []map[string]time.Time{r.Absent, r.Steady} {
		for id := range times {
			if !known[id] {
				delete(times, id)
			}
		}
	}
}

// Next returns the change that is due, if there is one. A dead voter goes before its substitute votes: then no majority ever hangs on the
// newcomer.
func (r *roster) Next(now time.Time, members []Member) (Change, bool) {
	r.Look(now, members)
	if !CanDoWithout(members, "") {
		return Change{}, false
	}
	voters, ready := 0, ""
	for _, m := range members {
		if m.Votes {
			voters++
		} else if at, ok := r.Steady[m.ID]; ok && now.Sub(at) >= SteadyTime && ready == "" {
			ready = m.ID
		}
	}
	longest := func(atLeast func(Member) time.Duration) (Member, bool) {
		var found Member
		for _, m := range members {
			at, gone := r.Absent[m.ID]
			if gone && now.Sub(at) >= atLeast(m) && (found.ID == "" || at.Before(r.Absent[found.ID])) {
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
			return GoneTime
		}
		return silentTime
	}); ok {
		return Change{Remove, m.ID, "it cannot come back"}, true
	}
	// Four voters survive no more than three of them do: whenever a majority of the four is there, so is one of the three.
	spare := voters%2 == 0 && voters > MinVoters
	if ready != "" || spare {
		if m, ok := longest(func(m Member) time.Duration {
			if m.Votes {
				return GoneTime
			}
			return never
		}); ok {
			why := "it is gone, and another one can vote in its place"
			if ready == "" {
				why = "it is gone, and the others survive more without it"
			}
			return Change{Demote, m.ID, why}, true
		}
	}
	if ready != "" && voters < MaxVoters {
		return Change{Promote, ready, "it has been there for long enough"}, true
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

// CanDoWithout reports whether the voters that are left without a member, and are there, are a majority of those that are left.
func CanDoWithout(members []Member, id string) bool {
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
