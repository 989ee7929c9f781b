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

// A node that gets a certificate is killed instead of making its first call of the storage, its second, and so on, until it needs no
// more calls. Whatever it left behind, all three nodes serve a valid certificate afterwards, it among them.
func TestKilledBetweenStorageCalls(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fewer int // calls than that, and the test has not looked at what it should
		point func(ctx context.Context, f *fleet, name string, n int) (killed bool, err error)
		fresh bool // each time another name
	}{
		{"obtain", 15, killedWhileObtaining, true},
		{"renew", 12, killedWhileRenewing, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if testing.Short() {
				t.Skip("kills a process some forty times, and waits for its return")
			}
			t.Parallel()
			var next, last atomic.Int64
			last.Store(math.MaxInt64)
			// Most of it is waiting for the authority, so several fleets do it together.
			var work sync.WaitGroup
			for i := range 3 {
				f := newFleet(t, options{})
				work.Go(func() {
					if err := f.start(t.Context()); err != nil {
						t.Error(err)
						return
					}
					name, names := "", 0
					for n := int(next.Add(1)); int64(n) < last.Load() && t.Context().Err() == nil; n = int(next.Add(1)) {
						if tt.fresh || name == "" {
							name = fmt.Sprintf("%s-%d-%d.%s", tt.name, i, names, zone)
							names++
						}
						killed, err := tt.point(t.Context(), f, name, n)
						if err != nil {
							t.Errorf("call %d: %v", n, err)
							name = "" // what is broken now shall not break the others
						}
						if !killed {
							for old := last.Load(); int64(n) < old && !last.CompareAndSwap(old, int64(n)); old = last.Load() {
							}
							return
						}
						if err := f.revive(t.Context()); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			work.Wait()
			if calls := last.Load(); calls < int64(tt.fewer) || calls == math.MaxInt64 {
				t.Errorf("there was no call %d to be killed at, want more than %d of them", calls, tt.fewer)
			} else {
				t.Logf("killed at each of %d calls", calls-1)
			}
		})
	}
}

// killedWhileObtaining has a node killed at call n on its way to the first certificate for name, and to an ACME account. The others learn
// afterwards that they shall serve it too.
func killedWhileObtaining(ctx context.Context, f *fleet, name string, n int) (killed bool, err error) {
	victim := f.nodes[n%len(f.nodes)]
	if _, err := f.others(victim)[0].ask(ctx, question{Ask: askForget, Name: "acme"}); err != nil {
		return false, err
	}
	last, killed, err := victim.killedAt(ctx, n, question{Ask: askAdd, Name: name})
	if !killed || err != nil {
		return killed, err
	}
	var work sync.WaitGroup
	errs := make([]error, len(f.nodes))
	for i, m := range f.others(victim) {
		work.Go(func() { _, errs[i] = m.ask(ctx, question{Ask: askAdd, Name: name}) })
	}
	errs[2] = victim.comeBack(ctx, name)
	work.Wait()
	if err := errors.Join(errs...); err != nil {
		return true, fmt.Errorf("killed instead of %s of %s: %w", last.Op, last.Key, err)
	}
	if err := f.agree(ctx, name); err != nil {
		return true, fmt.Errorf("killed instead of %s of %s: %w", last.Op, last.Key, err)
	}
	return true, nil
}

// killedWhileRenewing has a node killed at call n while it renews the certificate for name, which all nodes serve, and go on serving.
func killedWhileRenewing(ctx context.Context, f *fleet, name string, n int) (killed bool, err error) {
	victim := f.nodes[n%len(f.nodes)]
	for _, m := range f.nodes {
		if _, err := m.ask(ctx, question{Ask: askAdd, Name: name}); err != nil {
			return false, err
		}
	}
	stop := watch(ctx, f.others(victim), name)
	last, killed, err := victim.killedAt(ctx, n, question{Ask: askRenew, Name: name})
	if killed && err == nil {
		if err = victim.comeBack(ctx, name); err == nil {
			_, err = victim.ask(ctx, question{Ask: askBundle, Name: name})
		}
	}
	if err = errors.Join(err, stop()); killed && err != nil {
		err = fmt.Errorf("killed instead of %s of %s: %w", last.Op, last.Key, err)
	}
	return killed, err
}

// killedAt asks a question, in answering which the node kills itself at storage call n. It returns that call, and whether it came to it.
func (m *member) killedAt(ctx context.Context, n int, q question) (last answer, killed bool, err error) {
	if _, err := m.ask(ctx, question{Ask: askArm, N: n, Name: q.Name}); err != nil {
		return answer{}, false, err
	}
	_, err = m.ask(ctx, q)
	if err == nil {
		// It may come to it in what it does on its own afterwards.
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

// comeBack starts a node that was killed, and waits until it serves name.
func (m *member) comeBack(ctx context.Context, name string) error {
	m.settings.Domains = []string{home, name}
	if err := m.start(); err != nil {
		return err
	}
	_, err := m.serves(ctx, name, nil)
	return err
}

// agree checks that all nodes serve the certificate that is in storage.
func (f *fleet) agree(ctx context.Context, name string) error {
	for _, m := range f.nodes {
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

// revive waits until all nodes serve, those that are gone after another start.
func (f *fleet) revive(ctx context.Context) error {
	for _, m := range f.nodes {
		select {
		case <-m.exited:
			if err := m.start(); err != nil {
				return err
			}
		default:
		}
		if _, err := m.serves(ctx, home, nil); err != nil {
			return err
		}
	}
	return nil
}

// watch has clients come to the nodes until stop is called, which returns the first error.
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
