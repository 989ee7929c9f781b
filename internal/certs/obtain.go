package certs

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
	"github.com/flotilla-ha/flotilla/internal/certs/probe"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/notify"
)

const (
	// between looks into the storage while a try is due: another node may succeed
	lookInterval = 5 * time.Second

	// orderJitter is the longest pause before an order: nodes that start together must not all want
	// the lock of a name.
	orderJitter = 250 * time.Millisecond
	// deleteSettle is added if the certificate was deleted: certmagic deletes its parts one by one.
	deleteSettle = time.Second
)

// errOtherName means that a certificate is stored in the wrong place.
var errOtherName = errors.New("the stored certificate is for another name")

// obtainer gets certificates for declared names. It has a goroutine for each name without one. Its
// methods are safe for concurrent use.
type obtainer struct {
	loader     *loader
	orders     *orderer
	prober     *probe.Prober
	ready      func(context.Context) error
	awaitPeers func(context.Context)
	log        *slog.Logger

	life  context.Context
	work  sync.WaitGroup // a goroutine for each name that has no certificate
	tasks notify.Tasks   // renewals to take over

	mu     sync.Mutex
	jobs   map[string]*job
	closed bool
}

// job is the work for one name.
type job struct {
	running bool
	again   bool // it must look once more before it ends
	waits   bool // takeOver waits for the certificate to expire
}

// job returns the job of a name. o.mu is held.
func (o *obtainer) job(name string) *job {
	j := o.jobs[name]
	if j == nil {
		j = new(job)
		o.jobs[name] = j
	}
	return j
}

// start has a certificate obtained for name. A job that runs already looks once more before it
// ends.
func (o *obtainer) start(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	j := o.job(name)
	if j.running || o.closed {
		j.again = true
		return
	}
	j.running = true
	o.work.Go(func() { o.run(o.life, name) })
}

// finish reports whether the job of name has nothing left to do.
func (o *obtainer) finish(name string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	j := o.job(name)
	j.running, j.again = j.again, false
	return !j.running
}

// close lets no other job start and waits for those that run. life must be over.
func (o *obtainer) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.work.Wait()
	o.tasks.Close()
}

// tried records how a try for name ended.
func (o *obtainer) tried(name string, err error) {
	o.loader.names.tried(name, err, len(o.loader.matching(name)) > 0)
}

// run tries until name has a certificate; from then on certmagic renews it. certmagic's own retries
// are not used: they keep the cluster-wide lock of the name for up to 30 days, and do not happen at
// all when the storage fails. If several nodes try at once, one gets the lock, and the others find
// its certificate in the storage.
//
// What the storage has is served first, even without a leader. An order that fails is followed by a
// quick one, unless the name leads to another machine, and then by slow ones, whichever nodes place
// them. A slow one is brought forward when the name leads here.
func (o *obtainer) run(ctx context.Context, name string) {
	if o.loader.refresh(ctx, name) == nil && o.loader.serves(name) {
		o.tried(name, nil)
	}
	var pauses retries
	led, failed := false, false
	for {
		lead, ordered, err := o.try(ctx, name, led)
		if ctx.Err() != nil {
			return
		}
		o.tried(name, lead.Explain(err))
		if err == nil {
			switch {
			case failed && !ordered:
				o.tellOther(name)
			case !ordered: // else a line tells that it was obtained
				o.log.Info("certificate is being served", "domain", name)
			}
			if o.finish(name) {
				return
			}
			pauses, failed = retries{}, false
			continue
		}
		failed = true
		pause := o.pause(name, err, pauses.next(lead))
		o.loader.names.scheduled(name, time.Now().Add(pause))
		o.complain(name, lead.Explain(err), pause, ordered)
		var leads func(context.Context) bool
		if led = false; !lead.Here && time.Since(pauses.led) > backoff.RetryLed {
			looks := o.prober.Watch(name, func(l probe.Lead) { o.tried(name, l.Explain(err)) })
			leads = func(ctx context.Context) bool {
				if looks(ctx) {
					led, pauses.led = true, time.Now()
				}
				return led
			}
		}
		if o.await(ctx, name, pause, leads) {
			o.tried(name, nil)
			o.tellOther(name)
			if o.finish(name) {
				return
			}
			pauses, failed = retries{}, false
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// tellOther logs that another node has done what this one could not.
func (o *obtainer) tellOther(name string) {
	o.log.Info("certificate of another node is being served", "event", event.CertificateServed, "domain", name)
}

// pause returns how long to pause after err. wait is the pause after a failure of storage or
// network.
func (o *obtainer) pause(name string, err error, wait time.Duration) time.Duration {
	pause := wait/2 + rand.N(wait) // nodes that failed together must not try again together
	x, left := o.orders.backoff.Get(backoff.OfName(name))
	if errors.As(err, new(*backoff.Error)) || left > 0 && x.Failures > 0 {
		if p := o.orders.backoff.For(name, o.loader.config.Issuers, false); p != nil {
			// it holds for the cluster
			pause = time.Until(p.Until) + time.Second + rand.N(backoff.RetryFirst)
		}
	} else if errors.As(err, new(*clocks.Error)) {
		pause = backoff.RetryLimit/2 + rand.N(backoff.RetryLimit)
	}
	return pause
}

// complain logs why name has no certificate, the reason of a pause only once. It is an event if an
// order was placed, and the reason is new.
func (o *obtainer) complain(name string, err error, pause time.Duration, ordered bool) {
	text := err.Error()
	paused := (*backoff.Error)(nil)
	if errors.As(err, &paused) {
		text = paused.Why
	}
	again := o.loader.names.logs(name, text)
	switch {
	case again && paused != nil:
		o.log.Debug("no certificate; will try again", "domain", name, "error", err, "in", pause)
	case again || !ordered:
		o.log.Warn("no certificate; will try again", "domain", name, "error", err, "in", pause)
	default:
		o.log.Warn("no certificate; will try again", "event", event.OrderRefused, "domain", name, "error", err, "in", pause)
	}
}

// try makes one attempt to load or order the certificate of name. It orders nothing if the storage
// has a valid one: certmagic renews that when it is due. It returns where the name led before an
// order, and whether this node placed one.
func (o *obtainer) try(ctx context.Context, name string, led bool) (lead probe.Lead, ordered bool, err error) {
	if err := o.ready(ctx); err != nil {
		return probe.Lead{}, false, err
	}
	again := len(o.loader.matching(name)) > 0
	err = o.loader.refresh(ctx, name)
	if err == nil && len(o.loader.matching(name)) == 0 {
		err = errOtherName
	}
	switch {
	case err == nil && o.loader.serves(name):
		return probe.Lead{}, false, nil
	case errors.Is(err, fs.ErrNotExist):
		if !o.loader.isLocal() {
			o.loader.names.absent(name)
		}
	case err != nil:
		if err := o.orders.quarantine.Certificate(ctx, name, err); err != nil {
			return probe.Lead{}, false, err
		}
	}
	if err := o.orders.mayOrder(name, led); err != nil {
		return probe.Lead{}, false, err
	}
	pause := rand.N(orderJitter)
	if o.loader.serves(name) {
		pause += deleteSettle
	}
	select {
	case <-ctx.Done():
		return probe.Lead{}, false, ctx.Err()
	case <-time.After(pause):
	}
	sought := make(chan probe.Lead, 1)
	go func() { sought <- o.prober.Seek(ctx, name) }()
	o.awaitPeers(ctx)
	lead = <-sought
	a := attempt{lead: lead, led: led, again: again, placed: new(*placedOrder)}
	if err := o.orders.order(ctx, name, false, a); err != nil {
		return lead, *a.placed != nil, err
	}
	if err := o.loader.refresh(ctx, name); err != nil {
		return lead, *a.placed != nil, err
	}
	if !o.loader.serves(name) {
		return lead, *a.placed != nil, errNotValid
	}
	return lead, *a.placed != nil, nil
}

// await waits until the storage has a certificate for name, and reports whether it does. It gives
// up after d, or when led, if not nil, returns true.
func (o *obtainer) await(ctx context.Context, name string, d time.Duration, led func(context.Context) bool) bool {
	keys := o.loader.keys(name)
	for end := time.Now().Add(d); ; {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(min(time.Until(end), lookInterval)):
		}
		// Looking alone is cheap, and names without a certificate may be many.
		has, err := o.loader.anyStored(ctx, keys)
		if (has || err != nil) && o.loader.refresh(ctx, name) == nil && o.loader.serves(name) {
			return true
		}
		if !time.Now().Before(end) || led != nil && led(ctx) {
			return false
		}
	}
}

// takeOver has this node obtain a certificate itself once the present one has expired, if certmagic
// could not renew it: its tries may be hours apart by then. ctx is that of the failed order.
func (o *obtainer) takeOver(ctx context.Context, name string) {
	if attemptOf(ctx).limit != nil {
		return // the order is not certmagic's
	}
	found := o.loader.matching(name)
	if len(found) == 0 || !o.loader.names.isDeclared(name) {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	j := o.job(name)
	if j.waits {
		return
	}
	j.waits = true
	// certmagic lets a certificate live a second longer.
	end := time.Until(found[0].Leaf.NotAfter) + 2*time.Second + rand.N(backoff.RetryFirst)
	o.tasks.Go(func() {
		select {
		case <-time.After(end):
		case <-o.life.Done():
		}
		o.mu.Lock()
		j.waits = false
		o.mu.Unlock()
		o.start(name) // which finds out whether there is a newer one
	})
}

// retries are the pauses between the tries for one name, after failures of the storage or the
// network. The zero value comes before the first failure.
type retries struct {
	quick int           // how many were short
	slow  time.Duration // the last long one
	led   time.Time     // when the last was cut short because the name leads here now
}

// next returns about how long to pause while the name leads where l says.
func (r *retries) next(l probe.Lead) time.Duration {
	if l.Stranger {
		r.slow = min(max(2*r.slow, backoff.RetrySlow), backoff.RetryLast)
		return r.slow
	}
	r.quick++
	return min(backoff.RetryFirst<<min(r.quick-1, 10), backoff.RetryLimit)
}
