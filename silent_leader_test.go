package flotilla

import (
	"fmt"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// How many elections there are when the leader falls silent for a moment.
func TestSilentLeader(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for _, latency := range []time.Duration{0, 5 * time.Millisecond} {
		for _, away := range []time.Duration{400, 500, 600, 650, 700, 900} {
			t.Run(fmt.Sprintf("%v away %d ms", latency, away), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					net := simnet.New()
					net.SetLatency(latency)
					nodes := trio(t, net, nil)
					time.Sleep(5 * time.Second)
					leader, _ := leaderOf(t, nodes)
					term := leader.replica.Term()
					net.Isolate(leader.self.Name)
					time.Sleep(away * time.Millisecond)
					net.Heal()
					start := time.Now()
					time.Sleep(100 * time.Millisecond)
					for _, n := range nodes {
						mustBeReady(t, n)
					}
					took := time.Since(start)
					time.Sleep(5 * time.Second)
					d := leader.replica.Term() - term
					t.Logf("%d terms; all ready %v after the end of it", d, took)
					// The first candidate's log may be behind. Then the next one stands, before raft's own
					// timeouts, which take up to 2.4 s.
					if d > 2 || took > time.Second {
						t.Errorf("%d elections, ready after %v", d, took)
					}
				})
			})
		}
	}
}

// A node that asks a leader for a session, and does not hear from it any more, asks the next leader
// as soon as there is one.
func TestLeaderFallsSilentWhileItIsAsked(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		net.SetLatency(5 * time.Millisecond)
		nodes := trio(t, net, nil)
		time.Sleep(5 * time.Second)
		leader, others := leaderOf(t, nodes)
		net.Isolate(leader.self.Name)
		others[0].leases.Lose(fmt.Errorf("%w: test", ErrLost))
		start := time.Now()
		for others[0].replica.Leader() == "" || others[0].replica.Leader() == leader.self.ID {
			time.Sleep(10 * time.Millisecond)
		}
		elected := time.Since(start)
		mustBeReady(t, others[0])
		t.Logf("another leader after %v, ready after %v", elected, time.Since(start))
		if took := time.Since(start) - elected; took > time.Second {
			t.Errorf("ready %v after the election", took)
		}
	})
}
