package self

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// Self is who a node is, for as long as its process has its directory. It does not change.
type Self struct {
	ID          string // of the node, for as long as it has its directory
	Incarnation string // of this process
	Name        string // for people
	Addr        string // what peers dial
}

// Session returns the number of this process's session, 0 if it has none.
func (n *Self) Session(s *state.State) uint64 {
	if ses := s.Session(n.ID); ses != nil && ses.Incarnation == n.Incarnation {
		return ses.Number
	}
	return 0
}

// NewID returns 32 random hexadecimal digits.
func NewID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// NewIncarnation makes up the name of a process, the node's starts-th.
func NewIncarnation(starts uint64) string { return fmt.Sprintf("%016x%s", starts, NewID()) }
