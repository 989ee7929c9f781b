package vip

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// drainer disconnects the clients of the addresses.
type drainer struct {
	addrs []netip.Prefix
	do    func(ctx context.Context, addr netip.Addr) error // Config.Drain; may be nil
	log   *slog.Logger
}

// drain disconnects the clients of all addresses within limit. With limit 0 it closes their
// connections at once.
func (d *drainer) drain(ctx context.Context, limit time.Duration) {
	if d.do == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var all sync.WaitGroup
	for _, a := range d.addrs {
		all.Go(func() {
			if err := d.do(ctx, a.Addr()); err != nil && ctx.Err() == nil {
				d.log.Warn("clients of a floating address were not drained", "addr", a.Addr(), "err", err)
			}
		})
	}
	all.Wait()
}
