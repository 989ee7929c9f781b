package replica

import (
	"context"
	"fmt"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// committer is the leader's part of a write: it proposes commands to raft, and waits until every
// node that is there has applied them.
type committer struct {
	timing timing.Timing
	store  *applied.Store
	leads  *LeaderState
	opener *Opener
	meters *Meters
}

// ServeApply answers rpc.Apply, with which a member proposes commands.
func (c *committer) ServeApply(ctx context.Context, peer string, body []byte) ([]byte, error) {
	m, err := DecodeApplyRequest(body)
	if err != nil {
		return nil, err
	}
	l, err := c.leads.AwaitLeading(ctx)
	if err != nil {
		return nil, err
	}
	// An entry that cannot be opened would stop every node that applies it.
	keys := c.store.State().Keys
	for _, q := range m.Proposals {
		command, err := c.opener.Open(keys, q.Entry)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", codec.ErrMalformed, err)
		}
		if command.Node != peer || command.Session != q.Session || command.Seq != q.Seq {
			return nil, codec.ErrMalformed
		}
	}
	return nil, c.propose(ctx, l, peer, m.Proposals)
}

// propose proposes a node's commands to raft, and returns when all of them are applied here and on
// every node that is there. It waits for the state, because raft does not answer its futures in
// some of the ways that an instance can end.
func (c *committer) propose(ctx context.Context, l *Leadership, node string, proposals []Proposal) error {
	ctx, cancel := context.WithTimeout(ctx, c.timing.Attempt())
	defer cancel()
	stop := context.AfterFunc(l.Ctx, cancel)
	defer stop()
	for _, q := range proposals {
		if ctx.Err() == nil {
			l.Raft.Apply(q.Entry, c.timing.Attempt())
		}
	}
	answered := func(s *state.State) (index uint64, all bool) {
		for _, q := range proposals {
			a, ok := s.Answer(node, q.Session, q.Seq)
			if !ok {
				return 0, false
			}
			index = max(index, a.Index)
		}
		return index, true
	}
	var index uint64
	_, err := c.store.Wait(ctx, func(s *state.State) (ok bool) {
		index, ok = answered(s)
		return ok
	})
	if err != nil {
		l.tellLater(func(s *state.State) bool {
			_, ok := answered(s)
			return ok
		})
		return errUnknown
	}
	defer observe(&c.meters.ReadersWait, time.Now())
	return l.Acks.wait(ctx, index)
}
