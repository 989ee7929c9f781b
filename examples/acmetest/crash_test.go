package acmetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A node obtains a certificate and is killed before its first storage call, then before its second,
// and so on through the last. Each time all three nodes serve a valid certificate afterwards.
func TestKilledBetweenStorageCalls(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fewer int // with fewer calls the test proves nothing
		point func(ctx context.Context, c *cluster, name string, n int) (killed bool, err error)
		fresh bool // another name each time
	}{
		{"obtain", 15, killedWhileObtaining, true},
		{"renew", 12, killedWhileRenewing, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if testing.Short() {
				t.Skip("kills and restarts a process some forty times: it runs without -short")
			}
			t.Parallel()
			var next, last atomic.Int64
			last.Store(math.MaxInt64)
			// Most of the time they wait for the authority, so several clusters work at once.
			var work sync.WaitGroup
			for i := range 3 {
				c := newCluster(t, options{})
				work.Go(func() {
					if err := c.start(t.Context()); err != nil {
						t.Error(err)
						return
					}
					name, names := "", 0
					for n := int(next.Add(1)); int64(n) < last.Load() && t.Context().Err() == nil; n = int(next.Add(1)) {
						if tt.fresh || name == "" {
							name = fmt.Sprintf("%s-%d-%d.%s", tt.name, i, names, zone)
							names++
						}
						killed, err := tt.point(t.Context(), c, name, n)
						if err != nil {
							t.Errorf("call %d: %v", n, err)
							name = "" // a broken name must not break the next round
						}
						if !killed {
							for old := last.Load(); int64(n) < old && !last.CompareAndSwap(old, int64(n)); old = last.Load() {
							}
							return
						}
						if err := c.revive(t.Context()); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			work.Wait()
			if calls := last.Load(); calls < int64(tt.fewer) || calls == math.MaxInt64 {
				t.Errorf("the node made %d storage calls, want at least %d", calls, tt.fewer)
			} else {
				t.Logf("killed at each of %d calls", calls-1)
			}
		})
	}
}

// killedWhileObtaining kills a node at storage call n while it obtains the first certificate for
// name, and an ACME account. The other nodes get the name afterwards.
func killedWhileObtaining(ctx context.Context, c *cluster, name string, n int) (killed bool, err error) {
	victim := c.nodes[n%len(c.nodes)]
	if _, err := c.others(victim)[0].ask(ctx, question{Ask: askForget, Name: "acme"}); err != nil {
		return false, err
	}
	last, killed, err := victim.killedAt(ctx, n, question{Ask: askAdd, Name: name})
	if !killed || err != nil {
		return killed, err
	}
	var work sync.WaitGroup
	errs := make([]error, len(c.nodes))
	for i, m := range c.others(victim) {
		work.Go(func() { _, errs[i] = m.ask(ctx, question{Ask: askAdd, Name: name}) })
	}
	errs[2] = victim.comeBack(ctx, name)
	work.Wait()
	if err := errors.Join(errs...); err != nil {
		return true, fmt.Errorf("killed before %s of %s: %w", last.Op, last.Key, err)
	}
	if err := c.agree(ctx, name); err != nil {
		return true, fmt.Errorf("killed before %s of %s: %w", last.Op, last.Key, err)
	}
	return true, nil
}

// killedWhileRenewing kills a node at storage call n while it renews the certificate for name. All
// nodes serve the certificate, and the others never stop.
func killedWhileRenewing(ctx context.Context, c *cluster, name string, n int) (killed bool, err error) {
	victim := c.nodes[n%len(c.nodes)]
	for _, m := range c.nodes {
		if _, err := m.ask(ctx, question{Ask: askAdd, Name: name}); err != nil {
			return false, err
		}
	}
	stop := watch(ctx, c.others(victim), name)
	last, killed, err := victim.killedAt(ctx, n, question{Ask: askRenew, Name: name})
	if killed && err == nil {
		if err = victim.comeBack(ctx, name); err == nil {
			_, err = victim.ask(ctx, question{Ask: askBundle, Name: name})
		}
	}
	if err = errors.Join(err, stop()); killed && err != nil {
		err = fmt.Errorf("killed before %s of %s: %w", last.Op, last.Key, err)
	}
	return killed, err
}

// killedAt asks a question. The node kills itself at storage call n while it works on the answer.
// killedAt returns that call, and false if the node made fewer calls.
func (m *member) killedAt(ctx context.Context, n int, q question) (last answer, killed bool, err error) {
	if _, err := m.ask(ctx, question{Ask: askArm, N: n, Name: q.Name}); err != nil {
		return answer{}, false, err
	}
	_, err = m.ask(ctx, q)
	if err == nil {
		// The node may still make the call afterwards, on its own.
		_, err = m.ask(ctx, question{Ask: askArm})
		if err == nil {
			return answer{}, false, nil
		}
	}
	if !errors.Is(err, errGone) {
		return answer{}, false, err
	}
	last, err = m.lastCall()
	return last, true, err
}

// comeBack restarts a killed node, and waits until it serves name.
func (m *member) comeBack(ctx context.Context, name string) error {
	m.settings.Domains = []string{home, name}
	if err := m.start(); err != nil {
		return err
	}
	_, err := m.serves(ctx, name, nil)
	return err
}

// agree checks that all nodes serve the certificate in storage.
func (c *cluster) agree(ctx context.Context, name string) error {
	for _, m := range c.nodes {
		a, err := m.ask(ctx, question{Ask: askBundle, Name: name})
		if err != nil {
			return err
		}
		if _, err := m.serves(ctx, name, serial(a.Serial)); err != nil {
			return err
		}
	}
	return nil
}

// revive restarts the nodes that are gone, and waits until all nodes serve.
func (c *cluster) revive(ctx context.Context) error {
	for _, m := range c.nodes {
		if !m.Running() {
			if err := m.start(); err != nil {
				return err
			}
		}
		if _, err := m.serves(ctx, home, nil); err != nil {
			return err
		}
	}
	return nil
}

// watch makes handshakes with the nodes until stop is called. Stop returns the first error of each
// node.
func watch(ctx context.Context, nodes []*member, name string) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	errs := make([]error, len(nodes))
	for i, m := range nodes {
		work.Go(func() {
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for errs[i] == nil {
				if _, err := m.shake(ctx, name); err != nil && ctx.Err() == nil {
					errs[i] = err
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return func() error {
		cancel()
		work.Wait()
		return errors.Join(errs...)
	}
}
