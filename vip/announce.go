package vip

import "time"

const (
	// announceEvery is between two announcements of an address that has been here for a while.
	// Neighbours and switches forget where it is.
	announceEvery = time.Minute

	// announcePause is the shortest time between two announcements that events ask for.
	announcePause = 100 * time.Millisecond
)

// announceAt returns when an address is announced after an event that may have left neighbours with
// a wrong entry. Announcements can be lost, and a switch port under spanning tree may forward
// nothing for half a minute.
func announceAt() []time.Duration {
	const s = time.Second
	return []time.Duration{
		100 * time.Millisecond, s, 2 * s, 4 * s, 6 * s, 8 * s, 10 * s, 12 * s, 15 * s,
		20 * s, 25 * s, 30 * s, 35 * s, 40 * s, 50 * s,
	}
}

// schedule says when an address in place is announced again.
type schedule struct {
	began time.Time // the last event
	last  time.Time // the last announcement
}

// begun starts a schedule with an announcement that has just been made.
func begun(now time.Time) schedule { return schedule{now, now} }

// again makes the next announcement due as soon as possible, and those after it as at the
// beginning.
func (s *schedule) again(now time.Time) { s.began = now }

// announced records an announcement.
func (s *schedule) announced(now time.Time) { s.last = now }

// next returns when the next announcement is due.
func (s *schedule) next() time.Time {
	if s.last.Before(s.began) {
		if soon := s.last.Add(announcePause); soon.After(s.began) {
			return soon
		}
		return s.began
	}
	for _, after := range announceAt() {
		if at := s.began.Add(after); at.After(s.last) {
			return at
		}
	}
	return s.last.Add(announceEvery)
}
