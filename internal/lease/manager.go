package lease

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/notify"
)

// Manager keeps this node's own lease, gives grants to others as a voter, and, while this node
// leads, detects failed nodes. Its methods are safe for concurrent use and do not wait, unless they
// say so.
type Manager struct {
	// Renewed is notified when the lease has grown, or is lost.
	Renewed notify.Signal

	// Meters count what the Manager does.
	Meters Meters

	cfg      Config
	own      *own
	voter    *voter
	detector *detector
	follower *follower
	trips    trips
	poke     chan struct{}

	current    atomic.Bool  // see MarkCurrent
	firstReady atomic.Int64 // when that was for the first time, in nanoseconds since own.started
	ran        atomic.Int64 // when Run looked at everything last, in the same way
}

// New returns the Manager of a process that has just started. It does nothing until Run is called.
func New(cfg Config) *Manager {
	now := time.Now()
	m := &Manager{cfg: cfg, poke: make(chan struct{}, 1)}
	m.own = newOwn(&m.cfg, now)
	m.voter = newVoter(&m.cfg, now)
	m.detector = newDetector(&m.cfg, m.voter, m.Wake)
	m.follower = newFollower(&m.cfg, m.voter)
	return m
}

// Wake makes Run look at everything now.
func (m *Manager) Wake() {
	select {
	case m.poke <- struct{}{}:
	default:
	}
}

// CatchUp says that this node has caught up with a leader since its process started. From then on
// it grants leases and reports expired ones.
func (m *Manager) CatchUp() {
	m.voter.catchUp()
	m.Wake()
}

// SessionsChanged says that the state has other sessions or suspicions.
func (m *Manager) SessionsChanged() {
	m.voter.observeSessions(m.cfg.Store.State())
	m.Wake()
}

// Begin asks for a lease for a session of this node, in place of the one before. The channel is
// closed when the lease is lost. That is final: the node needs another session to get a lease
// again.
func (m *Manager) Begin(session uint64) (lost <-chan struct{}) {
	defer m.Wake()
	return m.own.begin(session)
}

// Lose gives the lease up. Everything that depends on it ends with that cause. It returns the
// session whose lease it was, 0 if there was none.
func (m *Manager) Lose(cause error) (session uint64) {
	session, _ = m.lose(cause)
	return session
}

// lose is Lose, and reports whether there was a lease and nobody had planned to give it up.
func (m *Manager) lose(cause error) (session uint64, unplanned bool) {
	session, end, lost := m.own.lose()
	if session == 0 {
		return 0, false
	}
	unplanned = !end.IsZero() && !m.cfg.Life.Leaving.Load() && !errors.Is(cause, errs.ErrClosed)
	if unplanned {
		m.Meters.Lost.Inc()
	}
	m.cfg.OnLost(session, end, cause)
	close(lost) // another session may begin from now on
	m.cfg.Life.Changed.Notify()
	m.Renewed.Notify()
	return session, unplanned
}

// LoseEnded gives the lease up because the cluster has ended the session.
func (m *Manager) LoseEnded() {
	session, unplanned := m.lose(fmt.Errorf("%w: the cluster has ended the node's session", errs.ErrLost))
	if unplanned {
		m.cfg.Log.Info("the lease is lost: the cluster has ended the session", "event", event.LeaseLost, "session", session)
	}
}

// Valid reports whether this node has a lease that may be relied on. The clock decides, at the
// moment of the call: a process that stood still finds its lease over although nothing in it has
// noticed that yet. A lease that was over can be valid again, if a voter granted it before its end
// and the grant arrives late. That breaks nothing: writes wait for this session until the cluster
// has ended it.
func (m *Manager) Valid() bool { return m.own.valid() }

// Left returns how long the lease may be relied on if nobody renews it. It is not positive without
// a lease.
func (m *Manager) Left() time.Duration { return m.own.left() }

// Without returns since when this node has no lease. That is now if it has one, and also if the
// lease is over but not given up yet: a process that stood still has not tried to get another one.
func (m *Manager) Without() time.Time { return m.own.without() }

// Idle returns how long ago Run looked at everything. While this process works, that is not longer
// than the time between two renewals, with a majority of the voters and without. It is zero when
// Run has ended.
func (m *Manager) Idle() time.Duration {
	if m.cfg.Life.Works.Err() != nil {
		return 0
	}
	return time.Since(m.own.started) - time.Duration(m.ran.Load())
}

// Usable reports whether the lease of that session may be relied on.
func (m *Manager) Usable(session uint64) bool { return m.own.usable(session) }

// Until returns when the lease of the newest session ends or ended, zero if it has had none.
func (m *Manager) Until() time.Time {
	_, end := m.own.until()
	return end
}

// UntilOf is Until for that session. It is zero if there is a newer one, which says nothing about
// it.
func (m *Manager) UntilOf(session uint64) time.Time {
	newest, end := m.own.until()
	if newest != session {
		return time.Time{}
	}
	return end
}

// MarkCurrent says that this node has caught up and has a lease: all that was acknowledged before
// is applied here, and later writes wait for this node.
func (m *Manager) MarkCurrent() {
	m.firstReady.CompareAndSwap(0, int64(time.Since(m.own.started)))
	m.current.Store(true)
}

// IsCurrent reports whether MarkCurrent was called.
func (m *Manager) IsCurrent() bool { return m.current.Load() }

// FirstReady returns when MarkCurrent was called for the first time. Before that it returns when
// the Manager was made.
func (m *Manager) FirstReady() time.Time {
	return m.own.started.Add(time.Duration(m.firstReady.Load()))
}

// IsReady reports whether this node is current, takes part in the cluster and has a lease, by the
// clock.
func (m *Manager) IsReady() bool {
	return m.IsCurrent() && m.cfg.Life.Works.Err() == nil && m.cfg.Life.Setback.Load() == nil && m.Valid()
}

// AwaitReady waits until IsReady. When ctx ends first it returns its cause; when the node ends
// first, it returns the reason for that.
func (m *Manager) AwaitReady(ctx context.Context) error {
	ctx, stop := m.cfg.Life.WhileOpen(ctx)
	defer stop()
	for {
		changed, renewed := m.cfg.Life.Changed.Wait(), m.Renewed.Wait()
		if m.IsReady() {
			return nil
		}
		select {
		case <-changed:
		case <-renewed: // a lease that was over may last again
		case <-ctx.Done():
			return m.cfg.Life.Explain(context.Cause(ctx))
		}
	}
}

// AnnounceLeaving tells the other members whether this node is shutting down, by life.Leaving.
func (m *Manager) AnnounceLeaving() {
	for _, id := range m.cfg.Replica.Others() {
		m.send(id, Leaving{m.cfg.Life.Leaving.Load()})
	}
}

// ServeExpired answers the rpc.Expired of another voter: whether the lease of a session has expired
// by the grants that this one has given.
func (m *Manager) ServeExpired(_ context.Context, _ string, body []byte) ([]byte, error) {
	q, err := decodeExpiredQuery(body)
	if err != nil {
		return nil, err
	}
	return expiredAnswer{m.follower.hasExpired(q.SessionID, time.Now())}.encode(), nil
}

// OnDatagram takes the datagrams of another node.
func (m *Manager) OnDatagram(peer string, datagrams []byte) {
	for d := range decode(datagrams) {
		switch d := d.(type) {
		case Renew:
			m.answer(request{node: peer, Renew: d})
		case Grant:
			m.onGrant(peer, d)
		case Ended:
			if m.own.holds(d.Session) {
				m.LoseEnded()
			}
		case Expired:
			m.detector.observe(peer, d.Suspicion)
		case Leaving:
			if m.cfg.Peers.SetLeaving(peer, d.Leaving) {
				m.cfg.Life.Changed.Notify()
			}
		case Kept:
			m.onKept(peer, d)
		}
	}
}

// onGrant counts a grant, if it can be true.
func (m *Manager) onGrant(voter string, g Grant) {
	if g.Sent > uint64(time.Since(m.own.started)) {
		return
	}
	sent := m.own.started.Add(time.Duration(g.Sent))
	if time.Since(sent) < m.cfg.Timing.Lease {
		m.cfg.Replica.Answered(voter)
	}
	m.granted(voter, g.Session, sent)
	m.cfg.Clocks.Observe(voter, time.UnixMilli(g.Clock), sent)
}

// granted counts a voter's grant for a request that was sent at that time.
func (m *Manager) granted(voter string, session uint64, sent time.Time) {
	took, longer, first := m.own.granted(voter, session, sent)
	if first {
		m.Wake() // the time to give it up is known now
	}
	if longer {
		m.Meters.Renew.Observe(took)
		m.Renewed.Notify()
	}
}

// answer answers a request.
func (m *Manager) answer(r request) {
	d, wake := m.voter.answer(r)
	if g, ok := d.(Grant); ok && !r.late {
		m.send(r.node, g, Kept{Sent: g.Sent})
	} else if d != nil {
		m.send(r.node, d)
	}
	if wake {
		m.Wake()
	}
}

func (m *Manager) send(node string, d ...datagram) { m.cfg.Replica.Send(node, encode(d...)) }
