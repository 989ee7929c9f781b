package replica

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/history"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// How a node notices that its log is not the one that its cluster goes on with. That cannot be as
// long as no voter forgets: see package history. The sums of two logs are compared
//
//   - by a follower, with every request by which a leader replicates, before raft sees it;
//   - by a node that catches up, at the index that the leader names, so that no node is ready before;
//   - by the state machine, when a snapshot takes the place of what was applied.
//
// Entries that a node has applied never leave its log otherwise than behind a snapshot. What it has
// applied it knows across restarts by its mark.

// divergence is the error of this node, whose log contradicts that of a peer; empty: of its leader.
func (n *Replica) divergence(peer string, c *history.Conflict) error {
	if peer == "" {
		return state.Diverged("%v", c)
	}
	return state.Diverged("compared with %s, which leads, %v", n.Book.NameOf(peer), c)
}

// CompareLog is asked by the transport whether a leader's log contradicts this node's.
func (n *Replica) CompareLog(peer string, term uint64, c history.Claim) error {
	log := n.chain.Load()
	if log == nil {
		return nil
	}
	conflict := log.Compare(c)
	if conflict == nil || term < n.Term() { // asked last: an older leader may lack what a newer one has brought since
		return nil
	}
	err := n.divergence(peer, conflict)
	n.stopSoon(err)
	return err
}

// stopSoon is fail for a node that is about to tell a peer why.
func (n *Replica) stopSoon(err error) {
	n.Up.LoseLease(err)
	n.Life.Tasks.Go(func() {
		select {
		case <-time.After(n.Timing.Poll()):
		case <-n.Life.Works.Done():
		}
		n.Fail(err)
	})
}

// SumAt returns what stands for this node's log up to the entry of that index and term; the term 0 is
// any.
func (n *Replica) SumAt(index, term uint64) (uint64, bool) {
	log := n.chain.Load()
	if log == nil {
		return 0, false
	}
	sum, ok := log.At(index, term)
	return uint64(sum), ok
}

// appliedSum is sumAt for an entry that was applied.
func (n *Replica) appliedSum(index uint64) (uint64, bool) {
	if s := n.Store.State(); s.Index == index {
		return uint64(s.Past.Sum), true
	}
	return n.SumAt(index, 0)
}

// watchLog puts a log that knows its sums on the disk's, and has this node begin with what it knows to
// be committed.
func (n *Replica) watchLog(d *Disk) (*history.Log, error) {
	log := history.NewLog(d.logs, func() uint64 { return n.Store.State().Index }, func(c *history.Conflict) {
		n.Life.Tasks.Go(func() { n.Fail(n.divergence("", c)) })
	})
	n.chain.Store(log)
	mark := d.mark // of the last process; the next restore is of a leader's snapshot
	if n.Store.State().Index > 0 {
		mark = durable.Mark{} // of this one, which has its state
	}
	restore := func(s *state.State) (*state.State, error) {
		if err := log.Seed(s.Index, s.Past.Sum); err != nil {
			return nil, fmt.Errorf("reading the raft log: %w", err)
		}
		known := mark
		mark = durable.Mark{}
		return n.redo(d, log, s, known)
	}
	n.mu.Lock()
	n.restore = restore
	n.mu.Unlock()
	have, err := d.Snaps.List()
	if err != nil || len(have) > 0 {
		return log, err // raft restores the newest
	}
	s, err := restore(state.New())
	if err == nil && s.Index > n.Store.State().Index {
		n.FSM.Adopt(s)
	}
	return log, err
}

// redo applies the entries that the last process had applied: those that are behind the state s, up
// to the mark. raft would not know that they are committed until a leader says so.
func (n *Replica) redo(d *Disk, log *history.Log, s *state.State, mark durable.Mark) (*state.State, error) {
	if mark.Index < s.Index || mark.Index == 0 {
		return s, nil
	}
	if sum, ok := log.At(mark.Index, 0); !ok || uint64(sum) != mark.Sum {
		return nil, fmt.Errorf("the raft log in %s is not the one that this node has applied entry %d of: a part of the directory was restored from another copy; move the directory away to join as a new node", n.Dir.Path(), mark.Index)
	}
	for i := s.Index + 1; i <= mark.Index; i++ {
		var e raft.Log
		if err := d.logs.GetLog(i, &e); err != nil {
			return nil, fmt.Errorf("reading entry %d of the raft log: %w", i, err)
		}
		if e.Type != raft.LogCommand && e.Type != raft.LogConfiguration {
			continue
		}
		next, err := n.FSM.ApplyOne(s, &e, nil)
		if err != nil {
			return nil, fmt.Errorf("entry %d of the log: %w", i, err)
		}
		s = next
	}
	return s, nil
}

// keepMark writes down what this node has applied, until ctx ends.
func (n *Replica) keepMark(ctx context.Context) {
	f, err := n.Dir.OpenMark()
	if err != nil {
		n.Log.Warn("how far the log was applied cannot be written down", "err", err)
		return
	}
	defer f.Close()
	for last := uint64(0); ; {
		next := n.Store.Next()
		if s := n.Store.State(); s.Index != last {
			if err := f.Write(durable.Mark{Index: s.Index, Sum: uint64(s.Past.Sum)}); err != nil {
				n.Log.Debug("how far the log was applied cannot be written down", "err", err)
			}
			last = s.Index
			continue
		}
		select {
		case <-next:
		case <-ctx.Done():
			return
		}
	}
}
