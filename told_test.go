package flotilla

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// The other nodes learn at once that an entry is committed, also if the one who proposed it has
// given up by then, as the guard of a program that is killed together with it. raft alone would
// tell them with the next entry, or seconds later.
func TestAbandonedEntriesAreTold(t *testing.T) {
	synctest.Parallel(t)
	const latency = 5 * time.Millisecond
	for _, test := range []struct {
		name string
		give time.Duration // until the proposer gives up; the entry is with the leader, and not committed
		do   func(ctx context.Context, leader, dead *Node) error
	}{
		{"a death notice whose bearer dies", latency / 2, func(ctx context.Context, leader, dead *Node) error {
			return leader.members.EndDead(ctx, dead.self.ID, dead.self.Session(leader.store.State()))
		}},
		{"a write whose node dies", latency / 2, func(ctx context.Context, leader, dead *Node) error {
			now := leader.store.State()
			c := state.Command{
				Node: dead.self.ID, Session: dead.self.Session(now), Seq: 1 << 20, Change: state.ClaimRole{Role: keyspace.RolePrefix + "a"},
			}
			late := replica.ApplyRequest{Proposals: []replica.Proposal{{Session: c.Session, Seq: c.Seq, Entry: state.SealCommand(now.Keys, &c)}}}
			if _, err := leader.replica.ServeApply(ctx, dead.self.ID, late.Encode()); err == nil {
				return nil
			}
			return context.Cause(ctx)
		}},
		{"a change of the leader's own", latency / 2, func(ctx context.Context, leader, dead *Node) error {
			m, _ := leader.store.State().Member(dead.self.ID)
			m.Name = "another name"
			change := state.Command{Node: leader.self.ID, Change: state.SetMember{Member: m}}
			return leader.replica.Leading.Load().ApplyAndNotify(ctx, &change, func(s *state.State) bool {
				now, _ := s.Member(dead.self.ID)
				return now == m
			})
		}},
		{"a change of the membership", latency / 2, func(ctx context.Context, leader, dead *Node) error {
			l := leader.replica.Leading.Load()
			return l.AwaitChange(ctx, l.Raft.DemoteVoter(raft.ServerID(dead.self.ID), 0, time.Second))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := simnet.New()
				nodes := trio(t, net, nil)
				time.Sleep(5 * time.Second)
				leader, others := leaderOf(t, nodes)
				net.SetLatency(latency)
				net.Isolate(others[1].self.Name)
				before := leader.store.State().Index
				ctx, cancel := context.WithTimeout(t.Context(), test.give)
				defer cancel()
				if err := test.do(ctx, leader, others[1]); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("%v, want %v: it was not given up, so this shows nothing", err, context.DeadlineExceeded)
				}
				start := time.Now()
				for _, n := range []*Node{leader, others[0]} {
					if _, err := n.store.Wait(t.Context(), func(s *state.State) bool { return s.Index > before }); err != nil {
						t.Fatal(err)
					}
				}
				if took := time.Since(start); took > 10*latency {
					t.Errorf("both nodes know of it after %v, want %v at the most", took, 10*latency)
				}
			})
		})
	}
}
