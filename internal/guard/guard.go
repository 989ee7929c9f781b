package guard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

const (
	// MaxWill is how many bytes a will may have.
	MaxWill = 64 << 10
	// MaxAddrs is how many addresses a guard takes.
	MaxAddrs = 1024

	maxTable = 255 // bytes in a table's name, as nftables has it

	finalTime   = 10 * time.Second // for each of the two things that a guard retries once its program is dead
	attemptTime = 3 * time.Second  // for one attempt at the will
)

var (
	// ErrDown is the error when there is no guard at the moment. What it was given is kept and told to the next one.
	ErrDown = errors.New("the guard is not running")
	// ErrClosed is the error of a Guard that has been closed.
	ErrClosed = errors.New("the guard has been closed")
)

// Addr is an address on an interface.
type Addr struct {
	// Index is the interface's.
	Index int
	// Prefix is the address and its length as they were put there, usually /32 or /128.
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

// Hooks are what a guard does. They are called in the guard's process, from one goroutine.
type Hooks struct {
	// Remove removes addresses. One that is not there is no error, and one that cannot be removed does not keep it from the others. It is called again
	// with all of them until it returns nil. Nil: by netlink.
	Remove func(addrs []Addr) error

	// RemoveTable removes an nftables table; that it is not there is no error. Nil: tables are left.
	RemoveTable func(name string) error

	// Execute tells the cluster that the program is dead. It is called again until it returns nil, for about 10 s. Nil: wills are ignored.
	Execute func(ctx context.Context, will []byte) error
}

// estate is what a guard is there to remove and to tell.
type estate struct {
	addrs []Addr
	table string
	will  []byte
}

// settle does all that is done when the program is dead. The will is executed only if the addresses are gone: it lets the next owner in. The table
// comes last: it does no harm, and the kernel takes some hundredths of a second to remove it.
// say is given sentences for people. It reports whether the addresses are gone.
func (h Hooks) settle(e estate, say func(format string, args ...any)) bool {
	if len(e.addrs) > 0 {
		var said string
		err := retry(time.Millisecond, 50*time.Millisecond, func(context.Context) error {
			err := h.Remove(e.addrs)
			if err != nil && err.Error() != said {
				said = err.Error()
				say("addresses are not removed yet: %v", err)
			}
			return err
		})
		if err != nil {
			say("giving up; the kernel removes the addresses when their lifetimes end, and the cluster learns of the program's death when its lease has")
			return false
		}
	}
	if len(e.will) > 0 && h.Execute != nil {
		err := retry(50*time.Millisecond, time.Second, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, attemptTime)
			defer cancel()
			return h.Execute(ctx, e.will)
		})
		if err != nil {
			say("the cluster could not be told that the program is dead; it learns of it when the lease ends: %v", err)
		}
	}
	if e.table != "" && h.RemoveTable != nil {
		if err := h.RemoveTable(e.table); err != nil {
			say("table %s is left behind: %v", e.table, err)
		}
	}
	return true
}

// retry calls f until it returns nil, with pauses that grow from the first to the longest, and gives up after finalTime.
func retry(pause, longest time.Duration, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), finalTime)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
		pause = min(2*pause, longest)
	}
}
