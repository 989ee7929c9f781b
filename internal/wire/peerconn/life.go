package peerconn

import (
	"context"
	"sync"
)

// Life bounds the goroutines of a node's port. It lasts from NewLife to End.
type Life struct {
	done chan struct{}
	wg   sync.WaitGroup // every goroutine; Add only under mu while not ended, or by Hold

	mu    sync.Mutex
	ended bool
}

// NewLife begins a life.
func NewLife() *Life { return &Life{done: make(chan struct{})} }

// Done returns a channel that End closes.
func (l *Life) Done() <-chan struct{} { return l.done }

// Ended reports whether End was called.
func (l *Life) Ended() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// End ends the life, and reports whether this was the first call.
func (l *Life) End() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.ended = true
	close(l.done)
	return true
}

// Wait returns when every goroutine of Go has ended and every Enter and Hold was undone.
func (l *Life) Wait() { l.wg.Wait() }

// Go runs f in a goroutine that Wait waits for. After End it does nothing and returns false.
func (l *Life) Go(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.wg.Go(f)
	return true
}

// Enter makes Wait wait for Leave. After End it does nothing and returns false.
func (l *Life) Enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.wg.Add(1)
	}
	return !l.ended
}

// Hold is Enter for a goroutine that Wait waits for already. It also works after End.
func (l *Life) Hold() { l.wg.Add(1) }

// Leave undoes Enter or Hold.
func (l *Life) Leave() { l.wg.Done() }

// Context returns a context that also ends with the life. Wait waits until release is called. After
// End the error is ErrClosed.
func (l *Life) Context(ctx context.Context) (_ context.Context, release func(), err error) {
	if !l.Enter() {
		return nil, nil, ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	l.wg.Go(func() {
		select {
		case <-l.done:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() { cancel(); l.Leave() }, nil
}
