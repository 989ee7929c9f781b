package flotilla

import (
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

// openDisk opens the log and the snapshots, which must be there unless create is true.
func (n *Node) openDisk(create bool) error {
	if n.dir == nil {
		store := raft.NewInmemStore()
		snaps := durable.GuardSnapshots(raft.NewInmemSnapshotStore(), store)
		n.disk.Store(&disk{logs: store, stable: store, snaps: snaps, busy: func() time.Duration { return 0 }, close: func() error { return nil }})
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
		Failed: func(err error) { n.fail(fmt.Errorf("the disk fails: %w; mend it and start the node again", err)) },
		Logger: n.log,
	})
	if err != nil {
		return &ConfigError{Field: "Dir", Reason: "the raft log cannot be used", Err: err}
	}
	snaps, err := n.dir.OpenSnapshots(log, n.log)
	if err != nil {
		return errors.Join(&ConfigError{Field: "Dir", Reason: "the snapshots cannot be used", Err: err}, log.Close())
	}
	n.disk.Store(&disk{logs: log, stable: log, snaps: snaps, busy: log.Busy, close: log.Close})
	return nil
}

// become makes this node a member, for good, and starts raft. With a configuration it is the one that forms the cluster.
func (n *Node) become(cluster string, first *raft.Configuration) error {
	if err := n.openDisk(true); err != nil {
		return err
	}
	if first != nil {
		d := n.disk.Load()
		if err := raft.BootstrapCluster(n.raftConfig(), d.logs, d.stable, d.snaps, n.port.Transport(), *first); err != nil {
			return fmt.Errorf("forming the cluster: %w", err)
		}
	}
	err := n.save(func(id *identity) {
		id.Cluster, id.Name, id.Member = cluster, n.name, true
		id.Proposal, id.Promise = nil, nil
	})
	if err != nil {
		return err
	}
	return n.startRaft()
}

// startRaft starts raft on the disk that is open.
func (n *Node) startRaft() error {
	d := n.disk.Load()
	cached, err := raft.NewLogCache(512, d.logs)
	if err != nil {
		return err
	}
	var r *raft.Raft
	err = errors.New("the disk failed")
	done := make(chan struct{})
	go func() { // raft may panic here, and a failing disk ends the goroutine that meets it
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("raft cannot start: %v", p)
			}
		}()
		r, err = raft.NewRaft(n.raftConfig(), n.fsm, cached, d.stable, d.snaps, n.port.Transport())
	}()
	<-done
	if err != nil {
		return fmt.Errorf("starting raft: %w", err)
	}
	n.raft.Store(r)
	if n.works.Err() != nil {
		r.Shutdown() // fail did not see it
	}
	n.tasks.run(func() { n.watchRaft(n.works, r) })
	n.changed.poke()
	return nil
}

func (n *Node) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.id)
	c.HeartbeatTimeout = n.pace.heartbeat
	c.ElectionTimeout = n.pace.heartbeat
	c.LeaderLeaseTimeout = n.pace.heartbeat / 2
	c.CommitTimeout = n.pace.lease / 6 // commits are told at once by acks
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
	}
	return (&net.TCPAddr{IP: ip, Port: tcp.Port}).String()
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "node"
	}
	return name
}
