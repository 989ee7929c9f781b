package flotilla

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/slogbridge"
	"github.com/hashicorp/raft"
)

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
func (n *Node) startRaft() error {
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
	ctx, stop := context.WithCancel(n.works)
	i := &instance{Raft: r, stop: stop, done: make(chan struct{})}
	n.raft.Store(i)
	if n.works.Err() != nil {
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
	n.changed.Notify()
	return nil
}

// endRaft stops raft and closes its files, as far as a hanging disk lets it. It may be called again after an error.
func (n *Node) endRaft() error {
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

func (n *Node) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.id)
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
func (n *Node) term() uint64 {
	if r := n.raft.Load(); r != nil {
		return r.CurrentTerm()
	}
	return 0
}

// knownTerm returns raft's current term for those to whom it is a promise: a node whose raft does not run makes none.
func (n *Node) knownTerm() (uint64, error) {
	r := n.raft.Load()
	if r == nil || n.setback.Load() != nil {
		return 0, errors.New("raft does not run here now")
	}
	return r.CurrentTerm(), nil
}

// leader returns the node ID of the leader as far as this node knows, empty if there is none.
func (n *Node) leader() string {
	r := n.raft.Load()
	if r == nil || n.setback.Load() != nil {
		return ""
	}
	_, id := r.LeaderWithID()
	if string(id) == n.id && n.stalled() {
		return "" // nobody follows it, and it cannot know
	}
	return string(id)
}

// servers returns raft's newest configuration, as this node has it.
func (n *Node) servers() []raft.Server {
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
func (n *Node) others() []string {
	var ids []string
	for _, srv := range n.servers() {
		if string(srv.ID) != n.id {
			ids = append(ids, string(srv.ID))
		}
	}
	return ids
}

// admit says whether a peer may speak raft to this node: a member of its configuration may. A node that has slept may have an
// old one, so until it has caught up it also believes what its peers say of each other; they all know the secret.
func (n *Node) admit(id string) error {
	if s := n.setback.Load(); s != nil {
		return s.err
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
	if _, known := n.book.addr(id); known && !n.isCurrent() {
		return nil
	}
	return errors.New("not a member of the cluster")
}

// isServer reports whether a node is a member, as far as this one knows.
func (n *Node) isServer(id string) bool {
	return slices.ContainsFunc(n.servers(), func(srv raft.Server) bool { return string(srv.ID) == id })
}

// isAbsent reports whether it is known that a member cannot be reached: its session has ended, by its own word or by the verdict, or this node is on its
// way out.
func (n *Node) isAbsent(id string) bool {
	s := n.store.State()
	return n.leaving.Load() || n.works.Err() != nil || s.Elected > 0 && s.Session(id) == nil
}

// storedBy returns a committed entry that a node is known to have had on its disk when that process ran.
func (n *Node) storedBy(id, boot string) uint64 {
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
func (n *Node) lastIndex() (last uint64) {
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
func (n *Node) applied() uint64 {
	index := n.store.State().Index
	if d := n.disk.Load(); d != nil {
		index = max(index, d.mark.Index)
	}
	return index
}

// fail ends what this node does in the cluster, for a reason that trying again would not change. What it has in memory it goes
// on serving.
func (n *Node) fail(err error) {
	if n.works.Err() != nil {
		return
	}
	n.log.Error("this node can take no part in the cluster any more", "err", err)
	n.loseLease(err) // before others can think that this process is gone
	n.port.Transport().Stop()
	n.break_(err)
	n.tasks.Go(func() { n.port.Close() }) // a port that refuses tells the others at once
	if r := n.raft.Load(); r != nil {
		r.shutdown() // not waited for: raft may hang in the very fault that brought us here
	}
	n.changed.Notify()
}
