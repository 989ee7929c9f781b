package flotilla

import (
	"fmt"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/lease"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A voter may be asked for a promise before it has applied the opening of the session: the leader
// and the other voter are enough for that to be committed. When the leader is cut off right then,
// that voter must be able to say that the leader's lease has lapsed, or raft's own time-outs
// decide, more than a second later.
func TestAskedBeforeTheSessionIsApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		leader, others := leaderOf(t, nodes)
		slow, next := others[0], others[1]
		time.Sleep(5 * time.Second)
		synctest.Wait()
		gate, onApplied := make(chan struct{}), slow.fsm.onApplied
		slow.fsm.onApplied = func(fx *state.Effects) { // applies one entry, and the next one when it may
			onApplied(fx)
			<-gate
		}
		old := leader.self.Session(leader.store.State())
		leader.keeper.Lose(fmt.Errorf("%w: test", ErrLost)) // has another session opened
		mustStore(t, next, "k", "1")
		for number := old; number == old || !leader.keeper.Usable(number); number = leader.self.Session(leader.store.State()) {
			time.Sleep(time.Millisecond)
		}
		synctest.Wait() // the leader has asked
		if number := slow.store.State().Number(leader.self.ID); number != old {
			t.Fatalf("the slow voter knows session %d already", number)
		}
		close(gate)
		synctest.Wait()
		if number := slow.store.State().Number(leader.self.ID); number == old {
			t.Fatal("the slow voter has not applied the session")
		}
		net.Isolate(leader.self.Name)
		start := time.Now()
		mustStore(t, next, "k", "2")
		if took := time.Since(start); took > 800*time.Millisecond {
			t.Errorf("the first write after the leader was cut off took %v", took)
		}
		net.Heal()
	})
}

// A voter that has just started and is asked before it has caught up promises when it has, not with
// the next request only.
func TestAskedBeforeCaughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		leader, others := leaderOf(t, nodes)
		id := lease.SessionID{Node: leader.self.ID, Number: leader.self.Session(leader.store.State())}
		// the next life of the keeper, in a node that has all of the log
		k := lease.New(others[0].keeper.Config)
		go k.Run(t.Context())
		var e codec.Encoder
		e.Byte(lease.DatagramRenew)
		e.Uint(id.Number)
		e.Uint(0)
		e.Bool(true)
		k.OnDatagram(leader.self.ID, e.B)
		promised := func() bool {
			k.Mu.Lock()
			defer k.Mu.Unlock()
			return !k.Given.Until[id].IsZero()
		}
		synctest.Wait()
		if promised() {
			t.Fatal("it promises before it has caught up")
		}
		k.CatchUp()
		synctest.Wait()
		if !promised() {
			t.Error("it has caught up, and promises nothing")
		}
	})
}
