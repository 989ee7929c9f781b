package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/lease"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// Sessions opens and ends sessions: this node's own, and as a leader those of others.
type Sessions struct {
	timing    timing.Timing
	log       *slog.Logger
	life      *lifecycle.Life
	self      *self.Self
	ident     *IdentityFile
	store     *applied.Store
	replica   *replica.Replica
	leases    *lease.Manager
	copies    *Copies
	greetings *Greetings
	stillSeen func(session uint64) bool
}

// OpenSession has the cluster open a session for this process. If lost is not 0, the session takes
// the place of that one, whose lease has expired. A process that cannot go on as its node gives up.
func (s *Sessions) OpenSession(ctx context.Context, lost uint64) error {
	ctx, cancel := context.WithTimeout(ctx, s.replica.AttemptTimeout())
	defer cancel()
	if err := s.copies.superseded(ctx); err != nil {
		s.copies.GiveUp(err)
		return err
	}
	now := s.store.State()
	if own := s.self.Session(now); own != 0 && own != lost {
		return nil // the answer to an earlier call was lost
	}
	seen := now.Number(s.self.ID)
	request := OpenSession{
		Incarnation: s.self.Incarnation,
		Addr:        s.self.Addr,
		Replaces:    seen,
		Clean:       lost != 0 && seen == lost && !s.stillSeen(lost),
		Processes:   s.ident.Identity().Processes,
	}
	if _, err := s.replica.AskLeader(ctx, rpc.OpenSession, request.Encode(), s.ServeOpen); err != nil {
		if rpc.IsSuperseded(err) {
			if r := s.greetings.Greet(ctx); r.Err != nil {
				s.copies.GiveUp(r.Err)
			}
		}
		return err
	}
	now, err := s.store.Wait(ctx, func(now *state.State) bool {
		last, _ := now.Process(s.self.ID)
		another := last.Incarnation != "" && last.Incarnation != s.self.Incarnation
		return now.Number(s.self.ID) != seen || another && !state.ComesAfter(s.ident.Identity().Processes, last.Incarnation)
	})
	if err == nil && s.self.Session(now) == 0 {
		err = errors.New("the session that was to be replaced has ended")
	}
	return err
}

// RecordSession writes down that this process has had a session: the state now has its incarnation,
// and the directory can forget those of earlier processes.
func (s *Sessions) RecordSession() {
	if processes := s.ident.Identity().Processes; len(processes) < 2 || s.self.Session(s.store.State()) == 0 {
		return
	}
	if err := s.ident.Save(func(id *Identity) { id.Processes = []string{s.self.Incarnation} }); err != nil {
		// The directory goes on to know all of them.
		s.log.Debug("that this process has had a session cannot be written down", "err", err)
	}
}

// Live sees to this node's session for as long as that has a lease. It returns when everything that
// depended on the session is over, with its number if the cluster may still believe in it. Setbacks
// is how many there were when the node had caught up: one since then ends the session at once.
func (s *Sessions) Live(ctx context.Context, setbacks uint64) (lost uint64) {
	session := s.self.Session(s.store.State())
	if session == 0 {
		return 0 // it has ended already
	}
	over := s.leases.Begin(session)
	if s.life.Setbacks.Load() != setbacks {
		s.leases.Lose(errs.ErrLost)
		return session
	}
	for leased := false; ctx.Err() == nil; {
		renewed, changed := s.leases.Renewed.Wait(), s.life.Sessions.Wait()
		now := s.store.State()
		if leased && len(now.Servers) > 0 && !slices.Contains(now.Servers, s.self.ID) {
			s.replica.Fail(fmt.Errorf("%w; %s to join as a new node", errs.ErrRemoved, asNew(s.greetings.AsMember())))
			return 0
		}
		if s.self.Session(now) != session {
			s.leases.LoseEnded()
			return 0
		}
		if !leased && s.leases.Valid() {
			leased = true
			// What was acknowledged before the session's entry has been applied here, and what
			// comes later waits for this node.
			s.leases.MarkCurrent()
			s.log.Info("this node takes part in the cluster", "id", s.self.ID, "session", session)
			s.life.Changed.Notify()
		}
		if leased {
			renewed = nil
		}
		select {
		case <-renewed:
		case <-changed:
		case <-over:
			// Until the lease ends, something may still be letting go of what it held by it.
			select {
			case <-time.After(time.Until(s.leases.Until())):
			case <-ctx.Done():
			}
			return session
		case <-ctx.Done():
		}
	}
	return 0
}

// EndSession has the cluster end a session of this node at its own wish; number 0 is none. Clean
// says that nothing that it held can be seen any more. It tries until it succeeds or ctx ends.
func (s *Sessions) EndSession(ctx context.Context, number uint64, clean bool) error {
	if number == 0 {
		return nil
	}
	request := EndSession{Number: number, HoldDown: !clean}
	for {
		changed := s.life.Changed.Wait()
		_, err := s.replica.AskLeader(ctx, rpc.EndSession, request.Encode(), s.ServeEnd)
		if err == nil {
			return nil
		}
		select {
		case <-changed:
		case <-time.After(s.timing.Poll()):
		case <-ctx.Done():
			return fmt.Errorf("ending the session: %w", err)
		}
	}
}

// ServeOpen opens a session for the caller's process, as a leader. The caller waits for it in its
// own state. The body is an [OpenSession].
func (s *Sessions) ServeOpen(ctx context.Context, peer string, body []byte) ([]byte, error) {
	in, err := DecodeOpenSession(body)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(s.store.State().Servers, peer) {
		return nil, errors.New("not a member of the cluster")
	}
	if l := s.replica.Leading.Load(); l != nil && l.Expels(peer) {
		return nil, errors.New("it is being removed from the cluster")
	}
	if err := s.copies.mayOpen(ctx, peer, in.Incarnation, in.Processes); err != nil {
		return nil, err
	}
	open := state.OpenSession{
		Incarnation: in.Incarnation, Addr: in.Addr, Processes: in.Processes, Replaces: in.Replaces, Clean: in.Clean,
	}
	return nil, s.replica.ChangeSession(ctx, state.Command{Node: peer, Change: open}, func(now *state.State) bool {
		return now.Number(peer) != in.Replaces
	})
}

// ServeEnd ends the caller's session at its own wish, as a leader. The body is an [EndSession].
func (s *Sessions) ServeEnd(ctx context.Context, peer string, body []byte) ([]byte, error) {
	in, err := DecodeEndSession(body)
	if err != nil {
		return nil, err
	}
	end := state.LeaveSession{Number: in.Number, HoldDown: in.HoldDown, Stored: s.replica.StoredBy(peer, wire.Incarnation(ctx))}
	return nil, s.replica.ChangeSession(ctx, state.Command{Node: peer, Change: end}, func(now *state.State) bool {
		ses := now.Session(peer)
		return ses == nil || ses.Number != in.Number
	})
}
