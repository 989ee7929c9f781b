package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/errs"
)

// Run renews the lease, reports expired grants and detects failures until ctx ends.
func (m *Manager) Run(ctx context.Context) {
	if m.cfg.Timing.Tight() {
		if err := raisePriority(); err != nil {
			m.cfg.Log.Debug("other processes may delay this one as much as before", "err", err)
		}
	}
	every := m.cfg.Timing.Renewal()
	var renewal, last, looked time.Time
	awake := time.Now() // since when this loop has run without a gap
	begun := uint64(0)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-m.poke:
		case <-ctx.Done():
			return
		}
		if m.cfg.Delay != nil {
			m.cfg.Delay()
		}
		now := time.Now()
		m.ran.Store(int64(now.Sub(m.own.started)))
		if now.Sub(last) > 2*every {
			awake = now // this process stood still: what others sent meanwhile is still under way
		}
		last = now
		session, loss := m.checkOwn(now)
		for _, r := range m.voter.takePostponed() {
			m.answer(r)
		}
		if !now.Before(renewal.Add(-every/2)) || session != begun {
			m.renew(now, session)
			renewal, begun = now.Add(every), session
			m.voter.setRenewal(renewal)
		}
		m.cfg.Clocks.Look()
		if now.Sub(looked) >= second {
			looked = now
			m.cfg.Life.Second.Notify()
		}
		wait := renewal
		for _, t := range []time.Time{loss, m.report(now), m.detect(ctx, now, awake)} {
			if !t.IsZero() && t.Before(wait) {
				wait = t
			}
		}
		timer.Reset(time.Until(wait))
	}
}

// checkOwn gives the lease up if that is due. It returns the session that has or wants a lease, and
// when the lease must be given up unless it is renewed.
func (m *Manager) checkOwn(now time.Time) (session uint64, loss time.Time) {
	session, loss = m.own.due()
	if loss.IsZero() || now.Before(loss) {
		return session, loss
	}
	if _, unplanned := m.lose(fmt.Errorf("%w: the node's lease has expired", errs.ErrLost)); unplanned {
		m.cfg.Log.Warn("the lease has expired: no majority of the voters has renewed it", "event", event.LeaseLost, "session", session)
	}
	return 0, time.Time{}
}

// renew asks all voters for grants, and sends the grants that this node owes to others.
func (m *Manager) renew(now time.Time, session uint64) {
	out, granted := make(map[string][]datagram), m.voter.takeOwed()
	for id, g := range granted {
		out[id] = append(out[id], g.Grant)
	}
	stalled := m.cfg.Replica.Stalled() || m.cfg.Life.Setback.Load() != nil
	if session != 0 && !stalled { // else writers would wait for a node whose disk does not work
		r := Renew{Session: session, Sent: uint64(now.Sub(m.own.started)), Urgent: m.own.urgent(now)}
		for _, id := range m.cfg.Store.State().Voters {
			if id != m.cfg.Self.ID {
				out[id] = append(out[id], r)
			} else if m.voter.ask(id, session) {
				m.granted(id, session, now)
			}
		}
	}
	for id, d := range out {
		if g := granted[id]; !g.since.IsZero() {
			d = append(d, Kept{Sent: g.Sent, For: uint64(time.Since(g.since))})
		}
		m.send(id, d...)
	}
	if term := m.cfg.Term(); term != nil {
		term.Beat()
	}
	if m.cfg.Life.Leaving.Load() {
		m.AnnounceLeaving() // again, since datagrams may be lost
	}
}

// report tells the leader which suspected sessions have expired for this voter. It returns when to
// report again, zero if no session is suspected.
func (m *Manager) report(now time.Time) (next time.Time) {
	leader := m.cfg.Replica.Leader()
	expired, next := m.voter.report(now)
	for _, who := range expired {
		switch leader {
		case m.cfg.Self.ID:
			m.detector.observe(leader, who)
		case "":
		default:
			m.send(leader, Expired{who})
		}
	}
	return next
}

// detect looks for failed nodes: for all of them if this node leads, else for a failed leader. It
// returns when to look again, zero if that can wait for the next renewal.
func (m *Manager) detect(ctx context.Context, now, awake time.Time) (next time.Time) {
	m.follower.observeLeader(now)
	if term := m.cfg.Term(); term != nil {
		return m.detector.evaluate(ctx, term, now, awake)
	}
	m.detector.holdDowns.forget()
	return m.follower.evaluate(ctx, now, awake)
}
