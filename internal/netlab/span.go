package netlab

import (
	"slices"
	"time"
)

// span is a period: from its beginning, without its end.
type span struct{ from, to time.Time }

func (s span) length() time.Duration { return s.to.Sub(s.from) }

// clip returns what of s is within t; ok is false if nothing is.
func (s span) clip(t span) (span, bool) {
	if t.from.After(s.from) {
		s.from = t.from
	}
	if t.to.Before(s.to) {
		s.to = t.to
	}
	return s, s.from.Before(s.to)
}

// intersect returns the periods that are in both.
func intersect(a, b []span) (both []span) {
	for _, x := range a {
		for _, y := range b {
			if z, ok := x.clip(y); ok {
				both = append(both, z)
			}
		}
	}
	return both
}

// union returns the same time in periods that are in order and do not touch.
func union(all []span) (joined []span) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b span) int { return a.from.Compare(b.from) })
	for _, s := range all {
		if n := len(joined); n > 0 && !s.from.After(joined[n-1].to) {
			if s.to.After(joined[n-1].to) {
				joined[n-1].to = s.to
			}
			continue
		}
		joined = append(joined, s)
	}
	return joined
}

// gaps returns what of whole is in none of the periods.
func gaps(whole span, all []span) (free []span) {
	at := whole.from
	for _, s := range union(all) {
		if g, ok := (span{at, s.from}).clip(whole); ok {
			free = append(free, g)
		}
		if s.to.After(at) {
			at = s.to
		}
	}
	if g, ok := (span{at, whole.to}).clip(whole); ok {
		free = append(free, g)
	}
	return free
}

// twice returns the periods that are in at least two of the lists.
func twice(lists [][]span) []span {
	var all []span
	for i := range lists {
		for j := range i {
			all = append(all, intersect(lists[i], lists[j])...)
		}
	}
	return union(all)
}

// Extent is how much time some periods take.
type Extent struct {
	// Total is the time of all together.
	Total time.Duration
	// Longest is the time of the longest.
	Longest time.Duration
}

func extent(all []span) (e Extent) {
	for _, s := range union(all) {
		e.Total += s.length()
		e.Longest = max(e.Longest, s.length())
	}
	return e
}
