package flotilla

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
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
)

// errSlotsTaken says that the time that was meant for one queue is over.
var errSlotsTaken = errors.New("all slots for orders are taken")

// admit waits until the cluster may order one more certificate. What it returns takes the order back. An error means that ctx is over,
// or c closed. If the storage fails, or the slots do, it lets the order happen after a while: a limit is no reason to let
// certificates expire.
func (c *certs) admit(ctx context.Context) (release func(), err error) {
	n, window := certmagic.RateLimitEvents, certmagic.RateLimitEventsWindow
	if n <= 0 || window <= 0 {
		return func() {}, nil
	}
	if limit, ok := ctx.Value(limitKey{}).(*time.Timer); ok {
		limit.Stop() // a queue is not the fault of this try
		defer limit.Reset(orderLimit)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	slot, err := c.takeSlot(ctx, n, window)
	if err != nil {
		return nil, fmt.Errorf("waiting until the cluster may order one more certificate: %w", err)
	}
	if slot == "" {
		return func() {}, nil
	}
	back := make(chan struct{})
	c.tasks.run(func() { // if c is closed meanwhile, the slot ends with this node's session
		select {
		case <-time.After(window):
		case <-back:
		case <-c.life.Done():
		}
		ctx, cancel := context.WithTimeout(context.Background(), slotUnlock)
		defer cancel()
		if err := c.config.Storage.Unlock(ctx, slot); err != nil {
			c.log.Debug("slot for orders was not given back", "slot", slot, "error", err) // the storage goes on trying
		}
	})
	return sync.OnceFunc(func() { close(back) }), nil
}

// takeSlot returns the lock that it took; none if the order shall happen without.
func (c *certs) takeSlot(ctx context.Context, n int, window time.Duration) (string, error) {
	// The orders of one node wait here, first come first served, so that few wait in the cluster, and not for long.
	select {
	case c.front <- struct{}{}:
		defer func() { <-c.front }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	end := time.Now().Add(slotPatience + slotLimit*window)
	failing := time.Now() // since when nothing but failures were seen
	for {
		bounded, cancel := context.WithDeadline(ctx, end)
		slot, err := c.findSlot(bounded, n, window)
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
			c.log.Warn("a certificate is ordered without regard to the limit of the cluster", "error", err)
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
func (c *certs) findSlot(ctx context.Context, n int, window time.Duration) (string, error) {
	storage := c.config.Storage
	order := rand.Perm(n)
	if try, ok := storage.(certmagic.TryLocker); ok {
		for _, i := range order[:min(n, slotTries)] {
			if held, err := try.TryLock(ctx, slotName(i)); held || err != nil {
				return slotName(i), err
			}
		}
	}
	queue, cancel := context.WithTimeout(ctx, window/slotTurns)
	defer cancel()
	err := storage.Lock(queue, slotName(order[0]))
	if err != nil && queue.Err() != nil && ctx.Err() == nil {
		err = errSlotsTaken
	}
	return slotName(order[0]), err
}

func slotName(i int) string { return fmt.Sprintf("order_slot_%d", i) }
