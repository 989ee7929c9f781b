package netlab

import (
	"slices"
	"time"
)

// Attempt is one question that a probe asked.
type Attempt struct {
	// Sent is when.
	Sent time.Time
	// Answered is when the answer was there; zero if none came.
	Answered time.Time
	// By is the name of who answered.
	By string
	// Err is why there was no answer, if that is known.
	Err error
}

// Service is what a probe got in a period.
type Service struct {
	// Sent is how many questions were asked in the period.
	Sent int
	// Failed is how many of them had no answer, or an error. Those that may still be answered do not count.
	Failed int
	// Outage is the longest time in which no answer arrived, less the interval at which questions are asked. It is the client's view:
	// a question that waits in the client's own queue until the address is found again, or in that of a program that stands still,
	// is answered when it is answered. Judged by sending times instead, such a question would hide the outage that it sat through.
	Outage time.Duration
	// OutageFrom is the arrival of the last answer before the outage.
	OutageFrom time.Time
	// Slowest is the longest that an answer took.
	Slowest time.Duration
	// Stall is the longest time in which the probe itself did not ask, less the interval: how much of the outage may be the
	// machine's own business.
	Stall time.Duration
	// By is who answered, in the order of their first answers.
	By []string
}

// serviceOf judges the attempts, in the order in which they were sent, of a period. An attempt is given up after patience.
func serviceOf(all []Attempt, from, to time.Time, interval, patience time.Duration) (s Service) {
	var arrivals []time.Time
	var before, lastSent time.Time
	for _, a := range all {
		inside := !a.Sent.Before(from) && a.Sent.Before(to)
		if inside {
			s.Sent++
			if a.Answered.IsZero() && (a.Err != nil || to.Sub(a.Sent) > patience) {
				s.Failed++
			}
			if !lastSent.IsZero() {
				s.Stall = max(s.Stall, a.Sent.Sub(lastSent)-interval)
			}
			lastSent = a.Sent
		}
		switch {
		case a.Answered.IsZero() || !a.Answered.Before(to):
		case a.Answered.Before(from):
			if a.Answered.After(before) {
				before = a.Answered
			}
		default:
			arrivals = append(arrivals, a.Answered)
			s.Slowest = max(s.Slowest, a.Answered.Sub(a.Sent))
			if !slices.Contains(s.By, a.By) {
				s.By = append(s.By, a.By)
			}
		}
	}
	if before.IsZero() {
		before = from
	}
	slices.SortFunc(arrivals, time.Time.Compare)
	for _, at := range append(arrivals, to) {
		if gap := at.Sub(before) - interval; gap > s.Outage {
			s.Outage, s.OutageFrom = gap, before
		}
		before = at
	}
	return s
}
