package vip

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/hold"
)

// start runs cfg on a cluster until the returned function is called, which waits for the end of
// Run.
func start(t *testing.T, h Holder, cfg Config) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- Run(ctx, h, cfg) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// list is a list that several goroutines add to.
type list[T any] struct {
	mu  sync.Mutex
	all []T
}

func (l *list[T]) add(e T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
}

// get returns the list so far.
func (l *list[T]) get() []T {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

// last returns the newest element.
func (l *list[T]) last() T {
	all := l.get()
	return all[len(all)-1]
}

// fakePlace is a Place, and its Binder, that counts what is done to it.
type fakePlace struct {
	mu        sync.Mutex
	bindErr   error
	checkErr  error
	binds     int
	checks    int
	announced []time.Time
	unbound   int
	changed   chan struct{}
	moved     bool
	claims    chan *ConflictError
	disturbed int // so many Binds fail while something changes; the next one succeeds
}

func newFakePlace() *fakePlace {
	return &fakePlace{changed: make(chan struct{}), claims: make(chan *ConflictError, 16)}
}

func (p *fakePlace) Attach(context.Context, Unit) (Place, error) { return p, nil }
func (p *fakePlace) HoldDown() time.Duration                     { return 0 }
func (p *fakePlace) Usable() error                               { return nil }

func (p *fakePlace) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// change calls f, and then makes Run look.
func (p *fakePlace) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

// set calls f without making Run look.
func (p *fakePlace) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// counts returns how often the place was bound, checked and unbound.
func (p *fakePlace) counts() (binds, checks, unbound int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.binds, p.checks, p.unbound
}

func (p *fakePlace) Bind(context.Context, Grant) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.binds++
	if p.disturbed > 0 {
		if p.disturbed--; p.disturbed == 0 {
			defer func() { p.bindErr = nil }()
		}
		close(p.changed)
		p.changed = make(chan struct{})
	}
	if p.bindErr == nil {
		p.announced = append(p.announced, time.Now())
	}
	return p.bindErr
}

func (p *fakePlace) Check(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checks++
	return p.checkErr
}

func (p *fakePlace) Extend(time.Time) (time.Duration, error) { return time.Hour, nil }

func (p *fakePlace) Announce() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.announced = append(p.announced, time.Now())
	return nil
}

func (p *fakePlace) Mend(context.Context) (bool, error) { return false, nil }
func (p *fakePlace) Quiesce(context.Context) error      { return nil }
func (p *fakePlace) Release(context.Context) error      { return p.Unbind() }
func (p *fakePlace) Close() error                       { return nil }
func (p *fakePlace) Claims() <-chan *ConflictError      { return p.claims }

func (p *fakePlace) Unbind() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unbound++
	return nil
}

func (p *fakePlace) stale() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	moved := p.moved
	p.moved = false
	return moved
}

// fakeCluster grants the role to everybody who asks, and records the requests.
type fakeCluster struct {
	mu       sync.Mutex
	asked    []hold.Role
	public   []hold.Public // of the requests
	at       []time.Time
	remark   string
	returned chan struct{}
}

func newFakeCluster() *fakeCluster { return &fakeCluster{returned: make(chan struct{})} }

func (c *fakeCluster) Hold(ctx context.Context, r hold.Role, f func(context.Context, hold.Tenure) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	c.asked, c.at = append(c.asked, r), append(c.at, time.Now())
	c.mu.Unlock()
	held, cancel := context.WithCancel(ctx)
	defer cancel()
	err := f(held, fakeTenure{grantedUntil{time.Now().Add(24 * time.Hour)}, c})
	if err == nil || errors.Is(err, context.Canceled) {
		return context.Cause(held)
	}
	return err
}

func (c *fakeCluster) HoldPublic(ctx context.Context, r hold.Role, p hold.Public, f func(context.Context, hold.Tenure) error) error {
	c.mu.Lock()
	c.public = append(c.public, p)
	c.mu.Unlock()
	return c.Hold(ctx, r, f)
}

func (c *fakeCluster) Remark(_, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remark = text
}

// asks returns the requests for the role so far.
func (c *fakeCluster) asks() []hold.Role {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.asked)
}

func (c *fakeCluster) said() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.remark
}

// back reports that a node has returned.
func (c *fakeCluster) back() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.returned)
	c.returned = make(chan struct{})
}

type fakeTenure struct {
	grantedUntil
	c *fakeCluster
}

func (t fakeTenure) Returned() <-chan struct{} {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	return t.c.returned
}
