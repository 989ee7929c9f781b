package peerconn

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/flotilla-ha/flotilla/internal/wire/peertls"
)

// ErrClosed is wrapped by the errors of everything that was closed or stopped. It is a
// net.ErrClosed.
var ErrClosed = fmt.Errorf("port is closed: %w", net.ErrClosed)

// DialError says that no authenticated connection to a node could be made. The peer has read
// nothing.
type DialError struct {
	ID  string // the node
	Err error
}

// Error names the node.
func (e *DialError) Error() string { return "no connection to node " + e.ID + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *DialError) Unwrap() error { return e.Err }

// PortRefuses reports whether err says that nobody listens at the address. This proves that the
// process is not there.
func PortRefuses(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// Unwilling reports whether err says that a peer is there and does not want the connection. It says
// so in its answer, or by an alert of TLS if its version does not know the protocol.
func Unwilling(err error) bool {
	var refused *peertls.RefusedError
	var op *net.OpError
	return errors.As(err, &refused) || errors.As(err, &op) && op.Op == "remote error"
}

// IsTimeout reports whether err says that a deadline has passed.
func IsTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
