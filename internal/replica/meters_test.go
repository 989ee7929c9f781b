package replica

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/history"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/meter"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// A write is counted once, by what became of it.
func TestWritesAreCounted(t *testing.T) {
	for _, test := range []struct {
		name string
		code state.Code
		err  error
		want string
	}{
		{"done", state.CodeOK, nil, "ok"},
		{"a claim that waits", state.CodeQueued, nil, "ok"},
		{"no room", state.CodeFull, nil, "refused"},
		{"not held", state.CodeNotHeld, nil, "refused"},
		{"a condition", state.Code(128), nil, "refused"},
		{"the session has ended", state.CodeEnded, ErrEnded, "refused"},
		{"a later version", state.CodeOK, fmt.Errorf("wrapped: %w", &state.VersionError{}), "refused"},
		{"no leader", state.CodeOK, fmt.Errorf("wrapped: %w", errs.ErrNoLeader), "failed"},
		{"given up", state.CodeOK, context.Canceled, "failed"},
		{"given up before the answer came", state.CodeFull, context.Canceled, "failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var m Meters
				began := time.Now()
				time.Sleep(time.Second)
				m.wrote(began, test.code, test.err)
				got := make(map[string]time.Duration)
				for name, h := range map[string]*meter.Histogram{"ok": &m.WritesOK, "refused": &m.WritesRefused, "failed": &m.WritesFailed} {
					if o := h.Load(); o.Count > 0 {
						got[name] = o.Sum
					}
				}
				if diff := cmp.Diff(map[string]time.Duration{test.want: time.Second}, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}

// A write whose caller has given up before is none.
func TestGivenUpWriteIsNone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	store, m := applied.New(), new(Meters)
	p := &Proposer{timing: timing.Of(time.Second), life: lifecycle.New(), store: store, meters: m}
	if _, _, err := p.DoIn(ctx, state.Command{}); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	if got := m.WritesFailed.Load().Count; got != 0 {
		t.Errorf("%d writes have failed", got)
	}
}

// What raft says about the leader, and what is counted of it.
func TestLeaderChanges(t *testing.T) {
	const pause = "-" // raft runs no more
	for _, test := range []struct {
		name    string
		says    []string // one each second
		changes uint64
		without time.Duration // in elections
	}{
		{"nobody yet", []string{"", ""}, 0, 0},
		{"the first", []string{"", "", "a"}, 0, 0},
		{"the same again", []string{"a", "a", "a"}, 0, 0},
		{"another at once", []string{"a", "b"}, 1, 0},
		{"another after an election", []string{"a", "", "b"}, 1, time.Second},
		{"two elections", []string{"a", "", "", "b", "", "a"}, 2, 3 * time.Second},
		{"the same after an election", []string{"a", "", "a"}, 1, time.Second},
		{"no end of the election", []string{"a", ""}, 0, 0},
		{"the disk has failed", []string{"a", "", pause, "", "a"}, 0, 0},
		{"the disk has failed, and there was an election", []string{"a", "", pause, "b"}, 1, 0},
		{"there is an election after the disk has failed", []string{"a", pause, "a", "", "b"}, 1, time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var m Meters
				l := &leaders{meters: &m, changed: func(string, time.Duration) {}}
				for _, leader := range test.says {
					if leader == pause {
						l.pause()
					} else {
						l.observe(leader)
					}
					time.Sleep(time.Second)
				}
				got := []any{m.LeaderChanges.Load(), m.Election.Load().Sum}
				if diff := cmp.Diff([]any{test.changes, test.without}, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}

// The bytes of the log are those that bound it.
func TestLogBytes(t *testing.T) {
	chain := &Chain{}
	s := &Snapshots{chain: chain}
	if all, behind := s.LogBytes(); all != 0 || behind != 0 {
		t.Errorf("without a log there are %d and %d bytes", all, behind)
	}
	log := history.NewLog(raft.NewInmemStore(), func() uint64 { return 0 }, func(*history.Conflict) {})
	if err := log.Seed(0, 0); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(3) {
		if err := log.StoreLog(&raft.Log{Index: i + 1, Term: 1, Data: make([]byte, 1000)}); err != nil {
			t.Fatal(err)
		}
	}
	chain.current.Store(log)
	s.newest.Store(2)
	all, behind := s.LogBytes()
	if all != 3*behind || behind < 1000 {
		t.Errorf("%d bytes, and %d of them behind the snapshot of entry 2", all, behind)
	}
}
