package vip

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/hold"
)

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
	disturbed int // so many Binds fail while something changes, and then none
}

func newFakePlace() *fakePlace {
	return &fakePlace{changed: make(chan struct{}), claims: make(chan *ConflictError, 16)}
}

func (p *fakePlace) Attach(context.Context, Unit) (Place, error) { return p, nil }
func (p *fakePlace) Linger() time.Duration                       { return 0 }
func (p *fakePlace) Usable() error                               { return nil }

func (p *fakePlace) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// change has Run look, after f.
func (p *fakePlace) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

// set changes what is to come, without a word to Run.
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

// told keeps events.
type told struct {
	mu  sync.Mutex
	all []Event
}

func (l *told) add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
}

func (l *told) list() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

func (l *told) last() Event {
	all := l.list()
	return all[len(all)-1]
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

// fakeCluster grants the role to whoever asks, and notes how it was asked for.
type fakeCluster struct {
	mu       sync.Mutex
	asked    []hold.Role
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
	err := f(held, fakeTenure{lease{time.Now().Add(24 * time.Hour)}, c})
	if err == nil || errors.Is(err, context.Canceled) {
		return context.Cause(held)
	}
	return err
}

func (c *fakeCluster) Remark(_, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remark = text
}

// asks returns how the role was asked for so far.
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

// back says that a node is there again.
func (c *fakeCluster) back() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.returned)
	c.returned = make(chan struct{})
}

type fakeTenure struct {
	lease
	c *fakeCluster
}

func (t fakeTenure) Returned() <-chan struct{} {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	return t.c.returned
}
