package flotilla

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/roles"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// Each test in this file has failed once. Its comment tells what happened then, and must not
// happen.

// Shutdown may come between a grant and the beginning of its tenure. f then does not begin, or the
// role is not granted again before the deadline of f. The test repeats the steps of Hold and
// handOver one by one.
func TestShutdownWhileEntering(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		_, others := leaderOf(t, nodes)
		n, second := others[0], others[1]
		c := state.ClaimRole{Role: keyspace.RolePrefix + "r", Wait: true, MaxState: n.cfg.MaxState}
		// Hold is here. It has looked at Leaving for the last time.
		ref, index, err := n.roles.Await(t.Context(), c, nil)
		if err != nil {
			t.Fatal(err)
		}
		next := holdUntil(t.Context(), second, Role{Name: "r"})
		time.Sleep(50 * time.Millisecond)
		n.life.Leaving.Store(true) // Shutdown
		n.life.Changed.Notify()
		if err := n.roles.YieldAll(t.Context(), (*roles.Tenure).Any); err != nil { // handOver
			t.Fatal(err)
		}
		held, begun := n.roles.Begin(t.Context(), c, ref, index) // Hold goes on
		if !begun {
			return // f does not begin
		}
		// f has begun; handOver goes on after yieldAll
		number := n.self.Session(n.store.State())
		n.leases.Lose(fmt.Errorf("%w: the node shuts down", ErrLost))
		end := membership.EndSession{Number: number}
		if _, err := n.replica.AskLeader(t.Context(), rpc.EndSession, end.Encode(), n.members.ServeEnd); err != nil {
			t.Fatal(err)
		}
		select {
		case <-next:
		case <-time.After(10 * time.Second):
			t.Fatal("the role is granted to nobody")
		}
		if left := time.Until(held.Deadline()); left > 0 {
			t.Errorf("the role is granted again %v before the deadline of f, which has begun", left)
		}
		held.End()
	})
}

// A part of a certificate that is stored with the context of Hold is not tied to the role.
func TestBundleIsTiedToTheTenure(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		_, others := leaderOf(t, nodes)
		n := others[0]
		started := make(chan struct{})
		result := make(chan error, 1)
		go n.Hold(t.Context(), Role{Name: "r"}, func(ctx context.Context, _ Tenure) error {
			if err := n.storage.Lock(ctx, bundleLock); err != nil {
				t.Error(err)
			}
			keep := context.WithoutCancel(ctx)
			close(started)
			<-ctx.Done()
			time.Sleep(roles.YieldTime + time.Second) // it takes too long: the role goes on without it
			if err := n.storage.Store(keep, "plain", []byte("x")); !errors.Is(err, ErrLost) {
				t.Errorf("a plain late write: %v", err)
			}
			for _, ext := range []string{".key", ".crt", ".json"} {
				if err := n.storage.Store(keep, bundleStem+ext, []byte("{}")); err != nil {
					result <- err
					return nil
				}
			}
			result <- nil
			return nil
		})
		<-started
		other := holdUntil(t.Context(), others[1], Role{Name: "r", Priority: 1})
		<-other
		if err := <-result; !errors.Is(err, ErrLost) {
			t.Errorf("a late bundle of a former holder of the role, with f's context: %v, want ErrLost", err)
		}
	})
}

// Lock or Hold with the context of a tenure that was lost never returns, runs a CPU hot, and leaves
// claims behind that hold the lock for as long as the session lives.
func TestLockWithLostContext(t *testing.T) {
	nodes := trio(t, simnet.New(), nil)
	_, others := leaderOf(t, nodes)
	n := others[0]
	ctx, cancel := context.WithCancelCause(t.Context())
	// as keeper.look does to f's context
	cancel(fmt.Errorf("%w: the node's lease has lapsed", ErrLost))
	done := make(chan error, 1)
	go func() { done <- n.storage.Lock(ctx, "l") }()
	select {
	case err := <-done:
		t.Logf("Lock returned %v", err)
	case <-time.After(3 * time.Second):
		open, _ := n.replica.Writes.Oldest()
		t.Errorf("Lock with a context that has ended has not returned after 3 s; %d commands wait, %d claims of it are in the queue of the lock", open, len(n.store.State().Claims(keyspace.LockPrefix+"l")))
	}
	n.Close()
}

// A claim that is overtaken by its own withdrawal stays in the state for as long as the session
// lives, if an earlier command of the session is open still: the number up to which all is answered
// does not cover it.
func TestClaimOvertakenByItsRelease(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		leader, others := leaderOf(t, nodes)
		n := others[0]
		session := n.self.Session(n.store.State())
		// The claim is on its way to the leader for long, such as behind a large value. Its number is
		// above all that the session's other commands say is answered.
		lock := state.ClaimRole{Role: keyspace.LockPrefix + "l", Wait: true, MaxState: n.cfg.MaxState}
		claim := state.Command{Node: n.self.ID, Session: session, Seq: 1000, Change: lock}
		entry := state.SealCommand(n.store.State().Keys, &claim)
		// The context of Lock ends, and the claim is withdrawn by a small call of its own.
		n.roles.Withdraw(lock.Role, state.Ref{Node: n.self.ID, Session: session, Seq: claim.Seq})
		time.Sleep(time.Second)
		// The first call arrives.
		late := replica.ApplyRequest{Proposals: []replica.Proposal{{Session: session, Seq: claim.Seq, Entry: entry}}}
		if _, err := leader.replica.ServeApply(t.Context(), n.self.ID, late.Encode()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if queue := leader.store.State().Claims(lock.Role); len(queue) > 0 {
			t.Errorf("a minute later the lock is held by a claim that nobody waits for: %+v", queue)
		}
	})
}

// A node that reaches the leader but no majority has a session and no lease. It asks a holder to
// hand over to it, is granted the role, cannot use it, and is never suspected since the leader
// hears it: nobody has the role.
func TestNoRoleWithoutLease(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for _, priority := range []int{0, 1} {
		t.Run(fmt.Sprint("priority ", priority), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := simnet.New()
				nodes := fleet(t, net, []string{"a", "b", "c", "d", "e"}, nil)
				leader, others := leaderOf(t, nodes)
				holder, poor := others[0], others[3]
				for _, n := range others[:3] {
					net.Block(poor.self.Name, n.self.Name)
					net.Block(n.self.Name, poor.self.Name)
				}
				time.Sleep(10 * time.Second)
				holding := false
				var mu sync.Mutex
				play := func(n *Node, p int) {
					for t.Context().Err() == nil {
						err := n.Hold(t.Context(), Role{Name: "r", Priority: p}, func(ctx context.Context, _ Tenure) error {
							mu.Lock()
							holding = true
							mu.Unlock()
							select {
							case <-ctx.Done():
							case <-time.After(5 * time.Second): // gives the role up from time to time
							}
							mu.Lock()
							holding = false
							mu.Unlock()
							return nil
						})
						if errors.Is(err, ErrClosed) {
							return
						}
					}
				}
				go play(holder, 0)
				time.Sleep(time.Second)
				go play(poor, priority)
				time.Sleep(time.Second)
				go play(leader, 0)
				held := 0
				for range 600 {
					time.Sleep(100 * time.Millisecond)
					mu.Lock()
					if holding {
						held++
					}
					mu.Unlock()
				}
				if held < 500 {
					queue := leader.store.State().Claims(keyspace.RolePrefix + "r")
					t.Errorf("in a minute the role was held for %d tenths of a second; its holder in the state is %v's node: %v, which has a lease: %v, suspected: %v",
						held, queue[0].Node[:4], queue[0].Node == poor.self.ID, poor.leases.Valid(), leader.store.State().Session(poor.self.ID).Suspect)
				}
				net.Heal()
				for _, n := range nodes {
					n.Close()
				}
			})
		})
	}
}

// Shutdown without a deadline never ends if f does not heed its context, although the role goes on
// after ten seconds.
func TestShutdownWithStuckHolder(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		release := make(chan struct{})
		began := make(chan struct{})
		go nodes[0].Hold(t.Context(), Role{Name: "r"}, func(context.Context, Tenure) error {
			close(began)
			<-release
			return nil
		})
		<-began
		start := time.Now()
		done := make(chan struct{})
		go func() {
			nodes[0].Shutdown(t.Context())
			close(done)
		}()
		time.Sleep(time.Minute)
		select {
		case <-done:
			t.Logf("after %v", time.Since(start))
		default:
			t.Error("a minute later Shutdown has not returned; the role is another's for long")
		}
		close(release)
		<-done
	})
}

// Each Lock that fails for want of a leader leaves a goroutine that tries to withdraw it for as
// long as there is none.
func TestWithdrawalsAreFew(t *testing.T) {
	SkipShort(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		_, others := leaderOf(t, nodes)
		n := others[0]
		net.Isolate(n.self.Name)
		time.Sleep(5 * time.Second)
		before := runtime.NumGoroutine()
		for range 200 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			n.storage.TryLock(ctx, "l")
			cancel()
		}
		open, _ := n.replica.Writes.Oldest()
		if more := runtime.NumGoroutine() - before; more > 50 {
			t.Errorf("200 TryLocks that have returned left %d goroutines and %d open commands", more, open)
		}
		net.Heal()
		time.Sleep(10 * time.Second)
	})
}

// What f was asked to yield while its release was under way is reported ten seconds later as not
// handed over.
func TestNoFalseAlarmAfterYield(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for _, stubborn := range []bool{false, true} {
		t.Run(fmt.Sprint("stubborn ", stubborn), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testAlarm(t, stubborn) })
		})
	}
}

// testAlarm has a holder that is asked to yield return just before, or a stubborn one never.
func testAlarm(t *testing.T, stubborn bool) {
	net := simnet.New()
	var mu sync.Mutex
	var out bytes.Buffer
	logger := slog.New(slog.NewTextHandler(toFunc(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return out.Write(b)
	}), nil))
	nodes := trio(t, net, func(c *Config) { c.Logger = logger })
	leader, others := leaderOf(t, nodes)
	holder := others[0]
	net.SetLatency(20 * time.Millisecond)
	time.Sleep(5 * time.Second)
	release := make(chan struct{})
	began := make(chan struct{})
	go holder.Hold(t.Context(), Role{Name: "r"}, func(context.Context, Tenure) error {
		close(began)
		<-release
		return nil
	})
	<-began
	time.Sleep(time.Second)
	got := make(chan Tenure, 1)
	go leader.Hold(t.Context(), Role{Name: "r", Priority: 1}, func(ctx context.Context, tn Tenure) error {
		got <- tn
		<-ctx.Done()
		return nil
	})
	for {
		// until the leader has asked: then the release comes a little later than the request in the log
		queue := leader.store.State().Claims(keyspace.RolePrefix + "r")
		if len(queue) == 2 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	time.Sleep(35 * time.Millisecond)
	if stubborn {
		defer close(release)
	} else {
		close(release)
		<-got
	}
	time.Sleep(time.Minute)
	mu.Lock()
	defer mu.Unlock()
	if said := strings.Contains(out.String(), "a role was not handed over in time"); said != stubborn {
		t.Errorf("that a holder has not handed over in time is said: %v, want %v", said, stubborn)
	}
}

// toFunc is a function that is written to.
type toFunc func([]byte) (int, error)

func (f toFunc) Write(b []byte) (int, error) { return f(b) }

// After a bundle's commit failed once, Delete of its keys by the holder of the lock does nothing
// and says that it did, even after they were stored.
func TestDeleteAfterFailedCommit(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		n := nodes[0]
		mustLock(t, n, bundleLock)
		ctx, cancel := context.WithCancel(t.Context())
		mustStore(t, n, bundleStem+".key", "k")
		mustStore(t, n, bundleStem+".crt", "c")
		cancel()
		if err := n.storage.Store(ctx, bundleStem+".json", []byte("{}")); !errors.Is(err, context.Canceled) {
			t.Fatalf("the commit has not failed: %v", err)
		}
		for _, ext := range []string{".key", ".crt", ".json"} { // the second attempt, under the same lock
			mustStore(t, n, bundleStem+ext, "{}")
		}
		wantRecords(t, n, "{}", "{}", "{}")
		if err := n.storage.Delete(t.Context(), bundleStem+".key"); err != nil {
			t.Error(err)
		}
		if n.storage.Exists(t.Context(), bundleStem+".key") {
			t.Error("Delete returned nil, and the key is still there")
		}
	})
}

// Hold "waits until this node holds the role", but fails after 30 s without a leader, if the leader
// is missing when it begins.
func TestHoldWithoutLeader(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		_, others := leaderOf(t, nodes)
		net.Isolate(others[0].self.Name)
		time.Sleep(5 * time.Second)
		all := time.Duration(Cases(t, 10, 2)) * time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), all)
		defer cancel()
		start := time.Now()
		err := others[0].Hold(ctx, Role{Name: "r"}, func(context.Context, Tenure) error { return nil })
		if took := time.Since(start); took < all*9/10 {
			t.Errorf("Hold returned after %v: %v", took, err)
		}
		net.Heal()
	})
}

// The context of an inner Hold forgets the outer role: a late write with it takes effect after the
// outer role is another's.
func TestNestedHoldKeepsOuter(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		_, others := leaderOf(t, nodes)
		n := others[0]
		began := make(chan struct{})
		result := make(chan error, 1)
		go n.Hold(t.Context(), Role{Name: "outer"}, func(ctx context.Context, _ Tenure) error {
			return n.Hold(ctx, Role{Name: "inner"}, func(ctx context.Context, _ Tenure) error {
				close(began)
				<-ctx.Done()
				time.Sleep(roles.YieldTime + time.Second)
				result <- n.storage.Store(context.WithoutCancel(ctx), "plain", []byte("x"))
				return nil
			})
		})
		<-began
		<-holdUntil(t.Context(), others[1], Role{Name: "outer", Priority: 1})
		if err := <-result; !errors.Is(err, ErrLost) {
			t.Errorf("a write with the inner context after the outer role was lost: %v", err)
		}
	})
}

// A tenure's deadline goes on moving when the tenure is over.
func TestDeadlineAfterTheEnd(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		var kept Tenure
		if err := nodes[0].Hold(t.Context(), Role{Name: "r"}, func(_ context.Context, tenure Tenure) error {
			kept = tenure
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		<-holdUntil(t.Context(), nodes[1], Role{Name: "r"})
		time.Sleep(time.Minute)
		if left := time.Until(kept.Deadline()); left > 0 {
			t.Errorf("a minute after the tenure the role is \"held for certain\" for another %v, and another node holds it", left)
		}
	})
}
