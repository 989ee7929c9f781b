package flotilla

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/hashicorp/raft"
)

const (
	maxVoters  = 5                // further members stay non-voters and serve all the same
	minVoters  = 3                // a voter that may come back is not removed by the leader alone when fewer would be left
	steadyTime = 10 * time.Second // how long a non-voter must have been there before it votes
	goneTime   = 10 * time.Second // how long a voter must have been gone before another one votes in its place
	silentTime = time.Minute      // the same for a node that cannot come back, and whose process may only be cut off
	removeDead = 24 * time.Hour   // how long a member must have been gone before it is removed, by default
)

// member is what a leader sees of a member.
type member struct {
	id      string
	votes   bool
	leads   bool // it is the leader itself
	absent  bool // it has no session, and was not heard of within the last lease
	refused bool // its port refuses
	current bool // it is there, and has what the leader has
	lost    bool // it cannot come back once its process has ended: it has no directory
	ended   bool // another process was seen at its address
	former  bool // it cannot come back: the new node that it is now says so, which may be a copy of it
}

// change is a change of the membership.
type change struct {
	kind changeKind
	id   string
	why  string
}

type changeKind int

const (
	promote changeKind = iota + 1 // let it vote
	demote                        // let it vote no more
	remove
)

// roster decides who votes, and who is a member no more. It looks again and again at what the leader sees, by the leader's clock, and
// decides on one change at a time. It says nothing that would leave the voters that are there without a majority, and takes nothing from
// a member that is there.
type roster struct {
	removeDead time.Duration        // not positive: never
	absent     map[string]time.Time // since when a member has been gone
	steady     map[string]time.Time // since when a non-voter has been there and current
}

func newRoster(removeDead time.Duration) *roster {
	return &roster{removeDead: removeDead, absent: make(map[string]time.Time), steady: make(map[string]time.Time)}
}

// look notes what the leader sees.
func (r *roster) look(now time.Time, members []member) {
	since := func(times map[string]time.Time, id string, is bool) {
		if _, known := times[id]; !is {
			delete(times, id)
		} else if !known {
			times[id] = now
		}
	}
	known := make(map[string]bool)
	for _, m := range members {
		known[m.id] = true
		since(r.absent, m.id, m.absent && !m.leads)
		since(r.steady, m.id, m.current && !m.votes)
	}
	for _, times := range []map[string]time.Time{r.absent, r.steady} {
		for id := range times {
			if !known[id] {
				delete(times, id)
			}
		}
	}
}

// next returns the change that is due, if there is one. A dead voter goes before its substitute votes: then no majority ever hangs on the
// newcomer.
func (r *roster) next(now time.Time, members []member) (change, bool) {
	r.look(now, members)
	if !canDoWithout(members, "") {
		return change{}, false
	}
	voters, ready := 0, ""
	for _, m := range members {
		if m.votes {
			voters++
		} else if at, ok := r.steady[m.id]; ok && now.Sub(at) >= steadyTime && ready == "" {
			ready = m.id
		}
	}
	longest := func(atLeast func(member) time.Duration) (member, bool) {
		var found member
		for _, m := range members {
			at, gone := r.absent[m.id]
			if gone && now.Sub(at) >= atLeast(m) && (found.id == "" || at.Before(r.absent[found.id])) {
				found = m
			}
		}
		return found, found.id != ""
	}
	const never = 1<<63 - 1
	if m, ok := longest(func(m member) time.Duration {
		switch {
		case !m.lost && !m.former:
			return never
		case m.refused || m.ended:
			return goneTime
		}
		return silentTime
	}); ok {
		return change{remove, m.id, "it cannot come back"}, true
	}
	// Four voters survive no more than three of them do: whenever a majority of the four is there, so is one of the three.
	spare := voters%2 == 0 && voters > minVoters
	if ready != "" || spare {
		if m, ok := longest(func(m member) time.Duration {
			if m.votes {
				return goneTime
			}
			return never
		}); ok {
			why := "it is gone, and another one can vote in its place"
			if ready == "" {
				why = "it is gone, and the others survive more without it"
			}
			return change{demote, m.id, why}, true
		}
	}
	if ready != "" && voters < maxVoters {
		return change{promote, ready, "it has been there for long enough"}, true
	}
	if m, ok := longest(func(m member) time.Duration {
		if r.removeDead <= 0 || m.votes && voters <= minVoters {
			return never
		}
		return r.removeDead
	}); ok {
		return change{remove, m.id, "it has been gone for " + r.removeDead.String()}, true
	}
	return change{}, false
}

// canDoWithout reports whether the voters that are left without a member, and are there, are a majority of those that are left.
func canDoWithout(members []member, id string) bool {
	left, there := 0, 0
	for _, m := range members {
		if m.votes && m.id != id {
			left++
			if !m.absent && !m.refused {
				there++
			}
		}
	}
	return there > left/2
}

// view returns what this leader sees of the members.
func (l *leadership) view(n *Node) ([]member, error) {
	conf := l.raft.GetConfiguration()
	if err := conf.Error(); err != nil {
		return nil, err
	}
	s := n.fsm.state()
	var all []member
	for _, srv := range conf.Configuration().Servers {
		id := string(srv.ID)
		there := id == n.id || l.acks.there(id)
		index, _ := n.port.Transport().Match(id, l.term)
		known, _ := s.Member(id)
		last, _ := s.Process(id)
		all = append(all, member{
			id:      id,
			votes:   srv.Suffrage == raft.Voter,
			leads:   id == n.id,
			absent:  !there && s.Session(id) == nil,
			refused: id != n.id && n.port.Transport().Refused(id),
			current: there && index+maxBatch >= l.raft.LastIndex(),
			lost:    known.InMemory,
			ended:   n.book.hasEnded(last.Incarnation),
			former:  s.IsFormer(id),
		})
	}
	return all, nil
}

// keepMembers records members' names and addresses, and makes the change of the membership that is due.
func (l *leadership) keepMembers(n *Node, r *roster) error {
	all, err := l.view(n)
	if err != nil {
		return err
	}
	for _, m := range all {
		if err := l.record(n, m.id); err != nil {
			return err
		}
	}
	c, ok := r.next(time.Now(), all)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(l.ctx, 2*n.attemptTimeout())
	defer cancel()
	if err := l.carryOut(ctx, n, c); err != nil {
		return fmt.Errorf("%s: %w", n.nameOf(c.id), err)
	}
	return nil
}

// record has the cluster know what a member says of itself.
func (l *leadership) record(n *Node, id string) error {
	known, heard := n.book.get(id)
	if m, ok := n.fsm.state().Member(id); !heard || ok && m == known {
		return nil
	}
	c := state.Command{Node: n.id, Change: state.SetMember{Member: known}}
	err := l.apply(l.ctx, n, state.SealCommand(n.fsm.state().Keys, &c), func(s *state.State) bool {
		m, ok := s.Member(id)
		return ok && m == known
	})
	if err != nil {
		return fmt.Errorf("recording the address of %s: %w", id, err)
	}
	return nil
}

// carryOut makes a change of the membership, and returns when it is committed.
func (l *leadership) carryOut(ctx context.Context, n *Node, c change) error {
	id := raft.ServerID(c.id)
	if c.kind == remove {
		n.log.Warn("removing a member", "member", n.nameOf(c.id), "id", c.id, "why", c.why)
		return l.remove(ctx, n, c.id)
	}
	settled, err := l.settle(ctx, n)
	if err != nil {
		return err
	}
	all, err := l.view(n) // it took a moment
	i := slices.IndexFunc(all, func(m member) bool { return m.id == c.id })
	if err != nil || i < 0 {
		return err
	}
	switch m := all[i]; {
	case c.kind == demote && m.votes && m.absent && canDoWithout(all, c.id):
		n.log.Warn("a member votes no more", "member", n.nameOf(c.id), "id", c.id, "why", c.why)
		return waitFuture(ctx, l.raft.DemoteVoter(id, settled, n.attemptTimeout()))
	case c.kind == promote && m.current:
		n.log.Info("a member votes from now on", "member", n.nameOf(c.id), "id", c.id, "why", c.why)
		return waitFuture(ctx, l.raft.AddVoter(id, raft.ServerAddress(id), settled, n.attemptTimeout()))
	}
	return nil
}

// remove takes another member out of the cluster. Its session, if it has one, is ended first.
func (l *leadership) remove(ctx context.Context, n *Node, id string) error {
	settled, err := l.settle(ctx, n)
	if err != nil {
		return err
	}
	stop, err := l.expel(ctx, n, id)
	if err != nil {
		return fmt.Errorf("ending its session: %w", err)
	}
	defer stop()
	if left, there := l.without(n, id); there <= left/2 {
		return fmt.Errorf("only %d of the %d voters that are left are there", there, left)
	}
	if err := waitFuture(ctx, l.raft.RemoveServer(raft.ServerID(id), settled, n.attemptTimeout())); err != nil {
		return err
	}
	_, err = n.fsm.wait(ctx, func(s *state.State) bool { return !slices.Contains(s.Servers, id) })
	return err
}
