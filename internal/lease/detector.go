package lease

import (
	"context"
	"log/slog"
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// Evaluate is the leader's part: it suspects sessions that have fallen silent, clears those that speak again, and ends those that a majority of
// the voters is bound to no more. A session ends only so, by its node's own word, or with its process.
func (k *Manager) Evaluate(l *replica.Leadership, now, awake time.Time) {
	s := k.Store.State()
	k.expireHoldDowns(l, s, time.Now()) // not before s: this process may have stood still since now
	it := s.Sessions.Root().Iterator()
	for key, ses, ok := it.Next(); ok; key, ses, ok = it.Next() {
		id := SessionID{string(key), ses.Number}
		if ses.Incarnation == k.Self.Incarnation && ses.Suspect == 0 {
			continue // who leads has the promises of a majority, or leads no more; but it may be suspected by the one before it
		}
		k.Mu.Lock()
		silent, patience := now.Sub(MaxTime(k.Given.LastAsked(id), awake)), k.Timing.Silence()
		if k.Given.LastAsked(id).Equal(k.Given.Began) {
			patience = k.Given.length // it may not have found this process yet
		}
		gone := ses.Suspect != 0 && IsMajority(k.Reports[Suspicion{id, ses.Suspect}], s.Voters)
		k.Mu.Unlock()
		overdue := silent > patience
		if l.Since.Sub(now.Add(-silent)) > k.Timing.Leaderless() {
			// There was no leader for long. A live node opens a new session when it hears of this one.
			// Until then its old session stays, and with it what the node has kept.
			overdue = now.Sub(MaxTime(l.Since, awake)) > k.Timing.Retry()
		}
		late := l.Acks.Late(id.Node, now) || l.Expels(id.Node)
		switch {
		case gone:
			k.propose(l, id, "a node is gone; what it held is free", state.EndSession{Node: id.Node, Number: id.Number, Suspicion: ses.Suspect, Voters: s.Elected, Silent: silent, Stored: k.Replica.StoredBy(id.Node, ses.Incarnation)})
		case ses.Suspect == 0 && (overdue || late):
			k.propose(l, id, "a node is silent", state.Suspect{Node: id.Node, Number: id.Number, Stored: k.Replica.StoredBy(id.Node, ses.Incarnation)})
		case ses.Suspect != 0 && silent < k.Timing.Heard() && !late:
			k.propose(l, id, "a node is heard again", state.ClearSuspicion{Node: id.Node, Number: id.Number, Suspicion: ses.Suspect})
		}
	}
}

// expireHoldDowns frees the roles whose holder's ghost has had its time: what was to be seen of it is over, by this leader's clock, however slow that is.
func (k *Manager) expireHoldDowns(l *replica.Leadership, s *state.State, now time.Time) {
	if s.Roles == k.noneHeldDown {
		return
	}
	ghosts := s.InHoldDown()
	if len(ghosts) == 0 {
		k.noneHeldDown = s.Roles
	}
	k.Mu.Lock()
	seen := make(map[HeldDown]time.Time, len(ghosts))
	for key, c := range ghosts {
		g := HeldDown{key, c.HoldDown}
		if seen[g] = k.heldDown[g]; seen[g].IsZero() {
			seen[g] = now
		}
	}
	k.heldDown = seen
	k.Mu.Unlock()
	for key, c := range ghosts {
		since := now.Sub(seen[HeldDown{key, c.HoldDown}])
		if since >= k.HoldDownTime(&c) {
			k.propose(l, SessionID{key, c.HoldDown}, "a role is free: what its last holder left cannot be seen any more", state.ExpireHoldDown{Role: key, Began: c.HoldDown, After: since})
		}
	}
}

// HoldDownTime returns how long a ghost keeps its role.
func (k *Manager) HoldDownTime(c *state.Claim) time.Duration {
	d := c.HoldDownTime
	d += 2 * d / timing.Drift // a slow clock may count it, where that of a lease has a hundredth taken off
	if !c.Expired {
		d += k.Timing.Grant()
	}
	return d + d/timing.Drift
}

// nextHoldDownExpiry returns when the first ghost that this leader has seen has had its time, zero if there is none but those that it is freeing already.
func (k *Manager) nextHoldDownExpiry() (first time.Time) {
	k.Mu.Lock()
	defer k.Mu.Unlock()
	if len(k.heldDown) == 0 {
		return time.Time{}
	}
	ghosts := k.Store.State().InHoldDown()
	for g, since := range k.heldDown {
		if c, ok := ghosts[g.role]; ok && c.HoldDown == g.index && !k.pending[SessionID{g.role, g.index}] {
			if at := since.Add(k.HoldDownTime(&c)); first.IsZero() || at.Before(first) {
				first = at
			}
		}
	}
	return first
}

// IsMajority reports whether those who spoke are more than half of the voters.
func IsMajority(spoke map[string]bool, voters []string) bool {
	n := 0
	for _, v := range voters {
		if spoke[v] {
			n++
		}
	}
	return n > len(voters)/2
}

// propose proposes a command about a session, one at a time, and logs why.
func (k *Manager) propose(l *replica.Leadership, id SessionID, why string, change state.Change) {
	k.Mu.Lock()
	busy := k.pending[id]
	k.pending[id] = true
	k.Mu.Unlock()
	if busy {
		return
	}
	level := slog.LevelInfo
	if _, ends := change.(state.EndSession); ends && !l.Expels(id.Node) {
		level = slog.LevelWarn // nobody has planned it
	}
	k.Log.Log(l.Ctx, level, why, "node", id.Node, "session", id.Number)
	k.Life.Tasks.Go(func() {
		c := state.Command{Node: k.Self.ID, Time: time.Now().UnixNano(), Change: change}
		last := l.Raft.LastIndex()
		// It may do nothing, if things have changed before it is in the log.
		err := l.ApplyAndNotify(l.Ctx, &c, func(s *state.State) bool { return s.Index > last })
		k.Mu.Lock()
		delete(k.pending, id)
		k.Mu.Unlock()
		if err == nil { // else it is judged anew, in its time
			k.Wake()
		}
	})
}

// reported notes, for the leader, that a voter is bound to a suspected session no more. It never will be under this suspicion: a voter that
// has restarted first applies it again.
func (k *Manager) reported(voter string, who Suspicion) {
	s := k.Store.State()
	k.Mu.Lock()
	defer k.Mu.Unlock()
	for other := range k.Reports {
		if ses := s.Session(other.Node); ses == nil || ses.Number != other.Number || ses.Suspect != other.Index {
			delete(k.Reports, other)
		}
	}
	if ses := s.Session(who.Node); ses == nil || ses.Number != who.Number || ses.Suspect != who.Index {
		return
	}
	if k.Reports[who] == nil {
		k.Reports[who] = make(map[string]bool)
	}
	if !k.Reports[who][voter] {
		k.Reports[who][voter] = true
		k.Wake()
	}
}

// replaceLeader makes this voter stand for election when a majority of the voters says that the leader's lease has lapsed, or finds that it
// has not.
func (k *Manager) replaceLeader(ctx context.Context, id SessionID) {
	for range 4 { // their clocks say so a little earlier or later
		s := k.Store.State()
		if k.Replica.Leader() != id.Node || !k.overdue(id, time.Now()) {
			return
		}
		if k.MajorityAgrees(ctx, s.Voters, id) {
			k.Log.Info("the leader's lease has lapsed", "leader", id.Node)
			k.Replica.StandFor(ctx, id.Node, func() bool { return k.overdue(id, time.Now()) })
			return
		}
		select {
		case <-time.After(k.Timing.Glance()):
		case <-ctx.Done():
			return
		}
	}
}

// MajorityAgrees asks the other voters whether a session has lapsed for them, as it has for this one.
func (k *Manager) MajorityAgrees(ctx context.Context, voters []string, id SessionID) bool {
	ctx, cancel := context.WithTimeout(ctx, k.Timing.Query())
	defer cancel()
	var e codec.Encoder
	e.String(id.Node)
	e.Uint(id.Number)
	answers := make(chan bool)
	for _, v := range voters {
		if v == k.Self.ID {
			continue
		}
		k.Life.Tasks.Go(func() {
			reply, err := k.Replica.Port.Call(ctx, v, rpc.Expired, e.B)
			select {
			case answers <- err == nil && len(reply) == 1 && reply[0] == 1:
			case <-ctx.Done():
			}
		})
	}
	yes := 1 // this one
	for range len(voters) - 1 {
		select {
		case ok := <-answers:
			if ok {
				yes++
			}
		case <-ctx.Done():
			return false
		}
		if yes > len(voters)/2 {
			return true
		}
	}
	return yes > len(voters)/2
}

// ServeExpired answers majoritySays.
func (k *Manager) ServeExpired(_ context.Context, _ string, body []byte) ([]byte, error) {
	d := codec.Decoder{B: body}
	id := SessionID{d.String(), d.Uint()}
	if err := d.End(); err != nil {
		return nil, err
	}
	if k.overdue(id, time.Now()) {
		return []byte{1}, nil
	}
	return []byte{0}, nil
}
