package roles

import (
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// presence tells when a node that was not there, or was silent, is there again.
type presence struct {
	back notify.Signal

	there map[string]uint64 // sessions that nobody suspects; raft's goroutine alone touches it
}

// Observe compares the sessions with those of before. It is called by raft's goroutine.
func (p *presence) Observe(s *state.State) {
	now := make(map[string]uint64)
	more := false
	it := s.Sessions.Root().Iterator()
	for node, ses, ok := it.Next(); ok; node, ses, ok = it.Next() {
		if ses.Suspect == 0 {
			now[string(node)] = ses.Number
			more = more || p.there[string(node)] != ses.Number
		}
	}
	p.there = now
	if more {
		p.back.Notify()
	}
}

// Returned returns a channel that is closed when a node that the cluster did not hear is there again, as after a partition. Package vip asks
// for it: those who were on that node's side may not know yet who has an address now.
func (t *Tenure) Returned() <-chan struct{} { return t.N.Presence.back.Wait() }
