package roles

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// tenures are those of this node that have begun and not ended.
type tenures struct {
	cfg         *Config
	withdrawals *withdrawals
	presence    *presence

	ended notify.Signal // a tenure has ended

	mu   sync.Mutex
	held map[state.Ref]*Tenure
	kept uint64 // the newest session with a tenure that keeps
}

func newTenures(cfg *Config, w *withdrawals, p *presence) *tenures {
	return &tenures{cfg: cfg, withdrawals: w, presence: p, held: make(map[state.Ref]*Tenure)}
}

// add makes a tenure of a claim that was granted at index.
func (ts *tenures) add(ctx context.Context, claim state.ClaimRole, ref state.Ref, index uint64) *Tenure {
	t := &Tenure{of: ts, key: claim.Role, public: claim.Public != nil, ref: ref, index: index}
	ending, cancel := context.WithCancelCause(ctx)
	t.ctx, t.cancel = tenureContext{ending, t}, cancel
	works := ts.cfg.Life.Works
	t.unwatch = context.AfterFunc(works, func() { t.cancel(context.Cause(works)) })
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.held[ref] = t
	return t
}

// remove takes out a tenure that has ended.
func (ts *tenures) remove(t *Tenure) {
	ts.mu.Lock()
	delete(ts.held, t.ref)
	ts.mu.Unlock()
	ts.ended.Notify()
}

// all returns the tenures.
func (ts *tenures) all() []*Tenure {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return slices.Collect(maps.Values(ts.held))
}

// refs returns the claims of the tenures.
func (ts *tenures) refs() []state.Ref {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return slices.Collect(maps.Keys(ts.held))
}

// onClaims asks the holders of those of the given claims to hand over that must, according to s.
func (ts *tenures) onClaims(s *state.State, refs []state.Ref) {
	ts.mu.Lock()
	var yielding []*Tenure
	for _, ref := range refs {
		if t := ts.held[ref]; t != nil {
			if claim, place := s.FindClaim(t.key, ref); place == 0 && claim.Yield != 0 {
				yielding = append(yielding, t)
			}
		}
	}
	ts.mu.Unlock()
	for _, t := range yielding {
		t.yield()
	}
}

// lose ends the tenures of a session, whose lease ends at the given time.
func (ts *tenures) lose(session uint64, end time.Time, cause error) {
	for _, t := range ts.all() {
		if t.ref.Session == session {
			t.lose(end, cause)
		}
	}
}

// keep records that a tenure's holder does not let go with the lease.
func (ts *tenures) keep(t *Tenure) {
	t.mu.Lock()
	t.keeps = true
	t.mu.Unlock()
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.kept = max(ts.kept, t.ref.Session)
}

// visible reports whether a session still holds a public role, or keeps one without holding it.
func (ts *tenures) visible(session uint64) bool {
	ts.mu.Lock()
	kept := ts.kept == session
	ts.mu.Unlock()
	return kept || slices.ContainsFunc(ts.all(), func(t *Tenure) bool { return t.public && t.ref.Session == session })
}

// yieldAll asks the holders of the chosen tenures to hand over, and waits until they have done so
// or their deadlines have passed.
func (ts *tenures) yieldAll(ctx context.Context, chosen func(*Tenure) bool) error {
	for {
		ended := ts.ended.Wait()
		all := slices.DeleteFunc(ts.all(), func(t *Tenure) bool { return !chosen(t) })
		for _, t := range all {
			t.yield()
		}
		var next time.Time // when the first of them must have ended
		all = slices.DeleteFunc(all, func(t *Tenure) bool {
			end := t.Deadline()
			over := !time.Now().Before(end)
			if !over && (next.IsZero() || end.Before(next)) {
				next = end
			}
			return over
		})
		if len(all) == 0 {
			return nil
		}
		select {
		case <-ended:
		case <-time.After(time.Until(next)):
		case <-ctx.Done():
			return fmt.Errorf("%d roles are still held, such as %s: %w", len(all), all[0].key, context.Cause(ctx))
		}
	}
}

// awaitEnd waits until every tenure has ended, or until the given time.
func (ts *tenures) awaitEnd(end time.Time) {
	timer := time.NewTimer(time.Until(end))
	defer timer.Stop()
	for {
		ended := ts.ended.Wait()
		if len(ts.all()) == 0 {
			return
		}
		select {
		case <-ended:
		case <-timer.C:
			return
		}
	}
}
