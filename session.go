package flotilla

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// until repeats what needs a leader.
func (n *Node) until(ctx context.Context, f func(context.Context) error) {
	for ctx.Err() == nil {
		changed := n.changed.Wait()
		err := f(ctx)
		if err == nil {
			return
		}
		n.log.Debug("waiting for the cluster", "err", err)
		why := err.Error()
		n.waitsFor.Store(&why)
		select {
		case <-changed:
		case <-time.After(n.pace.lease / 6):
		case <-ctx.Done():
		}
	}
}

// catchUp waits until this node has applied everything that was acknowledged before.
func (n *Node) catchUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, n.attemptTimeout())
	defer cancel()
	applied := n.fsm.state().Index
	reply, err := n.askLeader(ctx, callConfirm, nil)
	if err != nil {
		return err
	}
	d := codec.Decoder{B: reply}
	index, last, known, sum := d.Uint(), d.Uint(), d.Bool(), d.Uint()
	if err := d.End(); err != nil {
		return err
	}
	if applied > last {
		err := state.Diverged("entry %d was applied here, and the log of the leader, %s, ends with entry %d", applied, n.nameOf(n.leader()), last)
		n.fail(err)
		return err
	}
	if _, err := n.fsm.wait(ctx, func(s *state.State) bool { return s.Index >= index }); err != nil {
		return err
	}
	return n.checkConfirmed(index, known, sum)
}

// openSession has the cluster open a session for this process, in place of one whose lease has lapsed, if lost is not 0.
func (n *Node) openSession(ctx context.Context, lost uint64) error {
	ctx, cancel := context.WithTimeout(ctx, n.attemptTimeout())
	defer cancel()
	if err := n.superseded(ctx); err != nil {
		n.giveUp(err)
		return err
	}
	s := n.fsm.state()
	if own := n.ownSession(s); own != 0 && own != lost {
		return nil // the answer to an earlier call was lost
	}
	var e codec.Encoder
	e.String(n.boot)
	e.Uint(s.Number(n.id))
	e.Bool(lost != 0 && s.Number(n.id) == lost && !n.tenures.seen(lost)) // else something of the last one may be seen yet
	e.String(n.addr)
	e.Bytes(state.EncodeProcesses(n.identity().Processes))
	if _, err := n.askLeader(ctx, callOpen, e.B); err != nil {
		if refused := new(wire.CallError); errors.As(err, &refused) && refused.Status == http.StatusConflict {
			if r := n.greet(ctx); r.err != nil {
				n.giveUp(r.err)
			}
		}
		return err
	}
	seen := s.Number(n.id)
	s, err := n.fsm.wait(ctx, func(s *state.State) bool {
		last, _ := s.Process(n.id)
		return s.Number(n.id) != seen || last.Incarnation != "" && last.Incarnation != n.boot && !state.ComesAfter(n.identity().Processes, last.Incarnation)
	})
	if err == nil && n.ownSession(s) == 0 {
		err = errors.New("the session that was to be replaced has ended")
	}
	return err
}

// noteSession has the directory know that this process has had a session, and so which process the
// cluster has on record.
func (n *Node) noteSession() {
	if processes := n.identity().Processes; len(processes) < 2 || n.ownSession(n.fsm.state()) == 0 {
		return
	}
	if err := n.save(func(id *identity) { id.Processes = []string{n.boot} }); err != nil {
		n.log.Debug("that this process has had a session cannot be written down", "err", err) // all processes are known anyway
	}
}

// ownSession returns the number of this process's session, 0 if it has none.
func (n *Node) ownSession(s *state.State) uint64 {
	if ses := s.Session(n.id); ses != nil && ses.Incarnation == n.boot {
		return ses.Number
	}
	return 0
}

// live sees to the session for as long as it has a lease. It returns when all that hung on it is over, with the session's
// number if the cluster may still believe in it. A setback since there were that many ends it at once: the node has not caught up since.
func (n *Node) live(ctx context.Context, setbacks uint64) (lost uint64) {
	session := n.ownSession(n.fsm.state())
	if session == 0 {
		return 0 // it has ended already
	}
	over := n.keeper.begin(session)
	if n.setbacks.Load() != setbacks {
		n.keeper.lose(ErrLost)
		return session
	}
	for leased := false; ctx.Err() == nil; {
		renewed, changed := n.keeper.renewed.Wait(), n.sessions.Wait()
		s := n.fsm.state()
		if leased && len(s.Servers) > 0 && !slices.Contains(s.Servers, n.id) {
			self := n.self()
			n.fail(fmt.Errorf("%w; %s to join as a new node", ErrRemoved, asNew(self)))
			return 0
		}
		if n.ownSession(s) != session {
			n.keeper.lose(fmt.Errorf("%w: the cluster has ended the node's session", ErrLost))
			return 0
		}
		if !leased && n.keeper.valid() {
			leased = true
			n.first.CompareAndSwap(0, int64(time.Since(n.keeper.started)))
			n.current.Store(true) // what was acknowledged before the session's entry has been applied, and the rest waits for this node
			n.changed.Notify()
		}
		if leased {
			renewed = nil
		}
		select {
		case <-renewed:
		case <-changed:
		case <-over:
			// Until its end somebody may still be letting go of what he held by the lease.
			select {
			case <-time.After(time.Until(n.keeper.until())):
			case <-ctx.Done():
			}
			return session
		case <-ctx.Done():
		}
	}
	return 0
}

// told acts upon what the state machine has applied. It is called by raft's goroutine and does not block.
func (n *Node) told(fx *state.Effects) {
	if fx == nil { // from a snapshot: anything may have changed
		fx = &state.Effects{Roles: true, Sessions: true, Tickets: true}
		fx.Claims = n.tenures.refs()
		n.certs.StoredAny()
	}
	if fx.Sessions {
		n.keeper.sessionsChanged()
		n.presence.observe(n.fsm.state())
		n.sessions.Notify()
		n.tasks.Go(n.port.Recheck) // another process may have taken a node's place
	}
	if len(fx.Claims) > 0 {
		n.tenures.tell(n.fsm.state(), fx.Claims)
	}
	if fx.Roles {
		n.tenures.contested.Notify()
	}
	if fx.Tickets {
		n.tickets.Follow(n.fsm.state().Tickets)
		n.changed.Notify()
	}
	if say := n.space.look(n.fsm.state()); say != nil {
		n.tasks.Go(say)
	}
	sites := keyspace.CertificateSites(fx.Keys)
	for _, site := range sites {
		n.certs.Stored(site)
	}
	if len(sites) > 0 || fx.Dropped {
		n.snapshotSoon()
	}
}

// company waits until all members have been there for a moment, in the first seconds after this node was ready for the first time. The
// first node of a cluster that starts would order otherwise while others have not opened the ports yet that the authority may come to.
func (n *Node) company(ctx context.Context) {
	ctx, cancel := context.WithDeadline(ctx, n.keeper.started.Add(time.Duration(n.first.Load())+companyTime))
	defer cancel()
	for settled := false; !settled && ctx.Err() == nil; {
		changed := n.sessions.Wait()
		s := n.fsm.state()
		var moment <-chan time.Time
		if !slices.ContainsFunc(s.Servers, func(id string) bool { return s.Session(id) == nil }) {
			moment = time.After(companyPause)
		}
		select {
		case <-changed:
		case <-moment:
			settled = true
		case <-ctx.Done():
		}
	}
}

// settled waits until every session has applied what this node has, by a write that changes nothing: that is what a write waits for.
// Whoever shows something that it read before that has a client find nothing on the next node.
func (n *Node) settled(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	if err := n.storage.Delete(ctx, "flotilla/nothing"); err != nil {
		n.log.Debug("a first certificate is shown before it is known to be on every node", "error", err)
	}
}

// maintain has one node of those that serve certificates keep the storage clean.
func (n *Node) maintain(ctx context.Context) {
	select {
	case <-n.certs.Used():
	case <-ctx.Done():
	}
	for ctx.Err() == nil {
		err := n.hold(ctx, state.Command{Op: state.OpClaim, Key: keyspace.OwnPrefix + "maintain", Flag: true}, nil, func(ctx context.Context, _ Tenure) error {
			n.certs.Maintain(ctx)
			return ctx.Err()
		})
		n.log.Debug("this node keeps the storage clean no longer", "why", err)
		select {
		case <-time.After(time.Second): // a state without room refuses at once
		case <-ctx.Done():
		}
	}
}
