package flotilla

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// transfer hands the leadership to a voter that is there and has every entry, to any one if to is empty. Each is tried once in a term: a second
// attempt that times out as the first did would leave raft refusing writes for ever (hashicorp/raft#696).
func (n *replica) transfer(ctx context.Context, to string) error {
	l := n.leading.Load()
	if l == nil {
		return nil
	}
	failed := errors.New("no other voter is there and up to date")
	if to != "" {
		failed = errors.New("it is not up to date")
	}
	for {
		for _, srv := range n.servers() {
			if to != "" && string(srv.ID) != to {
				continue
			}
			index, _ := n.port.Transport().Match(string(srv.ID), l.term)
			if string(srv.ID) == n.self.ID || srv.Suffrage != raft.Voter || n.book.IsLeaving(string(srv.ID)) || !l.acks.there(string(srv.ID)) || index < l.raft.LastIndex() || !l.try(srv.ID) {
				continue
			}
			// Its future is not waited for: one that reaches raft as it ends is answered by nobody. raft gives up after its election time-out.
			l.raft.LeadershipTransferToServer(srv.ID, srv.Address)
			select {
			case <-time.After(n.timing.Heartbeat):
				failed = fmt.Errorf("%s has not taken over within %v", n.book.NameOf(string(srv.ID)), n.timing.Heartbeat)
			case <-l.ctx.Done():
				return nil
			case <-ctx.Done():
				return fmt.Errorf("handing over the leadership to %s: %w", srv.ID, context.Cause(ctx))
			}
		}
		select {
		case <-time.After(n.timing.Poll()):
		case <-l.ctx.Done():
			return nil
		case <-ctx.Done():
			return fmt.Errorf("handing over the leadership: %w", failed)
		}
	}
}

// try reports whether the leadership has not been offered to id in this term yet, and notes that it is now.
func (l *leadership) try(id raft.ServerID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tried[id] {
		return false
	}
	l.tried[id] = true
	return true
}

// offered reports whether the leadership has been offered to id in this term.
func (l *leadership) offered(id raft.ServerID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tried[id]
}

// standForDead makes this node stand for election because a process of the leader is dead, unless
// another one of that node leads by then.
func (n *replica) standForDead(id, process string) {
	n.life.Tasks.Go(func() {
		n.standFor(n.life.Works, id, func() bool { return n.port.Transport().LedBy(id) == process })
	})
}

// standFor makes this node stand for election because the leader's process is dead, its connections were reset and its port
// refuses, or because its lease has lapsed. It is an ordinary vote, as after a transfer of leadership. The voters stand one after another,
// for as long as there is reason to.
func (n *replica) standFor(ctx context.Context, dead string, reason func() bool) {
	r := n.raft.Load()
	if r == nil || n.leader() != dead || n.life.Leaving.Load() {
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
	rank := slices.Index(voters, n.self.ID)
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
		if leader := n.leader(); leader != dead && leader != "" || !reason() {
			return
		}
		now := r.CurrentTerm()
		for _, id := range voters[:rank] {
			now = max(now, n.standsAt(ctx, id))
		}
		if now > term {
			term = now
		} else {
			n.log.Info("standing for election", "in place of", dead)
			n.stand(ctx)
		}
		wait = 60 * time.Millisecond
	}
}

// standsAt returns the term that a node is in, 0 if it does not say so quickly.
func (n *replica) standsAt(ctx context.Context, id string) uint64 {
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	term, err := n.termOf(ctx, id)
	if err != nil {
		return 0
	}
	return term
}

// stand makes raft stand for election at once.
func (n *replica) stand(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, n.timing.Lease)
	defer cancel()
	if _, err := n.port.Transport().Inject(ctx, &raft.TimeoutNowRequest{RPCHeader: n.rpcHeader()}); err != nil {
		n.log.Debug("standing for election", "err", err)
	}
}

// rpcHeader is that of every RPC of this node.
func (n *replica) rpcHeader() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.self.ID), Addr: []byte(n.self.ID)}
}
