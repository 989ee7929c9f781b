package lifecycle

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/flotilla-ha/flotilla/internal/notify"
)

// Life is how far a node is between its opening and its end, and what all of its parts have to
// know of that. Its methods are safe for concurrent use.
type Life struct {
	// Open ends with Close, works with Close or when the node can go on no more. They are the node's
	// own, no caller's.
	Open, Works context.Context
	End, Break  context.CancelCauseFunc
	Tasks       notify.Tasks // the goroutines of the node

	Leaving atomic.Bool // on the way out: opens no session
	Drained atomic.Bool // takes no new connections
	// an operator has drained it, until he undoes that: holds no roles, and wants no new clients
	Cordoned atomic.Bool

	// any of the above, raft's leader, or what is known of certificates
	Changed  notify.Signal
	Sessions notify.Signal // the state has other sessions or other servers
	// why the node is not in a cluster yet, or what keeps it from getting ready
	WaitsFor atomic.Pointer[string]

	Setback     atomic.Pointer[Setback] // nil: the disk does what it should
	Setbacks    atomic.Uint64           // how many there have been
	LostSession atomic.Uint64           // the last session that one of them ended
}

func New() *Life {
	n := new(Life)
	n.Open, n.End = context.WithCancelCause(context.Background())
	n.Works, n.Break = context.WithCancelCause(n.Open)
	return n
}

// Failure returns why the node takes no part in the cluster, for good or for now; nil if it does.
func (n *Life) Failure() error {
	switch s := n.Setback.Load(); {
	case n.Open.Err() != nil:
		return nil
	case n.Works.Err() != nil:
		return context.Cause(n.Works)
	case s != nil:
		return s.Err
	}
	return nil
}

// WhileOpen returns a context that also ends when the node closes or fails, with that cause.
func (n *Life) WhileOpen(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(n.Works, func() { cancel(context.Cause(n.Works)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// Explain replaces a context's error by why the node ended, if it did.
func (n *Life) Explain(err error) error {
	if n.Works.Err() != nil {
		return context.Cause(n.Works)
	}
	return err
}

// Because is lifeError for those who waited in vain: a setback is why.
func (n *Life) Because(err error) error {
	if s := n.Setback.Load(); s != nil && n.Works.Err() == nil {
		return fmt.Errorf("%w: %w", err, s.Err)
	}
	return n.Explain(err)
}

// Setback is why this node takes no part in its cluster now. It ends by itself when its cause does,
// unlike what fail is told.
type Setback struct{ Err error }

// AwaitChanged waits until ok is true of what n.changed tells of.
func (n *Life) AwaitChanged(ctx context.Context, ok func() bool) error {
	for {
		changed := n.Changed.Wait()
		if ok() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
