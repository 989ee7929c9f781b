package flotilla

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// openSession has the cluster open a session for this process, in place of one whose lease has lapsed, if lost is not 0.
func (n *membership) openSession(ctx context.Context, lost uint64) error {
	ctx, cancel := context.WithTimeout(ctx, n.replica.AttemptTimeout())
	defer cancel()
	if err := n.superseded(ctx); err != nil {
		n.giveUp(err)
		return err
	}
	s := n.store.State()
	if own := n.self.Session(s); own != 0 && own != lost {
		return nil // the answer to an earlier call was lost
	}
	var e codec.Encoder
	e.String(n.self.Incarnation)
	e.Uint(s.Number(n.self.ID))
	e.Bool(lost != 0 && s.Number(n.self.ID) == lost && !n.up.seen(lost)) // else something of the last one may be seen yet
	e.String(n.self.Addr)
	e.Bytes(state.EncodeProcesses(n.ident.identity().Processes))
	if _, err := n.replica.AskLeader(ctx, rpc.OpenSession, e.B); err != nil {
		if refused := new(wire.CallError); errors.As(err, &refused) && refused.Status == http.StatusConflict {
			if r := n.greet(ctx); r.err != nil {
				n.giveUp(r.err)
			}
		}
		return err
	}
	seen := s.Number(n.self.ID)
	s, err := n.store.Wait(ctx, func(s *state.State) bool {
		last, _ := s.Process(n.self.ID)
		return s.Number(n.self.ID) != seen || last.Incarnation != "" && last.Incarnation != n.self.Incarnation && !state.ComesAfter(n.ident.identity().Processes, last.Incarnation)
	})
	if err == nil && n.self.Session(s) == 0 {
		err = errors.New("the session that was to be replaced has ended")
	}
	return err
}

// noteSession has the directory know that this process has had a session, and so which process the
// cluster has on record.
func (n *membership) noteSession() {
	if processes := n.ident.identity().Processes; len(processes) < 2 || n.self.Session(n.store.State()) == 0 {
		return
	}
	if err := n.ident.save(func(id *identity) { id.Processes = []string{n.self.Incarnation} }); err != nil {
		n.log.Debug("that this process has had a session cannot be written down", "err", err) // all processes are known anyway
	}
}

// live sees to the session for as long as it has a lease. It returns when all that hung on it is over, with the session's
// number if the cluster may still believe in it. A setback since there were that many ends it at once: the node has not caught up since.
func (n *membership) live(ctx context.Context, setbacks uint64) (lost uint64) {
	session := n.self.Session(n.store.State())
	if session == 0 {
		return 0 // it has ended already
	}
	over := n.keeper.Begin(session)
	if n.life.Setbacks.Load() != setbacks {
		n.keeper.Lose(errs.Lost)
		return session
	}
	for leased := false; ctx.Err() == nil; {
		renewed, changed := n.keeper.Renewed.Wait(), n.life.Sessions.Wait()
		s := n.store.State()
		if leased && len(s.Servers) > 0 && !slices.Contains(s.Servers, n.self.ID) {
			self := n.asMember()
			n.replica.Fail(fmt.Errorf("%w; %s to join as a new node", errs.Removed, asNew(self)))
			return 0
		}
		if n.self.Session(s) != session {
			n.keeper.Lose(fmt.Errorf("%w: the cluster has ended the node's session", errs.Lost))
			return 0
		}
		if !leased && n.keeper.Valid() {
			leased = true
			n.keeper.First.CompareAndSwap(0, int64(time.Since(n.keeper.Started)))
			n.keeper.Current.Store(true) // what was acknowledged before the session's entry has been applied, and the rest waits for this node
			n.life.Changed.Notify()
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
			case <-time.After(time.Until(n.keeper.Until())):
			case <-ctx.Done():
			}
			return session
		case <-ctx.Done():
		}
	}
	return 0
}

// endSession has the cluster end the session of this node at its own word. If not all was given up in time, something of it may be seen yet.
func (n *membership) endSession(ctx context.Context, number uint64, clean bool) error {
	for number != 0 {
		changed := n.life.Changed.Wait()
		var e codec.Encoder
		e.Uint(number)
		e.Bool(!clean)
		_, err := n.replica.AskLeader(ctx, rpc.EndSession, e.B)
		if err == nil {
			break
		}
		select {
		case <-changed:
		case <-time.After(n.timing.Poll()):
		case <-ctx.Done():
			return fmt.Errorf("ending the session: %w", err)
		}
	}
	return nil
}

// serveOpen opens a session for the caller's process, in place of the one that it has seen, its last process's or one whose lease it
// has lost. The caller waits for it in its own state.
func (n *membership) serveOpen(ctx context.Context, peer string, body []byte) ([]byte, error) {
	d := codec.Decoder{B: body}
	boot, seen, clean, addr, processes := d.String(), d.Uint(), d.Bool(), d.String(), d.Bytes()
	if err := d.End(); err != nil {
		return nil, err
	}
	if !slices.Contains(n.store.State().Servers, peer) {
		return nil, errors.New("not a member of the cluster")
	}
	if l := n.replica.Leading.Load(); l != nil && l.Expels(peer) {
		return nil, errors.New("it is being removed from the cluster")
	}
	if err := n.mayOpen(ctx, peer, boot, state.DecodeProcesses(processes)); err != nil {
		return nil, err
	}
	return nil, n.replica.ChangeSession(ctx, state.Command{Node: peer, Change: state.OpenSession{Incarnation: boot, Addr: addr, Processes: state.DecodeProcesses(processes), Replaces: seen, Clean: clean}}, func(s *state.State) bool {
		return s.Number(peer) != seen
	})
}

// serveEnd ends the caller's session, at its own wish.
func (n *membership) serveEnd(ctx context.Context, peer string, body []byte) ([]byte, error) {
	d := codec.Decoder{B: body}
	number, lingers := d.Uint(), d.Bool()
	if err := d.End(); err != nil {
		return nil, err
	}
	return nil, n.replica.ChangeSession(ctx, state.Command{Node: peer, Change: state.LeaveSession{Number: number, HoldDown: lingers, Stored: n.replica.StoredBy(peer, wire.Process(ctx))}}, func(s *state.State) bool {
		ses := s.Session(peer)
		return ses == nil || ses.Number != number
	})
}
