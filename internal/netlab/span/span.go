// Package span computes with periods of time.
package span

import (
	"slices"
	"time"
)

// Span is a period. It includes its beginning, and not its end.
type Span struct {
	// From is the beginning.
	From time.Time
	// To is the end.
	To time.Time
}

func (s Span) length() time.Duration { return s.To.Sub(s.From) }

// Clip returns the part of s that is within t. It returns false if there is none.
func (s Span) Clip(t Span) (Span, bool) {
	if t.From.After(s.From) {
		s.From = t.From
	}
	if t.To.Before(s.To) {
		s.To = t.To
	}
	return s, s.From.Before(s.To)
}

// Intersect returns the periods that are in both lists.
func Intersect(a, b []Span) (both []Span) {
	for _, x := range a {
		for _, y := range b {
			if z, ok := x.Clip(y); ok {
				both = append(both, z)
			}
		}
	}
	return both
}

// Union returns the same time as periods in order that do not touch.
func Union(all []Span) (joined []Span) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b Span) int { return a.From.Compare(b.From) })
	for _, s := range all {
		if n := len(joined); n > 0 && !s.From.After(joined[n-1].To) {
			if s.To.After(joined[n-1].To) {
				joined[n-1].To = s.To
			}
			continue
		}
		joined = append(joined, s)
	}
	return joined
}

// Gaps returns the parts of whole that are in none of the periods.
func Gaps(whole Span, all []Span) (free []Span) {
	at := whole.From
	for _, s := range Union(all) {
		if g, ok := (Span{at, s.From}).Clip(whole); ok {
			free = append(free, g)
		}
		if s.To.After(at) {
			at = s.To
		}
	}
	if g, ok := (Span{at, whole.To}).Clip(whole); ok {
		free = append(free, g)
	}
	return free
}

// Overlaps returns the periods that are in at least two of the lists.
func Overlaps(lists [][]Span) []Span {
	var all []Span
	for i := range lists {
		for j := range i {
			all = append(all, Intersect(lists[i], lists[j])...)
		}
	}
	return Union(all)
}

// Extent is the time that some periods take.
type Extent struct {
	// Total is the time of all periods.
	Total time.Duration
	// Longest is the time of the longest period.
	Longest time.Duration
}

// ExtentOf returns the extent of periods, which may overlap.
func ExtentOf(all []Span) (e Extent) {
	for _, s := range Union(all) {
		e.Total += s.length()
		e.Longest = max(e.Longest, s.length())
	}
	return e
}
