//go:build !linux

package fence

import (
	"net/netip"
	"time"
)

// Fence works on Linux only. Elsewhere Open returns an error.
type Fence struct{}

// Open returns ErrUnsupported.
func Open(string) (*Fence, error) { return nil, ErrUnsupported }

// Remove has nothing to remove.
func Remove(string) error { return nil }

// Guard returns ErrUnsupported.
func (*Fence) Guard(string, ...netip.Addr) error { return ErrUnsupported }

// Unguard returns ErrUnsupported.
func (*Fence) Unguard(...netip.Addr) error { return ErrUnsupported }

// Guarded returns no address.
func (*Fence) Guarded() []netip.Addr { return nil }

// Set returns ErrUnsupported.
func (*Fence) Set(State, time.Duration, ...netip.Addr) error { return ErrUnsupported }

// Extend returns ErrUnsupported.
func (*Fence) Extend(time.Time) error { return ErrUnsupported }

// Check returns ErrUnsupported.
func (*Fence) Check() error { return ErrUnsupported }

// Restore returns ErrUnsupported.
func (*Fence) Restore() error { return ErrUnsupported }

// Close returns nil.
func (*Fence) Close() error { return nil }
