package certs

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

// How the cluster keeps to certmagic's limit of orders, which certmagic itself keeps to in each process: with as many locks as there may
// be orders in a window. An order takes one that is free, and its node keeps it for the length of the window. So orders that had the
// same lock are a window apart, by the clock of the node that had it first, and no window sees more orders than there are locks. A
// node that dies, or closes, frees its locks early; that is the price of having no clock to agree on.

const (
	slotPatience = time.Minute     // how long orders wait when the storage fails
	slotTurns    = 10              // so often in a window another slot is looked for, when one before us in the queue has taken ours
	slotLimit    = 20              // so many windows in all, then something is wrong with the slots
	slotTries    = 16              // slots that are tried at most before one is waited for
	slotPause    = time.Second     // after a failure
	slotUnlock   = 5 * time.Second // for giving one back

	demandWindows = 60 // windows of certmagic's are one of names on demand: ten orders in ten minutes
)

// errSlotsTaken says that the time that was meant for one queue is over.
var errSlotsTaken = errors.New("all slots for orders are taken")

// admit waits until the cluster may order one more certificate. What it returns takes the order back. An error means that ctx is over,
// or c closed. If the storage fails, or the slots do, it lets the order happen after a while: a limit is no reason to let
// certificates expire.
func (c *Certs) admit(ctx context.Context, demand bool) (release func(), err error) {
	b := c.budget(demand)
	if b.n <= 0 || b.window <= 0 {
		return func() {}, nil
	}
	if a, ok := ctx.Value(attemptKey{}).(attempt); ok && a.limit != nil {
		a.limit.Stop() // a queue is not the fault of this try
		defer a.limit.Reset(orderLimit)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	slot, err := c.takeSlot(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("waiting until the cluster may order one more certificate: %w", err)
	}
	if slot == "" {
		return func() {}, nil
	}
	back := make(chan struct{})
	c.tasks.Go(func() { // if c is closed meanwhile, the slot ends with this node's session
		select {
		case <-time.After(b.window):
		case <-back:
		case <-c.life.Done():
		}
		ctx, cancel := context.WithTimeout(context.Background(), slotUnlock)
		defer cancel()
		if err := c.config.Storage.Unlock(ctx, slot); err != nil {
			c.Log.Debug("slot for orders was not given back", "slot", slot, "error", err) // the storage goes on trying
		}
	})
	return sync.OnceFunc(func() { close(back) }), nil
}

// takeSlot returns the lock that it took; none if the order shall happen without.
func (c *Certs) takeSlot(ctx context.Context, b orderBudget) (string, error) {
	// The orders of one node wait here, first come first served, so that few wait in the cluster, and not for long.
	select {
	case b.front <- struct{}{}:
		defer func() { <-b.front }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	end := time.Now().Add(slotPatience + slotLimit*b.window)
	failing := time.Now() // since when nothing but failures were seen
	for {
		bounded, cancel := context.WithDeadline(ctx, end)
		slot, err := c.findSlot(bounded, b)
		cancel()
		if err == nil {
			return slot, nil
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		taken := errors.Is(err, errSlotsTaken)
		if taken {
			failing = time.Now()
		}
		if time.Since(failing) >= slotPatience || !time.Now().Before(end) {
			c.Log.Warn("a certificate is ordered without regard to the limit of the cluster", "error", err)
			return "", nil
		}
		if taken {
			continue
		}
		select {
		case <-time.After(slotPause):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// findSlot takes one that is free, or else waits for one.
func (c *Certs) findSlot(ctx context.Context, b orderBudget) (string, error) {
	storage := c.config.Storage
	order := rand.Perm(b.n)
	if try, ok := storage.(certmagic.TryLocker); ok {
		for _, i := range order[:min(b.n, slotTries)] {
			if held, err := try.TryLock(ctx, b.slot(i)); held || err != nil {
				return b.slot(i), err
			}
		}
	}
	queue, cancel := context.WithTimeout(ctx, b.window/slotTurns)
	defer cancel()
	err := storage.Lock(queue, b.slot(order[0]))
	if err != nil && queue.Err() != nil && ctx.Err() == nil {
		err = errSlotsTaken
	}
	return b.slot(order[0]), err
}

// orderBudget is how many orders of a kind the cluster places in a window.
type orderBudget struct {
	n      int
	window time.Duration
	slot   func(i int) string // the locks
	front  chan struct{}      // holds one element while an order of this node waits for a slot
}

// budget returns what there is for declared names, or for those on demand, which may be many: they get no more than the slots of
// their own, in a longer window, so that the authority's limit for the account is not theirs alone.
func (c *Certs) budget(demand bool) orderBudget {
	b := orderBudget{certmagic.RateLimitEvents, certmagic.RateLimitEventsWindow, slotName, c.front}
	if demand {
		b.window *= demandWindows
		b.slot, b.front = demandSlotName, c.demandFront
	}
	return b
}

func slotName(i int) string { return fmt.Sprint(keyspace.SlotLock, i) }

func demandSlotName(i int) string { return fmt.Sprint(keyspace.SlotLock, "demand_", i) }

// obtaining looks, under the lock of the name, whether an order for it may be placed, and waits for its turn if the orders are limited.
// What it returns takes the order back.
func (c *Certs) obtaining(ctx context.Context, name string, limited bool) (release func(), err error) {
	a, _ := ctx.Value(attemptKey{}).(attempt)
	if err := c.mayOrder(name, a.led); err != nil {
		return nil, err
	}
	demand := c.isDemanded(name)
	if demand && !a.demand {
		if err := c.renewable(ctx, name); err != nil {
			return nil, err
		}
	}
	if err := c.mendAccounts(ctx); err != nil {
		return nil, err
	}
	release = func() {}
	if limited {
		if release, err = c.admit(ctx, demand); err != nil {
			return nil, err
		}
		if err := c.mayOrder(name, a.led); err != nil { // others have learned something meanwhile
			release()
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.before[name] = c.refusals.Load()
	return release, nil
}

// failed takes down, for all nodes, that an order for name was refused. When an authority cannot be reached from here another node may
// be luckier, and nothing is taken down.
func (c *Certs) failed(ctx context.Context, name string, err error) {
	c.noteStale(name, fmt.Errorf("there is no newer certificate: %w", err))
	defer c.takeOver(ctx, name)
	c.mu.Lock()
	heard := c.refusals.Load() > c.before[name]
	delete(c.before, name)
	c.mu.Unlock()
	if errors.As(err, new(*backoff.Error)) && !backoff.Refused(err) || !heard && !backoff.Refused(err) {
		return
	}
	a, _ := ctx.Value(attemptKey{}).(attempt)
	c.pauses.Fail(ctx, name, err, a.lead.away != nil, a.lead.stranger, a.led)
}

// takeOver has this node try by itself when certmagic did not renew the certificate of name, once it has expired: certmagic's own tries
// may be hours apart by then.
func (c *Certs) takeOver(ctx context.Context, name string) {
	if a, ours := ctx.Value(attemptKey{}).(attempt); ours && a.limit != nil {
		return
	}
	found := c.matching(name)
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.names[name]
	if m == nil || m.waits || len(found) == 0 {
		return
	}
	m.waits = true
	end := time.Until(found[0].Leaf.NotAfter) + 2*time.Second + rand.N(backoff.RetryFirst) // certmagic lets it live a second longer
	c.tasks.Go(func() {
		select {
		case <-time.After(end):
		case <-c.life.Done():
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		m.waits = false
		c.start(name) // which finds out whether there is a newer one
	})
}

// obtained takes down that an order for name has not failed, unless nobody can use the certificate.
func (c *Certs) obtained(ctx context.Context, name, place string) {
	c.mu.Lock()
	delete(c.before, name)
	c.mu.Unlock()
	text, err := c.config.Storage.Load(ctx, place)
	if block, _ := pem.Decode(text); err == nil && block != nil {
		leaf, err := x509.ParseCertificate(block.Bytes)
		if now := c.Clocks.Now(); err == nil && (now.After(leaf.NotAfter) || now.Before(leaf.NotBefore.Add(-clocks.Tolerance))) {
			c.Log.Error("the authority's new certificate is not valid by this node's clock; one of the two clocks is wrong",
				"domain", name, "from", leaf.NotBefore, "until", leaf.NotAfter, "now", now)
			c.pauses.Fail(ctx, name, errNotValid, false, true, false)
			return
		}
	}
	c.pauses.Drop(ctx, backoff.OfName(name))
}
