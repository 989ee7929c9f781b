package flotilla

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// standstill holds a node's lease manager back, as the first moments of a process that stood still
// do: the clock has gone on, and what takes note of that has not run yet.
type standstill struct{ gate atomic.Pointer[chan struct{}] }

func (s *standstill) held() {
	if gate := s.gate.Load(); gate != nil {
		<-*gate
	}
}

func (s *standstill) begin() {
	gate := make(chan struct{})
	s.gate.Store(&gate)
}

func (s *standstill) end() {
	if gate := s.gate.Swap(nil); gate != nil {
		close(*gate)
	}
}

// sleeper is a node that stands still while the others go on without it.
type sleeper struct {
	*Node
	still  *standstill
	net    *simnet.Network
	others []*Node
	tenure Tenure          // of the role that it held
	ctx    context.Context // of that tenure
	hold   <-chan error    // what Hold returned
}

// newSleeper has a node, the leader or another one, hold a role and a lock and then stand still,
// until the others have ended its session and written on: the value at "k" is "new" and not "old",
// and all tickets are dropped. during is called before the others write.
func newSleeper(t *testing.T, leads bool, before func(*sleeper)) *sleeper {
	t.Helper()
	net, stills := simnet.New(), make(map[string]*standstill)
	nodes := trio(t, net, func(c *Config) {
		stills[c.Name] = new(standstill)
		c.hooks.Delay = stills[c.Name].held
		c.TLS.CA = "https://127.0.0.1:1/dir" // nothing is ordered there
	})
	leader, rest := leaderOf(t, nodes)
	s := &sleeper{Node: rest[0], net: net, others: []*Node{leader, rest[1]}}
	if leads {
		s.Node, s.others = leader, rest
	}
	s.still = stills[s.self.Name]
	mustStore(t, s.others[0], "k", "old")
	mustLock(t, s.Node, "l")
	got, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.Hold(t.Context(), Role{Name: "r"}, func(ctx context.Context, tenure Tenure) error {
			s.ctx, s.tenure = ctx, tenure
			close(got)
			<-ctx.Done()
			return nil
		})
	}()
	<-got
	s.hold = ended
	next := holdUntil(t.Context(), s.others[1], Role{Name: "r"})
	time.Sleep(time.Second)
	if before != nil {
		before(s)
	}
	s.still.begin()
	t.Cleanup(s.still.end) // before the node is closed
	net.Isolate(s.self.Name)
	<-next // the session has ended
	mustStore(t, s.others[0], "k", "new")
	if err := s.others[0].DropTickets(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.leases.Without().Before(time.Now()) || s.ctx.Err() == nil && s.leases.Valid() {
		t.Fatal("the node has taken note of the end of its lease, or still has it: the test shows nothing")
	}
	return s
}

// wake lets the node go on.
func (s *sleeper) wake() {
	s.net.Heal()
	s.still.end()
}

// A process that wakes does not claim its lease, or what hung on it, before anything in it has
// taken note of the end.
func TestClockDecides(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for _, who := range []string{"follower", "leader"} {
		t.Run(who, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSleeper(t, who == "leader", nil)
				defer s.wake()
				status := s.Status()
				if status.Ready || status.Lease.Held || status.Lease.LeftMillis != 0 {
					t.Errorf("status: ready %v, lease %+v", status.Ready, status.Lease)
				}
				for _, r := range status.Roles {
					if r.Holder == s.self.ID {
						t.Errorf("status: it holds %s", r.Name)
					}
				}
				if holder := s.Holder("r"); holder != (hold.Holder{}) {
					t.Errorf("Holder: %+v", holder)
				}
				w := httptest.NewRecorder()
				s.Health().ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
				if w.Code != http.StatusServiceUnavailable {
					t.Errorf("/readyz: %d %s", w.Code, w.Body)
				}
				if s.ctx.Err() == nil || !errors.Is(context.Cause(s.ctx), ErrLost) {
					t.Errorf("the tenure's context: %v, %v", s.ctx.Err(), context.Cause(s.ctx))
				}
				if left := time.Until(s.tenure.Deadline()); left > 0 {
					t.Errorf("the tenure has %v left", left)
				}
				select {
				case err := <-s.hold:
					if !errors.Is(err, ErrLost) {
						t.Errorf("Hold: %v", err)
					}
				case <-time.After(time.Millisecond):
					t.Error("Hold goes on after its context was found to be over")
				}
				brief := func() context.Context {
					ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
					t.Cleanup(cancel)
					return ctx
				}
				if err := s.Ready(brief()); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Ready: %v", err)
				}
				if err := s.storage.RenewLockLease(brief(), "l", time.Minute); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("RenewLockLease: %v", err)
				}
				for _, lock := range []string{"l", "free"} {
					if got, err := s.storage.TryLock(brief(), lock); got || !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("TryLock %s: %v, %v", lock, got, err)
					}
				}
				if _, err := s.storage.Load(brief(), "nothing"); !errors.Is(err, ErrNotReady) {
					t.Errorf("Load of what is not there: %v", err)
				}
			})
		})
	}
}

// A read on a node that wakes waits for another lease, and then finds the newest value.
func TestReadAfterStandstill(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for _, who := range []string{"follower", "leader"} {
		t.Run(who, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSleeper(t, who == "leader", nil)
				got := make(chan string, 1)
				go func() {
					value, err := s.storage.Load(t.Context(), "k")
					if err != nil {
						t.Error(err)
					}
					got <- string(value)
				}()
				time.Sleep(readTimeout / 4)
				select {
				case value := <-got:
					t.Errorf("the read does not wait: %q", value)
				default:
					s.wake()
					if value := <-got; value != "new" {
						t.Errorf("the read finds %q", value)
					}
				}
				mustBeReady(t, s.Node)
			})
		})
	}
}

// A read that waits for a lease in vain is bounded, and what it finds is not said to be current.
func TestReadAfterStandstillIsBounded(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		s := newSleeper(t, false, nil)
		defer s.wake()
		began := time.Now()
		value, err := s.storage.Load(t.Context(), "k")
		if took := time.Since(began); string(value) != "old" || err != nil || took != readTimeout {
			t.Errorf("%q, %v after %v; want what is there after %v", value, err, took, readTimeout)
		}
	})
}

// Tickets that were dropped while a process stood still are not opened when it wakes.
func TestTicketsAfterStandstill(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var servers []*tls.Config
		var client *tls.Config
		s := newSleeper(t, false, func(s *sleeper) {
			awaitTickets(t, append(s.others, s.Node), hasCurrent)
			servers, client = ticketServers(t, []*Node{s.Node})
			resumes(t, client, servers[0])
			if !resumes(t, client, servers[0]) {
				t.Fatal("a ticket is not opened with a lease")
			}
		})
		if resumes(t, client, servers[0]) {
			t.Error("a ticket that was dropped is opened")
		}
		s.wake()
		mustBeReady(t, s.Node)
		awaitTickets(t, append(s.others, s.Node), hasCurrent)
		resumes(t, client, servers[0])
		if !resumes(t, client, servers[0]) {
			t.Error("a ticket is not opened with another lease")
		}
	})
}

// A node that cannot know of a token does not say that there is none.
func TestChallengeAfterStandstill(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		s := newSleeper(t, false, nil)
		ask := func() *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			r := httptest.NewRequest("GET", "/.well-known/acme-challenge/x", nil)
			r.Host = "a.test"
			s.HTTPHandler(nil).ServeHTTP(w, r)
			return w
		}
		if w := ask(); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "no lease") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		s.wake()
		mustBeReady(t, s.Node)
		if w := ask(); w.Code != http.StatusPermanentRedirect {
			t.Errorf("with a lease: %d %s", w.Code, w.Body)
		}
	})
}

// A watchdog can tell a node that hangs from one that has no majority: only in the first the loop
// stands still that renews the lease.
func TestLeaseLoopIsSeen(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net, still := simnet.New(), new(standstill)
		n := trio(t, net, func(c *Config) {
			if c.Name == "a" {
				c.hooks.Delay = still.held
			}
		})[0]
		longest := func() (idle time.Duration) {
			for range 200 {
				time.Sleep(17 * time.Millisecond)
				idle = max(idle, time.Duration(n.Status().Lease.IdleMillis)*time.Millisecond)
			}
			return idle
		}
		if idle := longest(); idle == 0 || idle > n.timing.Renewal() {
			t.Errorf("with a majority the loop is idle for %v, and renews every %v", idle, n.timing.Renewal())
		}
		net.Isolate("a")
		longest() // the node gives up its lease meanwhile
		if n.leases.Valid() {
			t.Error("the node has a lease without a majority: the test shows nothing")
		}
		if idle := longest(); idle == 0 || idle > n.timing.Renewal() {
			t.Errorf("without a majority the loop is idle for %v, and renews every %v", idle, n.timing.Renewal())
		}
		still.begin()
		defer still.end()
		time.Sleep(time.Minute)
		if idle := n.Status().Lease.IdleMillis; idle < 59_000 {
			t.Errorf("the loop hangs for a minute, and is idle for %d ms", idle)
		}
		still.end()
		if idle := longest(); idle == 0 || idle > n.timing.Renewal() {
			t.Errorf("the loop runs again, and is idle for %v", idle)
		}
		n.replica.Fail(io.ErrUnexpectedEOF)
		time.Sleep(time.Minute)
		if s := n.Status(); s.Err == "" || s.Lease.IdleMillis != 0 {
			t.Errorf("a node that takes no part any more (%q) is idle for %d ms", s.Err, s.Lease.IdleMillis)
		}
	})
}
