package kv

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/changes"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/limits"
	"github.com/flotilla-ha/flotilla/internal/state"
)

const (
	// contendedTime is for how long an Update asks for its turn after a conflict at its key.
	contendedTime = 2 * time.Second

	maxContended = 1024 // keys for which that is remembered
)

// Backend is what the stores of one node share. Node.KV makes it; programs have no use for it. Its
// methods are safe for concurrent use.
type Backend struct {
	cfg       BackendConfig
	updates   queues
	refreshes refreshes
	copies    copies

	mu        sync.Mutex
	contended map[string]time.Time // when a condition on an item was last not true, by its name
}

// BackendConfig is what a Backend needs of the node around it.
type BackendConfig struct {
	MaxRecords int64           // limit of the size of all entries, in bytes
	Life       *lifecycle.Life // tells when the node ends
	Feed       *changes.Feed   // tells what has changed
	Limits     *limits.Limits  // has the rate limits

	// State returns what this node has applied.
	State func() *state.State

	// Read returns the state to answer from, and whether it is current.
	Read func(ctx context.Context) (s *state.State, current bool)

	// Write proposes a command, and returns its answer.
	Write func(ctx context.Context, c state.Command) (state.Answer, error)

	// Turn waits until it is this node's turn to change an item, as the leader says. The caller calls
	// done after its attempt. A turn is only good manners: nothing depends on it.
	Turn func(ctx context.Context, name string) (done func(), err error)
}

// NewBackend returns a Backend. It starts nothing.
func NewBackend(cfg BackendConfig) *Backend {
	return &Backend{cfg: cfg, copies: copies{seed: maphash.MakeSeed()}, contended: make(map[string]time.Time)}
}

// Bucket returns the store of a bucket.
func (b *Backend) Bucket(name string) *Store { return &Store{b, name} }

// OnContended passes on that conditions on these items were not true. It does not block.
func (b *Backend) OnContended(names []string) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, name := range names {
		if len(b.contended) >= maxContended {
			clear(b.contended)
		}
		b.contended[name] = now
	}
}

// isContended reports whether a condition on an item was not true a moment ago.
func (b *Backend) isContended(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	at, ok := b.contended[name]
	if ok && time.Since(at) > contendedTime {
		delete(b.contended, name)
		ok = false
	}
	return ok
}

// write changes items of a bucket.
func (b *Backend) write(ctx context.Context, c state.WriteItems) (state.Answer, error) {
	c.MaxRecords = b.cfg.MaxRecords
	a, err := b.cfg.Write(ctx, state.Command{Change: c})
	if err != nil {
		return a, err
	}
	if n, ok := a.Code.Conflict(); ok && n < len(c.If) {
		return a, &ConflictError{Cond: Cond{c.If[n]}}
	}
	if a.Code == state.CodeFull {
		return a, keyspace.ProgramItems.Refuse(b.cfg.State().Used[keyspace.ProgramItems], b.cfg.MaxRecords)
	}
	return a, a.Code.Err()
}
