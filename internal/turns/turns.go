package turns

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// maxWait bounds how long a caller waits for its turn. After that it goes on without.
const maxWait = 5 * time.Second

// Config is what Turns needs of the node around it. All fields are required.
type Config struct {
	Timing timing.Timing   // a turn lasts for the time of a lease
	Life   *lifecycle.Life // tells when the node ends
	Self   *self.Self      // names this node
	Store  *applied.Store  // the state that this node has applied
	Port   *wire.Port      // reaches the leader
	Leader func() string   // the leader's ID, empty if none is known
}

// Turns asks the leader for this node's turns, and grants those of others while this node leads.
// Its methods are safe for concurrent use.
type Turns struct {
	cfg    Config
	table  table
	number atomic.Uint64 // of this node's newest ticket
}

// New returns a Turns. It starts nothing.
func New(cfg Config) *Turns { return &Turns{cfg: cfg} }

// Wait returns when it is this node's turn at a name, and this node has applied what the nodes
// before have changed. The caller must call done. After an error the caller may go on without.
func (t *Turns) Wait(ctx context.Context, name string) (done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	leader, number := t.cfg.Leader(), t.number.Add(1)
	ask := Request{Name: name, Number: number}
	switch leader {
	case "":
		return nil, errs.ErrNoLeader
	case t.cfg.Self.ID:
		_, err := t.Serve(ctx, leader, ask)
		return func() { t.table.leave(name, leader, number, t.cfg.Timing.Lease) }, err
	}
	reply, err := rpc.Call(ctx, t.cfg.Port, leader, rpc.Turn, ask, DecodeReply)
	if err == nil {
		_, err = t.cfg.Store.Wait(ctx, func(s *state.State) bool { return s.Index >= reply.Index })
	}
	done = func() {
		ask.Done = true
		t.cfg.Life.Tasks.Go(func() {
			ctx, cancel := context.WithTimeout(t.cfg.Life.Open, t.cfg.Timing.Lease)
			defer cancel()
			rpc.Call(ctx, t.cfg.Port, leader, rpc.Turn, ask, DecodeReply) // the turn ends by itself too
		})
	}
	if err != nil {
		done()
		return nil, err
	}
	return done, nil
}

// Serve answers rpc.Turn.
func (t *Turns) Serve(ctx context.Context, node string, ask Request) (Reply, error) {
	if t.cfg.Leader() != t.cfg.Self.ID {
		return Reply{}, rpc.ErrNotLeader
	}
	ctx, stop := t.cfg.Life.WhileOpen(ctx)
	defer stop()
	if ask.Done {
		t.table.leave(ask.Name, node, ask.Number, t.cfg.Timing.Lease)
		return Reply{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	if err := t.table.enter(ctx, ask.Name, node, ask.Number, t.cfg.Timing.Lease); err != nil {
		return Reply{}, err
	}
	return Reply{t.cfg.Store.State().Index}, nil
}
