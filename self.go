package flotilla

import "github.com/flotilla-ha/flotilla/internal/state"

// ownSession returns the number of this process's session, 0 if it has none.
func (n *Node) ownSession(s *state.State) uint64 {
	if ses := s.Session(n.id); ses != nil && ses.Incarnation == n.boot {
		return ses.Number
	}
	return 0
}
