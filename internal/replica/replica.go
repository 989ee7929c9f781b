package replica

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

// Config is what a replica needs of the node around it.
type Config struct {
	Timing  timing.Timing
	Secrets []seal.Secret
	Fault   func(op string) error // see durable.LogOptions, for tests; nil: none
	Log     *slog.Logger
	Life    *lifecycle.Life
	Self    *self.Self
	Store   *applied.Store
	FSM     Machine
	Book    *peers.Table
	Dir     *durable.Dir // nil: in memory
	Member  *Disk        // of a node that is a member already; nil: it is none yet
	Port    *wire.Port
	Up      Up
}

// Machine is raft's state machine, which publishes what it applies in a store.
type Machine interface {
	raft.BatchingFSM
	raft.ConfigurationStore

	// ApplyOne returns the state after an entry, and publishes nothing. fx may be nil.
	ApplyOne(s *state.State, l *raft.Log, fx *state.Effects) (*state.State, error)

	// Adopt publishes a state from which anything may follow.
	Adopt(s *state.State)

	// Written returns a channel that is closed when raft has done with a snapshot, well or badly.
	Written() <-chan struct{}
}

// Up is what a replica asks of the parts above it, and tells them.
type Up struct {
	ClusterID func() string             // the cluster's identity; empty: none yet
	IsMember  func() bool               // this node is a member, by its identity
	IsCurrent func() bool               // it has caught up with a leader since it was started
	Rewrite   func() error              // writes the node's identity once more
	Excuse    func(ctx context.Context) // tells the peers that this node's session is over
	FlushOwn  func()                    // the disk works: what it did not take before may be written
	Lead      func(l *Leadership)       // does what falls to a leader, until the end of its term
	LoseLease func(cause error) uint64  // gives the lease up, and returns what session it was for
	WakeLease func()                    // has the lease manager look at everything now
}

// Replica is this node's part in the raft group.
type Replica struct {
	Config
	Writes *Proposer

	Raft    atomic.Pointer[Instance]
	watches sync.WaitGroup // watchRaft
	Disk    atomic.Pointer[Disk]
	chain   atomic.Pointer[history.Log] // raft's log, and what stands for it
	marking chan struct{}               // closed when keepMark has ended; nil: in memory
	Entered atomic.Bool                 // has a log, and raft was started on it: keepDisk looks after it from then on

	Troubled notify.Signal // there is work for keepDisk
	Looks    notify.Signal // it is time to look at the directory

	Leading   atomic.Pointer[Leadership] // nil unless this node leads and has applied an entry of its term
	snapshots chan struct{}              // an element asks for one, see snapshotSoon

	mu      sync.Mutex
	restore func(*state.State) (*state.State, error) // see restored
}

func New(cfg Config) *Replica {
	n := &Replica{Config: cfg, snapshots: make(chan struct{}, 1)}
	n.Disk.Store(cfg.Member)
	n.Writes = NewProposer(n)
	return n
}

// Restored is called by raft's goroutine when a snapshot has been read, and returns the state to go on from.
func (n *Replica) Restored(s *state.State) (*state.State, error) {
	n.mu.Lock()
	restore := n.restore
	n.mu.Unlock()
	if restore == nil {
		return s, nil
	}
	return restore(s)
}

// Instance is one run of raft.
type Instance struct {
	*raft.Raft
	stop context.CancelFunc // ends watchRaft
	once sync.Once
	done chan struct{} // closed when its goroutines have ended
}

// shutdown ends raft, and returns a channel that is closed when it has ended. It may be called again; raft's own future answers once.
func (i *Instance) shutdown() <-chan struct{} {
	i.once.Do(func() {
		end := i.Raft.Shutdown()
		go func() {
			defer close(i.done)
			_ = end.Error() // always nil
		}()
	})
	return i.done
}

// StartRaft starts raft on the disk that is open.
func (n *Replica) StartRaft() error {
	d := n.Disk.Load()
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
		r, err = raft.NewRaft(n.raftConfig(), n.FSM, cached, d.stable, n.vetted(d.Snaps), n.Port.Transport())
		return err
	})
	if err != nil {
		return fmt.Errorf("starting raft: %w", err)
	}
	ctx, stop := context.WithCancel(n.Life.Works)
	i := &Instance{Raft: r, stop: stop, done: make(chan struct{})}
	n.Raft.Store(i)
	if n.Life.Works.Err() != nil {
		i.shutdown() // fail did not see it
	}
	n.watches.Go(func() { n.watchRaft(ctx, r) })
	if n.Dir != nil {
		marking := make(chan struct{})
		n.marking = marking
		go func() {
			defer close(marking)
			n.keepMark(ctx)
		}()
	}
	n.Life.Changed.Notify()
	return nil
}

// EndRaft stops raft and closes its files, as far as a hanging disk lets it. It may be called again after an error.
func (n *Replica) EndRaft() error {
	var errs []error
	if i := n.Raft.Load(); i != nil {
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
	if d := n.Disk.Load(); d != nil {
		if busy := d.busy(); busy > Hanging {
			return errors.Join(append(errs, fmt.Errorf("the disk has hung for %v: the files are left open", busy))...)
		}
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

func (n *Replica) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.Self.ID)
	c.HeartbeatTimeout = n.Timing.Heartbeat
	c.ElectionTimeout = n.Timing.Heartbeat
	c.LeaderLeaseTimeout = n.Timing.Heartbeat // nothing that is promised hangs on it: leases and confirm see to that
	c.CommitTimeout = n.Timing.Attempt()      // commits are told at once by acks
	c.BatchApplyCh = true
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	c.Logger = slogbridge.NewHclog(n.Log, n.isAbsent)
	return c
}

// Term returns raft's current term, 0 before there is one.
func (n *Replica) Term() uint64 {
	if r := n.Raft.Load(); r != nil {
		return r.CurrentTerm()
	}
	return 0
}

// knownTerm returns raft's current term for those to whom it is a promise: a node whose raft does not run makes none.
func (n *Replica) knownTerm() (uint64, error) {
	r := n.Raft.Load()
	if r == nil || n.Life.Setback.Load() != nil {
		return 0, errors.New("raft does not run here now")
	}
	return r.CurrentTerm(), nil
}

// Leader returns the node ID of the leader as far as this node knows, empty if there is none.
func (n *Replica) Leader() string {
	r := n.Raft.Load()
	if r == nil || n.Life.Setback.Load() != nil {
		return ""
	}
	_, id := r.LeaderWithID()
	if string(id) == n.Self.ID && n.Stalled() {
		return "" // nobody follows it, and it cannot know
	}
	return string(id)
}

// Servers returns raft's newest configuration, as this node has it.
func (n *Replica) Servers() []raft.Server {
	r := n.Raft.Load()
	if r == nil {
		return nil
	}
	conf := r.GetConfiguration()
	if conf.Error() != nil {
		return nil
	}
	return conf.Configuration().Servers
}

// Others returns the node IDs of the other members.
func (n *Replica) Others() []string {
	var ids []string
	for _, srv := range n.Servers() {
		if string(srv.ID) != n.Self.ID {
			ids = append(ids, string(srv.ID))
		}
	}
	return ids
}

// Admit says whether a peer may speak raft to this node: a member of its configuration may. A node that has slept may have an
// old one, so until it has caught up it also believes what its peers say of each other; they all know the secret.
func (n *Replica) Admit(id string) error {
	if s := n.Life.Setback.Load(); s != nil {
		return s.Err
	}
	servers := n.Servers()
	for _, srv := range servers {
		if string(srv.ID) == id {
			return nil
		}
	}
	if n.Raft.Load() == nil {
		return errors.New("not in a cluster yet")
	}
	if _, known := n.Book.Addr(id); known && !n.Up.IsCurrent() {
		return nil
	}
	return errors.New("not a member of the cluster")
}

// IsServer reports whether a node is a member, as far as this one knows.
func (n *Replica) IsServer(id string) bool {
	return slices.ContainsFunc(n.Servers(), func(srv raft.Server) bool { return string(srv.ID) == id })
}

// isAbsent reports whether it is known that a member cannot be reached: its session has ended, by its own word or by the verdict, or this node is on its
// way out.
func (n *Replica) isAbsent(id string) bool {
	s := n.Store.State()
	return n.Life.Leaving.Load() || n.Life.Works.Err() != nil || s.Elected > 0 && s.Session(id) == nil
}

// StoredBy returns a committed entry that a node is known to have had on its disk when that process ran.
func (n *Replica) StoredBy(id, boot string) uint64 {
	if n.Raft.Load() == nil {
		return 0
	}
	s := n.Store.State()
	stored := max(s.Stored(id), min(n.Port.Transport().Committed(id, boot), s.Index))
	if l := n.Leading.Load(); l != nil {
		confirmed := n.Port.Transport().Confirmed(id, boot, l.Term)
		stored = max(stored, min(confirmed, l.Raft.CommitIndex()))
	}
	return stored
}

// LastIndex returns the newest entry that this node has on its disk.
func (n *Replica) LastIndex() (last uint64) {
	if r := n.Raft.Load(); r != nil {
		return r.LastIndex()
	}
	d := n.Disk.Load()
	if d == nil {
		return 0
	}
	err := d.run(func() error {
		index, err := d.logs.LastIndex()
		if err != nil {
			return err
		}
		last = index
		snaps, err := d.Snaps.List()
		if len(snaps) > 0 {
			last = max(last, snaps[0].Index)
		}
		return err
	})
	if err != nil {
		n.Log.Warn("the end of the raft log cannot be read", "err", err)
	}
	return last
}

// Applied returns the newest entry that this node or its last process has applied.
func (n *Replica) Applied() uint64 {
	index := n.Store.State().Index
	if d := n.Disk.Load(); d != nil {
		index = max(index, d.mark.Index)
	}
	return index
}

// Fail ends what this node does in the cluster, for a reason that trying again would not change. What it has in memory it goes
// on serving.
func (n *Replica) Fail(err error) {
	if n.Life.Works.Err() != nil {
		return
	}
	n.Log.Error("this node can take no part in the cluster any more", "err", err)
	n.Up.LoseLease(err) // before others can think that this process is gone
	n.Port.Transport().Stop()
	n.Life.Break(err)
	n.Life.Tasks.Go(func() { n.Port.Close() }) // a port that refuses tells the others at once
	if r := n.Raft.Load(); r != nil {
		r.shutdown() // not waited for: raft may hang in the very fault that brought us here
	}
	n.Life.Changed.Notify()
}
