package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// Configurator changes raft's configuration while this node leads: it lets nodes in and out at
// their own wish, and carries out what the roster decides.
type Configurator struct {
	removeDead time.Duration
	log        *slog.Logger
	life       *lifecycle.Life
	self       *self.Self
	ident      *IdentityFile
	store      *applied.Store
	table      *peers.Table
	replica    *replica.Replica
	copies     *Copies
	greetings  *Greetings
	settings   func() Settings
	offers     offers
}

// Lead looks after the members for one term of this node as leader. It returns when the term is
// over.
//
// It looks when a member has said something new of itself, and about once a second: what the roster
// decides also depends on how long a member has been there or away.
func (c *Configurator) Lead(l *replica.Leadership) {
	r, waits := newRoster(c.removeDead), ""
	for {
		changed, second := c.table.Changed(), c.life.Second.Wait()
		if there := c.successors(l); (c.self.Witness || !c.store.State().CanLead(c.self.ID)) && c.offers.areDue(time.Now(), there) {
			if why := c.handOver(l, there); why != nil && why.Error() != waits {
				waits = why.Error()
				c.log.Info("this node leads until another voter can", "why", why)
			}
		}
		if err := c.keepMembers(l, r); err != nil && l.Ctx.Err() == nil {
			c.log.Warn("a change of the membership failed; it is tried again", "err", err)
		}
		select {
		case <-changed:
		case <-second:
		case <-l.Ctx.Done():
			return
		}
	}
}

// successors returns the other voters that are there and may lead.
func (c *Configurator) successors(l *replica.Leadership) (there []string) {
	s := c.store.State()
	for _, id := range s.Voters {
		if id != c.self.ID && s.CanLead(id) && l.Acks.There(id) {
			there = append(there, id)
		}
	}
	return there
}

// handOver has another voter lead, because this node is a witness or was demoted. there are those
// that may.
//
// Such a node stands for election after all others, and may still win: its log may be the only one
// that is left with the newest entries, and raft passes entries on from the leader alone. Holding
// back for good would then leave the cluster without a leader, or cost it those entries. So the
// node leads until another voter has them. That is safe, since it is an ordinary term and an
// ordinary transfer. It is live, since that voter and this one are a majority: it gets the entries,
// and Transfer offers it the leadership as soon as it has all of them.
//
// raft takes one offer to a peer in a term only: see Elections.Transfer. So if an offer came to
// nothing, this node stands for election again, in the next term, and has new ones to make. Until
// then it does all that a leader does: it may be the only voter, if its directory was recovered.
// An offer also ends the term when the peer stands for election and is not elected. Either way
// writes stop for a moment, so the pauses between offers grow, until another voter is there.
func (c *Configurator) handOver(l *replica.Leadership, there []string) error {
	ctx, cancel := context.WithTimeout(l.Ctx, c.replica.TransferTimeout())
	defer cancel()
	err := c.replica.Transfer(ctx, "")
	if l.HasOffered() {
		// If it was of use, the pause matters only if the other node led for less than that.
		c.offers.made(time.Now(), c.replica.AttemptTimeout(), there)
	}
	if err == nil || l.Ctx.Err() != nil {
		return nil
	}
	if l.HasOffered() {
		c.replica.Stand(l.Ctx)
	}
	return err
}

// keepMembers records members' names and addresses, and makes the change of the membership that is
// due.
func (c *Configurator) keepMembers(l *replica.Leadership, r *roster) error {
	all, err := c.view(l)
	if err != nil {
		return err
	}
	for _, m := range all {
		if err := c.record(l, m.ID); err != nil {
			return err
		}
	}
	due, ok := r.next(time.Now(), all)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(l.Ctx, 2*c.replica.AttemptTimeout())
	defer cancel()
	if err := c.CarryOut(ctx, l, due); err != nil {
		return fmt.Errorf("%s: %w", c.table.NameOf(due.ID), err)
	}
	return nil
}

// view returns what this leader sees of the members.
func (c *Configurator) view(l *replica.Leadership) ([]Member, error) {
	conf := l.Raft.GetConfiguration()
	if err := conf.Error(); err != nil {
		return nil, err
	}
	s := c.store.State()
	var all []Member
	for _, srv := range conf.Configuration().Servers {
		id := string(srv.ID)
		there := id == c.self.ID || l.Acks.There(id)
		index, _ := c.replica.Port.Transport().Match(id, l.Term)
		known, _ := s.Member(id)
		last, _ := s.Process(id)
		all = append(all, Member{
			ID:      id,
			Votes:   srv.Suffrage == raft.Voter,
			Leads:   id == c.self.ID,
			Absent:  !there && s.Session(id) == nil,
			Refused: id != c.self.ID && c.replica.Port.Transport().Refused(id),
			Current: there && index+replica.MaxBatch >= l.Raft.LastIndex(),
			Lost:    known.InMemory,
			Zone:    known.Zone,
			Witness: known.Witness,
			Demoted: s.IsDemoted(id),
			Ended:   c.table.HasEnded(last.Incarnation),
			Former:  s.IsFormer(id),
		})
	}
	return all, nil
}

// record has the cluster know what a member says of itself.
func (c *Configurator) record(l *replica.Leadership, id string) error {
	said, ok := c.table.Get(id)
	m, recorded := c.store.State().Member(id)
	said.Clean = max(said.Clean, m.Clean) // a process that has just started does not know yet
	if !ok || recorded && m == said {
		return nil
	}
	set := state.Command{Node: c.self.ID, Change: state.SetMember{Member: said}}
	err := l.ApplyCommand(l.Ctx, &set, func(s *state.State) bool {
		m, ok := s.Member(id)
		return ok && m == said
	})
	if err != nil {
		return fmt.Errorf("recording the address of %s: %w", id, err)
	}
	return nil
}

// CarryOut makes a change of the membership, if its reason still holds once the configuration is
// stable. It returns when the change is committed.
func (c *Configurator) CarryOut(ctx context.Context, l *replica.Leadership, due Change) error {
	id := raft.ServerID(due.ID)
	if due.Kind == Remove {
		c.log.Warn("removing a member", "member", c.table.NameOf(due.ID), "id", due.ID, "why", due.Why)
		return c.Remove(ctx, l, due.ID)
	}
	stable, err := l.AwaitStable(ctx)
	if err != nil {
		return err
	}
	all, err := c.view(l) // it took a moment
	i := slices.IndexFunc(all, func(m Member) bool { return m.ID == due.ID })
	if err != nil || i < 0 {
		return err
	}
	switch m := all[i]; {
	case due.Kind == Demote && m.Votes && m.Absent && canDoWithout(all, due.ID):
		c.log.Warn("a member votes no more", "member", c.table.NameOf(due.ID), "id", due.ID, "why", due.Why)
		return l.AwaitChange(ctx, l.Raft.DemoteVoter(id, stable, c.replica.AttemptTimeout()))
	case due.Kind == Dismiss && m.Votes && mayDismiss(all, m), due.Kind == Spread && m.Votes && maySpread(all, m):
		c.log.Info("a member votes no more, by plan", "member", c.table.NameOf(due.ID), "id", due.ID, "why", due.Why)
		return l.AwaitChange(ctx, l.Raft.DemoteVoter(id, stable, c.replica.AttemptTimeout()))
	case due.Kind == Promote && m.Current && !m.Demoted:
		c.log.Info("a member votes from now on", "member", c.table.NameOf(due.ID), "id", due.ID, "why", due.Why)
		return l.AwaitChange(ctx, l.Raft.AddVoter(id, raft.ServerAddress(id), stable, c.replica.AttemptTimeout()))
	}
	return nil
}

// Remove takes another member out of the cluster. If the member has a session, it ends that first.
// It returns an error if the voters that are left could not go on.
func (c *Configurator) Remove(ctx context.Context, l *replica.Leadership, id string) error {
	stable, err := l.AwaitStable(ctx)
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
	if err := l.AwaitChange(ctx, l.Raft.RemoveServer(raft.ServerID(id), stable, c.replica.AttemptTimeout())); err != nil {
		return err
	}
	_, err = c.store.Wait(ctx, func(s *state.State) bool { return !slices.Contains(s.Servers, id) })
	return err
}

// ServeJoin lets a node in that asks for it. The node votes later, when it has shown that it is
// there to stay: a voter that is not there costs a quorum.
func (c *Configurator) ServeJoin(ctx context.Context, peer string, in Greeting) (Joining, error) {
	l, err := c.replica.AwaitLeading(ctx)
	if err != nil {
		return Joining{}, err
	}
	if in.ID != peer {
		return Joining{}, codec.ErrMalformed
	}
	own := c.ident.Identity()
	out := Joining{Cluster: own.Cluster, Incarnation: own.Incarnation}
	for _, m := range c.table.All() {
		out.Members = append(out.Members, m)
	}
	for _, srv := range c.replica.Servers() {
		if string(srv.ID) == peer {
			if !slices.Contains(c.store.State().Servers, peer) {
				return out, errors.New("it is being let in")
			}
			return out, nil
		}
	}
	if why := mayNotJoin(c.store.State(), in.ID); why != "" {
		return Joining{}, errors.New(why)
	}
	if why := in.Settings.unsafe(c.settings()); why != "" {
		return Joining{}, errors.New(why)
	}
	if id, lacks := lackedSecret(c.store.State(), in.Member); lacks {
		return Joining{}, fmt.Errorf("the cluster is replacing its secret, and this node lacks the secret %v; add that one too", id)
	}
	if no := c.greetings.outgrown(&in); no != nil {
		return out, errors.New(no.Why)
	}
	if no := c.copies.Meet(ctx, &in); no != nil {
		return out, errors.New(no.Why)
	}
	c.log.Info("a node joins", "peer", in.ID, "name", in.Name, "addr", in.Addr)
	return out, l.AwaitChange(ctx, l.Raft.AddNonvoter(raft.ServerID(peer), raft.ServerAddress(peer), 0, c.replica.AttemptTimeout()))
}

// mayNotJoin returns why no node, or not this one, may join: it was evicted, or could be one that
// was, under another name.
func mayNotJoin(s *state.State, id string) string {
	if s.Refuses(id) {
		return "the cluster has evicted this node"
	}
	if v, exposed := s.Exposed(); exposed {
		return fmt.Sprintf("%s was evicted and knows a secret that the cluster uses still, so no node may join; "+
			"have that secret replaced first (flotilla evict %s)", v, plaintext.ShortID(v.Node))
	}
	return ""
}

// lackedSecret returns the ID of a secret without which a node cannot join now. What the members
// have may still open with a former secret alone, until they use the new one. Then the new one is
// enough, and the last step would wait for a node without it.
func lackedSecret(s *state.State, m state.Member) (id seal.KeyID, lacks bool) {
	to, used := s.Seals.Rotation.To, s.Seals.Rotation.Used
	if m.Secrets == "" { // it does not say
		return seal.KeyID{}, false
	}
	if to != (seal.KeyID{}) && !m.HasSecret(to) {
		return to, true
	}
	opens := slices.DeleteFunc(s.Secrets(), func(id seal.KeyID) bool { return !used && id == to })
	if len(opens) == 0 || slices.ContainsFunc(opens, m.HasSecret) {
		return seal.KeyID{}, false
	}
	return opens[0], true
}

// ServeLeave removes a node that asks for it. It returns an error if the voters that are left could
// not go on.
func (c *Configurator) ServeLeave(ctx context.Context, peer string, in Leaving) (rpc.Empty, error) {
	l, err := c.replica.AwaitLeading(ctx)
	if err != nil || peer == c.self.ID {
		return rpc.Empty{}, rpc.ErrNotLeader
	}
	if in.ID != peer {
		return rpc.Empty{}, codec.ErrMalformed
	}
	if !slices.Contains(c.store.State().Servers, peer) {
		return rpc.Empty{}, nil // the answer to an earlier call was lost
	}
	if left, there := l.Without(peer); there <= left/2 {
		return rpc.Empty{}, fmt.Errorf("without it only %d of the %d voters that are left would be there; start the others first", there, left)
	}
	stable, err := l.AwaitStable(ctx)
	if err != nil {
		return rpc.Empty{}, err
	}
	c.log.Info("a node leaves", "peer", in.ID, "name", in.Name)
	return rpc.Empty{}, l.AwaitChange(ctx, l.Raft.RemoveServer(raft.ServerID(peer), stable, c.replica.AttemptTimeout()))
}

// AskLeave asks the leader to remove this node, and returns nil when it has.
func (c *Configurator) AskLeave(ctx context.Context, leader string) error {
	_, err := rpc.Call(ctx, c.replica.Port, leader, rpc.Leave, Leaving{ID: c.self.ID, Name: c.self.Name}, rpc.DecodeEmpty)
	return err
}
