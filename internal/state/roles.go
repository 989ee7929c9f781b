package state

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

// Claims returns the queue of a role, nil if it has none.
func (s *State) Claims(role string) []Claim {
	if r, ok := s.Roles.Get([]byte(role)); ok {
		return r.Queue
	}
	return nil
}

// FindClaim returns a claim and its place in the queue, -1 if it is not there.
func (s *State) FindClaim(role string, ref Ref) (Claim, int) {
	queue := s.Claims(role)
	i := slices.IndexFunc(queue, func(q Claim) bool { return q.Ref == ref })
	if i < 0 {
		return Claim{}, -1
	}
	return queue[i], i
}

// holds reports whether the claim holds the role.
func (s *State) holds(role string, ref Ref) bool {
	queue := s.Claims(role)
	return len(queue) > 0 && queue[0].Ref == ref
}

// setQueue replaces the queue of a role. A queue in a tree is never written to.
func (s *State) setQueue(role string, queue []Claim) {
	if len(queue) == 0 {
		s.Roles, _, _ = s.Roles.Delete([]byte(role))
		return
	}
	s.Roles, _, _ = s.Roles.Insert([]byte(role), &Role{Queue: queue})
}

// InHoldDown returns the holders in hold-down by role. The map is nil if there are none.
func (s *State) InHoldDown() map[string]Claim {
	var all map[string]Claim
	for k, r := range Each(s.Roles, []byte(keyspace.RolePrefix)) {
		if r.Queue[0].HoldDown != 0 {
			if all == nil {
				all = make(map[string]Claim)
			}
			all[string(k)] = r.Queue[0]
		}
	}
	return all
}

// Loads counts the roles of a group by node. A role counts for its holder, or for the transferee if
// the holder was asked to hand over. The role except, and roles in hold-down, do not count.
func (s *State) Loads(group, except string) map[string]int {
	loads := make(map[string]int)
	for k, r := range Each(s.Roles, []byte(keyspace.RolePrefix)) {
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

// Better reports whether a waiting claim should get the role from its holder. It should if it has
// the higher priority. With the same priority it should if its node would then hold fewer roles of
// the group than the holder's node holds now.
func (s *State) Better(role string, ref Ref) bool {
	mine, i := s.FindClaim(role, ref)
	if i <= 0 {
		return false
	}
	holder := s.Claims(role)[0]
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

// best returns the place of the waiting claim that a free role goes to. The highest priority
// decides first, then the fewest roles of the group on the claim's node, then the order of arrival.
func (s *State) best(role string, waiting []Claim) int {
	best, bestLoad := 0, math.MaxInt
	loads := make(map[string]map[string]int) // by group and node
	for i, q := range waiting {
		load := 0
		if q.Group != "" {
			if loads[q.Group] == nil {
				loads[q.Group] = s.Loads(q.Group, role)
			}
			load = loads[q.Group][q.Node]
		}
		if i == 0 || q.priority > waiting[best].priority || q.priority == waiting[best].priority && load < bestLoad {
			best, bestLoad = i, load
		}
	}
	return best
}

// ask asks the holder of a role to hand over.
func (s *State) ask(role string, transferee Ref, moved bool, e entry) {
	queue := slices.Clone(s.Claims(role))
	queue[0].Yield, queue[0].Transferee, queue[0].Moved = e.index, transferee, moved
	e.fx.claim(queue[0].Ref)
	s.setQueue(role, queue)
}

// givenUp is the cause when a holder gives up its role.
const givenUp = "its holder gave it up"

// release takes a claim out of a role's queue. If the claim held the role, the role goes to the
// claim that an operator moved it to, or else to the best one.
func (s *State) release(at moment, role string, ref Ref, fx *Effects) Code {
	gone, i := s.FindClaim(role, ref)
	if i < 0 {
		return CodeNotHeld
	}
	fx.claim(ref)
	rest := slices.Delete(slices.Clone(s.Claims(role)), i, i+1)
	s.Used[keyspace.OfClaim(role)] -= gone.cost(role)
	if i == 0 && len(rest) > 0 {
		next := -1
		if gone.Moved {
			next = slices.IndexFunc(rest, func(q Claim) bool { return q.Ref == gone.Transferee })
		}
		pinned := next >= 0
		if !pinned {
			next = s.best(role, rest)
		}
		granted := rest[next]
		granted.grant(at)
		granted.Pinned = pinned
		rest = slices.Insert(slices.Delete(rest, next, next+1), 0, granted)
		fx.claim(granted.Ref)
		switch {
		case at.cause != givenUp:
		case gone.Moved && pinned:
			at.cause = "an operator moved it"
		case gone.Yield != 0 && !gone.Moved:
			at.cause = "a better contender asked for it"
		}
		fx.moved(News{Index: at.index, From: gone.Node, Node: granted.Node, Outage: at.outage, Cause: at.cause}, role)
	} else if i == 0 {
		fx.moved(News{Index: at.index, From: gone.Node, Cause: at.cause}, role)
	}
	s.setQueue(role, rest)
	return CodeOK
}

// releaseAll releases all claims of a session, except those of roles that enter hold-down.
func (s *State) releaseAll(at moment, node string, number uint64, how ending, fx *Effects) {
	type place struct {
		role string
		ref  Ref
	}
	var waiting, holding []place
	for k, r := range Each(s.Roles, nil) {
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
	// Waiting claims go first, or one of them might be granted what another one leaves.
	at.cause = cmp.Or(at.cause, how.cause())
	for _, p := range append(waiting, holding...) {
		c, i := s.FindClaim(p.role, p.ref)
		if i > 0 || !c.entersHoldDown(how) {
			s.release(at, p.role, p.ref, fx)
		} else if c.HoldDown == 0 {
			queue := slices.Clone(s.Claims(p.role))
			queue[0].HoldDown, queue[0].Expired = at.index, how == endsExpired
			fx.claim(p.ref)
			if name, ok := strings.CutPrefix(p.role, keyspace.RolePrefix); ok {
				fx.report(News{Kind: event.RoleHeldDown, Index: at.index, Node: p.ref.Node, Role: name, Cause: at.cause})
			}
			s.setQueue(p.role, queue)
		}
	}
}

// ClaimRole asks for a role, or for a lock, which is a role too. The command's node, session and
// seq name the claim.
type ClaimRole struct {
	// Role is its name in the tree, with its prefix.
	Role string

	// Group is the group whose roles are spread over the nodes. Empty: the role is in no group.
	Group string

	// Priority decides first which waiting claim is the best. A greater one is better.
	Priority int64

	// Wait says that the claim joins the queue if the role is held.
	Wait bool

	// MaxState is the proposer's limit of the state's size, in bytes.
	MaxState int64

	// Public describes a public role. Nil: nothing of the role is visible to clients.
	Public *PublicRole
}

// PublicRole is what only public roles have. Clients see the effect of a public role, such as a
// floating address.
type PublicRole struct {
	// HoldDown is how long the role's effect may be visible after the lease has expired.
	HoldDown time.Duration

	// ReleasedOnDeath says that nothing is visible any more after a death notice.
	ReleasedOnDeath bool
}

func (ClaimRole) number() byte { return numberClaimRole }

func (c ClaimRole) encode(e *codec.Encoder) {
	e.String(c.Role)
	e.String(c.Group)
	e.Int(c.Priority)
	e.Bool(c.Wait)
	e.Int(c.MaxState)
	e.Bool(c.Public != nil)
	if c.Public != nil {
		e.Int(int64(c.Public.HoldDown))
		e.Bool(c.Public.ReleasedOnDeath)
	}
}

func decodeClaimRole(d *codec.Decoder) Change {
	c := ClaimRole{Role: d.String(), Group: d.String(), Priority: d.Int(), Wait: d.Bool(), MaxState: d.Int()}
	if d.Bool() {
		c.Public = &PublicRole{HoldDown: time.Duration(d.Int()), ReleasedOnDeath: d.Bool()}
	}
	return c
}

func (c ClaimRole) apply(s *State, e entry) Code {
	queue := s.Claims(c.Role)
	if len(queue) > 0 && !c.Wait {
		return CodeHeld
	}
	mine := Claim{Ref: Ref{e.Node, e.Session, e.Seq}, Group: c.Group, priority: c.Priority}
	b, cost := keyspace.OfClaim(c.Role), mine.cost(c.Role)
	if !s.HasRoom(b, cost, c.MaxState) {
		return CodeFull
	}
	s.Used[b] += cost
	if p := c.Public; p != nil {
		mine.public, mine.HoldDownTime, mine.ReleasedOnDeath = true, p.HoldDown, p.ReleasedOnDeath
	}
	e.fx.claim()
	out := CodeQueued
	if len(queue) == 0 {
		mine.grant(moment{index: e.index, time: e.Time})
		e.fx.claim(mine.Ref)
		e.fx.moved(News{Index: e.index, Node: e.Node}, c.Role)
		out = CodeOK
	}
	s.setQueue(c.Role, append(slices.Clip(queue), mine))
	return out
}

// ReleaseRole gives up a claim of the command's session, whether the claim holds the role or waits.
// If the release overtakes its claim, the claim does nothing when it is applied.
type ReleaseRole struct {
	// Role is its name in the tree, with its prefix.
	Role string

	// Claim is the Seq of the command that made the claim.
	Claim uint64
}

func (ReleaseRole) number() byte { return numberReleaseRole }

func (c ReleaseRole) encode(e *codec.Encoder) {
	e.String(c.Role)
	e.Uint(c.Claim)
}

func decodeReleaseRole(d *codec.Decoder) Change {
	return ReleaseRole{Role: d.String(), Claim: d.Uint()}
}

func (c ReleaseRole) apply(s *State, e entry) Code {
	out := s.release(moment{index: e.index, time: e.Time, cause: givenUp}, c.Role, Ref{e.Node, e.Session, c.Claim}, e.fx)
	if out == CodeNotHeld {
		s.forestall(e.Node, e.Session, Answer{Seq: c.Claim, Index: e.index, Code: CodeNotHeld})
	}
	return out
}

// YieldRole asks the holder of a role to hand over to a claim of the command's session. It does
// nothing unless that claim is better.
type YieldRole struct {
	// Role is its name in the tree, with its prefix.
	Role string

	// Claim is the Seq of the command that made the claim.
	Claim uint64
}

func (YieldRole) number() byte { return numberYieldRole }

func (c YieldRole) encode(e *codec.Encoder) {
	e.String(c.Role)
	e.Uint(c.Claim)
}

func decodeYieldRole(d *codec.Decoder) Change { return YieldRole{Role: d.String(), Claim: d.Uint()} }

func (c YieldRole) apply(s *State, e entry) Code {
	if ref := (Ref{e.Node, e.Session, c.Claim}); s.Better(c.Role, ref) {
		s.ask(c.Role, ref, false, e)
	}
	return CodeOK
}

// MoveRole asks the holder of a role to hand over to the best claim of a node, even if another
// claim is better. An operator has asked for it.
type MoveRole struct {
	// Role is its name in the tree, with its prefix.
	Role string

	// Node is the ID of the node that is to have the role. Empty: any node but the holder's.
	Node string
}

func (MoveRole) number() byte { return numberMoveRole }

func (c MoveRole) encode(e *codec.Encoder) {
	e.String(c.Role)
	e.String(c.Node)
}

func decodeMoveRole(d *codec.Decoder) Change { return MoveRole{Role: d.String(), Node: d.String()} }

func (c MoveRole) apply(s *State, e entry) Code {
	queue := s.Claims(c.Role)
	if len(queue) == 0 || queue[0].HoldDown != 0 {
		return CodeNotHeld
	}
	holder := queue[0].Node
	if c.Node == holder {
		return CodeOK
	}
	var fit []Claim
	for _, q := range queue[1:] {
		if q.Node == c.Node || c.Node == "" && q.Node != holder {
			fit = append(fit, q)
		}
	}
	if len(fit) == 0 {
		return CodeNoTransferee
	}
	s.ask(c.Role, fit[s.best(c.Role, fit)].Ref, true, e)
	return CodeOK
}

// ExpireHoldDown passes on a role whose holder has been in hold-down for long enough. It does
// nothing if the holder is in another hold-down.
type ExpireHoldDown struct {
	// Role is its name in the tree, with its prefix.
	Role string

	// Began is the index of the entry that ended the holder's session.
	Began uint64

	// After is how long the leader has waited. It is shown, never compared.
	After time.Duration
}

func (ExpireHoldDown) number() byte { return numberExpireHoldDown }

func (c ExpireHoldDown) encode(e *codec.Encoder) {
	e.String(c.Role)
	e.Uint(c.Began)
	e.Int(int64(c.After))
}

func decodeExpireHoldDown(d *codec.Decoder) Change {
	return ExpireHoldDown{Role: d.String(), Began: d.Uint(), After: time.Duration(d.Int())}
}

func (c ExpireHoldDown) apply(s *State, e entry) Code {
	if queue := s.Claims(c.Role); len(queue) > 0 && queue[0].HoldDown != 0 && queue[0].HoldDown == c.Began {
		s.release(moment{e.index, e.Time, c.After, "the hold-down of its last holder has ended"}, c.Role, queue[0].Ref, e.fx)
	}
	return CodeOK
}
