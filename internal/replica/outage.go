package replica

import (
	"context"
	"log/slog"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// Outage ends this node's part in the cluster, for now or for good. The node goes on serving what
// it has in memory. Its methods are safe for concurrent use.
type Outage struct {
	trouble notify.Signal // the disk wants care

	log       *slog.Logger
	life      *lifecycle.Life
	group     *Group
	port      *wire.Port
	path      string // of the node's directory; empty: it has none
	loseLease func(cause error) uint64
	excuse    func(ctx context.Context)
}

// Fail ends this node's part in the cluster for good, for a reason that another attempt would not
// change. Only the first call has an effect.
func (o *Outage) Fail(err error) {
	if o.life.Works.Err() != nil {
		return
	}
	o.log.Error("this node can take no part in the cluster any more", "event", event.NodeFailed, "err", err)
	o.loseLease(err) // before others can think that this process is gone
	o.port.Transport().Stop()
	o.life.Break(err)
	o.life.Tasks.Go(func() { o.port.Close() }) // a port that refuses tells the others at once
	if r := o.group.Raft.Load(); r != nil {
		r.shutdown() // not waited for: raft may hang because of the very fault that is reported here
	}
	o.life.Changed.Notify()
}

// failSoon gives up the lease at once, and fails after a delay.
func (o *Outage) failSoon(err error, delay time.Duration) {
	o.loseLease(err)
	o.life.Tasks.Go(func() {
		select {
		case <-time.After(delay):
		case <-o.life.Works.Done():
		}
		o.Fail(err)
	})
}

// Interrupt ends this node's part in the cluster until DiskCare has mended what err reports. The
// node gives up its lease, and with it everything that it holds, at once.
func (o *Outage) Interrupt(err error) {
	if o.life.Works.Err() != nil {
		return
	}
	explained := o.Explain(err)
	old := o.life.Setback.Swap(&lifecycle.Setback{Err: explained})
	o.life.Setbacks.Add(1) // before the lease is lost: who waits for the loss compares the count
	if lost := o.loseLease(err); lost != 0 {
		o.life.LostSession.Store(lost)
	}
	o.port.Transport().Stop()
	if old == nil { // else the disk's care logs it
		o.log.Error("this node takes no part in the cluster now; it goes on serving what it has in memory, and tries again by itself", "event", event.DiskFailed, "err", explained)
	}
	o.life.Changed.Notify()
	o.trouble.Notify()
	o.life.Tasks.Go(func() { o.excuse(o.life.Works) })
}

// Explain adds the remedy to an error of the disk.
func (o *Outage) Explain(err error) error { return explain(err, o.path) }
