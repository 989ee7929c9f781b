package roles

import (
	"context"
	"errors"
	"sync"

	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// maxWithdrawers bounds how many claims are withdrawn at once.
const maxWithdrawers = 8

// withdrawals give up claims whose callers have left.
type withdrawals struct {
	life    *lifecycle.Life
	replica *replica.Replica

	mu      sync.Mutex
	pending map[state.Ref]string // the claims to give up, and the key of the role of each
	workers int                  // goroutines that work on them
}

func newWithdrawals(cfg *Config) *withdrawals {
	return &withdrawals{life: cfg.Life, replica: cfg.Replica, pending: make(map[state.Ref]string)}
}

// add has a claim given up, and does not wait for it. The attempts end when the claim's session
// does, because the claim then ends as well.
func (w *withdrawals) add(key string, ref state.Ref) {
	w.mu.Lock()
	w.pending[ref] = key
	more := w.workers < maxWithdrawers
	if more {
		w.workers++
	}
	w.mu.Unlock()
	if more {
		w.life.Tasks.Go(w.work)
	}
}

// work gives up one claim after another until none is left or the node ends.
func (w *withdrawals) work() {
	for {
		key, ref, ok := w.next(w.life.Works.Err() != nil)
		if !ok {
			return
		}
		for w.life.Works.Err() == nil {
			if err := w.release(w.life.Works, key, ref); err == nil || errors.Is(err, errs.ErrLost) {
				break
			}
		}
	}
}

// next takes out one pending claim. It returns false if there is none or the node has ended. The
// caller's work is then over.
func (w *withdrawals) next(ended bool) (key string, ref state.Ref, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !ended {
		for ref, key := range w.pending {
			delete(w.pending, ref)
			return key, ref, true
		}
	}
	w.workers--
	return "", state.Ref{}, false
}

// release gives a claim up and waits until that is applied.
func (w *withdrawals) release(ctx context.Context, key string, ref state.Ref) error {
	change := state.ReleaseRole{Role: key, Claim: ref.Seq}
	_, _, err := w.replica.Writes.DoIn(ctx, state.Command{Session: ref.Session, Change: change})
	return err
}
