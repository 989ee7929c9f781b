package flotilla

import (
	"math"
	"slices"
	"time"
)

// Role names something that one node does at a time, and says how much this node wants to be the one. Contenders for a
// role are compared by Priority, then by how few roles of the Group each node holds, then by who came first.
type Role struct {
	// Name is the role's, the same on all nodes: at most MaxName bytes.
	Name string

	// Group spreads roles: of contenders with the same priority that one gets the role whose node holds fewest of the group. Empty: it
	// does not matter what else a node holds. Contenders should agree on it.
	Group string

	// Priority is higher for nodes that should rather have the role. Zero is usual.
	Priority int

	// NoPreempt makes this contender wait until the role is free, even if it is better than the holder.
	NoPreempt bool

	// PreemptDelay is how long this contender must have been better than the holder, without a break, before the holder is asked to
	// hand over. Zero: not at all. A node that has just come back may want some time to see whether it stays.
	PreemptDelay time.Duration
}

// Locks, roles of Hold and the nodes' own do not share names.
const (
	lockPrefix = "lock/"
	rolePrefix = "role/"
	ownPrefix  = "own/"
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

func (s *state) claim(index uint64, c *command, fx *effects) code {
	queue := s.claims(c.key)
	if len(queue) > 0 && !c.flag {
		return codeHeld
	}
	if !s.hasRoom(int64(len(c.key)), c.number) {
		return codeFull
	}
	s.bytes += int64(len(c.key))
	mine := claim{claimRef: claimRef{c.node, c.session, c.seq}, group: c.group, priority: c.priority}
	fx.claim()
	if len(queue) == 0 {
		mine.index = index
		fx.claim(mine.claimRef)
	}
	s.roles, _, _ = s.roles.Insert([]byte(c.key), &role{queue: append(slices.Clip(queue), mine)}) // a queue in a tree is never written to
	if len(queue) > 0 {
		return codeQueued
	}
	return codeOK
}

// release takes a claim out of a role's queue, and grants the role to the best of those left if it was the holder's.
func (s *state) release(index uint64, key string, ref claimRef, fx *effects) code {
	_, i := s.findClaim(key, ref)
	if i < 0 {
		return codeNotHeld
	}
	fx.claim(ref)
	rest := slices.Delete(slices.Clone(s.claims(key)), i, i+1)
	s.bytes -= int64(len(key))
	if len(rest) == 0 {
		s.roles, _, _ = s.roles.Delete([]byte(key))
		return codeOK
	}
	if i == 0 {
		next := s.best(key, rest)
		granted := rest[next]
		granted.index = index
		rest = slices.Insert(slices.Delete(rest, next, next+1), 0, granted)
		fx.claim(granted.claimRef)
	}
	s.roles, _, _ = s.roles.Insert([]byte(key), &role{queue: rest})
	return codeOK
}

// releaseAll takes all claims of a session out.
func (s *state) releaseAll(index uint64, node string, number uint64, fx *effects) {
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
		s.release(index, p.key, p.ref, fx)
	}
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
	it.SeekPrefix([]byte(rolePrefix))
	for k, r, ok := it.Next(); ok; k, r, ok = it.Next() {
		holder := r.queue[0]
		if holder.group != group || string(k) == except {
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
	if holder.yield != 0 || mine.priority < holder.priority {
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
