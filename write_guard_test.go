package flotilla

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// The tests in this file are of single guards of writes. Without its guard each of them fails: see
// TESTING.md.

// A member proposes for itself, and what it says about a proposal is true: the leader waits for the
// answer to that one.
func TestForgedProposals(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		leader, others := leaderOf(t, nodes)
		n, other := others[0], others[1]
		keys := leader.store.State().Keys
		for _, test := range []struct {
			name   string
			change func(c *state.Command, session, seq *uint64)
			taken  bool
		}{
			{"its own", func(*state.Command, *uint64, *uint64) {}, true},
			{"another's", func(c *state.Command, session, _ *uint64) {
				c.Node = other.self.ID
				c.Session = other.self.Session(other.store.State())
				*session = c.Session
			}, false},
			{"of another session than it says", func(_ *state.Command, session, _ *uint64) { *session++ }, false},
			{"of another number than it says", func(_ *state.Command, _, seq *uint64) { *seq++ }, false},
		} {
			key := "written by " + test.name
			session, seq := n.self.Session(n.store.State()), uint64(1000)
			c := state.Command{Node: n.self.ID, Session: session, Seq: seq, Change: state.StoreRecord{Key: key, Value: []byte("1"), MaxState: 1 << 20}}
			test.change(&c, &session, &seq)
			request := replica.ApplyRequest{Proposals: []replica.Proposal{{Session: session, Seq: seq, Entry: state.SealCommand(keys, &c)}}}
			_, err := n.replica.Port.Call(t.Context(), leader.self.ID, rpc.Apply, request.Encode())
			var answer *wire.RPCError
			if test.taken && err != nil || !test.taken && (!errors.As(err, &answer) || !strings.Contains(answer.Error(), codec.ErrMalformed.Error())) {
				t.Errorf("a proposal, %s, is answered %v", test.name, err)
			}
			time.Sleep(5 * time.Second)
			_, err = leader.storage.Load(t.Context(), key)
			if test.taken && err != nil || !test.taken && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("of a proposal, %s, the state says %v", test.name, err)
			}
		}
	})
}

// Records of one entry have a limit together: a larger one would not fit a call to the leader.
func TestPutLimits(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := fleet(t, simnet.New(), []string{"a"}, nil)[0]
		records := func(count int) (all []state.Record) {
			for i := range count {
				all = append(all, state.Record{Key: "k" + string(rune('0'+i)), Value: make([]byte, MaxValue)})
			}
			return all
		}
		if err := n.storage.storeAll(t.Context(), records(4)); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "the records have") {
			t.Errorf("four of the largest values in one entry: %v", err)
		}
		if err := n.storage.storeAll(t.Context(), records(3)); err != nil {
			t.Errorf("three of the largest values in one entry: %v", err)
		}
	})
}
