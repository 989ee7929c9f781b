package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// Transfer hands the leadership to a voter that is there and has every entry, to any one if to is empty. Each is tried once in a term: a second
// attempt that times out as the first did would leave raft refusing writes for ever (hashicorp/raft#696).
func (n *Replica) Transfer(ctx context.Context, to string) error {
	l := n.Leading.Load()
	if l == nil {
		return nil
	}
	failed := errors.New("no other voter is there and up to date")
	if to != "" {
		failed = errors.New("it is not up to date")
	}
	for {
		for _, srv := range n.Servers() {
			if to != "" && string(srv.ID) != to {
				continue
			}
			index, _ := n.Port.Transport().Match(string(srv.ID), l.Term)
			if string(srv.ID) == n.Self.ID || srv.Suffrage != raft.Voter || n.Book.IsLeaving(string(srv.ID)) || !l.Acks.There(string(srv.ID)) || index < l.Raft.LastIndex() || !l.Try(srv.ID) {
				continue
			}
			// Its future is not waited for: one that reaches raft as it ends is answered by nobody. raft gives up after its election time-out.
			l.Raft.LeadershipTransferToServer(srv.ID, srv.Address)
			select {
			case <-time.After(n.Timing.Heartbeat):
				failed = fmt.Errorf("%s has not taken over within %v", n.Book.NameOf(string(srv.ID)), n.Timing.Heartbeat)
			case <-l.Ctx.Done():
				return nil
			case <-ctx.Done():
				return fmt.Errorf("handing over the leadership to %s: %w", srv.ID, context.Cause(ctx))
			}
		}
		select {
		case <-time.After(n.Timing.Poll()):
		case <-l.Ctx.Done():
			return nil
		case <-ctx.Done():
			return fmt.Errorf("handing over the leadership: %w", failed)
		}
	}
}

// Try reports whether the leadership has not been offered to id in this term yet, and notes that it is now.
func (l *Leadership) Try(id raft.ServerID) bool {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	if l.Tried[id] {
		return false
	}
	l.Tried[id] = true
	return true
}

// Offered reports whether the leadership has been offered to id in this term.
func (l *Leadership) Offered(id raft.ServerID) bool {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	return l.Tried[id]
}

// StandForDead makes this node stand for election because a process of the leader is dead, unless
// another one of that node leads by then.
func (n *Replica) StandForDead(id, process string) {
	n.Life.Tasks.Go(func() {
		n.StandFor(n.Life.Works, id, func() bool { return n.Port.Transport().LedBy(id) == process })
	})
}

// StandFor makes this node stand for election because the leader's process is dead, its connections were reset and its port
// refuses, or because its lease has lapsed. It is an ordinary vote, as after a transfer of leadership. The voters stand one after another,
// for as long as there is reason to.
func (n *Replica) StandFor(ctx context.Context, dead string, reason func() bool) {
	r := n.Raft.Load()
	if r == nil || n.Leader() != dead || n.Life.Leaving.Load() {
		return
	}
	conf := r.GetConfiguration()
	if conf.Error() != nil {
		return
	}
	var voters []string
	for _, srv := range conf.Configuration().Servers {
		if id := string(srv.ID); srv.Suffrage == raft.Voter && id != dead {
			voters = append(voters, id)
		}
	}
	slices.Sort(voters)
	rank := slices.Index(voters, n.Self.ID)
	if rank < 0 {
		return
	}
	// The first to stand may lack entries that the others have, and lose: then the next one stands. Two that stand at once
	// may both lose, and raft waits for its election time-out then; so each looks first whether one before it stands.
	wait, term := time.Duration(rank)*100*time.Millisecond, r.CurrentTerm()
	for range 10 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		if leader := n.Leader(); leader != dead && leader != "" || !reason() {
			return
		}
		now := r.CurrentTerm()
		for _, id := range voters[:rank] {
			now = max(now, n.standsAt(ctx, id))
		}
		if now > term {
			term = now
		} else {
			n.Log.Info("standing for election", "in place of", dead)
			n.Stand(ctx)
		}
		wait = 60 * time.Millisecond
	}
}

// standsAt returns the term that a node is in, 0 if it does not say so quickly.
func (n *Replica) standsAt(ctx context.Context, id string) uint64 {
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	term, err := n.TermOf(ctx, id)
	if err != nil {
		return 0
	}
	return term
}

// Stand makes raft stand for election at once.
func (n *Replica) Stand(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, n.Timing.Lease)
	defer cancel()
	if _, err := n.Port.Transport().Inject(ctx, &raft.TimeoutNowRequest{RPCHeader: n.rpcHeader()}); err != nil {
		n.Log.Debug("standing for election", "err", err)
	}
}

// rpcHeader is that of every RPC of this node.
func (n *Replica) rpcHeader() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.Self.ID), Addr: []byte(n.Self.ID)}
}
