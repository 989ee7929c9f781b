package lease

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// recorder keeps the events among the lines of a log.
type recorder struct {
	slog.Handler
	events []event.Kind
}

func (r *recorder) Enabled(context.Context, slog.Level) bool { return true }

func (r *recorder) Handle(_ context.Context, rec slog.Record) error {
	rec.Attrs(func(a slog.Attr) bool {
		if kind, ok := a.Value.Any().(event.Kind); ok {
			r.events = append(r.events, kind)
		}
		return false // it is the first
	})
	return nil
}

// A lease counts as lost if the node had one and did not mean to give it up.
func TestLostLeases(t *testing.T) {
	lost := []event.Kind{event.LeaseLost}
	for _, test := range []struct {
		name   string
		lose   func(m *Manager)
		losses uint64
		events []event.Kind
	}{
		{"it expires", func(m *Manager) {
			time.Sleep(m.cfg.Timing.Lease)
			m.checkOwn(time.Now())
		}, 1, lost},
		{"it lasts", func(m *Manager) { m.checkOwn(time.Now()) }, 0, nil},
		{"the cluster ends the session", func(m *Manager) { m.OnDatagram("a", encode(Ended{Session: 7})) }, 1, lost},
		{"the cluster ends the session, and says so twice", func(m *Manager) { m.LoseEnded(); m.LoseEnded() }, 1, lost},
		{"the disk fails", func(m *Manager) { m.Lose(errNoDisk{}) }, 1, nil},
		{"the node shuts down", func(m *Manager) {
			m.cfg.Life.Leaving.Store(true)
			m.Lose(fmt.Errorf("%w: the node shuts down", errs.ErrLost))
		}, 0, nil},
		{"the node is closed", func(m *Manager) { m.Lose(errs.ErrClosed) }, 0, nil},
		{"the cluster ends the session while the node shuts down", func(m *Manager) {
			m.cfg.Life.Leaving.Store(true)
			m.LoseEnded()
		}, 0, nil},
		{"it expires while the node shuts down", func(m *Manager) {
			m.cfg.Life.Leaving.Store(true)
			time.Sleep(m.cfg.Timing.Lease)
			m.checkOwn(time.Now())
		}, 0, nil},
		{"the cluster ends the session of a lease that was none yet", func(m *Manager) {
			m.Begin(8)
			m.LoseEnded()
		}, 0, nil},
		{"there was none yet", func(m *Manager) {
			m.Begin(8)
			m.Lose(errNoDisk{})
		}, 0, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, said := soloManager(), &recorder{}
				m.cfg.Log = slog.New(said)
				s := state.New()
				s.Voters = []string{"a"}
				m.cfg.Store.Publish(s)
				m.Begin(7)
				time.Sleep(time.Second)
				m.granted("a", 7, time.Now())
				test.lose(m)
				if got := m.Meters.Lost.Load(); got != test.losses {
					t.Errorf("%d leases are lost, want %d", got, test.losses)
				}
				if diff := cmp.Diff(test.events, said.events); diff != "" {
					t.Errorf("events (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// A renewal takes from its request until a majority of the voters has granted it, whichever of them
// come first, and whether there are later requests meanwhile.
func TestRenewIsTimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := soloManager()
		s := state.New()
		s.Voters = []string{"a", "b", "c"}
		m.cfg.Store.Publish(s)
		m.Begin(7)
		time.Sleep(time.Second)
		first := time.Now()
		m.granted("a", 7, first)
		time.Sleep(20 * time.Millisecond)
		second := time.Now()
		m.granted("a", 7, second)
		time.Sleep(10 * time.Millisecond)
		m.granted("b", 7, first) // 30 ms after the request
		m.granted("b", 7, first)
		m.granted("c", 7, first)
		time.Sleep(10 * time.Millisecond)
		m.granted("c", 7, second) // 20 ms after that one
		got := m.Meters.Renew.Load()
		if diff := cmp.Diff([]any{uint64(2), 50 * time.Millisecond}, []any{got.Count, got.Sum}); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// The way to a voter and back is known, although its grants wait for its own requests, and the
// voter's clock is known as exactly.
func TestRTT(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		names := []string{"a", "b", "c", "d"}
		c := newTestCluster(t, names, names[:3])
		defer c.close()
		c.sleep(time.Minute)
		for _, from := range names {
			for _, to := range names {
				rtt, ok := c.node(from).RTT(to)
				switch {
				case from == to || to == "d": // it does not vote, and so is not asked
					if ok {
						t.Errorf("from %s to %s it takes %v", from, to, rtt)
					}
				case !ok || rtt < 2*testLatency || rtt > 2*testLatency+3*time.Millisecond:
					t.Errorf("from %s to %s it takes %v, known %v; want about %v", from, to, rtt, ok, 2*testLatency)
				}
			}
			for _, clock := range c.node(from).cfg.Clocks.Measured() {
				if clock.Within > 4*time.Millisecond || max(clock.Ahead, -clock.Ahead) > clock.Within {
					t.Errorf("for %s the clock of %s is ahead by %v, give or take %v", from, clock.Peer, clock.Ahead, clock.Within)
				}
			}
		}
		c.cut("a", "b")
		c.sleep(time.Minute)
		if rtt, ok := c.node("a").RTT("b"); ok {
			t.Errorf("a minute after they were cut it takes %v", rtt)
		}
	})
}

// What a voter says of its grants is doubted, and smoothed.
func TestKept(t *testing.T) {
	const ms = time.Millisecond
	for _, test := range []struct {
		name  string
		voter string
		kept  []Kept // each 80 ms after the one before; the first 100 ms after the start
		want  time.Duration
		known bool
	}{
		{"once", "a", []Kept{{uint64(90 * ms), uint64(2 * ms)}}, 8 * ms, true},
		{"answered at once", "a", []Kept{{uint64(90 * ms), 0}}, 10 * ms, true},
		{"twice", "a", []Kept{{uint64(90 * ms), 0}, {uint64(162 * ms), 0}}, 11 * ms, true},
		{"of a request to come", "a", []Kept{{uint64(101 * ms), 0}}, 0, false},
		{"for longer than can be", "a", []Kept{{uint64(90 * ms), uint64(11 * ms)}}, 0, false},
		{"for ever", "a", []Kept{{uint64(90 * ms), 1<<64 - 1}}, 0, false},
		{"of no voter", "x", []Kept{{uint64(90 * ms), 0}}, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := soloManager()
				s := state.New()
				s.Voters = []string{"a"}
				m.cfg.Store.Publish(s)
				time.Sleep(20 * ms)
				for _, k := range test.kept {
					time.Sleep(80 * ms)
					m.OnDatagram(test.voter, encode(k))
				}
				if got, known := m.RTT(test.voter); got != test.want || known != test.known {
					t.Errorf("%v, known %v; want %v, %v", got, known, test.want, test.known)
				}
			})
		})
	}
}

// sender records what a Manager sends.
type sender struct {
	Replica
	sent []datagram
}

func (s *sender) Send(_ string, b []byte) { s.sent = append(s.sent, slices.Collect(decode(b))...) }

// A voter says how long it has kept a grant, unless it could not answer at first. Its clock was
// read later then.
func TestVoterSaysHowLong(t *testing.T) {
	for _, test := range []struct {
		name   string
		urgent bool
		late   bool // it cannot answer at first
		want   []datagram
	}{
		{"at rest", false, false, []datagram{Grant{Session: 1, Sent: 5}, Kept{Sent: 5, For: uint64(30 * time.Millisecond)}}},
		{"urgently", true, false, []datagram{Grant{Session: 1, Sent: 5}, Kept{Sent: 5}}},
		{"late", false, true, []datagram{Grant{Session: 1, Sent: 5}}},
		{"late and urgently", true, true, []datagram{Grant{Session: 1, Sent: 5}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := soloManager()
				out := &sender{Replica: m.cfg.Replica}
				m.cfg.Replica = out
				s, _ := state.New().Apply(1, &state.Command{Node: "b", Change: state.OpenSession{Incarnation: "b1"}}, nil)
				m.cfg.Store.Publish(s)
				if !test.late {
					m.CatchUp()
				}
				m.OnDatagram("b", encode(Renew{Session: 1, Sent: 5, Urgent: test.urgent}))
				time.Sleep(10 * time.Millisecond)
				m.CatchUp()
				for _, r := range m.voter.takePostponed() {
					m.answer(r)
				}
				time.Sleep(20 * time.Millisecond)
				m.renew(time.Now(), 0)
				if diff := cmp.Diff(test.want, out.sent, cmpopts.IgnoreFields(Grant{}, "Clock")); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}
