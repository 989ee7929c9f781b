package flotilla

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/self"

	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/history"
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/slogbridge"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
	"github.com/flotilla-ha/flotilla/internal/wire"
	"github.com/hashicorp/raft"
)

// replicaConfig is what a replica needs of the node around it.
type replicaConfig struct {
	timing  timing.Timing
	secrets []seal.Secret
	fault   func(op string) error // see durable.LogOptions, for tests; nil: none
	log     *slog.Logger
	life    *lifecycle.Life
	self    *self.Self
	store   *applied.Store
	fsm     stateMachine
	book    *peers.Table
	dir     *durable.Dir // nil: in memory
	member  *disk        // of a node that is a member already; nil: it is none yet
	port    *wire.Port
	up      replicaUp
}

// stateMachine is raft's state machine, which publishes what it applies in a store.
type stateMachine interface {
	raft.BatchingFSM
	raft.ConfigurationStore

	// ApplyOne returns the state after an entry, and publishes nothing. fx may be nil.
	ApplyOne(s *state.State, l *raft.Log, fx *state.Effects) (*state.State, error)

	// Adopt publishes a state from which anything may follow.
	Adopt(s *state.State)

	// Written returns a channel that is closed when raft has done with a snapshot, well or badly.
	Written() <-chan struct{}
}

// replicaUp is what a replica asks of the parts above it, and tells them.
type replicaUp struct {
	clusterID func() string             // the cluster's identity; empty: none yet
	isMember  func() bool               // this node is a member, by its identity
	isCurrent func() bool               // it has caught up with a leader since it was started
	rewrite   func() error              // writes the node's identity once more
	excuse    func(ctx context.Context) // tells the peers that this node's session is over
	flushOwn  func()                    // the disk works: what it did not take before may be written
	lead      func(l *leadership)       // does what falls to a leader, until the end of its term
	loseLease func(cause error) uint64  // gives the lease up, and returns what session it was for
	wakeLease func()                    // has the lease manager look at everything now
	serveOpen func(ctx context.Context, peer string, body []byte) ([]byte, error)
	serveEnd  func(ctx context.Context, peer string, body []byte) ([]byte, error)
}

// replica is this node's part in the raft group.
type replica struct {
	replicaConfig
	writes *proposer

	raft    atomic.Pointer[instance]
	watches sync.WaitGroup // watchRaft
	disk    atomic.Pointer[disk]
	chain   atomic.Pointer[history.Log] // raft's log, and what stands for it
	marking chan struct{}               // closed when keepMark has ended; nil: in memory
	entered atomic.Bool                 // has a log, and raft was started on it: keepDisk looks after it from then on

	troubled notify.Signal // there is work for keepDisk
	looks    notify.Signal // it is time to look at the directory

	leading   atomic.Pointer[leadership] // nil unless this node leads and has applied an entry of its term
	snapshots chan struct{}              // an element asks for one, see snapshotSoon

	mu      sync.Mutex
	restore func(*state.State) (*state.State, error) // see restored
}

func newReplica(cfg replicaConfig) *replica {
	n := &replica{replicaConfig: cfg, snapshots: make(chan struct{}, 1)}
	n.disk.Store(cfg.member)
	n.writes = newProposer(n)
	return n
}

// restored is called by raft's goroutine when a snapshot has been read, and returns the state to go on from.
func (n *replica) restored(s *state.State) (*state.State, error) {
	n.mu.Lock()
	restore := n.restore
	n.mu.Unlock()
	if restore == nil {
		return s, nil
	}
	return restore(s)
}

// instance is one run of raft.
type instance struct {
	*raft.Raft
	stop context.CancelFunc // ends watchRaft
	once sync.Once
	done chan struct{} // closed when its goroutines have ended
}

// shutdown ends raft, and returns a channel that is closed when it has ended. It may be called again; raft's own future answers once.
func (i *instance) shutdown() <-chan struct{} {
	i.once.Do(func() {
		end := i.Raft.Shutdown()
		go func() {
			defer close(i.done)
			_ = end.Error() // always nil
		}()
	})
	return i.done
}

// startRaft starts raft on the disk that is open.
func (n *replica) startRaft() error {
	d := n.disk.Load()
	var r *raft.Raft
	err := d.run(func() (err error) {
		defer func() { // raft panics here when log and snapshot do not fit
			if p := recover(); p != nil {
				err = fmt.Errorf("%v", p)
			}
		}()
		log, err := n.watchLog(d)
		if err != nil {
			return err
		}
		cached, err := raft.NewLogCache(128, log)
		if err != nil {
			return err
		}
		r, err = raft.NewRaft(n.raftConfig(), n.fsm, cached, d.stable, n.vetted(d.snaps), n.port.Transport())
		return err
	})
	if err != nil {
		return fmt.Errorf("starting raft: %w", err)
	}
	ctx, stop := context.WithCancel(n.life.Works)
	i := &instance{Raft: r, stop: stop, done: make(chan struct{})}
	n.raft.Store(i)
	if n.life.Works.Err() != nil {
		i.shutdown() // fail did not see it
	}
	n.watches.Go(func() { n.watchRaft(ctx, r) })
	if n.dir != nil {
		marking := make(chan struct{})
		n.marking = marking
		go func() {
			defer close(marking)
			n.keepMark(ctx)
		}()
	}
	n.life.Changed.Notify()
	return nil
}

// endRaft stops raft and closes its files, as far as a hanging disk lets it. It may be called again after an error.
func (n *replica) endRaft() error {
	var errs []error
	if i := n.raft.Load(); i != nil {
		i.stop()
		ended := i.shutdown() // first: duties may wait for a raft that has lost its main loop
		n.watches.Wait()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			errs = append(errs, errors.New("stopping raft: it does not end"))
		}
		if n.marking != nil {
			select {
			case <-n.marking:
			case <-time.After(time.Second): // the disk hangs
			}
		}
	}
	if d := n.disk.Load(); d != nil {
		if busy := d.busy(); busy > hanging {
			return errors.Join(append(errs, fmt.Errorf("the disk has hung for %v: the files are left open", busy))...)
		}
		errs = append(errs, d.close())
	}
	return errors.Join(errs...)
}

func (n *replica) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.self.ID)
	c.HeartbeatTimeout = n.timing.Heartbeat
	c.ElectionTimeout = n.timing.Heartbeat
	c.LeaderLeaseTimeout = n.timing.Heartbeat // nothing that is promised hangs on it: leases and confirm see to that
	c.CommitTimeout = n.timing.Attempt()      // commits are told at once by acks
	c.BatchApplyCh = true
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	c.Logger = slogbridge.NewHclog(n.log, n.isAbsent)
	return c
}

// term returns raft's current term, 0 before there is one.
func (n *replica) term() uint64 {
	if r := n.raft.Load(); r != nil {
		return r.CurrentTerm()
	}
	return 0
}

// knownTerm returns raft's current term for those to whom it is a promise: a node whose raft does not run makes none.
func (n *replica) knownTerm() (uint64, error) {
	r := n.raft.Load()
	if r == nil || n.life.Setback.Load() != nil {
		return 0, errors.New("raft does not run here now")
	}
	return r.CurrentTerm(), nil
}

// leader returns the node ID of the leader as far as this node knows, empty if there is none.
func (n *replica) leader() string {
	r := n.raft.Load()
	if r == nil || n.life.Setback.Load() != nil {
		return ""
	}
	_, id := r.LeaderWithID()
	if string(id) == n.self.ID && n.stalled() {
		return "" // nobody follows it, and it cannot know
	}
	return string(id)
}

// servers returns raft's newest configuration, as this node has it.
func (n *replica) servers() []raft.Server {
	r := n.raft.Load()
	if r == nil {
		return nil
	}
	conf := r.GetConfiguration()
	if conf.Error() != nil {
		return nil
	}
	return conf.Configuration().Servers
}

// others returns the node IDs of the other members.
func (n *replica) others() []string {
	var ids []string
	for _, srv := range n.servers() {
		if string(srv.ID) != n.self.ID {
			ids = append(ids, string(srv.ID))
		}
	}
	return ids
}

// admit says whether a peer may speak raft to this node: a member of its configuration may. A node that has slept may have an
// old one, so until it has caught up it also believes what its peers say of each other; they all know the secret.
func (n *replica) admit(id string) error {
	if s := n.life.Setback.Load(); s != nil {
		return s.Err
	}
	servers := n.servers()
	for _, srv := range servers {
		if string(srv.ID) == id {
			return nil
		}
	}
	if n.raft.Load() == nil {
		return errors.New("not in a cluster yet")
	}
	if _, known := n.book.Addr(id); known && !n.up.isCurrent() {
		return nil
	}
	return errors.New("not a member of the cluster")
}

// isServer reports whether a node is a member, as far as this one knows.
func (n *replica) isServer(id string) bool {
	return slices.ContainsFunc(n.servers(), func(srv raft.Server) bool { return string(srv.ID) == id })
}

// isAbsent reports whether it is known that a member cannot be reached: its session has ended, by its own word or by the verdict, or this node is on its
// way out.
func (n *replica) isAbsent(id string) bool {
	s := n.store.State()
	return n.life.Leaving.Load() || n.life.Works.Err() != nil || s.Elected > 0 && s.Session(id) == nil
}

// storedBy returns a committed entry that a node is known to have had on its disk when that process ran.
func (n *replica) storedBy(id, boot string) uint64 {
	if n.raft.Load() == nil {
		return 0
	}
	s := n.store.State()
	stored := max(s.Stored(id), min(n.port.Transport().Committed(id, boot), s.Index))
	if l := n.leading.Load(); l != nil {
		confirmed := n.port.Transport().Confirmed(id, boot, l.term)
		stored = max(stored, min(confirmed, l.raft.CommitIndex()))
	}
	return stored
}

// lastIndex returns the newest entry that this node has on its disk.
func (n *replica) lastIndex() (last uint64) {
	if r := n.raft.Load(); r != nil {
		return r.LastIndex()
	}
	d := n.disk.Load()
	if d == nil {
		return 0
	}
	err := d.run(func() error {
		index, err := d.logs.LastIndex()
		if err != nil {
			return err
		}
		last = index
		snaps, err := d.snaps.List()
		if len(snaps) > 0 {
			last = max(last, snaps[0].Index)
		}
		return err
	})
	if err != nil {
		n.log.Warn("the end of the raft log cannot be read", "err", err)
	}
	return last
}

// applied returns the newest entry that this node or its last process has applied.
func (n *replica) applied() uint64 {
	index := n.store.State().Index
	if d := n.disk.Load(); d != nil {
		index = max(index, d.mark.Index)
	}
	return index
}

// fail ends what this node does in the cluster, for a reason that trying again would not change. What it has in memory it goes
// on serving.
func (n *replica) fail(err error) {
	if n.life.Works.Err() != nil {
		return
	}
	n.log.Error("this node can take no part in the cluster any more", "err", err)
	n.up.loseLease(err) // before others can think that this process is gone
	n.port.Transport().Stop()
	n.life.Break(err)
	n.life.Tasks.Go(func() { n.port.Close() }) // a port that refuses tells the others at once
	if r := n.raft.Load(); r != nil {
		r.shutdown() // not waited for: raft may hang in the very fault that brought us here
	}
	n.life.Changed.Notify()
}
