package ops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/state"
)

const (
	demoteTime  = 10 * time.Second // for the leader to take a vote
	promoteTime = 3 * time.Second  // for it to give one, which need not come at once
)

// serveVote promotes or demotes a member, on the leader.
func (o *Operator) serveVote(ctx context.Context, peer string, body []byte) ([]byte, error) {
	q, err := remote.DecodeVoteRequest(body)
	if err != nil || q.Node == "" {
		return nil, codec.ErrMalformed
	}
	return toLeader(ctx, o, peer, remote.CallVote, body, func(ctx context.Context, l *replica.Leadership) (remote.Answer, error) {
		switch {
		case !o.cfg.Replica.IsServer(q.Node):
			return refuse("%s is no member", o.cfg.Peers.NameOf(q.Node))
		case q.Demote:
			return o.demote(ctx, l, q)
		}
		return o.promote(ctx, q.Node)
	})
}

// promote lets a member vote that was demoted. Whether and when it does is up to the leader.
func (o *Operator) promote(ctx context.Context, node string) (remote.Answer, error) {
	name := o.cfg.Peers.NameOf(node)
	votes := func(s *state.State) bool { return slices.Contains(s.Voters, node) }
	if !o.cfg.Store.State().IsDemoted(node) {
		if votes(o.cfg.Store.State()) {
			return done("%s votes", name)
		}
		return done("%s may vote, and does when its vote is of use: flotilla members says what it waits for", name)
	}
	o.cfg.Log.Info("an operator promotes a member", "peer", node, "name", name)
	if err := o.setVote(ctx, state.SetVote{Node: node}); err != nil {
		return remote.Answer{}, err
	}
	soon, cancel := context.WithTimeout(ctx, promoteTime)
	defer cancel()
	if _, err := o.cfg.Store.Wait(soon, votes); err != nil {
		return done("%s may vote again, and does when its vote is of use: flotilla members says what it waits for", name)
	}
	return done("%s votes", name)
}

// demote has a member vote no more. The leadership is handed over first if the member has it.
func (o *Operator) demote(ctx context.Context, l *replica.Leadership, q remote.VoteRequest) (remote.Answer, error) {
	name := o.cfg.Peers.NameOf(q.Node)
	if why := o.needed(l, q); why != "" {
		return remote.Answer{Refused: true, Text: why}, nil
	}
	if q.Node == o.cfg.Self.ID {
		soon, cancel := context.WithTimeout(ctx, o.cfg.Replica.TransferTimeout())
		defer cancel()
		if err := o.cfg.Replica.Transfer(soon, ""); err != nil {
			return refuse("%s leads, and is not demoted: the leadership stays with it: %v", name, err)
		}
		// The next leader goes on.
		return remote.Answer{}, fmt.Errorf("%s has handed the leadership over: %w", name, rpc.ErrNotLeader)
	}
	o.cfg.Log.Info("an operator demotes a member", "peer", q.Node, "name", name)
	least := uint64(membership.MinVoters)
	if q.Few {
		least = 1
	}
	err := o.setVote(ctx, state.SetVote{Node: q.Node, Demotion: &state.Demotion{Least: least}})
	if errors.Is(err, errVotersChanged) {
		return refuse("%s is not demoted: the voters have just changed; look at them (flotilla members), and repeat the command if it is still right", name)
	} else if err != nil {
		return remote.Answer{}, err
	}
	soon, cancel := context.WithTimeout(ctx, demoteTime)
	defer cancel()
	if _, err := o.cfg.Store.Wait(soon, func(s *state.State) bool { return !slices.Contains(s.Voters, q.Node) }); err != nil {
		return refuse("%s is demoted and votes still; it ceases to when every node knows the present voters and a majority is there without it", name)
	}
	return done("%s does not vote; it stays a member, and votes again after flotilla members promote", name)
}

// needed says why a member must go on voting, or "".
func (o *Operator) needed(l *replica.Leadership, q remote.VoteRequest) string {
	name, s := o.cfg.Peers.NameOf(q.Node), o.cfg.Store.State()
	votes, leads, undemoted := false, false, 0
	for _, srv := range o.cfg.Replica.Servers() {
		id := string(srv.ID)
		if srv.Suffrage != raft.Voter {
			continue
		}
		if id == q.Node {
			votes = true
			continue
		}
		if !s.IsDemoted(id) {
			undemoted++
		}
		leads = leads || s.CanLead(id) && (id == o.cfg.Self.ID || l.Acks.There(id))
	}
	left, there := l.Without(q.Node)
	switch {
	case !votes:
		return ""
	case left == 0:
		return name + " is the only voter; let another node join, and repeat the command when that one votes"
	case there <= left/2:
		return fmt.Sprintf("without %s only %d of the %d voters that are left would be there, and no majority of them; start the others first", name, there, left)
	case undemoted < left && undemoted < membership.MinVoters && !q.Few:
		return fmt.Sprintf("only %d of the voters that would be left without %s are not demoted themselves; promote one first (flotilla members promote)", undemoted, name)
	case !leads:
		return fmt.Sprintf("without %s no voter could lead, as the others are witnesses or demoted; promote one first (flotilla members promote)", name)
	case left < membership.MinVoters && !q.Few:
		return fmt.Sprintf("without %s %d voters would be left, fewer than %d; have another node vote first, or give -yes if this is what you want", name, left, membership.MinVoters)
	}
	return ""
}

// errVotersChanged is the error of a demotion after which too few would vote.
var errVotersChanged = errors.New("too few others vote")

// setVote has the cluster know whether a member may vote.
func (o *Operator) setVote(ctx context.Context, c state.SetVote) error {
	a, err := o.cfg.Replica.Writes.Do(ctx, state.Command{Change: c})
	if err == nil && a.Code == state.CodeChanged {
		err = errVotersChanged
	}
	return err
}
