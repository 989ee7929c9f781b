package replica

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
)

const (
	// SnapshotQuiet is how long nothing must change before a snapshot.
	SnapshotQuiet = 5 * time.Second
	// SnapshotJitter is the random time at most that is added, so that nodes do not write at once.
	SnapshotJitter = 5 * time.Second

	snapshotPatience = 30 * time.Second // how long changes that do not end may delay one
	snapshotRest     = 30 * time.Second // between two, at least
	snapshotRestMiB  = 10 * time.Second // more, for each MiB of the state
	snapshotLimit    = 10 * time.Second // for one; what takes longer is found when the next is due
	snapshotRetry    = time.Second      // after one that failed, if the log is too long

	// The log is bounded by bytes, in proportion to the state. Each node bounds its own.
	logMost     = 16 << 20 // since the newest snapshot, or half the state if that is more
	trailMost   = 16 << 20 // before it, for followers that lag: a quarter of the state, within these
	trailLeast  = 4 << 20
	trailFewest = 4 // entries, however large they are
)

// Snapshots decides when this node takes a snapshot.
//
// raft does not write down how far its log is committed. So a node that is started alone, such as
// the only machine that survived a power cut, knows no more than its newest snapshot and the mark
// (see Chain). raft by itself takes a snapshot after some thousand entries, which a cluster with a
// few certificates does not see in a year. So a node takes one soon after a change that it cannot
// serve without or must not forget, and one at its end.
type Snapshots struct {
	log    *slog.Logger
	life   *lifecycle.Life
	group  *Group
	files  *files
	store  *applied.Store
	fsm    Machine
	chain  *Chain
	wanted chan struct{} // holds an element if somebody wants one; buffered
	grown  chan struct{} // holds an element if the log is too long; buffered
	taking chan struct{} // holds an element while a snapshot is taken; buffered

	newest  atomic.Uint64 // index of the newest snapshot that this node knows of
	cleaned atomic.Uint64 // see SetCleaned
}

// Soon has this node take a snapshot when changes have calmed down. It does not block.
func (s *Snapshots) Soon() {
	select {
	case s.wanted <- struct{}{}:
	default:
	}
}

// Applied is called when entries were applied. It does not block.
func (s *Snapshots) Applied() {
	if !s.tooLong() {
		return
	}
	select {
	case s.grown <- struct{}{}:
	default:
	}
}

// tooLong reports whether the log has grown too much since the newest snapshot.
func (s *Snapshots) tooLong() bool {
	log := s.chain.current.Load()
	return log != nil && log.Since(s.newest.Load()) > max(logMost, uint64(s.store.State().Bytes())/2)
}

// Run takes the snapshots that Soon asks for, until ctx ends.
func (s *Snapshots) Run(ctx context.Context) {
	for {
		select {
		case <-s.wanted:
		case <-ctx.Done():
			return
		}
		s.awaitQuiet(ctx)
		rest := snapshotRest + time.Duration(s.store.State().Bytes())*snapshotRestMiB>>20
		if err := s.Take(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("no snapshot; will try again", "err", err, "in", rest)
			s.Soon()
		}
		select {
		case <-time.After(rest):
		case <-ctx.Done():
			return
		}
	}
}

// Bound takes a snapshot whenever the log is too long, until ctx ends.
func (s *Snapshots) Bound(ctx context.Context) {
	if newest, err := s.Newest(); err == nil {
		s.newest.Store(newest)
	}
	for {
		select {
		case <-s.grown:
		case <-ctx.Done():
			return
		}
		if !s.tooLong() {
			continue
		}
		if err := s.take(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("the log is not shortened: no snapshot; will try again", "err", err, "in", snapshotRetry)
			select {
			case <-time.After(snapshotRetry):
				s.Applied()
			case <-ctx.Done():
			}
		}
	}
}

// awaitQuiet returns when Soon has not been called for a while, or after snapshotPatience.
func (s *Snapshots) awaitQuiet(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, snapshotPatience)
	defer cancel()
	quiet := SnapshotQuiet + rand.N(SnapshotJitter)
	for {
		select {
		case <-s.wanted:
		case <-time.After(quiet):
			return
		case <-ctx.Done():
			return
		}
	}
}

// TakeLast takes a snapshot for a node that shuts down. It logs an error, which must not keep the
// node from that.
func (s *Snapshots) TakeLast(ctx context.Context) {
	if err := s.Take(ctx); err != nil {
		s.log.Warn("the node leaves no snapshot of its last changes; started alone it would not know them", "err", err)
	}
}

// Newest returns the index of the newest snapshot, 0 if there is none.
func (s *Snapshots) Newest() (uint64, error) {
	d := s.files.disk.Load()
	if d == nil {
		return 0, nil
	}
	return d.newestSnapshot()
}

// Take writes a snapshot, unless the newest one has all that raft has applied, the node has no
// directory or takes no part in the cluster. It returns when the snapshot is written.
func (s *Snapshots) Take(ctx context.Context) error {
	if s.files.dir == nil {
		return nil
	}
	return s.take(ctx)
}

func (s *Snapshots) take(ctx context.Context) error {
	select {
	case s.taking <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-s.taking }()
	r := s.group.Raft.Load()
	if r == nil || s.life.Works.Err() != nil || s.life.Setback.Load() != nil {
		return nil
	}
	want := s.store.State().Index
	newest, err := s.Newest()
	if err != nil {
		return fmt.Errorf("looking for snapshots: %w", err)
	}
	// A node that has started without a leader may have applied more than its snapshot, up to the
	// mark. raft does not know that, and would log an error.
	if newest > 0 && (newest >= want || newest >= r.AppliedIndex()) {
		s.newest.Store(newest)
		return nil
	}
	if err := s.trail(r); err != nil {
		return err
	}
	// Its future is not waited for, because raft does not answer all of them. The goroutine ends with
	// raft.
	go r.Snapshot()
	ctx, stop := s.life.WhileOpen(ctx)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, snapshotLimit)
	defer cancel()
	for {
		written := s.fsm.Written()
		if newest, err = s.Newest(); err != nil {
			return fmt.Errorf("looking for the snapshot: %w", err)
		}
		if newest >= want && newest > 0 {
			s.newest.Store(newest)
			return nil
		}
		select {
		case <-written:
		case <-ctx.Done():
			return fmt.Errorf("waiting for a snapshot: %w", context.Cause(ctx))
		}
	}
}

// trail tells raft how many entries to keep behind the next snapshot. They count as of now.
func (s *Snapshots) trail(r *Instance) error {
	log := s.chain.current.Load()
	if log == nil {
		return nil
	}
	keep := max(trailFewest, log.Newest(min(max(trailLeast, uint64(s.store.State().Bytes())/4), trailMost)))
	if err := r.reload(func(c *raft.ReloadableConfig) { c.TrailingLogs = keep }); err != nil {
		return fmt.Errorf("bounding the log: %w", err)
	}
	return nil
}
