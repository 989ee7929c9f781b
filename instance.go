package flotilla

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable"
)

// disk is where raft keeps what it must not forget.
type disk struct {
	logs   raft.LogStore
	stable raft.StableStore
	snaps  raft.SnapshotStore
	busy   func() time.Duration // how long the write under way has taken so far
	run    func(func() error) error
	close  func() error
}

// lockDir takes the node's directory.
func lockDir(path string) (*durable.Dir, error) {
	dir, err := durable.Lock(path)
	var inUse *durable.InUseError
	switch {
	case err == nil:
		return dir, nil
	case errors.As(err, &inUse):
		return nil, &ConfigError{Field: "Dir", Reason: path + " is in use by another process; stop it, or give this one a directory of its own", Err: err}
	case errors.Is(err, syscall.ENOSPC):
		return nil, &ConfigError{Field: "Dir", Reason: "there is no room in " + path + "; make some", Err: err}
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return nil, &ConfigError{Field: "Dir", Reason: "this process may not write to " + path + "; change its owner or its mode", Err: err}
	}
	return nil, &ConfigError{Field: "Dir", Reason: "cannot be used", Err: err}
}

// makePrivate keeps other users of this machine from the files of the node.
func (n *Node) makePrivate() error {
	if n.dir == nil {
		return nil
	}
	exposed, err := n.dir.MakePrivate()
	if err != nil {
		return &ConfigError{Field: "Dir", Reason: "the modes of its files cannot be looked at", Err: err}
	}
	if len(exposed) > 0 {
		n.log.Warn("other users of this machine may read files of the node; give them to the user that it runs as, with mode 0600, directories with 0700", "files", exposed)
	}
	return nil
}

// openDisk opens the log and the snapshots, which must be there unless create is true.
func (n *Node) openDisk(create bool) error {
	if n.dir == nil {
		store := raft.NewInmemStore()
		snaps := durable.GuardSnapshots(raft.NewInmemSnapshotStore(), store)
		n.disk.Store(&disk{logs: store, stable: store, snaps: snaps, busy: func() time.Duration { return 0 }, run: func(f func() error) error { return f() }, close: func() error { return nil }})
		return nil
	}
	if create && n.dir.HasLog() {
		// A start that came to nothing: no entry of it was ever told to anybody.
		if err := n.dir.RemoveState(); err != nil {
			return err
		}
	}
	log, err := n.dir.OpenLog(durable.LogOptions{
		Create: create,
		Failed: func(err error) {
			if errors.Is(err, durable.ErrRestart) {
				n.tasks.run(func() { n.restartRaft(n.works) })
				return
			}
			n.fail(fmt.Errorf("the disk fails: %w; mend it and start the node again", err))
		},
		Logger: n.log,
	})
	if err != nil {
		return &ConfigError{Field: "Dir", Reason: "the raft log cannot be used", Err: err}
	}
	snaps, err := n.dir.OpenSnapshots(log, n.log)
	if err != nil {
		return errors.Join(&ConfigError{Field: "Dir", Reason: "the snapshots cannot be used", Err: err}, log.Close())
	}
	n.disk.Store(&disk{logs: log, stable: log, snaps: snaps, busy: log.Busy, run: log.Run, close: log.Close})
	return nil
}

// become makes this node a member, for good, and starts raft. With a configuration the cluster is a new one, whose members all begin
// with the same.
func (n *Node) become(cluster string, first *raft.Configuration) error {
	if err := n.openDisk(true); err != nil {
		return err
	}
	if first != nil {
		d := n.disk.Load()
		err := d.run(func() error {
			return raft.BootstrapCluster(n.raftConfig(), d.logs, d.stable, d.snaps, n.port.Transport(), *first)
		})
		if err != nil {
			return fmt.Errorf("forming the cluster: %w", err)
		}
	}
	err := n.save(func(id *identity) {
		id.Cluster, id.Name, id.Member = cluster, n.name, true
		id.Formation, id.Void = nil, nil
	})
	if err != nil {
		return err
	}
	return n.startRaft()
}

// startRaft starts raft on the disk that is open.
func (n *Node) startRaft() error {
	d := n.disk.Load()
	cached, err := raft.NewLogCache(128, d.logs)
	if err != nil {
		return err
	}
	var r *raft.Raft
	err = d.run(func() (err error) {
		defer func() { // raft panics here when log and snapshot do not fit
			if p := recover(); p != nil {
				err = fmt.Errorf("%v", p)
			}
		}()
		r, err = raft.NewRaft(n.raftConfig(), n.fsm, cached, d.stable, d.snaps, n.port.Transport())
		return err
	})
	if err != nil {
		return fmt.Errorf("starting raft: %w", err)
	}
	ctx, stop := context.WithCancel(n.works)
	n.raft.Store(r)
	n.stopRaft.Store(&stop)
	if n.works.Err() != nil {
		r.Shutdown() // fail did not see it
	}
	n.watches.Go(func() { n.watchRaft(ctx, r) })
	n.changed.poke()
	return nil
}

// endRaft stops raft and closes its files, as far as a hanging disk lets it.
func (n *Node) endRaft() error {
	var errs []error
	if stop := n.stopRaft.Load(); stop != nil {
		(*stop)()
		n.watches.Wait()
	}
	if r := n.raft.Load(); r != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if err := waitFuture(ctx, r.Shutdown()); err != nil {
			errs = append(errs, fmt.Errorf("stopping raft: %w", err))
		}
		cancel()
	}
	if d := n.disk.Load(); d != nil {
		if busy := d.busy(); busy > time.Second {
			return errors.Join(append(errs, fmt.Errorf("the disk has hung for %v: the files are left open", busy))...)
		}
		errs = append(errs, d.close())
	}
	return errors.Join(errs...)
}

// restartRaft starts raft anew on the same files: the log has been emptied under it, in favour of a snapshot.
func (n *Node) restartRaft(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	n.log.Info("starting raft anew, from a snapshot of the leader's")
	n.port.Transport().Close() // the next call of Transport makes another
	err := n.endRaft()
	if err == nil {
		err = n.openDisk(false)
	}
	if err == nil {
		err = n.startRaft()
	}
	if err != nil {
		n.fail(err)
	}
}

func (n *Node) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.id)
	c.HeartbeatTimeout = n.pace.heartbeat
	c.ElectionTimeout = n.pace.heartbeat
	c.LeaderLeaseTimeout = n.pace.heartbeat // nothing that is promised hangs on it: leases and confirm see to that
	c.CommitTimeout = 5 * n.pace.lease      // commits are told at once by acks
	c.BatchApplyCh = true
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	c.Logger = newHclog(n.log)
	return c
}

// stalled reports whether the disk hangs. A leader whose disk does is not to keep its followers quiet.
func (n *Node) stalled() bool {
	d := n.disk.Load()
	return d != nil && d.busy() > time.Second
}

// term returns raft's current term, 0 before there is one.
func (n *Node) term() uint64 {
	if r := n.raft.Load(); r != nil {
		return r.CurrentTerm()
	}
	return 0
}

// leader returns the node ID of the leader as far as this node knows, empty if there is none.
func (n *Node) leader() string {
	r := n.raft.Load()
	if r == nil {
		return ""
	}
	_, id := r.LeaderWithID()
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
	servers := n.servers()
	for _, srv := range servers {
		if string(srv.ID) == id {
			return nil
		}
	}
	if n.raft.Load() == nil {
		return errors.New("not in a cluster yet")
	}
	if _, known := n.book.addr(id); known && !n.current.Load() {
		return nil
	}
	return errors.New("not a member of the cluster")
}

// dialable is an address at which peers may find a listener, if nothing better is given.
func dialable(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return a.String()
	}
	ip := net.IPv4(127, 0, 0, 1)
	// No packet is sent: connecting a UDP socket only asks for the route out.
	if c, err := net.Dial("udp", "192.0.2.1:9"); err == nil {
		ip = c.LocalAddr().(*net.UDPAddr).IP
		c.Close()
	} else if addrs, err := net.InterfaceAddrs(); err == nil {
		ip = reachable(addrs, ip)
	}
	return (&net.TCPAddr{IP: ip, Port: tcp.Port}).String()
}

// reachable returns the address that peers on the same network can dial where there is no route out: the first of an interface, of IPv4 if there is one, that
// shares its subnet with others, as no floating address does.
func reachable(addrs []net.Addr, otherwise net.IP) net.IP {
	best := otherwise
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || !n.IP.IsGlobalUnicast() {
			continue
		}
		if ones, bits := n.Mask.Size(); ones == bits {
			continue
		}
		if n.IP.To4() != nil {
			return n.IP
		}
		if best.Equal(otherwise) {
			best = n.IP
		}
	}
	return best
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "node"
	}
	return name
}
