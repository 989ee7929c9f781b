package lifecycle

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/flotilla-ha/flotilla/internal/notify"
)

// Life is where a node is between its opening and its end. New makes one. Its methods and fields
// are safe for concurrent use; the contexts and functions are never replaced.
type Life struct {
	Open  context.Context         // ends when the node is closed
	Works context.Context         // ends when the node is closed or fails
	End   context.CancelCauseFunc // ends Open, and Works with it; the first cause counts
	Break context.CancelCauseFunc // ends Works; the first cause counts
	Tasks notify.Tasks            // the node's goroutines

	Leaving  atomic.Bool // the node is about to stop, and opens no session
	Drained  atomic.Bool // it takes no new connections
	Cordoned atomic.Bool // an operator has drained it: it holds no roles and wants no new clients

	Changed  notify.Signal          // a field here, raft's leader or what is known of certificates
	Sessions notify.Signal          // the sessions or the servers in the state
	WaitsFor atomic.Pointer[string] // why it is in no cluster or not ready yet; nil: not known

	Setback     atomic.Pointer[Setback] // nil: there is none
	Setbacks    atomic.Uint64           // how many there have been
	LostSession atomic.Uint64           // the last session that a setback ended; 0: none
}

// New returns the life of a node that is open and works.
func New() *Life {
	l := new(Life)
	l.Open, l.End = context.WithCancelCause(context.Background())
	l.Works, l.Break = context.WithCancelCause(l.Open)
	return l
}

// Setback is the reason why a node takes no part in its cluster now. Unlike a failure it ends when
// its cause does.
type Setback struct {
	Err error // what happened, and the remedy
}

// Failure returns why an open node takes no part in its cluster, now or for good. It returns nil if
// the node works or is closed.
func (l *Life) Failure() error {
	switch s := l.Setback.Load(); {
	case l.Open.Err() != nil:
		return nil
	case l.Works.Err() != nil:
		return context.Cause(l.Works)
	case s != nil:
		return s.Err
	}
	return nil
}

// WhileOpen returns a context that also ends, with that cause, when the node is closed or fails.
// The caller must call the function that is returned.
func (l *Life) WhileOpen(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(l.Works, func() { cancel(context.Cause(l.Works)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// Explain returns why the node was closed or failed, or err if it works.
func (l *Life) Explain(err error) error {
	if l.Works.Err() != nil {
		return context.Cause(l.Works)
	}
	return err
}

// Because is Explain for an error of a call that has waited in vain. It adds the setback to err, if
// there is one.
func (l *Life) Because(err error) error {
	if s := l.Setback.Load(); s != nil && l.Works.Err() == nil {
		return fmt.Errorf("%w: %w", err, s.Err)
	}
	return l.Explain(err)
}

// AwaitChanged waits until ok, which looks at what Changed notifies of, returns true. Otherwise it
// returns the cause of ctx.
func (l *Life) AwaitChanged(ctx context.Context, ok func() bool) error {
	return notify.Until(ctx, ok, &l.Changed)
}
