package vip

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla/internal/fence"
)

// How often the fence is checked. The kernel would announce what others do to it, but also each of
// our own extensions, and those are far more frequent. So the fence is checked together with one of
// them. A fence without addresses is checked more rarely. Nothing depends on it, and the next
// address restores it.
const (
	checkEvery = 2 * time.Second
	checkEmpty = 10 * time.Second
)

// table is this program's table of nftables: its fence. Where the kernel has no nftables there is
// no fence, and the methods do nothing.
type table struct {
	name  string
	owner net.Listener // its existence says that the table's program lives
	fence *fence.Fence // nil: the kernel cannot
	look  chan struct{}
	last  atomic.Int64 // when the fence was last checked, in nanoseconds since made
	made  time.Time

	unfenced error // why there is no fence
}

// openTable makes the table, after it has removed what dead programs have left.
func openTable(log *slog.Logger) (*table, error) {
	var id [6]byte
	rand.Read(id[:])
	name := hex.EncodeToString(id[:])
	owner, err := net.Listen("unix", ownerSocket(name))
	if err != nil {
		return nil, fmt.Errorf("the socket of the table's owner: %w", err)
	}
	sweep(log)
	f, err := fence.Open(name)
	return &table{name: name, owner: owner, fence: f, unfenced: err, look: make(chan struct{}, 1), made: time.Now()}, nil
}

// ownerSocket returns the name of the abstract socket on which the owner of a table listens. It
// belongs to the network namespace, as the table does.
func ownerSocket(table string) string { return "@flotilla-vip/" + table }

// sweep removes what programs have left that died along with their guards. It removes their
// addresses before their tables, because only the tables keep the addresses silent.
func sweep(log *slog.Logger) {
	names, err := fence.Names()
	if err != nil {
		return // fence.Open reports it
	}
	for _, name := range names {
		if owned(name) {
			continue
		}
		f, err := fence.Open(name)
		if err == nil {
			err = removeLeft(f.Guarded(), log)
			if err == nil { // else the table has to keep them silent
				err = f.Close()
			}
		}
		if err != nil {
			log.Warn("what a dead program has left of its floating addresses could not be removed",
				"table", name, "err", err)
		}
	}
}

// owned reports whether the program of a table lives, or may live.
func owned(table string) bool {
	c, err := net.Dial("unix", ownerSocket(table))
	if err == nil {
		c.Close()
	}
	return !errors.Is(err, syscall.ECONNREFUSED)
}

// fenced reports whether there is a fence.
func (t *table) fenced() bool { return t.fence != nil }

// removable returns the name of the table, for the guard to remove; empty without a fence.
func (t *table) removable() string {
	if t.fence == nil {
		return ""
	}
	return t.name
}

// guard closes addresses on an interface, until set says otherwise.
func (t *table) guard(ifname string, addrs []netip.Addr) error {
	if t.fence == nil {
		return nil
	}
	return t.fence.Guard(ifname, addrs...)
}

// unguard removes addresses from the fence. Everything passes for them then.
func (t *table) unguard(addrs []netip.Addr) error {
	if t.fence == nil {
		return nil
	}
	if err := t.fence.Unguard(addrs...); !errors.Is(err, fence.ErrNotGuarded) {
		return err
	}
	return nil
}

// set says what passes for addresses while the lease lasts.
func (t *table) set(state fence.State, limit time.Duration, addrs []netip.Addr) error {
	return t.restored(func() error { return t.fence.Set(state, limit, addrs...) })
}

// extend says until when the lease lasts.
func (t *table) extend(until time.Time) error {
	if time.Since(t.made)-time.Duration(t.last.Load()) >= checkEvery {
		t.checkNow()
	}
	return t.restored(func() error { return t.fence.Extend(until) })
}

// restored does something to the fence. If somebody has flushed it, restored restores it and tries
// once more.
func (t *table) restored(f func() error) error {
	if t.fence == nil {
		return nil
	}
	err := f()
	if errors.Is(err, fence.ErrTampered) {
		if err = t.fence.Restore(); err == nil {
			err = f()
		}
	}
	return err
}

// checkNow makes maintain check the fence now.
func (t *table) checkNow() {
	select {
	case t.look <- struct{}{}:
	default:
	}
}

// maintain restores the fence when somebody has flushed it or an interface has another name. It
// calls after each time it has checked. It returns when ctx ends, or at once without a fence.
func (t *table) maintain(ctx context.Context, after func(), log *slog.Logger) {
	if t.fence == nil {
		return
	}
	reported := "" // an interface may be missing for long
	for {
		select {
		case <-time.After(checkEmpty):
		case <-t.look:
		case <-ctx.Done():
			return
		}
		t.last.Store(int64(time.Since(t.made)))
		err := t.fence.Check()
		if errors.Is(err, fence.ErrTampered) {
			if what := err.Error(); what != reported {
				reported = what
				log.Warn("the fence of the floating addresses, or an interface, has been changed; the fence is restored",
					"what", err)
			}
			err = t.fence.Restore()
		} else if err == nil {
			reported = ""
		}
		if err != nil && ctx.Err() == nil {
			log.Error("the fence of the floating addresses cannot be restored; "+
				"if this machine stands still now, they may be seen after the lease", "err", err)
		}
		after()
	}
}

// close removes the table, unless addresses are left that it has to keep silent. The next program
// removes both then.
func (t *table) close(left bool) error {
	var err error
	if t.fence != nil && !left {
		err = t.fence.Close()
	}
	return errors.Join(err, t.owner.Close())
}
