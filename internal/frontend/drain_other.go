//go:build !linux

package frontend

import (
	"errors"
	"net"
)

// Other systems have no way known to us of refusing new connections while the completed ones are still accepted: closing a
// listener there may reset a connection that was made in the last moment. drain does nothing.

func dropSYN(*net.TCPListener) error { return errors.ErrUnsupported }

func acceptQueue(*net.TCPListener) (int, error) { return 0, errors.ErrUnsupported }

func halfOpen(*net.TCPListener) (int, error) { return 0, errors.ErrUnsupported }
