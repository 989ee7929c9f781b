package flotilla

import (
	"context"
	"fmt"
)

// failure returns why the node takes no part in the cluster, for good or for now; nil if it does.
func (n *Node) failure() error {
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
func (n *Node) whileOpen(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(n.works, func() { cancel(context.Cause(n.works)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// lifeError replaces a context's error by why the node ended, if it did.
func (n *Node) lifeError(err error) error {
	if n.works.Err() != nil {
		return context.Cause(n.works)
	}
	return err
}

// because is lifeError for those who waited in vain: a setback is why.
func (n *Node) because(err error) error {
	if s := n.setback.Load(); s != nil && n.works.Err() == nil {
		return fmt.Errorf("%w: %w", err, s.err)
	}
	return n.lifeError(err)
}

// setback is why this node takes no part in its cluster now. It ends by itself when its cause does, unlike what fail is told.
type setback struct{ err error }

// awaitChanged waits until ok is true of what n.changed tells of.
func (n *Node) awaitChanged(ctx context.Context, ok func() bool) error {
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
