package flotilla_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/vip"
)

// failingBinder is one whose places cannot put anything in place while why is set.
type failingBinder struct {
	vip.Binder
	mu     sync.Mutex
	why    error
	checks bool // it can tell without trying
	tries  int
}

func (b *failingBinder) Attach(ctx context.Context, u vip.Unit) (vip.Place, error) {
	p, err := b.Binder.Attach(ctx, u)
	return &failingPlace{p, b}, err
}

func (b *failingBinder) set(why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.why = why
}

func (b *failingBinder) tried() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tries
}

type failingPlace struct {
	vip.Place
	b *failingBinder
}

func (p *failingPlace) Bind(ctx context.Context, g vip.Grant) error {
	p.b.mu.Lock()
	p.b.tries++
	why := p.b.why
	p.b.mu.Unlock()
	if why != nil {
		return why
	}
	return p.Place.Bind(ctx, g)
}

func (p *failingPlace) Check(context.Context) error {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	if !p.b.checks {
		return errors.ErrUnsupported
	}
	return p.b.why
}

// A node that cannot put an address in place costs the one that has it no client, whatever its
// priority, and says in the status what is wrong.
func TestAddressUnfitNode(t *testing.T) {
	flotilla.OnlyLong(t)
	for _, checks := range []bool{false, true} {
		t.Run(map[bool]string{false: "it must try", true: "it can tell"}[checks], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bad := &failingBinder{why: errors.New("the cloud says no"), checks: checks}
				var drains atomic.Int64
				f := newAddressFleet(t, 1, 3, 1, func(i, _ int, cfg *vip.Config) {
					if i == 0 {
						bad.Binder, cfg.Binder, cfg.Priority = cfg.Binder, bad, 10
						return
					}
					cfg.Notify = func(e vip.Event) {
						if e.Kind == vip.Moved {
							drains.Add(1)
						}
					}
				}, nil)
				f.start()
				f.await("a healthy node has it", time.Minute, func() bool { return f.owner(0) > 0 })
				time.Sleep(time.Second)
				before := drains.Load()
				time.Sleep(30 * time.Minute)
				if n := drains.Load() - before; n > 0 || f.owner(0) <= 0 {
					t.Errorf("a healthy owner has handed over %d times in half an hour; node %d has it", n, f.owner(0))
				}
				if n := bad.tried(); n > 2 || checks && n > 0 {
					t.Errorf("the node was granted the address %d times", n)
				}
				role := "vip/" + f.addrs[0].Addr().String()
				said := ""
				for _, r := range f.c.Nodes[0].Status().Roles {
					if r.Name == role {
						said = r.Remark
					}
				}
				if !strings.Contains(said, "the cloud says no") {
					t.Errorf("the status of the node says %q", said)
				}

				// When nobody else is there it tries again; what has gone before counts no more once that went
				// well.
				bad.set(nil)
				if !checks {
					f.end(1)
					f.end(2)
				}
				f.await("it has the address", 6*time.Minute, func() bool { return f.owner(0) == 0 })
				for _, r := range f.c.Nodes[0].Status().Roles {
					if r.Remark != "" {
						t.Errorf("the status still says %q", r.Remark)
					}
				}
				f.alone()
			})
		})
	}
}
