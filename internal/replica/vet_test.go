package replica

import (
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/secrets"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// sinks is a snapshot store that counts what becomes of its snapshots.
type sinks struct {
	raft.SnapshotStore
	closed, cancelled int
}

func (s *sinks) Create(raft.SnapshotVersion, uint64, uint64, raft.Configuration, uint64, raft.Transport) (raft.SnapshotSink, error) {
	return &sink{s}, nil
}

type sink struct{ of *sinks }

func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) Close() error                { s.of.closed++; return nil }
func (s *sink) Cancel() error               { s.of.cancelled++; return nil }
func (s *sink) ID() string                  { return "snapshot" }

// A leader's snapshot that contradicts what this node has applied is refused before it replaces
// anything, and the node stops. One that cannot be read is left to the state machine to report.
func TestVettedSnapshots(t *testing.T) {
	secret, keys := seal.Secret{1}, seal.NewKeyring()
	wrapped, err := keys.Wrap(secret)
	if err != nil {
		t.Fatal(err)
	}
	first := state.New()
	first.Index, first.Keys, first.Wrapped = 1, keys, wrapped
	open := func(s *state.State, node string) *state.State {
		next, _ := s.Apply(s.Index+1, &state.Command{Node: node, Change: state.OpenSession{Incarnation: "process of " + node}}, nil)
		return next
	}
	have := open(first, "a")
	for _, test := range []struct {
		name    string
		is      *state.State // nil: it cannot be read
		index   uint64
		refused bool
	}{
		{"the same past", open(have, "c"), 3, false},
		{"another past", open(open(first, "b"), "c"), 3, true},
		{"own, of an older state", first, 1, false},
		{"not readable", nil, 3, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, below, failed := applied.New(), new(sinks), make(chan error, 1)
				store.Publish(have)
				v := &vettedSnapshots{SnapshotStore: below, store: store, secrets: secrets.New([]seal.Secret{secret}), failed: func(err error) { failed <- err }}
				out, err := v.Create(raft.SnapshotVersionMax, test.index, 1, raft.Configuration{}, 1, nil)
				if err != nil {
					t.Fatal(err)
				}
				if test.is != nil {
					err = state.WriteSnapshot(out, test.is)
				} else {
					_, err = out.Write([]byte("not a snapshot"))
				}
				if err != nil {
					t.Fatal(err)
				}
				first, again := out.Close(), out.Close()
				synctest.Wait()
				if refused := first != nil; refused != test.refused || len(failed) > 0 != test.refused {
					t.Errorf("refused %v, stopped %v, want %v: %v", refused, len(failed) > 0, test.refused, first)
				}
				if test.index > have.Index && again != first {
					t.Errorf("closed again it says %v", again)
				}
				if kept := below.closed > 0; kept == test.refused || below.cancelled > 0 != test.refused {
					t.Errorf("closed %d times, cancelled %d times", below.closed, below.cancelled)
				}
			})
		})
	}
}
