package lease

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// follower is the failure detector of a voter that does not lead. It notices that the lease of the
// leader's session has expired, and has the leader replaced when a majority of the voters agrees:
// raft's own timeouts are longer.
type follower struct {
	timing  timing.Timing
	log     *slog.Logger
	life    *lifecycle.Life
	self    *self.Self
	store   *applied.Store
	replica Replica
	voter   *voter

	mu     sync.Mutex
	leader string
	since  time.Time // when it was found to lead
	asking bool      // the voters are being asked
}

func newFollower(cfg *Config, v *voter) *follower {
	return &follower{
		timing: cfg.Timing, log: cfg.Log, life: cfg.Life, self: cfg.Self, store: cfg.Store,
		replica: cfg.Replica, voter: v,
	}
}

// observeLeader remembers who leads.
func (f *follower) observeLeader(now time.Time) {
	leader := f.replica.Leader()
	f.mu.Lock()
	defer f.mu.Unlock()
	if leader != f.leader {
		f.leader, f.since = leader, now
	}
}

// evaluate asks the other voters in the background if the leader's lease has expired for this one.
// It returns when that will be if nothing is heard; zero if it is not known, or has been. awake is
// since when this process has run without a gap.
func (f *follower) evaluate(ctx context.Context, now, awake time.Time) (next time.Time) {
	leader, s := f.replica.Leader(), f.store.State()
	if leader == "" || leader == f.self.ID || !slices.Contains(s.Voters, f.self.ID) || now.Sub(awake) < f.timing.Retry() {
		return next
	}
	ses := s.Session(leader)
	if ses == nil {
		return next
	}
	if id := (SessionID{leader, ses.Number}); !f.hasExpired(id, now) {
		if next = f.voter.expiry(id); !next.After(now) {
			next = time.Time{}
		}
		return next
	}
	f.mu.Lock()
	asking := f.asking
	f.asking = true
	f.mu.Unlock()
	if asking {
		return next
	}
	f.life.Tasks.Go(func() {
		f.replaceLeader(ctx, SessionID{leader, ses.Number})
		f.mu.Lock()
		defer f.mu.Unlock()
		f.asking = false
	})
	return next
}

// hasExpired reports whether all grants of this voter to a session have expired. A leader that has
// just been elected gets the time of a grant: its new session may be about to be opened.
func (f *follower) hasExpired(id SessionID, now time.Time) bool {
	f.mu.Lock()
	isNew := id.Node == f.leader && now.Sub(f.since) < f.timing.Grant()
	f.mu.Unlock()
	return !isNew && f.voter.hasExpired(id, now)
}

// replaceLeader makes this voter stand for election if a majority of the voters finds that the
// lease of the leader's session has expired.
func (f *follower) replaceLeader(ctx context.Context, id SessionID) {
	for range 4 { // the clocks of the others are a little later
		s := f.store.State()
		if f.replica.Leader() != id.Node || !f.hasExpired(id, time.Now()) {
			return
		}
		if f.majorityAgrees(ctx, s.Voters, id) {
			f.log.Info("the leader's lease has expired", "leader", id.Node)
			f.replica.StandFor(ctx, id.Node, func() bool { return f.hasExpired(id, time.Now()) })
			return
		}
		select {
		case <-time.After(f.timing.Glance()):
		case <-ctx.Done():
			return
		}
	}
}

// majorityAgrees asks the other voters whether a session has expired for them, as it has for this
// one.
func (f *follower) majorityAgrees(ctx context.Context, voters []string, id SessionID) bool {
	ctx, cancel := context.WithTimeout(ctx, f.timing.Query())
	defer cancel()
	answers := make(chan bool)
	for _, v := range voters {
		if v == f.self.ID {
			continue
		}
		f.life.Tasks.Go(func() {
			reply, err := f.replica.Call(ctx, v, rpc.Expired, expiredQuery{id}.encode())
			answer, malformed := decodeExpiredAnswer(reply)
			select {
			case answers <- err == nil && malformed == nil && answer.expired:
			case <-ctx.Done():
			}
		})
	}
	yes := 1 // this one
	for range len(voters) - 1 {
		select {
		case ok := <-answers:
			if ok {
				yes++
			}
		case <-ctx.Done():
			return false
		}
		if yes > len(voters)/2 {
			return true
		}
	}
	return yes > len(voters)/2
}
