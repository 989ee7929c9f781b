package vip

import "time"

// announceEvery is how often an address is announced that has been here for a while: neighbours forget, and switches.
const announceEvery = time.Minute

// soonest is between two announcements that events ask for.
const soonest = 100 * time.Millisecond

// announceAt is when an address is announced after something that may have left neighbours with a wrong entry: against loss, and for those
// behind a switch port that forwards nothing yet, which spanning tree may take half a minute for.
func announceAt() []time.Duration {
	const s = time.Second
	return []time.Duration{
		100 * time.Millisecond, s, 2 * s, 4 * s, 6 * s, 8 * s, 10 * s, 12 * s, 15 * s, 20 * s, 25 * s, 30 * s, 35 * s, 40 * s, 50 * s,
	}
}

// schedule says when an address that is here is announced again.
type schedule struct {
	began time.Time // of the last event
	last  time.Time // announcement
}

// begun starts it with an announcement that has just been made.
func begun(now time.Time) schedule { return schedule{now, now} }

// again has the address announced as soon as may be, and then as at the beginning.
func (s *schedule) again(now time.Time) { s.began = now }

// announced notes an announcement.
func (s *schedule) announced(now time.Time) { s.last = now }

// next returns when the next one is due.
func (s *schedule) next() time.Time {
	if s.last.Before(s.began) {
		if soon := s.last.Add(soonest); soon.After(s.began) {
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
