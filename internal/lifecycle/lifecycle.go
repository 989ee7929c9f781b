package lifecycle

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/flotilla-ha/flotilla/internal/notify"
)

// Life is the progress of one node through its life. Make it with New. All parts of the node share
// it. Its methods and fields are safe for concurrent use.
type Life struct {
	// Open is a context that ends when the node is closed. It belongs to the node, not to a caller.
	Open context.Context

	// Works is a context that ends with Open, or earlier when the node has failed for good. Its
	// cause is the reason.
	Works context.Context

	// End ends Open and Works with the given cause. Only the first call counts.
	End context.CancelCauseFunc

	// Break ends Works with the given cause, after a failure from which the node cannot recover.
	// Only the first call counts.
	Break context.CancelCauseFunc

	// Tasks are the goroutines of the node.
	Tasks notify.Tasks

	// Leaving says that the node is on its way out and opens no session.
	Leaving atomic.Bool

	// Drained says that the node takes no new connections.
	Drained atomic.Bool

	// Cordoned says that an operator has drained the node until he undoes that. The node holds no
	// roles and wants no new clients.
	Cordoned atomic.Bool

	// Changed is notified when a field of Life, raft's leader, or what is known of certificates has
	// changed.
	Changed notify.Signal

	// Sessions is notified when the state has other sessions or other servers.
	Sessions notify.Signal

	// Second is notified about once a second, by a goroutine that is awake anyway. Whatever must look
	// again and again does so then: a timer of its own would wake an idle process once more.
	Second notify.Signal

	// WaitsFor is why the node is not ready, for people: why it is not in a cluster yet, or what
	// else it waits for. Nil: it waits for nothing that is known.
	WaitsFor atomic.Pointer[string]

	// Setback is why the node takes no part in its cluster at this moment. Nil: there is no setback.
	Setback atomic.Pointer[Setback]

	// Setbacks is how many setbacks there have been.
	Setbacks atomic.Uint64

	// LostSession is the number of the last session that a setback ended. 0: there was none.
	LostSession atomic.Uint64
}

// New returns the Life of a node that is open and works.
func New() *Life {
	l := new(Life)
	l.Open, l.End = context.WithCancelCause(context.Background())
	l.Works, l.Break = context.WithCancelCause(l.Open)
	return l
}

// Failure returns why an open node takes no part in its cluster, for good or for now. It returns
// nil if the node works without a setback, or is closed.
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

// WhileOpen returns a context that ends with ctx, or when the node stops working. In the second
// case its cause is that of Works. The caller must call the returned function when it is done.
func (l *Life) WhileOpen(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(l.Works, func() { cancel(context.Cause(l.Works)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// Explain returns why the node stopped working, if it did, and err otherwise. Callers pass it the
// error of a context that may have ended with the node.
func (l *Life) Explain(err error) error {
	if l.Works.Err() != nil {
		return context.Cause(l.Works)
	}
	return err
}

// Because is Explain for the error of a wait that was in vain. If there is a setback, the error
// that it returns wraps both err and the setback's error.
func (l *Life) Because(err error) error {
	if s := l.Setback.Load(); s != nil && l.Works.Err() == nil {
		return fmt.Errorf("%w: %w", err, s.Err)
	}
	return l.Explain(err)
}

// Setback is a failure that ends by itself when its cause does, unlike one that Break reports.
type Setback struct {
	// Err is the cause. It is never nil.
	Err error
}

// AwaitChanged returns nil as soon as ok returns true. It calls ok at once and after each Notify of
// Changed. When ctx ends first, it returns the cause.
func (l *Life) AwaitChanged(ctx context.Context, ok func() bool) error {
	return notify.Until(ctx, ok, &l.Changed)
}
