// Package errs holds the errors that callers of the library distinguish. It lies below every other
// package, so that each part can return them. The root package exports them to users under names of
// its own.
package errs

import (
	"errors"
	"fmt"
	"net"
)

var (
	// ErrNoLeader is wrapped by the error of a write that found no leader in time, or lost it.
	ErrNoLeader = errors.New("no leader")

	// ErrNotReady is wrapped by the error of a read on a node that cannot know whether a name exists.
	ErrNotReady = errors.New("node is not ready")

	// ErrSealed is wrapped by the error for data that was sealed with an unknown key, or was changed.
	ErrSealed = errors.New("cannot open what is sealed")

	// ErrTooLarge is wrapped by the error of a write that is too large, or for which there is no room.
	ErrTooLarge = errors.New("too large")

	// ErrLost is wrapped by the error of an action under a lease that has ended.
	ErrLost = errors.New("lost")

	// ErrRemoved is wrapped by the error of a node that is no longer a member.
	ErrRemoved = errors.New("node was removed from the cluster")

	// ErrClosed is the error of a call on a closed node. It is a net.ErrClosed.
	ErrClosed = fmt.Errorf("flotilla: node is closed: %w", net.ErrClosed)
)

// Domains is the Field of a ConfigError about the domains to serve. They are an argument, not a
// field of a Config.
const Domains = "domains"

// ConfigError names the field of a configuration that is wrong, or that points to something wrong,
// and says what to do about it.
type ConfigError struct {
	// Field is the name of the field, such as "Dir" or "TLS.CA", or Domains. It is empty if the
	// error is about no single field.
	Field string

	// Reason says what is wrong, and what to do about it.
	Reason string

	// Err is the cause. Nil: there is no other error behind this one.
	Err error
}

// Error names the field, the reason and the cause.
func (e *ConfigError) Error() string {
	text := "flotilla: "
	switch e.Field {
	case "":
	case Domains:
		text += e.Field + ": "
	default:
		text += "Config." + e.Field + ": "
	}
	if text += e.Reason; e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns Err.
func (e *ConfigError) Unwrap() error { return e.Err }

// Edge returns the error of a public call: err behind a prefix that says what the call was doing.
// It returns nil for nil. It returns an err that wraps ErrClosed as it is.
func Edge(doing string, err error) error {
	if err == nil || errors.Is(err, net.ErrClosed) && errors.Is(err, ErrClosed) {
		return err
	}
	return fmt.Errorf("flotilla: %s: %w", doing, err)
}
