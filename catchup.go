package flotilla

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

// until repeats what needs a leader.
func (n *replica) until(ctx context.Context, f func(context.Context) error) {
	for ctx.Err() == nil {
		changed := n.life.Changed.Wait()
		err := f(ctx)
		if err == nil {
			return
		}
		n.log.Debug("waiting for the cluster", "err", err)
		why := err.Error()
		n.life.WaitsFor.Store(&why)
		select {
		case <-changed:
		case <-time.After(n.timing.Retry()):
		case <-ctx.Done():
		}
	}
}

// catchUp waits until this node has applied everything that was acknowledged before.
func (n *replica) catchUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, n.attemptTimeout())
	defer cancel()
	applied := n.store.State().Index
	reply, err := n.askLeader(ctx, rpc.Confirm, nil)
	if err != nil {
		return err
	}
	d := codec.Decoder{B: reply}
	index, last, known, sum := d.Uint(), d.Uint(), d.Bool(), d.Uint()
	if err := d.End(); err != nil {
		return err
	}
	if applied > last {
		err := state.Diverged("entry %d was applied here, and the log of the leader, %s, ends with entry %d", applied, n.book.NameOf(n.leader()), last)
		n.fail(err)
		return err
	}
	if _, err := n.store.Wait(ctx, func(s *state.State) bool { return s.Index >= index }); err != nil {
		return err
	}
	return n.checkConfirmed(index, known, sum)
}

// caughtUp waits until this node has applied everything that was acknowledged before, for some attempts' time at most.
func (n *replica) caughtUp(ctx context.Context, attempts int) (done bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(attempts)*n.attemptTimeout())
	defer cancel()
	ctx, stop := n.life.WhileOpen(ctx)
	defer stop()
	n.until(ctx, func(ctx context.Context) error {
		err := n.catchUp(ctx)
		done = err == nil
		return err
	})
	return done
}

func (n *replica) serveConfirm(ctx context.Context, peer string, _ []byte) ([]byte, error) {
	index, err := n.confirm(ctx)
	if err != nil {
		return nil, err
	}
	if l := n.leading.Load(); l != nil && peer != n.self.ID {
		l.acks.returned(peer, index)
	}
	return n.encodeConfirmed(index), nil
}

func (n *replica) serveTerm(context.Context, string, []byte) ([]byte, error) {
	term, err := n.knownTerm()
	if err != nil {
		return nil, err
	}
	var e codec.Encoder
	e.Uint(term)
	return e.B, nil
}

// askLeader calls whoever leads, this node too.
func (n *replica) askLeader(ctx context.Context, path string, body []byte) ([]byte, error) {
	switch leader := n.leader(); leader {
	case "":
		return nil, errs.NoLeader
	case n.self.ID:
		switch path {
		case rpc.OpenSession:
			return n.up.serveOpen(ctx, n.self.ID, body)
		case rpc.EndSession:
			return n.up.serveEnd(ctx, n.self.ID, body)
		}
		return n.serveConfirm(ctx, n.self.ID, body)
	default:
		return n.port.Call(ctx, leader, path, body)
	}
}

// encodeConfirmed makes the answer to Confirm.
func (n *replica) encodeConfirmed(index uint64) []byte {
	var e codec.Encoder
	e.Uint(index)
	e.Uint(n.lastIndex())
	sum, ok := n.appliedSum(index)
	e.Bool(ok)
	e.Uint(sum)
	return e.B
}

// checkConfirmed compares this node's past with that of the leader, at the index that it has confirmed
// and this node has applied.
func (n *replica) checkConfirmed(index uint64, known bool, sum uint64) error {
	own, ok := n.appliedSum(index)
	if !known || !ok || own == sum {
		return nil
	}
	err := state.Diverged("what leads to entry %d differs from what the leader has, %s", index, n.book.NameOf(n.leader()))
	n.fail(err)
	return err
}

// confirm returns an index that no acknowledged write is above. This node led when confirm was called: a majority of the voters
// said after that that they know no later term. (raft's VerifyLeader also counts answers to questions that were put before.)
func (n *replica) confirm(ctx context.Context) (uint64, error) {
	l := n.leading.Load()
	if l == nil {
		return 0, rpc.ErrNotLeader
	}
	index := n.store.State().Index
	conf := l.raft.GetConfiguration()
	if err := conf.Error(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, n.attemptTimeout())
	defer cancel()
	votes := make(chan bool)
	voters, yes := 0, 0
	for _, srv := range conf.Configuration().Servers {
		if srv.Suffrage != raft.Voter {
			continue
		}
		voters++
		n.life.Tasks.Go(func() {
			term, err := n.termOf(ctx, string(srv.ID))
			select {
			case votes <- err == nil && term <= l.term:
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

// termOf asks a node for its current term.
func (n *replica) termOf(ctx context.Context, id string) (uint64, error) {
	if id == n.self.ID {
		return n.knownTerm()
	}
	reply, err := n.port.Call(ctx, id, rpc.Term, nil)
	if err != nil {
		return 0, err
	}
	d := codec.Decoder{B: reply}
	term := d.Uint()
	return term, d.End()
}
