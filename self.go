package flotilla

import "github.com/flotilla-ha/flotilla/internal/state"

// identityOf is who a node is, for as long as its process has its directory. It does not change.
type identityOf struct {
	id   string // of the node, for as long as it has its directory
	boot string // of this process
	name string // for people
	addr string // what peers dial
}

// ownSession returns the number of this process's session, 0 if it has none.
func (n *identityOf) ownSession(s *state.State) uint64 {
	if ses := s.Session(n.id); ses != nil && ses.Incarnation == n.boot {
		return ses.Number
	}
	return 0
}
