package replica

import (
	"context"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// WriteTimeout limits a write whose context has no earlier deadline.
const WriteTimeout = 30 * time.Second

// Proposer takes this node's commands to the leader until each is answered. Its methods are safe
// for concurrent use. Run must run.
type Proposer struct {
	timing timing.Timing
	life   *lifecycle.Life
	self   *self.Self
	store  *applied.Store
	port   *wire.Port
	group  *Group
	leads  *LeaderState
	commit *committer
	opener *Opener
	meters *Meters

	numbers numbers
	batches batcher
}

// Fenced returns a context with which this node's commands take effect only while a claim of a
// session holds its role.
func (p *Proposer) Fenced(ctx context.Context, session uint64, fence state.Fence) context.Context {
	return withFence(ctx, p, session, fence)
}

// Do proposes c in this node's session. It returns the answer once the command is committed and
// applied here and on every node that is there. After an error the outcome is not known. An error
// that wraps errs.ErrLost says that nothing of this session will take effect any more. A
// *state.VersionError says that the command cannot be proposed in this cluster yet.
//
// If ctx is that of a tenure, or of one within another, the command takes effect only as long as
// all of them last.
func (p *Proposer) Do(ctx context.Context, c state.Command) (state.Answer, error) {
	if err := applyFences(ctx, p, &c); err != nil {
		return state.Answer{}, err
	}
	_, a, err := p.DoIn(ctx, c)
	return a, err
}

// DoIn is Do for a command that belongs to c.Session, or to this node's session if that is 0, and
// has its fences already. It returns the session, 0 if there never was one. The answer's Seq is
// valid even with an error.
func (p *Proposer) DoIn(ctx context.Context, c state.Command) (uint64, state.Answer, error) {
	if ctx.Err() != nil {
		return 0, state.Answer{}, context.Cause(ctx)
	}
	began := time.Now()
	session, a, err := p.doIn(ctx, c)
	p.meters.wrote(began, a.Code, err)
	return session, a, err
}

// doIn is DoIn for a context that has not ended.
func (p *Proposer) doIn(ctx context.Context, c state.Command) (uint64, state.Answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, WriteTimeout, errs.ErrNoLeader)
	defer cancel()
	ctx, stop := p.life.WhileOpen(ctx)
	defer stop()

	s, err := p.store.Wait(ctx, func(s *state.State) bool { return p.self.Session(s) != 0 })
	if err != nil {
		return 0, state.Answer{}, p.life.Because(err)
	}
	own := p.self.Session(s)
	if c.Session != 0 && c.Session != own {
		return c.Session, state.Answer{}, ErrEnded
	}
	if err := s.Admits(c.Change); err != nil {
		return own, state.Answer{}, err
	}
	c.Node, c.Session, c.Time = p.self.ID, own, time.Now().UnixNano()
	if c.Seq, c.Acked = p.numbers.begin(c.Session); c.Seq == 0 {
		return c.Session, state.Answer{}, ErrEnded
	}
	defer p.numbers.end(c.Session, c.Seq)
	a := state.Answer{Seq: c.Seq}
	keys := s.Keys
	proposal := Proposal{Session: c.Session, Seq: c.Seq, Entry: p.opener.Seal(keys, &c)}
	err = notify.Loop(ctx, func() (time.Time, bool) {
		// The leader may have forgotten the former key meanwhile.
		if now := p.store.State().Keys; now.ID() != keys.ID() {
			keys, proposal.Entry = now, p.opener.Seal(now, &c)
		}
		err := p.batches.propose(ctx, proposal)
		return time.Now().Add(p.timing.Poll()), err == nil
	}, &p.life.Changed)
	if err != nil {
		return c.Session, a, p.life.Because(err)
	}
	_, err = p.store.Wait(ctx, func(s *state.State) (ok bool) {
		a, ok = s.Answer(c.Node, c.Session, c.Seq)
		return ok
	})
	if err != nil {
		return c.Session, state.Answer{Seq: c.Seq}, p.life.Because(err)
	}
	if a.Code == state.CodeEnded {
		return c.Session, a, ErrEnded
	}
	return c.Session, a, nil
}

// Oldest returns how many commands wait for their answers, and since when the first of them does.
func (p *Proposer) Oldest() (waiting int, since time.Time) { return p.numbers.oldest() }

// Run takes this node's commands to the leader until ctx ends.
func (p *Proposer) Run(ctx context.Context) { p.batches.run(ctx, p.life, p.timing.Poll(), p.send) }

// send takes a batch to the leader once. The answers to the commands come by the log, to this
// node's own state machine.
func (p *Proposer) send(ctx context.Context, b *batch) error {
	leader := p.group.Leader()
	switch leader {
	case "":
		return errs.ErrNoLeader
	case p.self.ID:
		l, err := p.leads.AwaitLeading(ctx)
		if err != nil {
			return err
		}
		return p.commit.propose(ctx, l, p.self.ID, b.proposals())
	}
	ctx, cancel := context.WithTimeout(ctx, p.timing.Attempt())
	defer cancel()
	p.life.Tasks.Go(func() { // a node that leads no more may be cut off, and never answer
		if notify.Until(ctx, func() bool { return p.group.Leader() != leader }, &p.life.Changed) == nil {
			cancel()
		}
	})
	_, err := p.port.Call(ctx, leader, rpc.Apply, ApplyRequest{b.proposals()}.Encode())
	return err
}
