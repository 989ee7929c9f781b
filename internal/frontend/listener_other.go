//go:build !linux

package frontend

import (
	"errors"
	"net"
)

// We know of no way, on other systems, to refuse new connections while completed ones are still
// accepted. Closing a listener there may reset a connection of the last moment, and Listener.drain
// does nothing.

func dropSYN(*net.TCPListener) error { return errors.ErrUnsupported }

func acceptQueue(*net.TCPListener) (int, error) { return 0, errors.ErrUnsupported }

func halfOpen(*net.TCPListener) (int, error) { return 0, errors.ErrUnsupported }
