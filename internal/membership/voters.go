package membership

import (
	"cmp"
	"slices"
)

// A set of voters is judged by what it survives. A zone is a failure domain: a room, a site, a
// provider. Its nodes may fail together. A node without a zone is one of its own.

// strength is what a set of voters survives. The fields are compared in their order, and more is
// better.
type strength struct {
	enough   int // how many vote, up to MinVoters
	safe     int // minus how many zones, lost as a whole, would take the majority with them
	failures int // how many voters may fail
	spread   int // minus how many voters the largest zone has
	voters   int // how many vote
}

// strengthOf judges a set of voters.
func strengthOf(voters []Member) strength {
	n := len(voters)
	s := strength{enough: min(n, MinVoters), failures: (n - 1) / 2, voters: n}
	for i := range voters {
		lost := 1
		if zone := voters[i].Zone; zone != "" {
			if inZone(voters[:i], zone) > 0 {
				continue // it has been counted
			}
			lost = inZone(voters, zone)
		}
		if n-lost <= n/2 {
			s.safe--
		}
		s.spread = min(s.spread, -lost)
	}
	return s
}

// inZone counts the members in a zone. Those without a zone are in none.
func inZone(members []Member, zone string) (n int) {
	for i := range members {
		if zone != "" && members[i].Zone == zone {
			n++
		}
	}
	return n
}

// exceeds reports whether s is better than another.
func (s strength) exceeds(other strength) bool {
	return cmp.Or(
		cmp.Compare(s.enough, other.enough), cmp.Compare(s.safe, other.safe), cmp.Compare(s.failures, other.failures),
		cmp.Compare(s.spread, other.spread), cmp.Compare(s.voters, other.voters),
	) > 0
}

// choose returns those candidates that vote best together. Among sets that are equally good it
// prefers one with the leader, then present voters, then those that come first. So what it chooses
// stays the same while the members that it chose become voters and the others cease to be, one
// after another: the roster arrives, and does not oscillate.
//
// Of several witnesses one votes, and gets its vote only beside two others: a majority always has a
// node in it that can lead. It may be the first voter, if its directory was recovered.
func choose(candidates []Member) []Member {
	able := slices.DeleteFunc(slices.Clone(candidates), func(m Member) bool { return m.Witness })
	var best []Member
	try := func(least int, candidates []Member) {
		for n := least; n <= min(MaxVoters, len(candidates)); n++ {
			if set := spreadOut(candidates, n); best == nil || strengthOf(set).exceeds(strengthOf(best)) {
				best = set
			}
		}
	}
	with := func(votes bool, least int) {
		for _, m := range candidates {
			if m.Witness && m.Votes == votes {
				try(least, slices.Concat(able, []Member{m}))
			}
		}
	}
	with(true, 1)
	try(1, able)
	with(false, MinVoters)
	return best
}

// spreadOut chooses n candidates, each from the zone with the fewest so far. That keeps the largest
// zone as small as it can be.
func spreadOut(candidates []Member, n int) []Member {
	chosen := make([]Member, 0, n)
	for range n {
		next := -1
		for i := range candidates {
			if m := &candidates[i]; !has(chosen, m.ID) && (next < 0 || goesBefore(m, &candidates[next], chosen)) {
				next = i
			}
		}
		chosen = append(chosen, candidates[next])
	}
	return chosen
}

// goesBefore reports whether a is to be chosen before b, which comes first in the list.
func goesBefore(a, b *Member, chosen []Member) bool {
	switch x, y := inZone(chosen, a.Zone), inZone(chosen, b.Zone); {
	case x != y:
		return x < y
	case a.Leads != b.Leads:
		return a.Leads
	}
	return a.Votes && !b.Votes
}

// OfUse returns those members that do not vote, and would if they and all others that are there
// were steady.
func OfUse(members []Member) (ids []string) {
	var voting, all []Member
	for _, m := range members {
		if m.Votes {
			voting = append(voting, m)
		}
		if m.Votes || !m.Demoted && !m.Absent {
			all = append(all, m)
		}
	}
	if len(all) == len(voting) {
		return nil
	}
	wanted := choose(all)
	if !strengthOf(wanted).exceeds(strengthOf(voting)) {
		return nil
	}
	for _, m := range wanted {
		if !m.Votes {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

func has(members []Member, id string) bool {
	for i := range members {
		if members[i].ID == id {
			return true
		}
	}
	return false
}
