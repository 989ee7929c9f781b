package flotilla

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/certs"
	"github.com/flotilla-ha/flotilla/internal/changes"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/events"
	"github.com/flotilla-ha/flotilla/internal/frontend"
	"github.com/flotilla-ha/flotilla/internal/frontend/tickets"
	"github.com/flotilla-ha/flotilla/internal/history"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/lease"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/metrics"
	"github.com/flotilla-ha/flotilla/internal/ops"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/roles"
	"github.com/flotilla-ha/flotilla/internal/rotation"
	"github.com/flotilla-ha/flotilla/internal/secrets"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/slogbridge"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// Open starts a node. It returns when the node's files, keys and ports have been checked: the node
// then listens for peers and looks for its cluster in the background. Open does not wait for a
// leader; Ready does. A wrong configuration is reported as a *ConfigError, and then nothing has
// been written. The context bounds only the call to Open.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	return open(ctx, cfg, func(*Node) error { return nil })
}

// open is Open. It calls first before anything is written and before the node contacts others.
func open(ctx context.Context, cfg Config, first func(*Node) error) (*Node, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("flotilla: opening a node: %w", context.Cause(ctx))
	}
	if err := cfg.prepare(ctx); err != nil {
		return nil, err
	}
	token := cfg.HealthToken
	cfg.token, cfg.HealthToken = func() string { return token }, ""
	n := &Node{cfg: cfg, timing: cfg.Timing.lengths().At(cfg.hooks.Rate), life: lifecycle.New(), store: applied.New()}
	n.peers = peers.NewTable(n.store)
	n.records.feed = changes.New(n.store)
	seen := events.New(n.peers.Name)
	n.observer = metrics.NewObserver(seen)
	n.log = slogbridge.NewNamed(seen.Logger(n.upkeep.journal.Logger(cfg.Logger)), n.peers.Name, seen.Node)
	err := n.open(ctx, first)
	if err == nil {
		err = n.members.Audit(ctx)
		if older := new(membership.RefusedError); errors.As(err, &older) {
			err = n.beginAnew(ctx, older)
		}
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.life.Tasks.Go(func() { n.replica.Writes.Run(n.life.Works) })
	n.life.Tasks.Go(func() { n.leases.Run(n.life.Works) })
	n.life.Tasks.Go(func() { n.replica.Disk.Run(n.life.Works) })
	n.life.Tasks.Go(func() { n.run(n.life.Works) })
	n.life.Tasks.Go(func() { n.upkeep.waiting.run(n.life.Works) })
	n.records.run(n.life)
	n.life.Tasks.Go(func() { n.upkeep.seals.Run(n.life.Works) })
	if guard := n.upkeep.guard; guard != nil {
		n.life.Tasks.Go(func() { n.roles.Report(n.life.Works, guard) })
	}
	if file := n.cfg.SecretsFile; file != "" {
		n.life.Tasks.Go(func() { secrets.Watch(n.life.Works, file, n.fsm.secrets, n.log) })
	}
	n.log.Info("the node has started", "id", n.self.ID, "addr", n.self.Addr, "dir", n.cfg.Dir)
	if opened := n.cfg.hooks.Opened; opened != nil {
		opened(n)
	}
	return n, nil
}

// open makes the parts that do not depend on the directory, and then calls attach.
func (n *Node) open(ctx context.Context, first func(*Node) error) error {
	ready := func() bool { return n.leases.IsReady() }
	n.fsm = newFSM(fsmConfig{
		store:     n.store,
		secrets:   secrets.New(n.cfg.rawSecrets()),
		log:       n.log,
		failed:    func(err error) { n.replica.Fail(err) },
		onApplied: n.onApplied,
		restored:  func(s *state.State) (*state.State, error) { return n.replica.Restored(s) },
	})
	n.tickets = tickets.New(n.cfg.TLS.TicketRotation, ready)
	n.upkeep.space = &spaceWatch{limits: n.cfg.limits(), log: n.log}
	if n.cfg.Witness { // the limit is that of the others, which need not be its own
		n.upkeep.space.log = slog.New(slog.DiscardHandler)
	}
	n.storage = newStorage(func() *storageNode { return n.beneath }, n.log)
	var storage certmagic.Storage = n.storage
	n.own = newOwnStorage(n.storage, func(site string) { n.certs.Stored(site) })
	if n.cfg.TLS.PerNode {
		storage = n.own
	}
	n.frontend = frontend.New(n.log, n.cfg.Proxies)
	n.clocks = clocks.New(clocks.Config{Ahead: n.cfg.hooks.Ahead, Changed: n.life.Changed.Notify, Name: n.peers.NameOf, Log: n.log})
	var err error
	cfg := certs.Config{
		Policy:         n.cfg.policy(),
		Development:    n.cfg.development() || n.cfg.TLS.Private,
		RedirectStatus: n.cfg.Redirect,
		Storage:        storage,
		Shared:         n.storage,
		Ready:          n.Ready,
		AwaitPeers:     func(ctx context.Context) { awaitPeers(ctx, n) },
		Barrier:        func(ctx context.Context) { barrier(ctx, n) },
		Current:        ready,
		Cluster:        func() string { return n.members.Ident.ClusterID() },
		Changed:        n.life.Changed.Notify,
		Peek: func(key string) ([]byte, bool) {
			r, ok := n.store.State().Records.Get(keyspace.Tree(key))
			if !ok {
				return nil, false
			}
			return r.Value, true
		},
		Node:   func() string { return n.self.Name },
		Clocks: n.clocks,
		Limit:  frontend.Slots{},
		Log:    n.log,

		RenewalCheck: n.cfg.hooks.RenewalCheck,
	}
	if n.cfg.certs != nil {
		n.cfg.certs(&cfg)
	}
	n.certs, err = certs.New(cfg)
	if err != nil {
		return err
	}
	if err := first(n); err != nil {
		return err
	}
	if n.cfg.Guard {
		if n.upkeep.guard, err = startGuard(ctx, n.log); err != nil {
			return err
		}
	}
	if err := n.attach(ctx); err != nil {
		return err
	}
	n.upkeep.backups, err = newKeeper(n)
	return err
}

// attach locks the directory, opens the peer port, and makes the parts that depend on them.
func (n *Node) attach(ctx context.Context) (err error) {
	var dir *durable.Dir
	id, written := membership.NewIdentity(n.fsm.secrets.Accepted()), false
	if n.cfg.Dir != "" {
		if dir, err = replica.LockDir(n.cfg.Dir); err != nil {
			return err
		}
		if id, written, err = loadIdentity(ctx, dir, &n.cfg, n.fsm.secrets.Accepted(), n.log); err != nil {
			return errors.Join(err, dir.Close())
		}
	}
	if n.cfg.TLS.PerNode {
		if err := n.own.open(dir, n.fsm.secrets); err != nil {
			return errors.Join(err, closeDir(dir))
		}
	}
	// closed when all parts exist: callbacks of disk and peers wait for it
	opened := make(chan struct{})
	defer close(opened)
	var member *replica.Disk
	if id.Member {
		member, err = replica.OpenDisk(dir, replica.DiskOptions{Faults: n.cfg.hooks.Disk, Log: n.log, Failed: func(err error) {
			<-opened
			if n.replica != nil { // nil: Open has failed for another reason
				n.replica.Disk.OnFailure(err)
			}
		}})
		if err != nil {
			return errors.Join(err, closeDir(dir))
		}
	}
	closeAll := func() error {
		if member != nil {
			return errors.Join(member.Close(), closeDir(dir))
		}
		return closeDir(dir)
	}
	listener, err := n.cfg.PeerListen("tcp", n.cfg.Addr)
	if err != nil {
		err = &ConfigError{Field: "Addr", Reason: "the node cannot listen for its peers at " + n.cfg.Addr + errs.ListenRemedy(err), Err: err}
		return errors.Join(err, closeAll())
	}
	if written {
		id.Starts++
	}
	n.self = &self.Self{ID: id.ID, Incarnation: self.NewIncarnation(id.Starts), Name: cmp.Or(n.cfg.Name, id.Name), Addr: cmp.Or(n.cfg.Advertise, self.Dialable(listener.Addr())), Zone: n.cfg.Zone, Witness: n.cfg.Witness}
	if n.self.Name == "" {
		n.self.Name = machineName()
	}
	n.observer.Events.SetNode(n.self.Name)
	for _, m := range id.Peers {
		n.peers.Learn(m)
	}
	port, err := n.openPeerPort(listener, opened)
	if err != nil {
		return errors.Join(err, listener.Close(), closeAll())
	}
	n.assemble(membership.NewIdentityFile(dir, id), dir, member, port)
	n.members.ObserveOwn()
	// This is saved before any peer hears of this node: peers rely on recognizing it when it is back.
	if err := n.members.Ident.Save(func(now *membership.Identity) {
		now.AddProcess(n.self.Incarnation)
	}); err != nil {
		return &ConfigError{Field: "Dir", Reason: "the node's identity cannot be written", Err: err}
	}
	return n.replica.MakePrivate()
}

// openPeerPort opens the port for peers. Their requests wait until opened is closed.
func (n *Node) openPeerPort(listener net.Listener, opened <-chan struct{}) (*wire.Port, error) {
	handler := sync.OnceValue(n.handler) // of the parts, which do not exist yet
	return wire.Open(wire.Config{
		ID:          n.self.ID,
		Incarnation: n.self.Incarnation,
		Secrets:     n.fsm.secrets.Accepted(),
		Listener:    listener,
		Dial:        n.cfg.PeerDial,
		Resolve:     n.peers.Addr,
		Logger:      n.log,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-opened
			handler().ServeHTTP(w, r)
		}),
		Fresh: func(id, process string) error {
			<-opened
			return n.members.IsNewest(id, process)
		},
		MayLead: func(last uint64) error { return n.members.MayLead(last) },
		Admit: func(id string) error {
			<-opened
			return n.replica.Admit(id)
		},
		Sum:      func(index, term uint64) (uint64, bool) { return n.replica.SumAt(index, term) },
		Compare:  func(peer string, term uint64, c history.Claim) error { return n.replica.CompareLog(peer, term, c) },
		Term:     func() uint64 { return n.replica.Term() },
		Standing: func() (string, bool) { return n.replica.Standing() },
		Stalled:  func() bool { return n.replica.Stalled() },
		Durable:  func(index uint64) (<-chan struct{}, error) { return n.replica.Durable(index) },
		Voted:    func(term uint64) (<-chan struct{}, error) { return n.replica.Voted(term) },
		Gone: func(id string) {
			<-opened
			n.replica.StandForDead(id, n.replica.Port.Transport().LedBy(id))
		},
		Applied: func(index uint64) error { return n.replica.AwaitApplied(index) },
		OnDatagram: func(peer string, note []byte) {
			<-opened
			n.leases.OnDatagram(peer, note)
		},
		DeathNotice: func(ctx context.Context, node string, number uint64) error {
			<-opened
			return n.members.EndDead(ctx, node, number)
		},
		Matched: func(id string) {
			if l := n.replica.Leading.Load(); l != nil {
				l.Acks.Matched(id)
			}
		},
	})
}

// assemble makes the parts of a node that take part in its cluster, from the bottom up: each gets
// the parts below it.
func (n *Node) assemble(ident *membership.IdentityFile, dir *durable.Dir, member *replica.Disk, port *wire.Port) {
	n.replica = replica.New(replica.Config{
		Timing: n.timing, Faults: n.cfg.hooks.Disk, Secrets: n.fsm.secrets, Log: n.log, Life: n.life, Self: n.self, Store: n.store, FSM: n.fsm, Opener: &n.fsm.opener, Peers: n.peers, Dir: dir, Member: member, Port: port,
		Up: replica.Up{
			ClusterID: ident.ClusterID,
			IsMember:  func() bool { return ident.Identity().Member },
			IsCurrent: func() bool { return n.leases.IsCurrent() },
			Rewrite:   func() error { return ident.Save(func(*membership.Identity) {}) },
			Excuse:    func(ctx context.Context) { n.members.AnnounceLoss(ctx) },
			FlushOwn:  n.own.flush,
			Lead:      n.lead,
			LoseLease: func(cause error) uint64 { return n.leases.Lose(cause) },
			WakeLease: func() { n.leases.Wake() },
			LeaderChanged: func(id string, without time.Duration) {
				n.observer.Events.Leader(id, id == n.self.ID, n.replica.Term(), without)
			},
		},
	})
	n.leases = lease.New(lease.Config{
		Timing: n.timing, Log: n.log, Life: n.life, Self: n.self, Store: n.store, Peers: n.peers, Clocks: n.clocks, Replica: n.replica,
		Term: func() lease.Term {
			if t := n.replica.LeaseTerm(); t != nil {
				return t
			}
			return nil
		},
		Delay:  n.cfg.hooks.Delay,
		OnLost: func(session uint64, end time.Time, cause error) { n.roles.OnLost(session, end, cause) },
	})
	n.members = membership.New(membership.Config{
		Peers: n.cfg.Peers, Expect: n.cfg.Expect, RemoveDead: n.cfg.RemoveDead, Timing: n.timing, Log: n.log, Life: n.life, Self: n.self, Ident: ident, Store: n.store, Table: n.peers, Secrets: n.fsm.secrets, Replica: n.replica, Leases: n.leases, Supports: n.cfg.version(),
		Up: membership.Up{
			OwnSettings: n.ownSettings,
			StillSeen:   func(session uint64) bool { return n.roles.IsVisible(session) },
		},
	})
	n.roles = roles.New(roles.Config{
		MaxState: n.cfg.MaxState, Timing: n.timing, Log: n.log, Life: n.life, Self: n.self, Store: n.store, Peers: n.peers, Replica: n.replica, Lease: n.leases,
	})
	n.records.attach(n)
	n.upkeep.version = newRaiser(n)
	n.upkeep.rotation = newDriver(n)
	n.ops = ops.New(ops.Config{
		Rotation: n.upkeep.rotation, Timing: n.timing, Log: n.log, Life: n.life, Self: n.self, Store: n.store, Peers: n.peers, Replica: n.replica, Members: n.members, Roles: n.roles, Version: n.upkeep.version,
		Up: ops.Up{
			Status: func() ([]byte, bool, error) {
				s := n.Status()
				b, err := json.Marshal(s)
				return b, s.Ready || s.Err != "", err
			},
			Backup: func(ctx context.Context, w io.Writer) error {
				_, err := n.Backup(ctx, w)
				return err
			},
			Journal:     n.upkeep.journal.Text,
			Events:      n.observer.Events,
			Records:     n.storage,
			StoreAll:    n.storage.storeAll,
			DropTickets: n.DropTickets,
		},
	})
	n.upkeep.seals = rotation.NewKeeper(rotation.KeeperConfig{
		Log: n.log, Self: n.self, Store: n.store, Secrets: n.fsm.secrets, Replica: n.replica, Members: n.members,
		Reseal: func() error { return n.own.reseal(n.fsm.secrets.Accepted()) },
	})
	n.beneath = &storageNode{
		cfg: n.cfg, life: n.life, self: n.self, store: n.store, replica: n.replica,
		leases: n.leases, roles: n.roles, dropTickets: n.DropTickets,
	}
	n.upkeep.waiting = newWaiting(n.log, &n.life.Second, n.life.Changed.Notify, n.conditions()...)
}

// run takes the node into its cluster and keeps it there until ctx ends.
func (n *Node) run(ctx context.Context) {
	if err := n.members.Enter(ctx); err != nil {
		n.members.GiveUp(err)
		return
	}
	n.replica.Disk.Entered()
	n.life.Tasks.Go(func() { n.members.Remember(ctx) })
	n.life.Tasks.Go(func() { n.greetPeers(ctx) })
	n.life.Tasks.Go(func() { maintain(ctx, n) })
	if n.upkeep.backups != nil {
		n.life.Tasks.Go(func() { keepBackups(ctx, n) })
	}
	n.life.Tasks.Go(func() { n.certs.CleanOwn(ctx) })
	n.life.Tasks.Go(func() { n.replica.Snapshots.Run(ctx) })
	n.life.Tasks.Go(func() { n.replica.Snapshots.Bound(ctx) })
	var lost uint64 // the session whose lease has expired
	for ctx.Err() == nil {
		setbacks := n.life.Setbacks.Load()
		n.replica.Until(ctx, n.replica.CatchUp)
		n.leases.CatchUp()
		n.observer.Events.Begin()
		n.replica.Until(ctx, func(ctx context.Context) error { return n.members.OpenSession(ctx, lost) })
		n.members.RecordSession()
		lost = n.members.Live(ctx, setbacks)
		for changed := n.life.Changed.Wait(); n.life.Leaving.Load() && ctx.Err() == nil; changed = n.life.Changed.Wait() {
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
}

// Ready waits until this node is a member of a cluster with a leader and has caught up with it. If
// the node cannot get there, Ready returns at once, with ErrClosed or with the reason. If ctx ends
// first, the error says what was missing.
func (n *Node) Ready(ctx context.Context) error {
	err := n.leases.AwaitReady(ctx)
	if err == nil || errors.Is(err, ErrClosed) || n.life.Works.Err() != nil {
		return errs.Edge("node is not ready", err)
	}
	return errs.Edge("node is not ready: "+n.members.WhyNot(), err)
}

// Close ends the node at once. The node stays a member. Its roles and locks become free when its
// lease has expired. Until then, Close waits for functions of Hold that have not returned. It
// returns ErrClosed if the node is already closed.
func (n *Node) Close() error {
	err := error(ErrClosed)
	n.closeOnce.Do(func() { err = n.shut() })
	return err
}

func (n *Node) shut() error {
	if n.replica == nil { // the node has no port, so peers do not know of it
		n.life.End(ErrClosed)
		if n.certs != nil {
			n.certs.Close()
		}
		n.life.Tasks.Close()
		return errs.Edge("closing", endGuard(n.upkeep.guard))
	}
	n.leases.Lose(ErrClosed) // before others can conclude that this process is gone
	n.life.End(ErrClosed)
	n.life.Changed.Notify()
	n.certs.Close()
	failed := []error{n.replica.Port.Close()}
	n.life.Tasks.Close() // before EndRaft: a task may be starting raft at this moment
	ended := n.replica.EndRaft()
	if failed = append(failed, ended); ended == nil {
		n.replica.Disk.Leave()
	}
	n.own.flush()
	n.roles.AwaitEnd(n.leases.Until()) // the directory's next process ends this one's session
	failed = append(failed, endGuard(n.upkeep.guard))
	n.log.Info("the node has ended", "id", n.self.ID)
	return errs.Edge("closing", errors.Join(append(failed, closeDir(n.replica.Dir))...))
}

// Shutdown hands over the leadership, roles and locks of this node, and closes it. The node stays a
// member and is expected back. A node without a directory leaves the cluster instead, because it
// could not come back. If ctx ends first, the node is closed all the same, and the error says what
// was not done. If no majority of the voters stays, because the others are leaving too or are gone,
// there is nobody to hand over to. Shutdown does not wait then, and that is not an error.
func (n *Node) Shutdown(ctx context.Context) error {
	if n.life.Open.Err() != nil {
		return ErrClosed
	}
	n.setLeaving(true)
	err := n.handOver(ctx)
	if n.replica.Dir == nil && n.replica.Raft.Load() != nil && n.life.Failure() == nil && len(n.replica.Others()) > 0 {
		ctx, cancel := context.WithTimeout(ctx, n.replica.AttemptTimeout())
		ctx, stop := n.replica.WhileSomebodyStays(ctx, 0)
		if err := n.depart(ctx); err != nil {
			n.log.Info("this node cannot come back and has not left the cluster; the cluster removes it soon", "err", err)
		}
		stop()
		cancel()
	}
	n.replica.Snapshots.TakeLast(ctx)
	return errors.Join(errs.Edge("handing over", err), n.Close())
}

// Leave is Shutdown for good: it also removes this node from the cluster. The next process with its
// directory starts as a new node. The last member cannot leave. If the cluster does not confirm the
// removal, Leave returns an error and the node stays open.
func (n *Node) Leave(ctx context.Context) error {
	if n.life.Open.Err() != nil {
		return ErrClosed
	}
	if len(n.replica.Others()) == 0 {
		return errs.Edge("leaving", errors.New("this node is the cluster's only member; use Shutdown, or delete its directory"))
	}
	ctx, stop := n.life.WhileOpen(ctx)
	defer stop()
	n.setLeaving(true)
	if err := n.handOver(ctx); err != nil {
		n.log.Warn("leaving without handing over", "err", err)
	}
	if err := n.depart(ctx); err != nil {
		n.setLeaving(false)
		return errs.Edge("leaving: the cluster has not confirmed it, and the node stays open", err)
	}
	err := n.members.Ident.Save(func(id *membership.Identity) { id.Left, id.Member = true, false })
	return errors.Join(errs.Edge("leaving", err), n.Close())
}

// beginAnew makes a node start as a new one, because its directory is an older copy or belongs to
// an older incarnation of the cluster. It sets the old state aside, before the node has done
// anything with it.
func (n *Node) beginAnew(ctx context.Context, why *membership.RefusedError) error {
	aside := durable.AsideName(time.Now())
	old := n.self.ID
	if err := n.members.Ident.Save(func(id *membership.Identity) { id.Aside = aside }); err != nil {
		return &ConfigError{Field: "Dir", Reason: "the node's identity cannot be written", Err: err}
	}
	n.log.Warn("this node cannot go on with its data directory; its state is set aside, and it joins as a new node", "event", event.NodeReset, "former", old, "aside", filepath.Join(n.replica.Dir.Path(), aside), "why", why)
	if err := errors.Join(n.replica.Port.Close(), n.replica.EndRaft(), n.replica.Dir.Close()); err != nil {
		return fmt.Errorf("setting the state aside: %w", err)
	}
	// These parts belong to the former node.
	n.replica, n.leases, n.members, n.roles, n.ops = nil, nil, nil, nil, nil
	return n.attach(ctx)
}
