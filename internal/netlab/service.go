package netlab

import (
	"slices"
	"time"
)

// Attempt is one question of a probe.
type Attempt struct {
	// Sent is the time when it was sent.
	Sent time.Time
	// Answered is the time when the answer arrived; zero without an answer.
	Answered time.Time
	// By is the name of the responder that answered.
	By string
	// Err says why there was no answer, if that is known.
	Err error
}

// Service is what a probe got in a period.
type Service struct {
	// Sent counts the questions that were sent in the period.
	Sent int
	// Failed counts those that had no answer, or an error. A question that may still be answered
	// does not count.
	Failed int
	// Outage is the longest time in which no answer arrived, less the interval between questions.
	// It is the view of the client. A question may wait in the queue of the client until the
	// address is found again, or in the queue of a program that stands still. It counts when its
	// answer arrives. If it counted when it was sent, it would hide the outage in which it waited.
	Outage time.Duration
	// OutageFrom is the arrival of the last answer before the outage.
	OutageFrom time.Time
	// Slowest is the longest time from a question to its answer.
	Slowest time.Duration
	// Stall is the longest time in which the probe itself did not ask, less the interval. So much
	// of the outage may be due to the machine of the probe.
	Stall time.Duration
	// By has the names that answered, in the order of their first answers.
	By []string
}

// serviceOf evaluates the attempts of a period, which are in the order of sending. An attempt
// without an answer fails after the timeout.
func serviceOf(all []Attempt, from, to time.Time, interval, timeout time.Duration) (s Service) {
	var arrivals []time.Time
	var before, lastSent time.Time
	for _, a := range all {
		inside := !a.Sent.Before(from) && a.Sent.Before(to)
		if inside {
			s.Sent++
			if a.Answered.IsZero() && (a.Err != nil || to.Sub(a.Sent) > timeout) {
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
