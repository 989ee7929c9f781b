package flotilla

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

// judge is the leader's part: it suspects sessions that have fallen silent, clears those that speak again, and ends those that a majority of
// the voters is bound to no more. A session ends only so, by its node's own word, or with its process.
func (k *keeper) judge(l *replica.Leadership, now, awake time.Time) {
	s := k.store.State()
	k.exorcise(l, s, time.Now()) // not before s: this process may have stood still since now
	it := s.Sessions.Root().Iterator()
	for key, ses, ok := it.Next(); ok; key, ses, ok = it.Next() {
		id := sessionID{string(key), ses.Number}
		if ses.Incarnation == k.self.Incarnation && ses.Suspect == 0 {
			continue // who leads has the promises of a majority, or leads no more; but it may be suspected by the one before it
		}
		k.mu.Lock()
		silent, patience := now.Sub(maxTime(k.given.heard(id), awake)), k.timing.Silence()
		if k.given.heard(id).Equal(k.given.began) {
			patience = k.given.length // it may not have found this process yet
		}
		gone := ses.Suspect != 0 && isMajority(k.reports[suspicion{id, ses.Suspect}], s.Voters)
		k.mu.Unlock()
		overdue := silent > patience
		if l.Since.Sub(now.Add(-silent)) > k.timing.Leaderless() {
			// There was no leader for long. A live node opens a new session when it hears of this one.
			// Until then its old session stays, and with it what the node has kept.
			overdue = now.Sub(maxTime(l.Since, awake)) > k.timing.Retry()
		}
		late := l.Acks.Late(id.node, now) || l.Expels(id.node)
		switch {
		case gone:
			k.propose(l, id, "a node is gone; what it held is free", state.EndSession{Node: id.node, Number: id.number, Suspicion: ses.Suspect, Voters: s.Elected, Silent: silent, Stored: k.replica.StoredBy(id.node, ses.Incarnation)})
		case ses.Suspect == 0 && (overdue || late):
			k.propose(l, id, "a node is silent", state.Suspect{Node: id.node, Number: id.number, Stored: k.replica.StoredBy(id.node, ses.Incarnation)})
		case ses.Suspect != 0 && silent < k.timing.Heard() && !late:
			k.propose(l, id, "a node is heard again", state.ClearSuspicion{Node: id.node, Number: id.number, Suspicion: ses.Suspect})
		}
	}
}

// exorcise frees the roles whose holder's ghost has had its time: what was to be seen of it is over, by this leader's clock, however slow that is.
func (k *keeper) exorcise(l *replica.Leadership, s *state.State, now time.Time) {
	if s.Roles == k.unhaunted {
		return
	}
	ghosts := s.InHoldDown()
	if len(ghosts) == 0 {
		k.unhaunted = s.Roles
	}
	k.mu.Lock()
	seen := make(map[ghost]time.Time, len(ghosts))
	for key, c := range ghosts {
		g := ghost{key, c.HoldDown}
		if seen[g] = k.haunted[g]; seen[g].IsZero() {
			seen[g] = now
		}
	}
	k.haunted = seen
	k.mu.Unlock()
	for key, c := range ghosts {
		since := now.Sub(seen[ghost{key, c.HoldDown}])
		if since >= k.haunts(&c) {
			k.propose(l, sessionID{key, c.HoldDown}, "a role is free: what its last holder left cannot be seen any more", state.ExpireHoldDown{Role: key, Began: c.HoldDown, After: since})
		}
	}
}

// haunts returns how long a ghost keeps its role.
func (k *keeper) haunts(c *state.Claim) time.Duration {
	d := c.HoldDownTime
	d += 2 * d / timing.Drift // a slow clock may count it, where that of a lease has a hundredth taken off
	if !c.Expired {
		d += k.timing.Grant()
	}
	return d + d/timing.Drift
}

// exorcism returns when the first ghost that this leader has seen has had its time, zero if there is none but those that it is freeing already.
func (k *keeper) exorcism() (first time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.haunted) == 0 {
		return time.Time{}
	}
	ghosts := k.store.State().InHoldDown()
	for g, since := range k.haunted {
		if c, ok := ghosts[g.role]; ok && c.HoldDown == g.index && !k.pending[sessionID{g.role, g.index}] {
			if at := since.Add(k.haunts(&c)); first.IsZero() || at.Before(first) {
				first = at
			}
		}
	}
	return first
}

// isMajority reports whether those who spoke are more than half of the voters.
func isMajority(spoke map[string]bool, voters []string) bool {
	n := 0
	for _, v := range voters {
		if spoke[v] {
			n++
		}
	}
	return n > len(voters)/2
}

// propose proposes a command about a session, one at a time, and logs why.
func (k *keeper) propose(l *replica.Leadership, id sessionID, why string, change state.Change) {
	k.mu.Lock()
	busy := k.pending[id]
	k.pending[id] = true
	k.mu.Unlock()
	if busy {
		return
	}
	level := slog.LevelInfo
	if _, ends := change.(state.EndSession); ends && !l.Expels(id.node) {
		level = slog.LevelWarn // nobody has planned it
	}
	k.log.Log(l.Ctx, level, why, "node", id.node, "session", id.number)
	k.life.Tasks.Go(func() {
		c := state.Command{Node: k.self.ID, Time: time.Now().UnixNano(), Change: change}
		last := l.Raft.LastIndex()
		// It may do nothing, if things have changed before it is in the log.
		err := l.ApplyAndNotify(l.Ctx, k.replica, &c, func(s *state.State) bool { return s.Index > last })
		k.mu.Lock()
		delete(k.pending, id)
		k.mu.Unlock()
		if err == nil { // else it is judged anew, in its time
			k.wake()
		}
	})
}

// reported notes, for the leader, that a voter is bound to a suspected session no more. It never will be under this suspicion: a voter that
// has restarted first applies it again.
func (k *keeper) reported(voter string, who suspicion) {
	s := k.store.State()
	k.mu.Lock()
	defer k.mu.Unlock()
	for other := range k.reports {
		if ses := s.Session(other.node); ses == nil || ses.Number != other.number || ses.Suspect != other.index {
			delete(k.reports, other)
		}
	}
	if ses := s.Session(who.node); ses == nil || ses.Number != who.number || ses.Suspect != who.index {
		return
	}
	if k.reports[who] == nil {
		k.reports[who] = make(map[string]bool)
	}
	if !k.reports[who][voter] {
		k.reports[who][voter] = true
		k.wake()
	}
}

// succeed makes this voter stand for election when a majority of the voters says that the leader's lease has lapsed, or finds that it
// has not.
func (k *keeper) succeed(ctx context.Context, id sessionID) {
	for range 4 { // their clocks say so a little earlier or later
		s := k.store.State()
		if k.replica.Leader() != id.node || !k.overdue(id, time.Now()) {
			return
		}
		if k.majoritySays(ctx, s.Voters, id) {
			k.log.Info("the leader's lease has lapsed", "leader", id.node)
			k.replica.StandFor(ctx, id.node, func() bool { return k.overdue(id, time.Now()) })
			return
		}
		select {
		case <-time.After(k.timing.Glance()):
		case <-ctx.Done():
			return
		}
	}
}

// majoritySays asks the other voters whether a session has lapsed for them, as it has for this one.
func (k *keeper) majoritySays(ctx context.Context, voters []string, id sessionID) bool {
	ctx, cancel := context.WithTimeout(ctx, k.timing.Query())
	defer cancel()
	var e codec.Encoder
	e.String(id.node)
	e.Uint(id.number)
	answers := make(chan bool)
	for _, v := range voters {
		if v == k.self.ID {
			continue
		}
		k.life.Tasks.Go(func() {
			reply, err := k.replica.Port.Call(ctx, v, rpc.Expired, e.B)
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

// serveLapsed answers majoritySays.
func (k *keeper) serveLapsed(_ context.Context, _ string, body []byte) ([]byte, error) {
	d := codec.Decoder{B: body}
	id := sessionID{d.String(), d.Uint()}
	if err := d.End(); err != nil {
		return nil, err
	}
	if k.overdue(id, time.Now()) {
		return []byte{1}, nil
	}
	return []byte{0}, nil
}
