package flotilla

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A thousand waiters are served in the order in which they came, and each is woken once: by its own
// grant.
func TestThousandWaiters(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		waiters := Cases(t, 1000, 200)
		nodes := trio(t, simnet.New(), nil)
		release := make(chan struct{})
		var mu sync.Mutex
		var order []int
		var wg sync.WaitGroup
		claim := func(i int) {
			wg.Go(func() {
				err := nodes[i%3].Hold(t.Context(), Role{Name: "r"}, func(context.Context, Tenure) error {
					mu.Lock()
					order = append(order, i)
					mu.Unlock()
					if i == 0 {
						<-release
					}
					return nil
				})
				if err != nil {
					t.Errorf("waiter %d: %v", i, err)
				}
			})
			for len(nodes[0].store.State().Claims(keyspace.RolePrefix+"r")) <= i {
				// so that there is an order
				<-nodes[0].store.Next()
			}
		}
		for i := range waiters {
			claim(i)
		}
		synctest.Wait()
		start := nodes[0].store.State().Index
		var woken [3]int
		for i, n := range nodes {
			woken[i] = n.roles.Wakeups()
		}
		close(release)
		wg.Wait()
		for i, got := range order {
			if got != i {
				t.Fatalf("waiter %d comes after %d", got, i-1)
			}
		}
		all := 0
		for i, n := range nodes {
			all += n.roles.Wakeups() - woken[i]
		}
		if all != waiters-1 {
			t.Errorf("%d waiters were woken %d times", waiters-1, all)
		}
		if entries := nodes[0].store.State().Index - start; entries != uint64(waiters) {
			t.Errorf("%d hand-overs took %d entries", waiters, entries)
		}
	})
}

// An idle cluster whose nodes hold roles and wait for others writes nothing, and keeps its leases
// through an election.
func TestIdleWritesNothing(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		ctx, cancel := context.WithCancel(t.Context())
		var lost atomic.Int64
		var wg sync.WaitGroup
		for i, n := range nodes {
			for r := range 10 {
				wg.Go(func() {
					n.Hold(ctx, Role{Name: fmt.Sprint(r), Group: "g", Priority: (i + r) % 3, PreemptDelay: time.Second}, func(ctx context.Context, tenure Tenure) error {
						before := tenure.Deadline()
						<-ctx.Done()
						if !tenure.Deadline().After(before) {
							t.Errorf("the deadline of %d has not moved in minutes", r)
						}
						if err := context.Cause(ctx); err != context.Canceled && err != ErrYielded {
							lost.Add(1)
						}
						return nil
					})
				})
			}
		}
		time.Sleep(10 * time.Second)
		index := nodes[0].store.State().Index
		time.Sleep(2 * time.Minute)
		if now := nodes[0].store.State().Index; now != index {
			t.Errorf("%d entries in two idle minutes", now-index)
		}
		leader, _ := leaderOf(t, nodes)
		if err := leader.replica.Transfer(t.Context(), ""); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Second)
		if next, _ := leaderOf(t, nodes); next == leader {
			t.Error("the leader has not changed")
		}
		if n := lost.Load(); n != 0 {
			t.Errorf("%d roles were lost in an election", n)
		}
		cancel()
		wg.Wait()
	})
}

// A leader that was suspected by the one before it, which was cut off for a moment, keeps its lease
// and what it holds by it.
func TestLeaderUnderSuspicion(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		leader, _ := leaderOf(t, trio(t, simnet.New(), nil))
		held := make(chan context.Context)
		go leader.Hold(t.Context(), Role{Name: "r"}, func(ctx context.Context, _ Tenure) error {
			held <- ctx
			<-ctx.Done()
			return nil
		})
		tenure := <-held
		before := leader.store.State().Index
		number := leader.self.Session(leader.store.State())
		c := state.Command{Node: leader.self.ID, Change: state.Suspect{Node: leader.self.ID, Number: number}}
		if err := leader.replica.Leading.Load().Apply(t.Context(), state.SealCommand(leader.store.State().Keys, &c), func(s *state.State) bool { return s.Index > before }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * leader.timing.Lease)
		if ses := leader.store.State().Session(leader.self.ID); ses == nil || ses.Number != number || ses.Suspect != 0 {
			t.Errorf("its session was %d and is %+v", number, ses)
		}
		if err := context.Cause(tenure); err != nil {
			t.Error(err)
		}
	})
}

// The directory of a closed node is free only when nothing is held by it any more: the node's next
// process ends its session at once.
func TestCloseWaitsForHolders(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		held, done := make(chan Tenure), make(chan struct{})
		go func() {
			defer close(done)
			nodes[0].Hold(t.Context(), Role{Name: "r"}, func(ctx context.Context, tenure Tenure) error {
				held <- tenure
				<-ctx.Done()
				time.Sleep(time.Minute) // it should have stopped long ago
				return nil
			})
		}()
		tenure := <-held
		if err := nodes[0].Close(); err != nil {
			t.Error(err)
		}
		if left := time.Until(tenure.Deadline()); left > 0 {
			t.Errorf("the node is closed %v before the end of its lease", left)
		}
		<-done
	})
}

// The first orders wait until all members are there, later ones and those of a cluster that is not
// complete do not, or not for long.
func TestFirstOrdersWaitForPeers(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		took := func(n *Node) time.Duration {
			start := time.Now()
			awaitPeers(t.Context(), n)
			return time.Since(start)
		}
		if d := took(nodes[0]); d != peersPause {
			t.Errorf("with all members there it takes %v", d)
		}
		nodes[2].Close()
		time.Sleep(time.Second) // its session ends
		if d := took(nodes[0]); d < time.Second || d > peersTime {
			t.Errorf("with one missing it takes %v", d)
		}
		if d := took(nodes[0]); d != 0 {
			t.Errorf("later it takes %v", d)
		}
	})
}
