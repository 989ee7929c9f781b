package guard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

const (
	// MaxNotices is the largest size of all death notices together, in bytes.
	MaxNotices = 64 << 10
	// MaxAddrs is how many addresses a guard takes.
	MaxAddrs = 1024

	maxTable = 255 // bytes in the name of an nftables table
)

// Duty is what a guard is for.
type Duty string

const (
	// Notices is the duty to send death notices. It needs no permission.
	Notices Duty = "notices"
	// Addresses is the duty to remove addresses too. It needs what Hooks.Prepare asks for.
	Addresses Duty = "addresses"
)

var (
	// ErrDown means that no guard runs at the moment. The next guard is given what this one was
	// not.
	ErrDown = errors.New("the guard is not running")
	// ErrClosed is the error of a Guard that has been closed.
	ErrClosed = errors.New("the guard has been closed")
)

// Addr is an address on an interface.
type Addr struct {
	// Index is the interface's.
	Index int
	// Prefix is the address with its prefix length in the kernel, usually /32 or /128.
	Prefix netip.Prefix
}

// check returns what is wrong with a.
func (a Addr) check() error {
	switch {
	case a.Index <= 0 || a.Index > 1<<31-1:
		return fmt.Errorf("address %v: there is no interface %d", a.Prefix, a.Index)
	case !a.Prefix.IsValid():
		return errors.New("an address is not valid")
	case a.Prefix.Addr().Is4In6():
		return fmt.Errorf("address %v: IPv4 within IPv6 is not an address of an interface", a.Prefix)
	}
	return nil
}

// Hooks are what a guard does. They are called in the guard's process, from one goroutine. Rehearse
// has its own, and so has SendNotice for each death notice.
type Hooks struct {
	// Prepare is called once, before the others. An error means that this guard cannot work. If it
	// is nil, there is nothing to prepare.
	Prepare func() error

	// Remove removes addresses. An address that is not there is not an error, and one that cannot
	// be removed does not stop the removal of the others. Remove is called again with all of them
	// until it returns nil. If it is nil, the guard takes no addresses.
	Remove func(addrs []Addr) error

	// RemoveTable removes an nftables table. A table that is not there is not an error. If it is
	// nil, tables stay.
	RemoveTable func(name string) error

	// SendNotice reports the program's death to the cluster. It is called again until it returns
	// nil, for about 10 s. If it is nil, death notices are not sent.
	SendNotice func(ctx context.Context, notice []byte) error

	// Rehearse does what SendNotice will do, as far as that has no effect. It is called once, a
	// moment after the guard has been given a death notice. A process needs some milliseconds more
	// for what it does for the first time. If it is nil, nothing is rehearsed.
	Rehearse func(ctx context.Context, notice []byte)
}
