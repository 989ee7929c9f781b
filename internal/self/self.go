package self

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// Self is who a node is, from its opening to its end. Nobody changes it.
type Self struct {
	ID          string // of the node, as long as it keeps its directory
	Incarnation string // of this process of it, see NewIncarnation
	Name        string // for people
	Addr        string // what peers dial
}

// Session returns the number of this process's session in a state, 0 if it has none.
func (w *Self) Session(s *state.State) uint64 {
	if ses := s.Session(w.ID); ses != nil && ses.Incarnation == w.Incarnation {
		return ses.Number
	}
	return 0
}

// NewID returns a node ID: 32 random hexadecimal digits.
func NewID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// NewIncarnation returns a name for a process of a node, which is the node's start number starts.
// Names of later starts sort after those of earlier ones. Two copies of one directory, which count
// the same starts, get different names.
func NewIncarnation(starts uint64) string { return fmt.Sprintf("%016x%s", starts, NewID()) }
