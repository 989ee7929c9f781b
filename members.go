package flotilla

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/hashicorp/raft"
)

// view returns what this leader sees of the members.
func (n *membership) view(l *replica.Leadership) ([]member, error) {
	conf := l.Raft.GetConfiguration()
	if err := conf.Error(); err != nil {
		return nil, err
	}
	s := n.store.State()
	var all []member
	for _, srv := range conf.Configuration().Servers {
		id := string(srv.ID)
		there := id == n.self.ID || l.Acks.There(id)
		index, _ := n.replica.Port.Transport().Match(id, l.Term)
		known, _ := s.Member(id)
		last, _ := s.Process(id)
		all = append(all, member{
			id:      id,
			votes:   srv.Suffrage == raft.Voter,
			leads:   id == n.self.ID,
			absent:  !there && s.Session(id) == nil,
			refused: id != n.self.ID && n.replica.Port.Transport().Refused(id),
			current: there && index+replica.MaxBatch >= l.Raft.LastIndex(),
			lost:    known.InMemory,
			ended:   n.book.HasEnded(last.Incarnation),
			former:  s.IsFormer(id),
		})
	}
	return all, nil
}

// keepMembers records members' names and addresses, and makes the change of the membership that is due.
func (n *membership) keepMembers(l *replica.Leadership, r *roster) error {
	all, err := n.view(l)
	if err != nil {
		return err
	}
	for _, m := range all {
		if err := n.record(l, m.id); err != nil {
			return err
		}
	}
	c, ok := r.next(time.Now(), all)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(l.Ctx, 2*n.replica.AttemptTimeout())
	defer cancel()
	if err := n.carryOut(ctx, l, c); err != nil {
		return fmt.Errorf("%s: %w", n.book.NameOf(c.id), err)
	}
	return nil
}

// record has the cluster know what a member says of itself.
func (n *membership) record(l *replica.Leadership, id string) error {
	known, heard := n.book.Get(id)
	if m, ok := n.store.State().Member(id); !heard || ok && m == known {
		return nil
	}
	c := state.Command{Node: n.self.ID, Change: state.SetMember{Member: known}}
	err := l.Apply(l.Ctx, n.replica, state.SealCommand(n.store.State().Keys, &c), func(s *state.State) bool {
		m, ok := s.Member(id)
		return ok && m == known
	})
	if err != nil {
		return fmt.Errorf("recording the address of %s: %w", id, err)
	}
	return nil
}

// carryOut makes a change of the membership, and returns when it is committed.
func (n *membership) carryOut(ctx context.Context, l *replica.Leadership, c change) error {
	id := raft.ServerID(c.id)
	if c.kind == remove {
		n.log.Warn("removing a member", "member", n.book.NameOf(c.id), "id", c.id, "why", c.why)
		return n.remove(ctx, l, c.id)
	}
	settled, err := l.AwaitStable(ctx, n.replica)
	if err != nil {
		return err
	}
	all, err := n.view(l) // it took a moment
	i := slices.IndexFunc(all, func(m member) bool { return m.id == c.id })
	if err != nil || i < 0 {
		return err
	}
	switch m := all[i]; {
	case c.kind == demote && m.votes && m.absent && canDoWithout(all, c.id):
		n.log.Warn("a member votes no more", "member", n.book.NameOf(c.id), "id", c.id, "why", c.why)
		return replica.WaitFuture(ctx, l.Raft.DemoteVoter(id, settled, n.replica.AttemptTimeout()))
	case c.kind == promote && m.current:
		n.log.Info("a member votes from now on", "member", n.book.NameOf(c.id), "id", c.id, "why", c.why)
		return replica.WaitFuture(ctx, l.Raft.AddVoter(id, raft.ServerAddress(id), settled, n.replica.AttemptTimeout()))
	}
	return nil
}

// remove takes another member out of the cluster. Its session, if it has one, is ended first.
func (n *membership) remove(ctx context.Context, l *replica.Leadership, id string) error {
	settled, err := l.AwaitStable(ctx, n.replica)
	if err != nil {
		return err
	}
	stop, err := l.Expel(ctx, n.replica, id)
	if err != nil {
		return fmt.Errorf("ending its session: %w", err)
	}
	defer stop()
	if left, there := l.Without(n.replica, id); there <= left/2 {
		return fmt.Errorf("only %d of the %d voters that are left are there", there, left)
	}
	if err := replica.WaitFuture(ctx, l.Raft.RemoveServer(raft.ServerID(id), settled, n.replica.AttemptTimeout())); err != nil {
		return err
	}
	_, err = n.store.Wait(ctx, func(s *state.State) bool { return !slices.Contains(s.Servers, id) })
	return err
}

// leadMembers looks after the membership for one term of this node as leader.
func (n *membership) leadMembers(l *replica.Leadership) {
	members := newRoster(n.removeDead)
	for {
		if err := n.keepMembers(l, members); err != nil && l.Ctx.Err() == nil {
			n.log.Warn("a change of the membership failed; it is tried again", "err", err)
		}
		select {
		case <-n.book.Changed():
		case <-time.After(time.Second):
		case <-l.Ctx.Done():
			return
		}
	}
}
