package replica

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/history"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// Chain notices that this node's log is not the one that its cluster goes on with. That cannot
// happen while no voter forgets: see package history. Two logs are compared by their chained
// checksums
//
//   - by a follower, for every request in which a leader replicates, before raft sees it;
//   - by a node that catches up, at the index that the leader names, before the node is ready;
//   - by the state machine, when a snapshot replaces what was applied.
//
// An entry that a node has applied leaves its log only when a snapshot has it. A mark on the disk
// says what the node has applied, so that it knows that after a restart too.
type Chain struct {
	dir    *durable.Dir // nil: in memory
	log    *slog.Logger
	life   *lifecycle.Life
	timing timing.Timing
	store  *applied.Store
	fsm    Machine
	peers  *peers.Table
	group  *Group
	outage *Outage

	current atomic.Pointer[history.Log] // raft's log with its checksums; nil: raft was never started

	mu      sync.Mutex
	restore func(*state.State) (*state.State, error) // for Restored; nil before the first start
}

// CompareLog returns an error if what a leader claims of its log contradicts this node's. The node
// fails then, after it has told the leader.
func (c *Chain) CompareLog(peer string, term uint64, claim history.Claim) error {
	log := c.current.Load()
	if log == nil {
		return nil
	}
	conflict := log.Compare(claim)
	// The term is asked for last: an older leader may lack what a newer one has brought meanwhile.
	if conflict == nil || term < c.group.Term() {
		return nil
	}
	err := state.Diverged("compared with %s, which leads, %v", c.peers.NameOf(peer), conflict)
	c.outage.failSoon(err, c.timing.Poll()) // the answer goes to the peer first
	return err
}

// SumAt returns the checksum of this node's log up to the entry with that index and term. The term
// 0 stands for any. The second result is false if the checksum is not known.
func (c *Chain) SumAt(index, term uint64) (uint64, bool) {
	log := c.current.Load()
	if log == nil {
		return 0, false
	}
	sum, ok := log.At(index, term)
	return uint64(sum), ok
}

// appliedSum is SumAt for an entry that was applied.
func (c *Chain) appliedSum(index uint64) (uint64, bool) {
	if s := c.store.State(); s.Index == index {
		return uint64(s.Past.Sum), true
	}
	return c.SumAt(index, 0)
}

// checkConfirmed compares this node's past with that of the leader, at an index that the leader has
// confirmed and this node has applied. It fails the node if they differ.
func (c *Chain) checkConfirmed(m ConfirmReply) error {
	own, ok := c.appliedSum(m.Index)
	if !m.Known || !ok || own == m.Sum {
		return nil
	}
	err := state.Diverged("what leads to entry %d differs from what the leader has, %s", m.Index, c.peers.NameOf(c.group.Leader()))
	c.outage.Fail(err)
	return err
}

// Restored is called by raft's goroutine when a snapshot has been read. It returns the state to go
// on from.
func (c *Chain) Restored(s *state.State) (*state.State, error) {
	c.mu.Lock()
	restore := c.restore
	c.mu.Unlock()
	if restore == nil {
		return s, nil
	}
	return restore(s)
}

// watch returns a log that keeps checksums of logs, which is that of the disk. It restores the
// state that this node knows to be committed, unless raft will do so from a snapshot.
func (c *Chain) watch(d *Disk, logs raft.LogStore) (*history.Log, error) {
	log := history.NewLog(logs, func() uint64 { return c.store.State().Index }, func(conflict *history.Conflict) {
		c.life.Tasks.Go(func() { c.outage.Fail(state.Diverged("%v", conflict)) })
	})
	c.current.Store(log)
	mark := d.mark // of the last process
	if c.store.State().Index > 0 {
		mark = durable.Mark{} // raft was started anew in this process, which has the state
	}
	restore := func(s *state.State) (*state.State, error) {
		if err := log.Seed(s.Index, s.Past.Sum); err != nil {
			return nil, fmt.Errorf("reading the raft log: %w", err)
		}
		known := mark
		mark = durable.Mark{} // the next snapshot is a leader's
		return c.redo(d, log, s, known)
	}
	c.mu.Lock()
	c.restore = restore
	c.mu.Unlock()
	have, err := d.snaps.List()
	if err != nil || len(have) > 0 {
		return log, err // raft restores the newest
	}
	s, err := restore(state.New())
	if err == nil && s.Index > c.store.State().Index {
		c.fsm.Adopt(s)
	}
	return log, err
}

// redo applies to the state s the further entries that the last process had applied, up to its
// mark. raft itself learns that they are committed only from a leader.
func (c *Chain) redo(d *Disk, log *history.Log, s *state.State, mark durable.Mark) (*state.State, error) {
	if mark.Index < s.Index || mark.Index == 0 {
		return s, nil
	}
	if sum, ok := log.At(mark.Index, 0); !ok || uint64(sum) != mark.Sum {
		return nil, fmt.Errorf("the raft log in %s is not the one that this node has applied entry %d of: a part of the directory was restored from another copy; move the directory away to join as a new node", c.dir.Path(), mark.Index)
	}
	for i := s.Index + 1; i <= mark.Index; i++ {
		var e raft.Log
		if err := d.logs.GetLog(i, &e); err != nil {
			return nil, fmt.Errorf("reading entry %d of the raft log: %w", i, err)
		}
		if e.Type != raft.LogCommand && e.Type != raft.LogConfiguration {
			continue
		}
		next, err := c.fsm.ApplyOne(s, &e, nil)
		if err != nil {
			return nil, fmt.Errorf("entry %d of the log: %w", i, err)
		}
		s = next
	}
	return s, nil
}

// keepMark writes down what this node has applied, until ctx ends.
func (c *Chain) keepMark(ctx context.Context) {
	f, err := c.dir.OpenMark()
	if err != nil {
		c.log.Warn("how far the log was applied cannot be written down", "err", err)
		return
	}
	defer f.Close()
	for last := uint64(0); ; {
		s, err := c.store.Wait(ctx, func(s *state.State) bool { return s.Index != last })
		if err != nil {
			return
		}
		if err := f.Write(durable.Mark{Index: s.Index, Sum: uint64(s.Past.Sum)}); err != nil {
			c.log.Debug("how far the log was applied cannot be written down", "err", err)
		}
		last = s.Index
	}
}
