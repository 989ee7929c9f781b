package flotilla

import (
	"errors"
	"fmt"
	"net"

	"github.com/flotilla-ha/flotilla/hold"
)

var (
	// ErrNoLeader is wrapped by the error of a write that found no leader in time, or lost it. The write may still take effect.
	ErrNoLeader = errors.New("no leader")

	// ErrNotReady is wrapped by the error of a read on a node that has not caught up with its cluster since it started, and
	// that cannot tell whether the name exists.
	ErrNotReady = errors.New("node is not ready")

	// ErrSealed is wrapped by the error of anything that was sealed with a key that this node has not got, or was changed since.
	ErrSealed = errors.New("cannot open what is sealed")

	// ErrTooLarge is wrapped by the error of a write of more than MaxValue bytes, of a name of more than MaxName, or of one
	// for which there is no room: see Config.MaxState. Nothing was written.
	ErrTooLarge = errors.New("too large")

	// ErrLost is wrapped by the error of what this node was doing when the cluster took it for gone: what it held, locks for one, it
	// holds no more. A write that was under way may have taken effect before; it does not any more.
	ErrLost = errors.New("lost")

	// ErrYielded is the cause of the end of a context of Hold when the role is to be handed over.
	ErrYielded = hold.ErrYielded

	// ErrRemoved is wrapped by the error of a node that is no longer a member of the cluster.
	ErrRemoved = errors.New("node was removed from the cluster")

	// ErrClosed is returned by what is called after Close, Shutdown or Leave. It is a net.ErrClosed.
	ErrClosed = fmt.Errorf("flotilla: node is closed: %w", net.ErrClosed)
)

// Limits of one record.
const (
	MaxValue = 1 << 20 // bytes in a value
	MaxName  = 1024    // bytes in a name
)

// ConfigError says which field of a Config is wrong, or which part of the world that it points to, and what to do about it.
type ConfigError struct {
	Field  string // the field's name: "Dir", "TLS.CA"; "domains" for an argument of that name; empty: none
	Reason string // what is wrong, and the remedy
	Err    error  // the cause, if there is one
}

// Error names the field, the reason and the cause.
func (e *ConfigError) Error() string {
	text := "flotilla: "
	switch e.Field {
	case "":
	case domainsField:
		text += e.Field + ": "
	default:
		text += "Config." + e.Field + ": "
	}
	if text += e.Reason; e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }
