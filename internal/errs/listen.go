package errs

import (
	"errors"
	"syscall"
)

// ListenRemedy returns the remedy for a listener's error, to be appended to a message that ends
// with the address. It is empty for an error whose remedy is not known.
func ListenRemedy(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return ", where another process listens; stop it, or choose another address"
	case errors.Is(err, syscall.EACCES):
		return ": ports below 1024 need the right to bind them, as by AmbientCapabilities=CAP_NET_BIND_SERVICE of systemd"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return ", which is not an address of this machine"
	}
	return ""
}
