package flotilla

import (
	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

var (
	// ErrNoLeader is wrapped by the error of a write that found no leader in time, or lost it. The
	// write may still take effect.
	ErrNoLeader = errs.NoLeader

	// ErrNotReady is wrapped by the error of a read on a node that has not caught up with its cluster
	// since it started, and that cannot tell whether the name exists.
	ErrNotReady = errs.NotReady

	// ErrSealed is wrapped by the error of anything that was sealed with a key that this node has not
	// got, or was changed since.
	ErrSealed = errs.Sealed

	// ErrTooLarge is wrapped by the error of a write of more than MaxValue bytes, of a name of more
	// than MaxName, or of one for which there is no room: see Config.MaxState. Nothing was written.
	ErrTooLarge = errs.TooLarge

	// ErrLost is wrapped by the error of what this node was doing when the cluster took it for gone:
	// what it held, locks for one, it holds no more. A write that was under way may have taken effect
	// before; it does not any more.
	ErrLost = errs.Lost

	// ErrYielded is the cause of the end of a context of Hold when the role is to be handed over.
	ErrYielded = hold.ErrYielded

	// ErrRemoved is wrapped by the error of a node that is no longer a member of the cluster.
	ErrRemoved = errs.Removed

	// ErrClosed is returned by what is called after Close, Shutdown or Leave. It is a net.ErrClosed.
	ErrClosed = errs.Closed
)

// Limits of one record.
const (
	MaxValue = keyspace.MaxValue // bytes in a value
	MaxName  = keyspace.MaxName  // bytes in a name
)

// ConfigError names the field of a Config that is wrong, or that points to something wrong, and
// says what to do about it. Its fields are
//
//	Field  string // such as "Dir" or "TLS.CA"; "domains" for that argument; empty: none
//	Reason string // what is wrong, and the remedy
//	Err    error  // the cause, if there is one
type ConfigError = errs.ConfigError
