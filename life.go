package flotilla

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/flotilla-ha/flotilla/internal/notify"
)

// lifecycle is how far a node is between its opening and its end, and what all of its parts have to
// know of that. Its methods are safe for concurrent use.
type lifecycle struct {
	// opened ends with Close, works with Close or when the node can go on no more. They are the node's own, no caller's.
	opened, works context.Context
	end, break_   context.CancelCauseFunc
	tasks         notify.Tasks // the goroutines of the node

	leaving atomic.Bool // on the way out: opens no session
	drained atomic.Bool // takes no new connections
	aside   atomic.Bool // an operator has drained it, until he undoes that: holds no roles, and wants no new clients

	changed  notify.Signal          // any of the above, raft's leader, or what is known of certificates
	sessions notify.Signal          // the state has other sessions or other servers
	waitsFor atomic.Pointer[string] // why the node is not in a cluster yet, or what keeps it from getting ready

	setback     atomic.Pointer[setback] // nil: the disk does what it should
	setbacks    atomic.Uint64           // how many there have been
	lostSession atomic.Uint64           // the last session that one of them ended
}

func newLifecycle() *lifecycle {
	n := new(lifecycle)
	n.opened, n.end = context.WithCancelCause(context.Background())
	n.works, n.break_ = context.WithCancelCause(n.opened)
	return n
}

// failure returns why the node takes no part in the cluster, for good or for now; nil if it does.
func (n *lifecycle) failure() error {
	switch s := n.setback.Load(); {
	case n.opened.Err() != nil:
		return nil
	case n.works.Err() != nil:
		return context.Cause(n.works)
	case s != nil:
		return s.err
	}
	return nil
}

// whileOpen returns a context that also ends when the node closes or fails, with that cause.
func (n *lifecycle) whileOpen(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(n.works, func() { cancel(context.Cause(n.works)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// lifeError replaces a context's error by why the node ended, if it did.
func (n *lifecycle) lifeError(err error) error {
	if n.works.Err() != nil {
		return context.Cause(n.works)
	}
	return err
}

// because is lifeError for those who waited in vain: a setback is why.
func (n *lifecycle) because(err error) error {
	if s := n.setback.Load(); s != nil && n.works.Err() == nil {
		return fmt.Errorf("%w: %w", err, s.err)
	}
	return n.lifeError(err)
}

// setback is why this node takes no part in its cluster now. It ends by itself when its cause does, unlike what fail is told.
type setback struct{ err error }

// awaitChanged waits until ok is true of what n.changed tells of.
func (n *lifecycle) awaitChanged(ctx context.Context, ok func() bool) error {
	for {
		changed := n.changed.Wait()
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

// beside runs f until it is stopped, which waits for it.
func beside(ctx context.Context, f func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}
