package slots

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/notify"
)

// Limits of waiting.
const (
	StorageWait = time.Minute // how long an order waits while the storage fails
	// windows that an order waits at most; after these something is wrong with the slots
	MaxWindows = 20
	Pause      = time.Second // after a failure

	// looks for another slot, if another order in the queue has taken this one
	looksPerWindow = 10
	maxTries       = 16              // slots that are tried before one is waited for
	unlockTimeout  = 5 * time.Second // for giving one back

	// a window of names on demand is this many of certmagic's: ten orders in ten minutes
	demandWindows = 60
)

// errTaken means that the time for one queue is over.
var errTaken = errors.New("all slots for orders are taken")

// Slots limits the orders of a cluster. Its methods are safe for concurrent use.
type Slots struct {
	storage          certmagic.Storage
	log              *slog.Logger
	declared, demand chan struct{} // holds an element while an order of this node waits for a slot

	life  context.Context // ends with Close
	end   context.CancelFunc
	tasks notify.Tasks // slots that are kept for a window
}

// New returns slots whose locks are in storage.
func New(storage certmagic.Storage, log *slog.Logger) *Slots {
	s := &Slots{storage: storage, log: log, declared: make(chan struct{}, 1), demand: make(chan struct{}, 1)}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// Close gives all slots back and waits until that is done.
func (s *Slots) Close() {
	s.end()
	s.tasks.Close()
}

// Acquire waits until the cluster may place one more order, for a name on demand or a declared one.
// release takes the order back. An error means that ctx is over or s is closed. If the storage or
// the slots fail for too long, the order is allowed without a slot, and logged.
func (s *Slots) Acquire(ctx context.Context, demand bool) (release func(), err error) {
	b := s.budget(demand)
	if b.n <= 0 || b.window <= 0 {
		return func() {}, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	slot, err := s.take(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("waiting until the cluster may order one more certificate: %w", err)
	}
	if slot == "" {
		return func() {}, nil
	}
	back := make(chan struct{})
	s.tasks.Go(func() { // if s is closed meanwhile, the slot ends with this node's session
		select {
		case <-time.After(b.window):
		case <-back:
		case <-s.life.Done():
		}
		ctx, cancel := context.WithTimeout(context.Background(), unlockTimeout)
		defer cancel()
		if err := s.storage.Unlock(ctx, slot); err != nil {
			// the storage goes on trying
			s.log.Debug("slot for orders was not given back", "slot", slot, "error", err)
		}
	})
	return sync.OnceFunc(func() { close(back) }), nil
}

// take returns the lock that it took, empty if the order is to happen without one.
func (s *Slots) take(ctx context.Context, b budget) (string, error) {
	// The orders of one node queue here, first come first served. So only a few wait in the
	// cluster, and these not for long.
	select {
	case b.front <- struct{}{}:
		defer func() { <-b.front }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	end := time.Now().Add(StorageWait + MaxWindows*b.window)
	failing := time.Now() // since when there were only failures
	for {
		bounded, cancel := context.WithDeadline(ctx, end)
		slot, err := s.find(bounded, b)
		cancel()
		if err == nil {
			return slot, nil
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		taken := errors.Is(err, errTaken)
		if taken {
			failing = time.Now()
		}
		if time.Since(failing) >= StorageWait || !time.Now().Before(end) {
			s.log.Warn("a certificate is ordered without regard to the limit of the cluster", "error", err)
			return "", nil
		}
		if taken {
			continue
		}
		select {
		case <-time.After(Pause):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// find takes a free slot, or else waits for one.
func (s *Slots) find(ctx context.Context, b budget) (string, error) {
	order := rand.Perm(b.n)
	if try, ok := s.storage.(certmagic.TryLocker); ok {
		for _, i := range order[:min(b.n, maxTries)] {
			if held, err := try.TryLock(ctx, b.slot(i)); held || err != nil {
				return b.slot(i), err
			}
		}
	}
	queue, cancel := context.WithTimeout(ctx, b.window/looksPerWindow)
	defer cancel()
	err := s.storage.Lock(queue, b.slot(order[0]))
	if err != nil && queue.Err() != nil && ctx.Err() == nil {
		err = errTaken
	}
	return b.slot(order[0]), err
}

// budget is how many orders of a kind the cluster places in a window.
type budget struct {
	n      int
	window time.Duration
	slot   func(i int) string // returns the name of a lock
	front  chan struct{}
}

func (s *Slots) budget(demand bool) budget {
	b := budget{certmagic.RateLimitEvents, certmagic.RateLimitEventsWindow, Name, s.declared}
	if demand {
		b.window *= demandWindows
		b.slot, b.front = demandName, s.demand
	}
	return b
}

// Name returns the name of a lock for declared names.
func Name(i int) string { return fmt.Sprint(keyspace.SlotLock, i) }

func demandName(i int) string { return fmt.Sprint(keyspace.SlotLock, "demand_", i) }
