package membership

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

// OpenSession has the cluster open a session for this process, in place of one whose lease has lapsed, if lost is not 0.
func (n *Membership) OpenSession(ctx context.Context, lost uint64) error {
	ctx, cancel := context.WithTimeout(ctx, n.Replica.AttemptTimeout())
	defer cancel()
	if err := n.superseded(ctx); err != nil {
		n.GiveUp(err)
		return err
	}
	s := n.Store.State()
	if own := n.Self.Session(s); own != 0 && own != lost {
		return nil // the answer to an earlier call was lost
	}
	var e codec.Encoder
	e.String(n.Self.Incarnation)
	e.Uint(s.Number(n.Self.ID))
	e.Bool(lost != 0 && s.Number(n.Self.ID) == lost && !n.Up.StillSeen(lost)) // else something of the last one may be seen yet
	e.String(n.Self.Addr)
	e.Bytes(state.EncodeProcesses(n.Ident.Identity().Processes))
	if _, err := n.Replica.AskLeader(ctx, rpc.OpenSession, e.B); err != nil {
		if refused := new(wire.CallError); errors.As(err, &refused) && refused.Status == http.StatusConflict {
			if r := n.Greet(ctx); r.Err != nil {
				n.GiveUp(r.Err)
			}
		}
		return err
	}
	seen := s.Number(n.Self.ID)
	s, err := n.Store.Wait(ctx, func(s *state.State) bool {
		last, _ := s.Process(n.Self.ID)
		return s.Number(n.Self.ID) != seen || last.Incarnation != "" && last.Incarnation != n.Self.Incarnation && !state.ComesAfter(n.Ident.Identity().Processes, last.Incarnation)
	})
	if err == nil && n.Self.Session(s) == 0 {
		err = errors.New("the session that was to be replaced has ended")
	}
	return err
}

// RecordSession has the directory know that this process has had a session, and so which process the
// cluster has on record.
func (n *Membership) RecordSession() {
	if processes := n.Ident.Identity().Processes; len(processes) < 2 || n.Self.Session(n.Store.State()) == 0 {
		return
	}
	if err := n.Ident.Save(func(id *Identity) { id.Processes = []string{n.Self.Incarnation} }); err != nil {
		n.Log.Debug("that this process has had a session cannot be written down", "err", err) // all processes are known anyway
	}
}

// Live sees to the session for as long as it has a lease. It returns when all that hung on it is over, with the session's
// number if the cluster may still believe in it. A setback since there were that many ends it at once: the node has not caught up since.
func (n *Membership) Live(ctx context.Context, setbacks uint64) (lost uint64) {
	session := n.Self.Session(n.Store.State())
	if session == 0 {
		return 0 // it has ended already
	}
	over := n.Keeper.Begin(session)
	if n.Life.Setbacks.Load() != setbacks {
		n.Keeper.Lose(errs.Lost)
		return session
	}
	for leased := false; ctx.Err() == nil; {
		renewed, changed := n.Keeper.Renewed.Wait(), n.Life.Sessions.Wait()
		s := n.Store.State()
		if leased && len(s.Servers) > 0 && !slices.Contains(s.Servers, n.Self.ID) {
			self := n.AsMember()
			n.Replica.Fail(fmt.Errorf("%w; %s to join as a new node", errs.Removed, asNew(self)))
			return 0
		}
		if n.Self.Session(s) != session {
			n.Keeper.Lose(fmt.Errorf("%w: the cluster has ended the node's session", errs.Lost))
			return 0
		}
		if !leased && n.Keeper.Valid() {
			leased = true
			n.Keeper.MarkCurrent()
			n.Life.Changed.Notify()
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
			case <-time.After(time.Until(n.Keeper.Until())):
			case <-ctx.Done():
			}
			return session
		case <-ctx.Done():
		}
	}
	return 0
}

// EndSession has the cluster end the session of this node at its own word. If not all was given up in time, something of it may be seen yet.
func (n *Membership) EndSession(ctx context.Context, number uint64, clean bool) error {
	for number != 0 {
		changed := n.Life.Changed.Wait()
		var e codec.Encoder
		e.Uint(number)
		e.Bool(!clean)
		_, err := n.Replica.AskLeader(ctx, rpc.EndSession, e.B)
		if err == nil {
			break
		}
		select {
		case <-changed:
		case <-time.After(n.Timing.Poll()):
		case <-ctx.Done():
			return fmt.Errorf("ending the session: %w", err)
		}
	}
	return nil
}

// ServeOpen opens a session for the caller's process, in place of the one that it has seen, its last process's or one whose lease it
// has lost. The caller waits for it in its own state.
func (n *Membership) ServeOpen(ctx context.Context, peer string, body []byte) ([]byte, error) {
	d := codec.Decoder{B: body}
	boot, seen, clean, addr, processes := d.String(), d.Uint(), d.Bool(), d.String(), d.Bytes()
	if err := d.End(); err != nil {
		return nil, err
	}
	if !slices.Contains(n.Store.State().Servers, peer) {
		return nil, errors.New("not a member of the cluster")
	}
	if l := n.Replica.Leading.Load(); l != nil && l.Expels(peer) {
		return nil, errors.New("it is being removed from the cluster")
	}
	if err := n.mayOpen(ctx, peer, boot, state.DecodeProcesses(processes)); err != nil {
		return nil, err
	}
	return nil, n.Replica.ChangeSession(ctx, state.Command{Node: peer, Change: state.OpenSession{Incarnation: boot, Addr: addr, Processes: state.DecodeProcesses(processes), Replaces: seen, Clean: clean}}, func(s *state.State) bool {
		return s.Number(peer) != seen
	})
}

// ServeEnd ends the caller's session, at its own wish.
func (n *Membership) ServeEnd(ctx context.Context, peer string, body []byte) ([]byte, error) {
	d := codec.Decoder{B: body}
	number, lingers := d.Uint(), d.Bool()
	if err := d.End(); err != nil {
		return nil, err
	}
	return nil, n.Replica.ChangeSession(ctx, state.Command{Node: peer, Change: state.LeaveSession{Number: number, HoldDown: lingers, Stored: n.Replica.StoredBy(peer, wire.Process(ctx))}}, func(s *state.State) bool {
		ses := s.Session(peer)
		return ses == nil || ses.Number != number
	})
}
