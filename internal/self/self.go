package self

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// Self is the identity of a node while its process uses its directory. It does not change, so all
// parts of the node may share it.
type Self struct {
	// ID names the node: 32 hexadecimal digits. The node has it for as long as it has its directory.
	ID string

	// Incarnation names this process of the node. See NewIncarnation.
	Incarnation string

	// Name is the node's name for people.
	Name string

	// Addr is the address that peers dial, host:port.
	Addr string

	// Zone is the node's failure domain. Empty: one of its own.
	Zone string

	// Witness says that the node votes, and neither leads nor serves.
	Witness bool
}

// Session returns the number of this process's session in a state. It returns 0 if the process has
// no session. A session of an earlier process does not count.
func (me *Self) Session(s *state.State) uint64 {
	if ses := s.Session(me.ID); ses != nil && ses.Incarnation == me.Incarnation {
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

// NewIncarnation returns a new name for a process of a node. starts is the number of times that the
// node has been started, this time included. Later processes have greater names.
func NewIncarnation(starts uint64) string { return fmt.Sprintf("%016x%s", starts, NewID()) }
