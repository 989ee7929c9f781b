package replica

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// ReadIndex finds out what was acknowledged so far: the leader confirms an index, and other nodes
// wait until they have applied it. Its methods are safe for concurrent use.
type ReadIndex struct {
	timing timing.Timing
	log    *slog.Logger
	life   *lifecycle.Life
	store  *applied.Store
	group  *Group
	leads  *LeaderState
	chain  *Chain
	outage *Outage
}

// Confirm returns an index that no acknowledged write is above. This node led when Confirm was
// called: after that a majority of the voters said that they know no later term. (raft's
// VerifyLeader also counts answers to earlier questions.) The error wraps rpc.ErrNotLeader or
// errs.ErrNoLeader.
func (x *ReadIndex) Confirm(ctx context.Context) (uint64, error) {
	l := x.leads.Leading.Load()
	if l == nil {
		return 0, rpc.ErrNotLeader
	}
	index := x.store.State().Index
	conf := l.Raft.GetConfiguration()
	if err := conf.Error(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, x.timing.Attempt())
	defer cancel()
	votes := make(chan bool)
	voters, yes := 0, 0
	for _, srv := range conf.Configuration().Servers {
		if srv.Suffrage != raft.Voter {
			continue
		}
		voters++
		x.life.Tasks.Go(func() {
			term, err := x.group.TermOf(ctx, string(srv.ID))
			select {
			case votes <- err == nil && term <= l.Term:
			case <-ctx.Done():
			}
		})
	}
	for range voters {
		select {
		case ok := <-votes:
			if ok {
				yes++
			}
		case <-ctx.Done():
			return 0, fmt.Errorf("%w: a majority of the voters does not answer", errs.ErrNoLeader)
		}
		if yes > voters/2 {
			return index, nil
		}
	}
	return 0, rpc.ErrNotLeader
}

// ServeConfirm answers rpc.Confirm.
func (x *ReadIndex) ServeConfirm(ctx context.Context, peer string, _ []byte) ([]byte, error) {
	index, err := x.Confirm(ctx)
	if err != nil {
		return nil, err
	}
	if l := x.leads.Leading.Load(); l != nil && peer != x.group.self.ID {
		l.Acks.returned(peer, index)
	}
	m := ConfirmReply{Index: index}
	if r := x.group.Raft.Load(); r != nil {
		m.Last = r.LastIndex()
	}
	m.Sum, m.Known = x.chain.appliedSum(index)
	return m.Encode(), nil
}

// CatchUp waits until this node has applied everything that was acknowledged before the call. It
// fails the node if its log contradicts the leader's.
func (x *ReadIndex) CatchUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, x.timing.Attempt())
	defer cancel()
	applied := x.store.State().Index
	reply, err := x.group.AskLeader(ctx, rpc.Confirm, nil, x.ServeConfirm)
	if err != nil {
		return err
	}
	m, err := DecodeConfirmReply(reply)
	if err != nil {
		return err
	}
	if applied > m.Last {
		err := state.Diverged("entry %d was applied here, and the log of the leader, %s, ends with entry %d", applied, x.group.peers.NameOf(x.group.Leader()), m.Last)
		x.outage.Fail(err)
		return err
	}
	if _, err := x.store.Wait(ctx, func(s *state.State) bool { return s.Index >= m.Index }); err != nil {
		return err
	}
	return x.chain.checkConfirmed(m)
}

// CaughtUp repeats CatchUp until it succeeds, for the time of so many attempts at most. It reports
// whether it did.
func (x *ReadIndex) CaughtUp(ctx context.Context, attempts int) (done bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(attempts)*x.timing.Attempt())
	defer cancel()
	ctx, stop := x.life.WhileOpen(ctx)
	defer stop()
	x.Until(ctx, func(ctx context.Context) error {
		err := x.CatchUp(ctx)
		done = err == nil
		return err
	})
	return done
}

// Until repeats f, which needs a leader, until it succeeds or ctx ends.
func (x *ReadIndex) Until(ctx context.Context, f func(context.Context) error) {
	_ = notify.Loop(ctx, func() (time.Time, bool) {
		if ctx.Err() != nil {
			return time.Time{}, true
		}
		err := f(ctx)
		if err == nil {
			return time.Time{}, true
		}
		x.log.Debug("waiting for the cluster", "err", err)
		why := err.Error()
		x.life.WaitsFor.Store(&why)
		return time.Now().Add(x.timing.Retry()), false
	}, &x.life.Changed)
}

// AwaitApplied waits until this node has applied index, for a lease at most, as its leader does.
// Entries of raft's own, which the state machine does not see, come only at the beginning of a
// term, before the leader tells anybody of a commit.
func (x *ReadIndex) AwaitApplied(index uint64) error {
	ctx, cancel := context.WithTimeout(x.life.Works, x.timing.Lease)
	defer cancel()
	_, err := x.store.Wait(ctx, func(s *state.State) bool { return s.Index >= index })
	return err
}
