package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// Group is the raft group as this node knows it: its servers, its leader and its term. Its methods
// are safe for concurrent use, also before raft was started.
type Group struct {
	Raft atomic.Pointer[Instance] // the last run of raft; nil before the first

	self      *self.Self
	life      *lifecycle.Life
	store     *applied.Store
	peers     *peers.Table
	port      *wire.Port
	isCurrent func() bool
	stalled   func() bool // the disk hangs
}

// Term returns raft's current term, 0 before raft was started.
func (g *Group) Term() uint64 {
	if r := g.Raft.Load(); r != nil {
		return r.CurrentTerm()
	}
	return 0
}

// knownTerm returns raft's current term to a peer that relies on it. A node whose raft does not run
// returns an error.
func (g *Group) knownTerm() (uint64, error) {
	r := g.Raft.Load()
	if r == nil || g.life.Setback.Load() != nil {
		return 0, errors.New("raft does not run here now")
	}
	return r.CurrentTerm(), nil
}

// ServeTerm answers rpc.Term.
func (g *Group) ServeTerm(context.Context, string, []byte) ([]byte, error) {
	term, err := g.knownTerm()
	if err != nil {
		return nil, err
	}
	return TermReply{Term: term}.Encode(), nil
}

// Standing returns the leader that raft knows, empty for none, and whether raft is a candidate all
// the same. The next election may have begun since.
func (g *Group) Standing() (leader string, candidate bool) {
	r := g.Raft.Load()
	if r == nil {
		return "", false
	}
	_, id := r.LeaderWithID()
	return string(id), r.State() == raft.Candidate
}

// TermOf asks a node, which may be this one, for its current term.
func (g *Group) TermOf(ctx context.Context, id string) (uint64, error) {
	if id == g.self.ID {
		return g.knownTerm()
	}
	reply, err := g.port.Call(ctx, id, rpc.Term, nil)
	if err != nil {
		return 0, err
	}
	m, err := DecodeTermReply(reply)
	return m.Term, err
}

// Leader returns the node ID of the leader as far as this node knows, empty if it knows none.
func (g *Group) Leader() string {
	r := g.Raft.Load()
	if r == nil || g.life.Setback.Load() != nil {
		return ""
	}
	_, id := r.LeaderWithID()
	if string(id) == g.self.ID && g.stalled() {
		return "" // nobody follows it, and raft on this node cannot know
	}
	return string(id)
}

// AskLeader calls the leader. If this node leads, it calls here instead, which is the function that
// serves such calls. A call that is under way when another node leads is given up, because a node
// that is cut off may never answer. The error then wraps rpc.ErrNotLeader, and whether the old
// leader has done what it was asked is not known.
func (g *Group) AskLeader(ctx context.Context, path string, body []byte, here func(ctx context.Context, peer string, body []byte) ([]byte, error)) ([]byte, error) {
	leader := g.Leader()
	if leader == "" {
		return nil, errs.ErrNoLeader
	}
	asked, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer notify.Beside(asked, func(ctx context.Context) {
		if notify.Until(ctx, func() bool { now := g.Leader(); return now != leader && now != "" }, &g.life.Changed) == nil {
			cancel(rpc.ErrNotLeader)
		}
	})()
	var reply []byte
	var err error
	if leader == g.self.ID {
		reply, err = here(asked, g.self.ID, body)
	} else {
		reply, err = g.port.Call(asked, leader, path, body)
	}
	if err != nil && context.Cause(asked) == rpc.ErrNotLeader {
		err = fmt.Errorf("%s leads no more: %w", g.peers.NameOf(leader), rpc.ErrNotLeader)
	}
	return reply, err
}

// Servers returns the newest configuration of raft that this node has, nil if it has none.
func (g *Group) Servers() []raft.Server {
	r := g.Raft.Load()
	if r == nil {
		return nil
	}
	conf := r.GetConfiguration()
	if conf.Error() != nil {
		return nil
	}
	return conf.Configuration().Servers
}

// Others returns the node IDs of the other members.
func (g *Group) Others() []string {
	var ids []string
	for _, srv := range g.Servers() {
		if string(srv.ID) != g.self.ID {
			ids = append(ids, string(srv.ID))
		}
	}
	return ids
}

// IsServer reports whether a node is a member, as far as this one knows.
func (g *Group) IsServer(id string) bool {
	return slices.ContainsFunc(g.Servers(), func(srv raft.Server) bool { return string(srv.ID) == id })
}

// Admit returns nil if a peer may speak raft to this node, as the members of its configuration may.
// The configuration of a node that was away may be old. So until it has caught up it also admits
// nodes that its peers have told it of; all of them know the secret.
func (g *Group) Admit(id string) error {
	if s := g.life.Setback.Load(); s != nil {
		return s.Err
	}
	if g.IsServer(id) {
		return nil
	}
	if g.Raft.Load() == nil {
		return errors.New("not in a cluster yet")
	}
	if _, known := g.peers.Addr(id); known && !g.isCurrent() && !g.store.State().Refuses(id) {
		return nil
	}
	return errors.New("not a member of the cluster")
}

// isAbsent reports whether it is known why a member cannot be reached: its session has ended, or
// this node is about to stop.
func (g *Group) isAbsent(id string) bool {
	s := g.store.State()
	return g.life.Leaving.Load() || g.life.Works.Err() != nil || s.Elected > 0 && s.Session(id) == nil
}

// header returns the header of this node's raft requests.
func (g *Group) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(g.self.ID), Addr: []byte(g.self.ID)}
}
