package state

import (
	"math"
	"slices"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

// Role is the queue of those who want it; the first one holds it, the others wait in the order in which they came.
type Role struct{ Queue []Claim }

// Claim is a place in a role's queue.
type Claim struct {
	Ref
	Index      uint64 // of the entry that granted it, its fence; 0 while it waits
	Group      string
	priority   int64
	Yield      uint64 // index of the entry that asked it to hand over; 0: nobody has
	Transferee Ref    // for whom
	Moved      bool   // by hand: the heir gets it, better or not
	Pinned     bool   // it got the role by hand, and keeps it although others may be better

	public          bool   // see hold.Role
	HoldDownTime    int64  // nanoseconds
	ReleasedOnDeath bool   // see hold.Role.Bequeathed
	HoldDown        uint64 // index of the entry that ended its session, without a word of its node: it holds the role until OpExpireHoldDown; 0: it lives
	Expired         bool   // its lease was over by then

	Since  int64 // Unix nanoseconds of the clock of whoever proposed the grant; shown, never compared
	Outage int64 // nanoseconds for which the role had no holder that lived before, as far as the leader knows; shown
}

// passing is the moment at which roles change hands: the entry's index, and what is shown of it.
type passing struct {
	index        uint64
	time, outage int64
}

// ending is how a session ends.
type ending byte

const (
	endsClean         ending = iota + 1 // nothing of it is to be seen any more
	endsExpired                         // its lease is over, and something may linger
	endsByDeathNotice                   // its process is dead, and nothing is to be seen any more of what its will is about
	endsUnconfirmed                     // its process is gone, or so it is said, and the kernel of its machine goes by its lease
)

// entersHoldDown reports whether a claim that holds a role goes on holding it when its session ends so.
func (c *Claim) entersHoldDown(how ending) bool {
	return c.public && (how == endsUnconfirmed || how == endsByDeathNotice && !c.ReleasedOnDeath || how == endsExpired && c.HoldDownTime > 0)
}

// Claims returns the queue of a role.
func (s *State) Claims(key string) []Claim {
	if r, ok := s.Roles.Get([]byte(key)); ok {
		return r.Queue
	}
	return nil
}

// FindClaim returns a claim and its place in the queue, -1 if it is not there.
func (s *State) FindClaim(key string, ref Ref) (Claim, int) {
	queue := s.Claims(key)
	i := slices.IndexFunc(queue, func(q Claim) bool { return q.Ref == ref })
	if i < 0 {
		return Claim{}, -1
	}
	return queue[i], i
}

// holds reports whether the claim holds the role.
func (s *State) holds(key string, ref Ref) bool {
	queue := s.Claims(key)
	return len(queue) > 0 && queue[0].Ref == ref
}

func (s *State) claim(at passing, c *Command, fx *Effects) Code {
	queue := s.Claims(c.Key)
	if len(queue) > 0 && !c.Flag {
		return CodeHeld
	}
	mine := Claim{Ref: Ref{c.Node, c.Session, c.Seq}, Group: c.Group, priority: c.Priority}
	b, cost := keyspace.OfClaim(c.Key), mine.cost(c.Key)
	if !s.HasRoom(b, cost, int64(c.Number)) {
		return CodeFull
	}
	s.Used[b] += cost
	if c.Cond > 0 {
		mine.public, mine.HoldDownTime, mine.ReleasedOnDeath = true, int64(c.Cond-1), c.Voters != 0
	}
	fx.claim()
	if len(queue) == 0 {
		mine.grant(at)
		fx.claim(mine.Ref)
	}
	s.Roles, _, _ = s.Roles.Insert([]byte(c.Key), &Role{Queue: append(slices.Clip(queue), mine)}) // a queue in a tree is never written to
	if len(queue) > 0 {
		return CodeQueued
	}
	return CodeOK
}

// cost returns what a claim to that role counts.
func (c *Claim) cost(role string) int64 { return int64(len(role) + len(c.Group) + keyspace.ClaimCost) }

// grant makes the claim the holder's.
func (c *Claim) grant(at passing) { c.Index, c.Since, c.Outage = at.index, at.time, at.outage }

// release takes a claim out of a role's queue, and grants the role to the best of those left if it was the holder's, or to whom it is
// moved by hand.
func (s *State) release(at passing, key string, ref Ref, fx *Effects) Code {
	gone, i := s.FindClaim(key, ref)
	if i < 0 {
		return CodeNotHeld
	}
	fx.claim(ref)
	rest := slices.Delete(slices.Clone(s.Claims(key)), i, i+1)
	s.Used[keyspace.OfClaim(key)] -= gone.cost(key)
	if len(rest) == 0 {
		s.Roles, _, _ = s.Roles.Delete([]byte(key))
		return CodeOK
	}
	if i == 0 {
		next := -1
		if gone.Moved {
			next = slices.IndexFunc(rest, func(q Claim) bool { return q.Ref == gone.Transferee })
		}
		byHand := next >= 0
		if !byHand {
			next = s.best(key, rest)
		}
		granted := rest[next]
		granted.grant(at)
		granted.Pinned = byHand
		rest = slices.Insert(slices.Delete(rest, next, next+1), 0, granted)
		fx.claim(granted.Ref)
	}
	s.Roles, _, _ = s.Roles.Insert([]byte(key), &Role{Queue: rest})
	return CodeOK
}

// releaseAll takes all claims of a session out, but for those whose ghosts stay.
func (s *State) releaseAll(at passing, node string, number uint64, how ending, fx *Effects) {
	type place struct {
		key string
		ref Ref
	}
	var waiting, holding []place
	it := s.Roles.Root().Iterator()
	for k, r, ok := it.Next(); ok; k, r, ok = it.Next() {
		for i, q := range r.Queue {
			if q.Node != node || q.Session != number {
				continue
			}
			if p := (place{string(k), q.Ref}); i == 0 {
				holding = append(holding, p)
			} else {
				waiting = append(waiting, p)
			}
		}
	}
	for _, p := range append(waiting, holding...) { // or one of them might be granted what another of them leaves
		c, i := s.FindClaim(p.key, p.ref)
		if i > 0 || !c.entersHoldDown(how) {
			s.release(at, p.key, p.ref, fx)
		} else if c.HoldDown == 0 {
			queue := slices.Clone(s.Claims(p.key))
			queue[0].HoldDown, queue[0].Expired = at.index, how == endsExpired
			fx.claim(p.ref)
			s.Roles, _, _ = s.Roles.Insert([]byte(p.key), &Role{Queue: queue})
		}
	}
}

// expireHoldDown passes a role on whose holder's ghost has had its time.
func (s *State) expireHoldDown(at passing, key string, ghost uint64, fx *Effects) {
	if queue := s.Claims(key); len(queue) > 0 && queue[0].HoldDown != 0 && queue[0].HoldDown == ghost {
		s.release(at, key, queue[0].Ref, fx)
	}
}

// InHoldDown returns the holders that only their ghosts are left of, by the role.
func (s *State) InHoldDown() map[string]Claim {
	var all map[string]Claim
	it := s.Roles.Root().Iterator()
	it.SeekPrefix([]byte(keyspace.RolePrefix))
	for k, r, ok := it.Next(); ok; k, r, ok = it.Next() {
		if r.Queue[0].HoldDown != 0 {
			if all == nil {
				all = make(map[string]Claim)
			}
			all[string(k)] = r.Queue[0]
		}
	}
	return all
}

// best returns the place of the claim that a free role goes to.
func (s *State) best(key string, waiting []Claim) int {
	best, bestLoad := 0, math.MaxInt
	loads := make(map[string]map[string]int) // by group and node
	for i, q := range waiting {
		load := 0
		if q.Group != "" {
			if loads[q.Group] == nil {
				loads[q.Group] = s.Loads(q.Group, key)
			}
			load = loads[q.Group][q.Node]
		}
		if i == 0 || q.priority > waiting[best].priority || q.priority == waiting[best].priority && load < bestLoad {
			best, bestLoad = i, load
		}
	}
	return best
}

// Loads counts the roles of a group by the node that holds them, or is going to when who holds them has handed over. The role except is
// left out.
func (s *State) Loads(group, except string) map[string]int {
	loads := make(map[string]int)
	it := s.Roles.Root().Iterator()
	it.SeekPrefix([]byte(keyspace.RolePrefix))
	for k, r, ok := it.Next(); ok; k, r, ok = it.Next() {
		holder := r.Queue[0]
		if holder.Group != group || string(k) == except || holder.HoldDown != 0 {
			continue
		}
		if holder.Yield != 0 {
			loads[holder.Transferee.Node]++
		} else {
			loads[holder.Node]++
		}
	}
	return loads
}

// Better reports whether a waiting claim should have the role rather than the one that holds it: it has the higher priority, or
// the same and its node would hold fewer roles of the group than the holder's does now.
func (s *State) Better(key string, ref Ref) bool {
	mine, i := s.FindClaim(key, ref)
	if i <= 0 {
		return false
	}
	holder := s.Claims(key)[0]
	if holder.Yield != 0 || holder.HoldDown != 0 || holder.Pinned || mine.priority < holder.priority {
		return false
	}
	if mine.priority > holder.priority {
		return true
	}
	if mine.Group == "" || mine.Group != holder.Group {
		return false
	}
	loads := s.Loads(mine.Group, "")
	return loads[mine.Node]+1 < loads[holder.Node]
}

// yield asks the holder of a role to hand over, if the claim that wants it is better by now.
func (s *State) yield(index uint64, key string, heir Ref, fx *Effects) {
	if !s.Better(key, heir) {
		return
	}
	queue := slices.Clone(s.Claims(key))
	queue[0].Yield, queue[0].Transferee = index, heir
	fx.claim(queue[0].Ref)
	s.Roles, _, _ = s.Roles.Insert([]byte(key), &Role{Queue: queue})
}

// move asks the holder of a role to hand over to a claim of the given node, or, with no node, to the best of another one, whoever is better.
func (s *State) move(index uint64, key, node string, fx *Effects) Code {
	queue := s.Claims(key)
	if len(queue) == 0 || queue[0].HoldDown != 0 {
		return CodeNotHeld
	}
	holder := queue[0].Node
	if node == holder {
		return CodeOK
	}
	var fit []Claim
	for _, q := range queue[1:] {
		if q.Node == node || node == "" && q.Node != holder {
			fit = append(fit, q)
		}
	}
	if len(fit) == 0 {
		return CodeNoTransferee
	}
	queue = slices.Clone(queue)
	queue[0].Yield, queue[0].Transferee, queue[0].Moved = index, fit[s.best(key, fit)].Ref, true
	fx.claim(queue[0].Ref)
	s.Roles, _, _ = s.Roles.Insert([]byte(key), &Role{Queue: queue})
	return CodeOK
}
