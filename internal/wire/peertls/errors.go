package peertls

import (
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/seal"
)

// WrongSecretError says that the peer at an address has none of our secrets.
type WrongSecretError struct {
	Addr string     // the peer's address
	Want seal.KeyID // the key ID of the secret that we tried last
	Have seal.KeyID // the key ID that the peer showed; not proven, so good for a message only
}

// Error names both key IDs.
func (e *WrongSecretError) Error() string {
	return fmt.Sprintf("the peer at %s has another cluster secret (its key ID %v, ours %v)", e.Addr, e.Have, e.Want)
}

// WrongNodeError says that another node than the dialled one answers at an address.
type WrongNodeError struct {
	Addr      string // the dialled address
	Want, Got string // node IDs
}

// Error names both nodes.
func (e *WrongNodeError) Error() string {
	return fmt.Sprintf("node %s answers at %s, where node %s was expected", e.Got, e.Addr, e.Want)
}

// RefusedError says that the peer knows who we are and refuses the connection.
type RefusedError struct {
	Reason string // in the peer's words, at most 255 bytes
}

// Error gives the peer's reason.
func (e *RefusedError) Error() string { return "the peer refused the connection: " + e.Reason }
