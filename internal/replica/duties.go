package replica

import (
	"context"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/hashicorp/raft"
)

// watchRaft keeps the node's picture of raft: it runs the leader's duties while this node leads, and wakes those who wait
// for a leader. Observations only poke it: raft blocks while they are delivered, and may drop them.
func (n *Replica) watchRaft(ctx context.Context, r *raft.Raft) {
	poke := make(chan struct{}, 1)
	observer := raft.NewObserver(nil, false, func(*raft.Observation) bool {
		select {
		case poke <- struct{}{}:
		default:
		}
		return false
	})
	r.RegisterObserver(observer)
	defer r.DeregisterObserver(observer)

	var l *Leadership // whose duties run
	led := uint64(0)  // the last term of ours that is over
	var duties sync.WaitGroup
	end := func() {
		if l != nil {
			l.stop()
			duties.Wait()
			n.beat(r, n.Timing.Heartbeat)
			n.Port.Transport().Release(l.Term)
			led, l = l.Term, nil
		}
	}
	defer end()
	before := ""
	for {
		term, leads := r.CurrentTerm(), r.State() == raft.Leader
		if leader := n.Leader(); leader != "" && leader != n.Self.ID {
			before = leader
		}
		if l != nil && (!leads || l.Term != term) {
			end()
		}
		if leads && l == nil {
			l = NewLeadership(ctx, n, r, term)
			l.before, l.beforeHeard = before, r.LastContact()
			n.beat(r, 2*n.Timing.Heartbeat)
			run := l
			duties.Go(func() { n.runDuties(run) })
		}
		n.Life.Changed.Notify()
		select {
		case <-poke:
		case leads := <-r.LeaderCh():
			if !leads { // only now has raft told its replication to stop: calls that are held would be made again before
				n.Port.Transport().Release(led)
			}
		case <-ctx.Done():
			return
		}
	}
}

// beat has raft wait that long for a leader's heartbeats, and as a leader send them ten times as often. That rate is all that a leader's
// own time-out is for, and it is the larger part of what a leader has to do at rest.
func (n *Replica) beat(r *raft.Raft, timeout time.Duration) {
	c := r.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = timeout, timeout
	if err := r.ReloadConfig(c); err != nil {
		n.Log.Warn("raft does not take another heartbeat", "timeout", timeout, "err", err)
	}
}

// runDuties does what falls to a leader, for one term.
func (n *Replica) runDuties(l *Leadership) {
	if !n.startTerm(l) {
		return
	}
	n.Leading.Store(l)
	n.Life.Changed.Notify()
	n.Up.WakeLease()
	defer func() {
		n.Leading.Store(nil)
		n.Life.Changed.Notify()
	}()
	n.Up.Lead(l)
}

// startTerm has an entry of this term applied: only then has this node everything that was acknowledged before. In a new
// cluster that entry brings the keys.
func (n *Replica) startTerm(l *Leadership) bool {
	for l.Ctx.Err() == nil {
		s := n.Store.State()
		var entry []byte
		var err error
		if s.Keys == nil {
			entry, err = n.newKeyring()
		} else {
			entry = state.SealCommand(s.Keys, &state.Command{Node: n.Self.ID, Change: state.StartTerm{}})
		}
		if err != nil {
			n.Fail(err)
			return false
		}
		first := l.Raft.LastIndex() // of this term or later: raft's own first entry at least
		err = l.Apply(l.Ctx, entry, func(s *state.State) bool { return s.Index > first })
		if err == nil && n.Store.State().Keys != nil {
			return true
		}
	}
	return false
}

// newKeyring makes the entry that a new cluster begins with.
func (n *Replica) newKeyring() ([]byte, error) {
	wrapped, err := seal.NewKeyring().Wrap(n.Secrets...)
	if err != nil {
		return nil, err
	}
	return state.Keyring{Cluster: n.Up.ClusterID(), Wrapped: wrapped}.Entry(), nil
}
