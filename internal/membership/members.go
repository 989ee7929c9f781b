package membership

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
func (n *Membership) view(l *replica.Leadership) ([]Member, error) {
	conf := l.Raft.GetConfiguration()
	if err := conf.Error(); err != nil {
		return nil, err
	}
	s := n.Store.State()
	var all []Member
	for _, srv := range conf.Configuration().Servers {
		id := string(srv.ID)
		there := id == n.Self.ID || l.Acks.There(id)
		index, _ := n.Replica.Port.Transport().Match(id, l.Term)
		known, _ := s.Member(id)
		last, _ := s.Process(id)
		all = append(all, Member{
			ID:      id,
			Votes:   srv.Suffrage == raft.Voter,
			Leads:   id == n.Self.ID,
			Absent:  !there && s.Session(id) == nil,
			Refused: id != n.Self.ID && n.Replica.Port.Transport().Refused(id),
			Current: there && index+replica.MaxBatch >= l.Raft.LastIndex(),
			Lost:    known.InMemory,
			Ended:   n.Book.HasEnded(last.Incarnation),
			Former:  s.IsFormer(id),
		})
	}
	return all, nil
}

// keepMembers records members' names and addresses, and makes the change of the membership that is due.
func (n *Membership) keepMembers(l *replica.Leadership, r *roster) error {
	all, err := n.view(l)
	if err != nil {
		return err
	}
	for _, m := range all {
		if err := n.record(l, m.ID); err != nil {
			return err
		}
	}
	c, ok := r.Next(time.Now(), all)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(l.Ctx, 2*n.Replica.AttemptTimeout())
	defer cancel()
	if err := n.CarryOut(ctx, l, c); err != nil {
		return fmt.Errorf("%s: %w", n.Book.NameOf(c.ID), err)
	}
	return nil
}

// record has the cluster know what a member says of itself.
func (n *Membership) record(l *replica.Leadership, id string) error {
	known, heard := n.Book.Get(id)
	if m, ok := n.Store.State().Member(id); !heard || ok && m == known {
		return nil
	}
	c := state.Command{Node: n.Self.ID, Change: state.SetMember{Member: known}}
	err := l.Apply(l.Ctx, state.SealCommand(n.Store.State().Keys, &c), func(s *state.State) bool {
		m, ok := s.Member(id)
		return ok && m == known
	})
	if err != nil {
		return fmt.Errorf("recording the address of %s: %w", id, err)
	}
	return nil
}

// CarryOut makes a change of the membership, and returns when it is committed.
func (n *Membership) CarryOut(ctx context.Context, l *replica.Leadership, c Change) error {
	id := raft.ServerID(c.ID)
	if c.Kind == Remove {
		n.Log.Warn("removing a member", "member", n.Book.NameOf(c.ID), "id", c.ID, "why", c.Why)
		return n.Remove(ctx, l, c.ID)
	}
	settled, err := l.AwaitStable(ctx)
	if err != nil {
		return err
	}
	all, err := n.view(l) // it took a moment
	i := slices.IndexFunc(all, func(m Member) bool { return m.ID == c.ID })
	if err != nil || i < 0 {
		return err
	}
	switch m := all[i]; {
	case c.Kind == Demote && m.Votes && m.Absent && CanDoWithout(all, c.ID):
		n.Log.Warn("a member votes no more", "member", n.Book.NameOf(c.ID), "id", c.ID, "why", c.Why)
		return replica.WaitFuture(ctx, l.Raft.DemoteVoter(id, settled, n.Replica.AttemptTimeout()))
	case c.Kind == Promote && m.Current:
		n.Log.Info("a member votes from now on", "member", n.Book.NameOf(c.ID), "id", c.ID, "why", c.Why)
		return replica.WaitFuture(ctx, l.Raft.AddVoter(id, raft.ServerAddress(id), settled, n.Replica.AttemptTimeout()))
	}
	return nil
}

// Remove takes another member out of the cluster. Its session, if it has one, is ended first.
func (n *Membership) Remove(ctx context.Context, l *replica.Leadership, id string) error {
	settled, err := l.AwaitStable(ctx)
	if err != nil {
		return err
	}
	stop, err := l.Expel(ctx, id)
	if err != nil {
		return fmt.Errorf("ending its session: %w", err)
	}
	defer stop()
	if left, there := l.Without(id); there <= left/2 {
		return fmt.Errorf("only %d of the %d voters that are left are there", there, left)
	}
	if err := replica.WaitFuture(ctx, l.Raft.RemoveServer(raft.ServerID(id), settled, n.Replica.AttemptTimeout())); err != nil {
		return err
	}
	_, err = n.Store.Wait(ctx, func(s *state.State) bool { return !slices.Contains(s.Servers, id) })
	return err
}

// Lead looks after the membership for one term of this node as leader.
func (n *Membership) Lead(l *replica.Leadership) {
	members := NewRoster(n.RemoveDead)
	for {
		if err := n.keepMembers(l, members); err != nil && l.Ctx.Err() == nil {
			n.Log.Warn("a change of the membership failed; it is tried again", "err", err)
		}
		select {
		case <-n.Book.Changed():
		case <-time.After(time.Second):
		case <-l.Ctx.Done():
			return
		}
	}
}
