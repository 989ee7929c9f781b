package flotilla

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/secrets"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// fsm is raft's state machine. It opens sealed entries, passes them to state.Apply and publishes
// the resulting state. It knows nothing about networks, clocks or certificates.
type fsm struct {
	fsmConfig
	*applied.Store // only raft's goroutine publishes

	opener  replica.Opener
	written notify.Signal // raft has finished with a snapshot, whether it succeeded or not
}

// fsmConfig is what an fsm needs.
type fsmConfig struct {
	store   *applied.Store
	secrets *secrets.Set
	log     *slog.Logger

	// failed is called on its own goroutine when an entry cannot be applied. The node must stop then.
	failed func(error)

	// onApplied is called by raft's goroutine after a publication, with the effects of the entries.
	// Nil effects mean that a snapshot was restored, and that anything may have changed. It must not
	// block.
	onApplied func(*state.Effects)

	// restored is called by raft's goroutine when a snapshot has been read. It returns the state to
	// continue with. Nil: that of the snapshot.
	restored func(*state.State) (*state.State, error)
}

func newFSM(cfg fsmConfig) *fsm { return &fsm{fsmConfig: cfg, Store: cfg.store} }

// Apply is not called by raft, which uses ApplyBatch.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies committed entries, commands and configurations, and publishes the state after
// the last of them.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	s := f.State()
	out := make([]any, len(logs))
	var fx state.Effects
	for _, l := range logs {
		if l.Index <= s.Index {
			continue // raft was restarted from a snapshot that is older than the state
		}
		next, err := f.ApplyOne(s, l, &fx)
		if err != nil {
			// Skipping an entry would make this replica differ from the others for ever, and a panic would
			// end the host program. So this goroutine of raft ends here. Its deferred calls keep raft's own
			// bookkeeping right.
			f.Publish(s)
			f.onApplied(&fx)
			go f.failed(fmt.Errorf("entry %d of the log: %w", l.Index, err))
			runtime.Goexit()
		}
		s = next
	}
	f.Publish(s)
	f.onApplied(&fx)
	return out
}

func (f *fsm) ApplyOne(s *state.State, l *raft.Log, fx *state.Effects) (*state.State, error) {
	next, err := f.change(s, l, fx)
	if err == nil {
		next.Past = s.Past.After(l)
	}
	return next, err
}

// change returns a new state: s after the entry.
func (f *fsm) change(s *state.State, l *raft.Log, fx *state.Effects) (*state.State, error) {
	if l.Type == raft.LogConfiguration {
		var servers, voters []string
		for _, srv := range raft.DecodeConfiguration(l.Data).Servers {
			servers = append(servers, string(srv.ID))
			if srv.Suffrage == raft.Voter {
				voters = append(voters, string(srv.ID))
			}
		}
		return s.Configure(l.Index, servers, voters, fx), nil
	}
	if len(l.Data) < 2 {
		return nil, codec.ErrMalformed
	}
	if l.Data[0] != state.EntryVersion {
		return nil, state.UnknownVersion(l.Data[0], state.EntryVersion)
	}
	switch kind, rest := l.Data[1], l.Data[2:]; kind {
	case state.EntryKeyring:
		return f.applyKeyring(s, l.Index, rest)
	case state.EntryCommand:
		if s.Keys == nil {
			return nil, fmt.Errorf("%w: a command before the keyring", ErrSealed)
		}
		return f.applyCommand(s, l, fx)
	default:
		return nil, fmt.Errorf("kind %q is not known to this version of flotilla; upgrade this node", kind)
	}
}

// applyCommand opens a command and applies it.
func (f *fsm) applyCommand(s *state.State, l *raft.Log, fx *state.Effects) (*state.State, error) {
	if s.Seals.IsTooLate(l.Data) {
		n := *s
		n.Index = l.Index
		return &n, nil
	}
	c, err := f.opener.Take(s.Keys, l.Data)
	if err != nil {
		return nil, err
	}
	var unopened error
	if r, ok := c.Change.(state.RotateKeys); ok {
		r.Keys, unopened = seal.Unwrap(r.Wrapped, f.secrets.All()...)
		c.Change = r
	}
	next, _ := s.Apply(l.Index, &c, fx)
	if next.Keys == nil {
		return nil, fmt.Errorf("%w: the new keyring: %w", ErrSealed, unopened)
	}
	return next, nil
}

// applyKeyring stores the keyring of a new cluster. Two leaders may each have proposed one: the
// first counts.
func (f *fsm) applyKeyring(s *state.State, index uint64, b []byte) (*state.State, error) {
	ring, err := state.DecodeKeyring(b)
	if err != nil {
		return nil, err
	}
	n := *s
	n.Index = index
	if s.Keys != nil {
		return &n, nil
	}
	keys, err := seal.Unwrap(ring.Wrapped, f.secrets.All()...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	n.Cluster, n.Keys, n.Wrapped = ring.Cluster, keys, ring.Wrapped
	return &n, nil
}

// StoreConfiguration is not called by raft, which passes configurations to ApplyBatch. Its
// existence lets raft take a snapshot right after a change of membership.
func (f *fsm) StoreConfiguration(index uint64, c raft.Configuration) {
	f.ApplyBatch([]*raft.Log{{Index: index, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(c)}})
}

// Snapshot returns the current state. A state never changes, so writers wait only while a pointer
// is copied.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	return &snapshot{f.State(), f.written.Notify}, nil
}

// Restore replaces the state with that of a snapshot. It keeps the present state on an error, and
// also if the present state is newer: a node that has acted on an entry must not forget it.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	s, err := state.ReadSnapshot(r, f.secrets.All())
	if err != nil {
		err = fmt.Errorf("snapshot: %w", err)
		if replica.OfDisk(err) {
			return err // a disk error may be temporary
		}
		go f.failed(err) // otherwise the leader would send the same snapshot for ever
		return err
	}
	have := f.State()
	if newer, older := s, have; have.Index > 0 {
		if older.Index > newer.Index {
			newer, older = older, newer
		}
		if err := newer.Extends(older); err != nil {
			go f.failed(err)
			return err
		}
	}
	if f.restored != nil {
		if s, err = f.restored(s); err != nil {
			return err
		}
	}
	if s.Index >= have.Index {
		f.Publish(s)
		f.onApplied(nil)
	}
	return nil
}

// snapshot writes one state. It implements raft.FSMSnapshot.
type snapshot struct {
	s    *state.State
	done func() // called when raft no longer needs it
}

// Persist writes the sealed state to the sink. It runs beside Apply.
func (p *snapshot) Persist(sink raft.SnapshotSink) error {
	err := state.WriteSnapshot(sink, p.s)
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release reports that raft has finished with the snapshot. The garbage collector frees the state.
func (p *snapshot) Release() { p.done() }

// Adopt publishes s as the newest state. Anything may have changed.
func (f *fsm) Adopt(s *state.State) {
	f.Publish(s)
	f.onApplied(nil)
}

// Written returns a channel that is closed when raft has finished with a snapshot, whether it
// succeeded or not.
func (f *fsm) Written() <-chan struct{} { return f.written.Wait() }
