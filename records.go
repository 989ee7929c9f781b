package flotilla

import (
	"context"
	"errors"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/changes"
	"github.com/flotilla-ha/flotilla/internal/expiry"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/limits"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/turns"
	"github.com/flotilla-ha/flotilla/kv"
)

// KV returns the store of a bucket of small records, which is the same on every node. See package
// kv. The calls of the store return an error if the name of the bucket is no good.
func (n *Node) KV(bucket string) *kv.Store { return n.records.backend.Bucket(bucket) }

// records are the parts of a node that keep the entries of programs.
type records struct {
	feed    *changes.Feed
	turns   *turns.Turns
	expiry  *expiry.Duty
	limits  *limits.Limits
	backend *kv.Backend
}

// attach makes the parts that depend on the node's directory.
func (r *records) attach(n *Node) {
	r.turns = turns.New(turns.Config{
		Timing: n.timing, Life: n.life, Self: n.self, Store: n.store, Port: n.replica.Port, Leader: n.replica.Leader,
	})
	r.expiry = expiry.New(expiry.Config{Log: n.log, Store: n.store, Feed: r.feed})
	r.limits = newLimits(n)
	r.backend = kv.NewBackend(kv.BackendConfig{
		MaxRecords: n.cfg.MaxRecords, Life: n.life, Feed: r.feed, Limits: r.limits, State: n.store.State, Read: n.storage.read, Write: func(ctx context.Context, c state.Command) (state.Answer, error) {
			return writeItems(ctx, c, n.store, n.replica.Writes)
		}, Turn: r.turns.Wait,
	})
}

// run starts what runs until the node ends.
func (r *records) run(life *lifecycle.Life) {
	life.Tasks.Go(func() { r.feed.Run(life.Works) })
	life.Tasks.Go(func() { r.limits.Run(life.Works) })
}

// limitVersion is the cluster version that added rpc.Limit.
const limitVersion = 2

// newLimits returns the rate limits of a node. In a cluster of an older version it has no leader.
func newLimits(n *Node) *limits.Limits {
	return limits.New(limits.Config{
		Timing: n.timing, Life: n.life, Node: n.self.ID,
		Servers: func() int { return len(n.store.State().Servers) },
		Leader: func() string {
			if n.store.State().Version < limitVersion {
				return ""
			}
			return n.replica.Leader()
		},
		Term: func() uint64 {
			l := n.replica.Leading.Load()
			if l == nil || !n.leases.Valid() {
				return 0
			}
			return l.Term
		},
		Call: func(ctx context.Context, leader string, ask limits.Request) (limits.Reply, error) {
			return rpc.Call(ctx, n.replica.Port, leader, rpc.Limit, ask, limits.DecodeReply)
		},
	})
}

// writeItems proposes a command. In a new cluster it waits until the leader has raised the cluster
// version, which it does at once.
func writeItems(ctx context.Context, c state.Command, store *applied.Store, writes *replica.Proposer) (state.Answer, error) {
	a, err := writes.Do(ctx, c)
	early := new(state.VersionError)
	if !errors.As(err, &early) || !state.MayBecomeAsFormed(store.State()) {
		return a, err
	}
	wait, cancel := context.WithTimeout(ctx, versionTime)
	defer cancel()
	if _, late := store.Wait(wait, func(s *state.State) bool { return s.Version >= early.Needs }); late != nil {
		return a, err
	}
	return writes.Do(ctx, c)
}

// versionTime is how long a first write waits for the cluster version of a new cluster.
const versionTime = 10 * time.Second

// onApplied passes on what has changed. A snapshot may have changed anything. It does not block.
func (r *records) onApplied(fx *state.Effects, anything bool) {
	if anything {
		r.feed.Reset()
	}
	r.feed.Add(fx.Items)
	if len(fx.Contended) > 0 {
		r.backend.OnContended(fx.Contended)
	}
}
