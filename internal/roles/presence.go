package roles

import (
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// presence notices when a node that was absent or suspected is present again.
type presence struct {
	returned notify.Signal

	present map[string]uint64 // sessions that are not suspected, by node; for raft's goroutine only
}

// onSessions compares the sessions with those of the last call. Raft's goroutine calls it.
func (p *presence) onSessions(s *state.State) {
	now := make(map[string]uint64)
	more := false
	it := s.Sessions.Root().Iterator()
	for node, ses, ok := it.Next(); ok; node, ses, ok = it.Next() {
		if ses.Suspect == 0 {
			now[string(node)] = ses.Number
			more = more || p.present[string(node)] != ses.Number
		}
	}
	p.present = now
	if more {
		p.returned.Notify()
	}
}
