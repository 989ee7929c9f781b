package flotilla

import (
	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

var (
	// ErrNoLeader is wrapped by the error of a write that found no leader in time, or that lost it.
	// The write may still take effect.
	ErrNoLeader = errs.ErrNoLeader

	// ErrNotReady is wrapped by the error of a read that found nothing on a node that is not up to
	// date, because it has not caught up with its cluster or has no lease. The record may exist all
	// the same.
	ErrNotReady = errs.ErrNotReady

	// ErrSealed is wrapped by the error of an operation on sealed data that this node cannot open: it
	// was sealed with a key that the node does not have, or was changed since.
	ErrSealed = errs.ErrSealed

	// ErrTooLarge is wrapped by the error of a write that exceeds a limit: a value of more than
	// MaxValue bytes, a name of more than MaxName bytes, or a record for which there is no room (see
	// Config.MaxState). Nothing was written.
	ErrTooLarge = errs.ErrTooLarge

	// ErrLost is wrapped by the error of an operation that was interrupted because the cluster took
	// this node for dead. The node has lost all that it held, such as locks. A write that was under
	// way may have taken effect before; it cannot take effect any more.
	ErrLost = errs.ErrLost

	// ErrYielded is the cause with which a context of Hold ends when the role is to be handed over.
	ErrYielded = hold.ErrYielded

	// ErrRemoved is wrapped by the errors of a node that is no longer a member of the cluster.
	ErrRemoved = errs.ErrRemoved

	// ErrClosed is returned by methods that are called after Close, Shutdown or Leave. It wraps
	// net.ErrClosed.
	ErrClosed = errs.ErrClosed
)

// Limits of one record, in bytes.
const (
	MaxValue = keyspace.MaxValue // bytes in a value
	MaxName  = keyspace.MaxName  // bytes in a name
)

// ConfigError reports a configuration that is wrong, or that refers to something wrong. It names
// the field and says what to do about it. Its fields are:
//
//	Field  string // such as "Dir" or "TLS.CA"; "domains" for that argument; empty: none
//	Reason string // what is wrong, and the remedy
//	Err    error  // the cause, or nil
type ConfigError = errs.ConfigError
