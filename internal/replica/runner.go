package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/secrets"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/slogbridge"
	"github.com/flotilla-ha/flotilla/internal/timing"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// closePatience is how long the files may take to close.
const closePatience = 10 * time.Second

// Runner runs raft on this node's disk. Its methods must not be called at the same time; the node's
// way into the cluster, DiskCare and the node's end call them in turn.
type Runner struct {
	timing  timing.Timing
	secrets *secrets.Set
	log     *slog.Logger
	life    *lifecycle.Life
	self    *self.Self
	port    *wire.Port
	fsm     Machine
	opener  *Opener
	files   *files
	group   *Group
	chain   *Chain
	outage  *Outage
	duties  *duties

	watches sync.WaitGroup // goroutines that watch raft
	marking chan struct{}  // closed when the mark is written no more; nil: it never was
}

// OpenDisk opens this node's disk. Its files must exist unless create is true.
func (r *Runner) OpenDisk(create bool) error { return r.files.open(create) }

// DropDisk closes the disk if one is open. Raft must not have been started on it.
func (r *Runner) DropDisk() error { return r.files.drop() }

// Bootstrap writes the configuration that raft begins with to the disk that is open.
func (r *Runner) Bootstrap(first raft.Configuration) error {
	d := r.files.disk.Load()
	return d.run(func() error {
		return raft.BootstrapCluster(r.config(), d.logs, d.stable, d.snaps, r.port.Transport(), first)
	})
}

// StartRaft starts raft on the disk that is open.
func (r *Runner) StartRaft() error {
	d := r.files.disk.Load()
	var started *raft.Raft
	err := d.run(func() (err error) {
		defer func() { // raft panics here when log and snapshot do not fit
			if p := recover(); p != nil {
				err = fmt.Errorf("%v", p)
			}
		}()
		logs := d.logs
		if d.log != nil {
			logs = overlapping{d.log, r.group, r.opener}
		}
		log, err := r.chain.watch(d, logs)
		if err != nil {
			return err
		}
		vetted := &vettedSnapshots{SnapshotStore: d.snaps, store: r.group.store, failed: r.outage.Fail, secrets: r.secrets}
		started, err = raft.NewRaft(r.config(), r.fsm, log, d.stable, vetted, r.port.Transport())
		return err
	})
	if err != nil {
		return fmt.Errorf("starting raft: %w", err)
	}
	ctx, stop := context.WithCancel(r.life.Works)
	i := &Instance{Raft: started, stop: stop, done: make(chan struct{})}
	r.group.Raft.Store(i)
	if r.life.Works.Err() != nil {
		i.shutdown() // Fail came too early to see it
	}
	r.watches.Go(func() { r.duties.watch(ctx, i) })
	if r.files.dir != nil {
		marking := make(chan struct{})
		r.marking = marking
		go func() {
			defer close(marking)
			r.chain.keepMark(ctx)
		}()
	}
	r.life.Changed.Notify()
	return nil
}

// EndRaft stops raft and closes its files, as far as a hanging disk permits. It may be called again
// after an error.
func (r *Runner) EndRaft() error {
	var failed []error
	if i := r.group.Raft.Load(); i != nil {
		i.stop()
		ended := i.shutdown() // first, because duties may wait for a raft that has lost its main loop
		r.watches.Wait()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			failed = append(failed, errors.New("stopping raft: it does not end"))
		}
		if r.marking != nil {
			select {
			case <-r.marking:
			case <-time.After(time.Second): // the disk hangs
			}
		}
	}
	if d := r.files.disk.Load(); d != nil {
		failed = append(failed, closeDisk(d))
	}
	return errors.Join(failed...)
}

// closeDisk closes a disk. It does not wait for one that hangs, whose files are closed when it goes
// on.
func closeDisk(d *Disk) error {
	busy := d.busy()
	closed := make(chan error, 1)
	go func() { closed <- d.Close() }() // it writes what is queued, and waits for the log's upkeep
	if busy > Hanging {
		return fmt.Errorf("the disk has hung for %v: its files are open until it goes on", busy)
	}
	select {
	case err := <-closed:
		return err
	case <-time.After(closePatience):
		return errors.New("the disk hangs: its files are open until it goes on")
	}
}

// config returns raft's configuration.
func (r *Runner) config() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(r.self.ID)
	c.HeartbeatTimeout = patience(r.timing, r.self)
	c.ElectionTimeout = c.HeartbeatTimeout
	c.LeaderLeaseTimeout = r.timing.Heartbeat // guarantees depend on leases and Confirm
	c.CommitTimeout = r.timing.Attempt()      // Acks tells followers of commits at once
	c.BatchApplyCh = true
	c.TrailingLogs = 1024 // until Snapshots bounds them by bytes
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	c.Logger = slogbridge.NewHclog(r.log, r.group.isAbsent)
	return c
}
