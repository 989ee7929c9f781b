package vip

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/flotilla-ha/flotilla/internal/fence"
)

// Quiesce implements Place.
func (p *kernelPlace) Quiesce(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.bound || p.relay != nil {
		return nil
	}
	var err error
	if p.relay, err = p.link.Hold(p.addrs...); err != nil {
		return err
	}
	return machine.set(fence.Quiet, 0, p.addrs)
}

// Release implements Place. Without a fence the addresses go at once.
func (p *kernelPlace) Release(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.bound {
		return nil
	}
	p.bound = false
	machine.lapse(p)
	if machine.fenced() == nil {
		if err := p.remove(); err != nil {
			return err
		}
	} else if err := machine.set(fence.Muted, 2*releaseTime, p.addrs); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), releaseTime)
	relay, done := p.relay, make(chan struct{})
	p.relay, p.released, p.cancel = nil, done, cancel
	go func() {
		defer close(done)
		defer cancel()
		if relay != nil {
			if relay.Await(ctx) == nil {
				select {
				case <-time.After(tailTime):
				case <-ctx.Done():
				}
			}
			s := relay.Stats()
			p.unit.Log.Debug("passed connection attempts on to the next owner", "kept", s.Kept, "forwarded", s.Forwarded, "lost", s.Lost)
			relay.Close()
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.bound {
			p.away()
		}
	}()
	return nil
}

// endRelease ends what Release began, and leaves the addresses to the caller.
func (p *kernelPlace) endRelease() {
	p.mu.Lock()
	released, cancel := p.released, p.cancel
	p.released, p.cancel = nil, nil
	p.mu.Unlock()
	if released != nil {
		cancel()
		<-released
	}
}

// Unbind implements Place.
func (p *kernelPlace) Unbind() error {
	p.mu.Lock()
	p.bound = false
	machine.lapse(p)
	if p.relay != nil {
		p.relay.Close()
		p.relay = nil
	}
	err := p.away()
	p.mu.Unlock()
	p.endRelease()
	return err
}

// away silences the addresses and takes them out of the kernel. mu is held.
func (p *kernelPlace) away() error {
	machine.mu.Lock()
	there := len(p.placed) > 0
	machine.mu.Unlock()
	if !there {
		return nil
	}
	silent := machine.set(fence.Closed, 0, p.addrs)
	if errors.Is(silent, fence.ErrNotGuarded) {
		silent = nil
	}
	err := p.remove()
	// Nothing else silences them without a fence, and whoever calls gives the role up next.
	for machine.fenced() == nil && err != nil && time.Now().Before(machine.gone()) {
		time.Sleep(removeEvery)
		err = p.remove()
	}
	if err != nil {
		return errors.Join(err, silent) // the guard keeps them in mind
	}
	machine.place(p, nil)
	return silent
}

// remove takes the addresses out of the kernel. mu is held.
func (p *kernelPlace) remove() error {
	machine.live(p, false)
	var errs []error
	for _, a := range p.addrs {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
		if err := netlink.AddrDel(onLink(p.on), addr); err != nil && !gone(err) {
			errs = append(errs, p.on.refused("remove", a, err))
		}
	}
	return errors.Join(errs...)
}

// Close implements Place.
func (p *kernelPlace) Close() error {
	p.mu.Lock()
	released := p.released
	p.mu.Unlock()
	if released != nil {
		<-released
	}
	err := p.Unbind()
	if f := machine.fenced(); f != nil && err == nil { // what could not be taken away stays fenced
		if e := f.Unguard(p.addrs...); e != nil && !errors.Is(e, fence.ErrNotGuarded) {
			err = errors.Join(err, e)
		}
	}
	p.mu.Lock()
	p.unlink()
	p.mu.Unlock()
	if e := machine.close(p); e != nil && !strings.Contains(e.Error(), net.ErrClosed.Error()) {
		err = errors.Join(err, e)
	}
	return err
}
