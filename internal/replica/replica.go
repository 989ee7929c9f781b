package replica

import (
	"context"
	"time"

	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// Replica is this node's part in the raft group. It is made of parts with one job each; the
// methods of those that other packages use everywhere are its own.
type Replica struct {
	*Group       // servers, leader, term
	*LeaderState // whether this node leads
	*ReadIndex   // what was acknowledged so far
	*Elections   // gaining and handing over the leadership
	*Departure   // the end of this node
	*Runner      // raft on the disk
	*Outage      // the end of this node's part, for now or for good
	*Chain       // checksums of the log
	*committer   // the leader's part of writes

	Deaths    *Deaths    // death notices
	Writes    *Proposer  // this node's writes
	Disk      *DiskCare  // the care for the directory
	Snapshots *Snapshots // when snapshots are taken
	Port      *wire.Port
	Dir       *durable.Dir // nil: in memory
	Meters    *Meters

	timing timing.Timing
	files  *files
}

// New returns a replica whose raft is not started yet. It neither writes nor starts anything.
func New(cfg Config) *Replica {
	var care *DiskCare
	f := &files{dir: cfg.Dir, faults: cfg.Faults, log: cfg.Log, failed: func(err error) { care.OnFailure(err) }}
	f.disk.Store(cfg.Member)
	group := &Group{self: cfg.Self, life: cfg.Life, store: cfg.Store, peers: cfg.Peers, port: cfg.Port, isCurrent: cfg.Up.IsCurrent, stalled: f.stalled}
	leads := &LeaderState{timing: cfg.Timing, group: group}
	outage := &Outage{log: cfg.Log, life: cfg.Life, group: group, port: cfg.Port, path: path(cfg.Dir), loseLease: cfg.Up.LoseLease, excuse: cfg.Up.Excuse}
	meters := new(Meters)
	deaths := &Deaths{given: make(map[state.EndByDeathNotice]int)}
	chain := &Chain{dir: cfg.Dir, log: cfg.Log, life: cfg.Life, timing: cfg.Timing, store: cfg.Store, fsm: cfg.FSM, peers: cfg.Peers, group: group, outage: outage}
	run := &Runner{
		timing: cfg.Timing, secrets: cfg.Secrets, log: cfg.Log, life: cfg.Life, self: cfg.Self, port: cfg.Port, fsm: cfg.FSM, opener: cfg.Opener, files: f, group: group, chain: chain, outage: outage,
		duties: &duties{
			timing: cfg.Timing, secrets: cfg.Secrets, log: cfg.Log, store: cfg.Store, group: group, leads: leads, outage: outage, deaths: deaths, leaders: &leaders{meters: meters, changed: cfg.Up.LeaderChanged},
			clusterID: cfg.Up.ClusterID, perform: cfg.Up.Lead, wakeLease: cfg.Up.WakeLease,
		},
	}
	care = &DiskCare{
		dir: cfg.Dir, log: cfg.Log, life: cfg.Life, files: f, runner: run, outage: outage,
		isMember: cfg.Up.IsMember, rewrite: cfg.Up.Rewrite, flush: cfg.Up.FlushOwn,
	}
	elections := &Elections{timing: cfg.Timing, log: cfg.Log, group: group, leads: leads}
	commit := &committer{timing: cfg.Timing, store: cfg.Store, leads: leads, opener: cfg.Opener, meters: meters}
	return &Replica{
		Group: group, LeaderState: leads, Elections: elections, Runner: run, Outage: outage, Chain: chain, committer: commit,
		ReadIndex: &ReadIndex{timing: cfg.Timing, log: cfg.Log, life: cfg.Life, store: cfg.Store, group: group, leads: leads, chain: chain, outage: outage},
		Departure: &Departure{timing: cfg.Timing, group: group, leads: leads, elections: elections},
		Deaths:    deaths,
		Writes: &Proposer{
			timing: cfg.Timing, life: cfg.Life, self: cfg.Self, store: cfg.Store, port: cfg.Port, group: group, leads: leads, commit: commit, opener: cfg.Opener, meters: meters,
			batches: batcher{make(chan *attempt)},
		},
		Disk:      care,
		Snapshots: &Snapshots{log: cfg.Log, life: cfg.Life, group: group, files: f, store: cfg.Store, fsm: cfg.FSM, chain: chain, wanted: make(chan struct{}, 1), grown: make(chan struct{}, 1), taking: make(chan struct{}, 1)},
		Port:      cfg.Port, Dir: cfg.Dir, Meters: meters, timing: cfg.Timing, files: f,
	}
}

// TransferTimeout is how long an attempt to hand the leadership over may take.
func (r *Replica) TransferTimeout() time.Duration { return r.timing.Transfer() }

// AttemptTimeout is how long one attempt of a call or a proposal may take. Another one follows.
func (r *Replica) AttemptTimeout() time.Duration { return r.timing.Attempt() }

// Fenced returns a context with which commands of this node take effect only while a claim of a
// session holds its role.
func (r *Replica) Fenced(ctx context.Context, session uint64, fence state.Fence) context.Context {
	return r.Writes.Fenced(ctx, session, fence)
}

// Stalled reports whether the disk hangs. A leader whose disk hangs must not keep its followers
// quiet.
func (r *Replica) Stalled() bool { return r.files.stalled() }

// Durable returns nil, nil if the entries up to index are on this node's disk. Otherwise it returns
// a channel that is closed when that may have changed, or why they never will be.
func (r *Replica) Durable(index uint64) (<-chan struct{}, error) { return r.files.durable(index) }

// Voted is like Durable, for this node's vote in a term.
func (r *Replica) Voted(term uint64) (<-chan struct{}, error) { return r.files.voted(term) }

// MakePrivate hides the node's files from other users of this machine, as far as it may.
func (r *Replica) MakePrivate() error { return r.files.makePrivate() }

// LastIndex returns the newest entry that this node has on its disk, 0 if there is none.
func (r *Replica) LastIndex() uint64 {
	if i := r.Raft.Load(); i != nil {
		return i.LastIndex()
	}
	return r.files.lastIndex()
}

// Applied returns the newest entry that this node or its last process has applied.
func (r *Replica) Applied() uint64 { return max(r.Group.store.State().Index, r.files.marked()) }
