package replica

import (
	"context"
	"fmt"
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/hashicorp/raft"
)

// Until repeats what needs a leader.
func (n *Replica) Until(ctx context.Context, f func(context.Context) error) {
	for ctx.Err() == nil {
		changed := n.Life.Changed.Wait()
		err := f(ctx)
		if err == nil {
			return
		}
		n.Log.Debug("waiting for the cluster", "err", err)
		why := err.Error()
		n.Life.WaitsFor.Store(&why)
		select {
		case <-changed:
		case <-time.After(n.Timing.Retry()):
		case <-ctx.Done():
		}
	}
}

// CatchUp waits until this node has applied everything that was acknowledged before.
func (n *Replica) CatchUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, n.AttemptTimeout())
	defer cancel()
	applied := n.Store.State().Index
	reply, err := n.AskLeader(ctx, rpc.Confirm, nil, n.ServeConfirm)
	if err != nil {
		return err
	}
	d := codec.Decoder{B: reply}
	index, last, known, sum := d.Uint(), d.Uint(), d.Bool(), d.Uint()
	if err := d.End(); err != nil {
		return err
	}
	if applied > last {
		err := state.Diverged("entry %d was applied here, and the log of the leader, %s, ends with entry %d", applied, n.Book.NameOf(n.Leader()), last)
		n.Fail(err)
		return err
	}
	if _, err := n.Store.Wait(ctx, func(s *state.State) bool { return s.Index >= index }); err != nil {
		return err
	}
	return n.checkConfirmed(index, known, sum)
}

// CaughtUp waits until this node has applied everything that was acknowledged before, for some attempts' time at most.
func (n *Replica) CaughtUp(ctx context.Context, attempts int) (done bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(attempts)*n.AttemptTimeout())
	defer cancel()
	ctx, stop := n.Life.WhileOpen(ctx)
	defer stop()
	n.Until(ctx, func(ctx context.Context) error {
		err := n.CatchUp(ctx)
		done = err == nil
		return err
	})
	return done
}

func (n *Replica) ServeConfirm(ctx context.Context, peer string, _ []byte) ([]byte, error) {
	index, err := n.Confirm(ctx)
	if err != nil {
		return nil, err
	}
	if l := n.Leading.Load(); l != nil && peer != n.Self.ID {
		l.Acks.returned(peer, index)
	}
	return n.encodeConfirmed(index), nil
}

func (n *Replica) ServeTerm(context.Context, string, []byte) ([]byte, error) {
	term, err := n.knownTerm()
	if err != nil {
		return nil, err
	}
	var e codec.Encoder
	e.Uint(term)
	return e.B, nil
}

// AskLeader calls the leader, with the function that serves such calls if this node is the leader.
func (n *Replica) AskLeader(ctx context.Context, path string, body []byte, here func(ctx context.Context, peer string, body []byte) ([]byte, error)) ([]byte, error) {
	switch leader := n.Leader(); leader {
	case "":
		return nil, errs.NoLeader
	case n.Self.ID:
		return here(ctx, n.Self.ID, body)
	default:
		return n.Port.Call(ctx, leader, path, body)
	}
}

// encodeConfirmed makes the answer to Confirm.
func (n *Replica) encodeConfirmed(index uint64) []byte {
	var e codec.Encoder
	e.Uint(index)
	e.Uint(n.LastIndex())
	sum, ok := n.appliedSum(index)
	e.Bool(ok)
	e.Uint(sum)
	return e.B
}

// checkConfirmed compares this node's past with that of the leader, at the index that it has confirmed
// and this node has applied.
func (n *Replica) checkConfirmed(index uint64, known bool, sum uint64) error {
	own, ok := n.appliedSum(index)
	if !known || !ok || own == sum {
		return nil
	}
	err := state.Diverged("what leads to entry %d differs from what the leader has, %s", index, n.Book.NameOf(n.Leader()))
	n.Fail(err)
	return err
}

// Confirm returns an index that no acknowledged write is above. This node led when confirm was called: a majority of the voters
// said after that that they know no later term. (raft's VerifyLeader also counts answers to questions that were put before.)
func (n *Replica) Confirm(ctx context.Context) (uint64, error) {
	l := n.Leading.Load()
	if l == nil {
		return 0, rpc.ErrNotLeader
	}
	index := n.Store.State().Index
	conf := l.Raft.GetConfiguration()
	if err := conf.Error(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, n.AttemptTimeout())
	defer cancel()
	votes := make(chan bool)
	voters, yes := 0, 0
	for _, srv := range conf.Configuration().Servers {
		if srv.Suffrage != raft.Voter {
			continue
		}
		voters++
		n.Life.Tasks.Go(func() {
			term, err := n.TermOf(ctx, string(srv.ID))
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
			return 0, fmt.Errorf("%w: a majority of the voters does not answer", errs.NoLeader)
		}
		if yes > voters/2 {
			return index, nil
		}
	}
	return 0, rpc.ErrNotLeader
}

// TermOf asks a node for its current term.
func (n *Replica) TermOf(ctx context.Context, id string) (uint64, error) {
	if id == n.Self.ID {
		return n.knownTerm()
	}
	reply, err := n.Port.Call(ctx, id, rpc.Term, nil)
	if err != nil {
		return 0, err
	}
	d := codec.Decoder{B: reply}
	term := d.Uint()
	return term, d.End()
}
