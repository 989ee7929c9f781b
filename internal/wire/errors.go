package wire

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/flotilla-ha/flotilla/internal/seal"
)

var (
	// ErrClosed is wrapped by the errors of a Port or Transport that was closed or stopped. It is a net.ErrClosed.
	ErrClosed = fmt.Errorf("port is closed: %w", net.ErrClosed)

	// ErrStalled is returned by AppendEntries and InstallSnapshot while this node's own disk hangs.
	ErrStalled = errors.New("not sent: the own disk hangs")

	// ErrReleased is returned by AppendEntries and InstallSnapshot that were held for a peer that is down, when they are held no more.
	ErrReleased = errors.New("held for a peer that is down, and now given up")
)

// WrongSecretError says that the peer at an address has none of our secrets.
type WrongSecretError struct {
	Addr string     // the peer's address
	Want seal.KeyID // the key ID of the secret we tried last
	Have seal.KeyID // the key ID of the secret that the peer showed; it is not proven, and good for a message only
}

// Error names both key IDs.
func (e *WrongSecretError) Error() string {
	return fmt.Sprintf("the peer at %s has another cluster secret (its key ID %v, ours %v)", e.Addr, e.Have, e.Want)
}

// WrongNodeError says that another node than the one dialled answers at an address.
type WrongNodeError struct {
	Addr      string // that was dialled
	Want, Got string // node IDs
}

// Error names both nodes.
func (e *WrongNodeError) Error() string {
	return fmt.Sprintf("node %s answers at %s, where node %s was expected", e.Got, e.Addr, e.Want)
}

// RefusedError says that the peer knows who we are and does not want the connection.
type RefusedError struct {
	Reason string // in the peer's words, at most 255 bytes
}

// Error gives the peer's reason.
func (e *RefusedError) Error() string { return "the peer refused the connection: " + e.Reason }

// CallError says that the peer answered a call with an error.
type CallError struct {
	Status  int    // of HTTP
	Message string // in the peer's words, at most 4 KiB
}

// Error gives the peer's message and status.
func (e *CallError) Error() string {
	return fmt.Sprintf("the peer answered with an error: %s (status %d)", e.Message, e.Status)
}

// dialError says that no authenticated connection to a node could be made.
type dialError struct {
	id  string
	err error
}

func (e *dialError) Error() string { return "no connection to node " + e.id + ": " + e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// portRefuses reports whether err says that nobody listens at the address, which proves that the process is not there.
func portRefuses(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// unwilling reports whether err says that a peer answered, and does not want a connection of this protocol: in so many words, or by an
// alert of TLS if it is older than the protocol.
func unwilling(err error) bool {
	var refused *RefusedError
	var op *net.OpError
	return errors.As(err, &refused) || errors.As(err, &op) && op.Op == "remote error"
}

// isTimeout reports whether err says that a deadline has passed.
func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
