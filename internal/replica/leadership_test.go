package replica

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// The leadership is offered to each peer once in a term.
func TestLeadershipIsOfferedOnce(t *testing.T) {
	l := &Leadership{offered: make(map[raft.ServerID]bool)}
	if !l.offer("a") || l.offer("a") || !l.offer("b") || !l.Offered("a") || l.Offered("c") {
		t.Errorf("offered: %v", l.offered)
	}
}

// Nobody waits as a leader that leads no more. The caller can then ask the next leader at once.
func TestWaitsEndWithTheTerm(t *testing.T) {
	never := func(*state.State) bool { return false }
	for _, test := range []struct {
		name string
		wait func(ctx context.Context, l *Leadership) error
	}{
		{"Apply", func(ctx context.Context, l *Leadership) error { return l.Apply(ctx, nil, never) }},
		{"Expel", func(ctx context.Context, l *Leadership) error {
			_, err := l.Expel(ctx, "a")
			return err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, inmem := raft.DefaultConfig(), raft.NewInmemStore()
				c.LocalID, c.Logger = "a", hclog.NewNullLogger()
				_, trans := raft.NewInmemTransport("a")
				r, err := raft.NewRaft(c, nullFSM{}, inmem, inmem, raft.NewInmemSnapshotStore(), trans)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { r.Shutdown().Error() }()
				store := applied.New()
				s := state.New()
				s.Sessions, _, _ = s.Sessions.Insert([]byte("a"), &state.Session{Number: 1})
				store.Publish(s)
				l := &Leadership{
					Raft: &Instance{Raft: r}, timing: timing.Of(time.Second), store: store, wakeLease: func() {},
					expelled: make(map[string]bool),
				}
				l.Ctx, l.stop = context.WithCancel(t.Context())
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				start := time.Now()
				time.AfterFunc(100*time.Millisecond, l.stop)
				err = test.wait(ctx, l)
				if took := time.Since(start); !errors.Is(err, rpc.ErrNotLeader) || took != 100*time.Millisecond {
					t.Errorf("%v after %v, want %v when the term ends", err, took, rpc.ErrNotLeader)
				}
				if l.Expels("a") {
					t.Error("the member is still being removed")
				}
			})
		})
	}
}
