package flotilla

import (
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"math"
	"slices"
)

// role is the queue of those who want it; the first one holds it, the others wait in the order in which they came.
type role struct{ queue []claim }

// claim is a place in a role's queue.
type claim struct {
	claimRef
	index    uint64 // of the entry that granted it, its fence; 0 while it waits
	group    string
	priority int64
	yield    uint64   // index of the entry that asked it to hand over; 0: nobody has
	heir     claimRef // for whom
	moved    bool     // by hand: the heir gets it, better or not
	pinned   bool     // it got the role by hand, and keeps it although others may be better

	public bool   // see hold.Role
	linger int64  // nanoseconds
	willed bool   // see hold.Role.Bequeathed
	ghost  uint64 // index of the entry that ended its session, without a word of its node: it holds the role until opFree; 0: it lives
	lapsed bool   // its lease was over by then

	since  int64 // Unix nanoseconds of the clock of whoever proposed the grant; shown, never compared
	outage int64 // nanoseconds for which the role had no holder that lived before, as far as the leader knows; shown
}

// passing is the moment at which roles change hands: the entry's index, and what is shown of it.
type passing struct {
	index        uint64
	time, outage int64
}

// ending is how a session ends.
type ending byte

const (
	endsClean  ending = iota + 1 // nothing of it is to be seen any more
	endsLapsed                   // its lease is over, and something may linger
	endsWilled                   // its process is dead, and nothing is to be seen any more of what its will is about
	endsUnsaid                   // its process is gone, or so it is said, and the kernel of its machine goes by its lease
)

// ghostly reports whether a claim that holds a role goes on holding it when its session ends so.
func (c *claim) ghostly(how ending) bool {
	return c.public && (how == endsUnsaid || how == endsWilled && !c.willed || how == endsLapsed && c.linger > 0)
}

// claims returns the queue of a role.
func (s *state) claims(key string) []claim {
	if r, ok := s.roles.Get([]byte(key)); ok {
		return r.queue
	}
	return nil
}

// findClaim returns a claim and its place in the queue, -1 if it is not there.
func (s *state) findClaim(key string, ref claimRef) (claim, int) {
	queue := s.claims(key)
	i := slices.IndexFunc(queue, func(q claim) bool { return q.claimRef == ref })
	if i < 0 {
		return claim{}, -1
	}
	return queue[i], i
}

// holds reports whether the claim holds the role.
func (s *state) holds(key string, ref claimRef) bool {
	queue := s.claims(key)
	return len(queue) > 0 && queue[0].claimRef == ref
}

func (s *state) claim(at passing, c *command, fx *effects) code {
	queue := s.claims(c.key)
	if len(queue) > 0 && !c.flag {
		return codeHeld
	}
	mine := claim{claimRef: claimRef{c.node, c.session, c.seq}, group: c.group, priority: c.priority}
	b, cost := keyspace.OfClaim(c.key), mine.cost(c.key)
	if !s.hasRoom(b, cost, int64(c.number)) {
		return codeFull
	}
	s.used[b] += cost
	if c.cond > 0 {
		mine.public, mine.linger, mine.willed = true, int64(c.cond-1), c.voters != 0
	}
	fx.claim()
	if len(queue) == 0 {
		mine.grant(at)
		fx.claim(mine.claimRef)
	}
	s.roles, _, _ = s.roles.Insert([]byte(c.key), &role{queue: append(slices.Clip(queue), mine)}) // a queue in a tree is never written to
	if len(queue) > 0 {
		return codeQueued
	}
	return codeOK
}

// cost returns what a claim to that role counts.
func (c *claim) cost(role string) int64 { return int64(len(role) + len(c.group) + keyspace.ClaimCost) }

// grant makes the claim the holder's.
func (c *claim) grant(at passing) { c.index, c.since, c.outage = at.index, at.time, at.outage }

// release takes a claim out of a role's queue, and grants the role to the best of those left if it was the holder's, or to whom it is
// moved by hand.
func (s *state) release(at passing, key string, ref claimRef, fx *effects) code {
	gone, i := s.findClaim(key, ref)
	if i < 0 {
		return codeNotHeld
	}
	fx.claim(ref)
	rest := slices.Delete(slices.Clone(s.claims(key)), i, i+1)
	s.used[keyspace.OfClaim(key)] -= gone.cost(key)
	if len(rest) == 0 {
		s.roles, _, _ = s.roles.Delete([]byte(key))
		return codeOK
	}
	if i == 0 {
		next := -1
		if gone.moved {
			next = slices.IndexFunc(rest, func(q claim) bool { return q.claimRef == gone.heir })
		}
		byHand := next >= 0
		if !byHand {
			next = s.best(key, rest)
		}
		granted := rest[next]
		granted.grant(at)
		granted.pinned = byHand
		rest = slices.Insert(slices.Delete(rest, next, next+1), 0, granted)
		fx.claim(granted.claimRef)
	}
	s.roles, _, _ = s.roles.Insert([]byte(key), &role{queue: rest})
	return codeOK
}

// releaseAll takes all claims of a session out, but for those whose ghosts stay.
func (s *state) releaseAll(at passing, node string, number uint64, how ending, fx *effects) {
	type place struct {
		key string
		ref claimRef
	}
	var waiting, holding []place
	it := s.roles.Root().Iterator()
	for k, r, ok := it.Next(); ok; k, r, ok = it.Next() {
		for i, q := range r.queue {
			if q.node != node || q.session != number {
				continue
			}
			if p := (place{string(k), q.claimRef}); i == 0 {
				holding = append(holding, p)
			} else {
				waiting = append(waiting, p)
			}
		}
	}
	for _, p := range append(waiting, holding...) { // or one of them might be granted what another of them leaves
		c, i := s.findClaim(p.key, p.ref)
		if i > 0 || !c.ghostly(how) {
			s.release(at, p.key, p.ref, fx)
		} else if c.ghost == 0 {
			queue := slices.Clone(s.claims(p.key))
			queue[0].ghost, queue[0].lapsed = at.index, how == endsLapsed
			fx.claim(p.ref)
			s.roles, _, _ = s.roles.Insert([]byte(p.key), &role{queue: queue})
		}
	}
}

// free passes a role on whose holder's ghost has had its time.
func (s *state) free(at passing, key string, ghost uint64, fx *effects) {
	if queue := s.claims(key); len(queue) > 0 && queue[0].ghost != 0 && queue[0].ghost == ghost {
		s.release(at, key, queue[0].claimRef, fx)
	}
}

// ghosts returns the holders that only their ghosts are left of, by the role.
func (s *state) ghosts() map[string]claim {
	var all map[string]claim
	it := s.roles.Root().Iterator()
	it.SeekPrefix([]byte(keyspace.RolePrefix))
	for k, r, ok := it.Next(); ok; k, r, ok = it.Next() {
		if r.queue[0].ghost != 0 {
			if all == nil {
				all = make(map[string]claim)
			}
			all[string(k)] = r.queue[0]
		}
	}
	return all
}

// best returns the place of the claim that a free role goes to.
func (s *state) best(key string, waiting []claim) int {
	best, bestLoad := 0, math.MaxInt
	loads := make(map[string]map[string]int) // by group and node
	for i, q := range waiting {
		load := 0
		if q.group != "" {
			if loads[q.group] == nil {
				loads[q.group] = s.loads(q.group, key)
			}
			load = loads[q.group][q.node]
		}
		if i == 0 || q.priority > waiting[best].priority || q.priority == waiting[best].priority && load < bestLoad {
			best, bestLoad = i, load
		}
	}
	return best
}

// loads counts the roles of a group by the node that holds them, or is going to when who holds them has handed over. The role except is
// left out.
func (s *state) loads(group, except string) map[string]int {
	loads := make(map[string]int)
	it := s.roles.Root().Iterator()
	it.SeekPrefix([]byte(keyspace.RolePrefix))
	for k, r, ok := it.Next(); ok; k, r, ok = it.Next() {
		holder := r.queue[0]
		if holder.group != group || string(k) == except || holder.ghost != 0 {
			continue
		}
		if holder.yield != 0 {
			loads[holder.heir.node]++
		} else {
			loads[holder.node]++
		}
	}
	return loads
}

// better reports whether a waiting claim should have the role rather than the one that holds it: it has the higher priority, or
// the same and its node would hold fewer roles of the group than the holder's does now.
func (s *state) better(key string, ref claimRef) bool {
	mine, i := s.findClaim(key, ref)
	if i <= 0 {
		return false
	}
	holder := s.claims(key)[0]
	if holder.yield != 0 || holder.ghost != 0 || holder.pinned || mine.priority < holder.priority {
		return false
	}
	if mine.priority > holder.priority {
		return true
	}
	if mine.group == "" || mine.group != holder.group {
		return false
	}
	loads := s.loads(mine.group, "")
	return loads[mine.node]+1 < loads[holder.node]
}

// yield asks the holder of a role to hand over, if the claim that wants it is better by now.
func (s *state) yield(index uint64, key string, heir claimRef, fx *effects) {
	if !s.better(key, heir) {
		return
	}
	queue := slices.Clone(s.claims(key))
	queue[0].yield, queue[0].heir = index, heir
	fx.claim(queue[0].claimRef)
	s.roles, _, _ = s.roles.Insert([]byte(key), &role{queue: queue})
}

// move asks the holder of a role to hand over to a claim of the given node, or, with no node, to the best of another one, whoever is better.
func (s *state) move(index uint64, key, node string, fx *effects) code {
	queue := s.claims(key)
	if len(queue) == 0 || queue[0].ghost != 0 {
		return codeNotHeld
	}
	holder := queue[0].node
	if node == holder {
		return codeOK
	}
	var fit []claim
	for _, q := range queue[1:] {
		if q.node == node || node == "" && q.node != holder {
			fit = append(fit, q)
		}
	}
	if len(fit) == 0 {
		return codeNoHeir
	}
	queue = slices.Clone(queue)
	queue[0].yield, queue[0].heir, queue[0].moved = index, fit[s.best(key, fit)].claimRef, true
	fx.claim(queue[0].claimRef)
	s.roles, _, _ = s.roles.Insert([]byte(key), &role{queue: queue})
	return codeOK
}
