package flotilla

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/lease"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/ops"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/roles"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/self"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/certs"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/frontend"
	"github.com/flotilla-ha/flotilla/internal/frontend/tickets"
	"github.com/flotilla-ha/flotilla/internal/history"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/slogbridge"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

const (
	companyTime  = 5 * time.Second        // how long the first orders of a node wait for the other members
	companyPause = 250 * time.Millisecond // and then for them to open their ports
	settleTime   = 2 * time.Second        // how long a first certificate is kept back at the most
)

// Node is one running member of a cluster, or one on its way to become that. It is open from Open until Close, Shutdown
// or Leave; there are no other states. Methods are safe for concurrent use. A context bounds the call that it is given to and
// is not kept.
type Node struct {
	cfg     Config
	timing  timing.Timing
	secrets []seal.Secret
	log     *slog.Logger
	life    *lifecycle.Life
	label   atomic.Pointer[string] // the node's name in the log; nil: not known yet

	// What does not depend on the directory: made by open.
	store   *applied.Store
	fsm     *fsm
	book    *peers.Table
	clocks  *clocks.Clocks
	storage *Storage
	own     *ownStorage // what TLS.PerNode keeps from the others
	certs   *certs.Certs
	tickets *tickets.Sealer
	space   *spaceWatch
	remarks remarks

	frontend *frontend.Server // its own and the programs' listeners for clients

	// What does: made by attach, once or, for a node that begins anew, twice.
	self    *self.Self
	replica *replica.Replica
	keeper  *lease.Manager
	members *membership.Membership
	roles   *roles.Holder
	ops     *ops.Operator
	waiting *waiting

	closeOnce sync.Once
}

// Open starts a node and returns once its files, keys and ports are found right: it listens for peers then, and looks for its
// cluster in the background. It does not wait for a leader; Ready does. What is wrong is told by a *ConfigError, and
// nothing has been written then. The context bounds the call to Open alone.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	return open(ctx, cfg, func(*Node) error { return nil })
}

// open is Open. first is done before anything is written, and before anybody hears of the node.
func open(ctx context.Context, cfg Config, first func(*Node) error) (*Node, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("flotilla: opening a node: %w", context.Cause(ctx))
	}
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, timing: cfg.Timing.lengths().At(cfg.rate), life: lifecycle.New(), store: applied.New()}
	for _, s := range cfg.Secrets {
		n.secrets = append(n.secrets, s.raw)
	}
	n.book = peers.NewTable(n.store)
	n.log = slogbridge.NewNamed(cfg.Logger, n.book.Name, func() string {
		if label := n.label.Load(); label != nil {
			return *label
		}
		return ""
	})
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
	n.life.Tasks.Go(func() { n.keeper.Run(n.life.Works) })
	n.life.Tasks.Go(func() { n.replica.KeepDisk(n.life.Works) })
	n.life.Tasks.Go(func() { n.run(n.life.Works) })
	n.life.Tasks.Go(func() { n.waiting.run(n.life.Works) })
	return n, nil
}

// open makes what does not depend on the directory, and attaches the node.
func (n *Node) open(ctx context.Context, first func(*Node) error) error {
	ready := func() bool { return n.keeper.IsReady() }
	n.fsm = newFSM(fsmConfig{
		store:    n.store,
		secrets:  n.secrets,
		log:      n.log,
		failed:   func(err error) { n.replica.Fail(err) },
		told:     n.told,
		restored: func(s *state.State) (*state.State, error) { return n.replica.Restored(s) },
	})
	n.tickets = tickets.New(n.cfg.TLS.TicketRotation, ready)
	n.space = &spaceWatch{maxState: n.cfg.MaxState, log: n.log}
	n.storage = newStorage(func() *storageNode {
		return &storageNode{cfg: n.cfg, log: n.log, life: n.life, self: n.self, store: n.store, replica: n.replica, keeper: n.keeper, roles: n.roles, dropTickets: n.DropTickets}
	})
	var storage certmagic.Storage = n.storage
	n.own = newOwnStorage(n.storage, func(site string) { n.certs.Stored(site) })
	if n.cfg.TLS.PerNode {
		storage = n.own
	}
	n.frontend = frontend.New(n.log, n.cfg.Proxies)
	n.clocks = clocks.New(clocks.Config{Skew: n.cfg.skew, Changed: n.life.Changed.Notify, Name: n.book.NameOf, Log: n.log})
	var err error
	t := n.cfg.TLS
	cfg := certs.Config{
		Policy:         certs.Policy{Email: t.Email, CA: t.CA, Private: t.Private, TrustedRoots: t.TrustedRoots, Configure: t.Configure},
		Development:    n.cfg.development() || n.cfg.TLS.Private,
		RedirectStatus: n.cfg.Redirect,
		Storage:        storage,
		Shared:         n.storage,
		Ready:          n.Ready,
		AwaitPeers:     n.company,
		Barrier:        n.settled,
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
	return n.attach(ctx)
}

// attach takes the directory and the port, and makes what depends on them.
func (n *Node) attach(ctx context.Context) (err error) {
	var dir *durable.Dir
	id, written := membership.NewIdentity(n.secrets), false
	if n.cfg.Dir != "" {
		if dir, err = replica.LockDir(n.cfg.Dir); err != nil {
			return err
		}
		if id, written, err = membership.LoadIdentity(dir, n.secrets); err != nil {
			return errors.Join(err, dir.Close())
		}
	}
	if n.cfg.TLS.PerNode {
		if err := n.own.open(dir, n.secrets); err != nil {
			return errors.Join(err, closeDir(dir))
		}
	}
	opened := make(chan struct{}) // neither the disk nor a peer is heard before all is there
	defer close(opened)
	var member *replica.Disk
	if id.Member {
		member, err = replica.OpenDisk(dir, replica.DiskOptions{Fault: n.cfg.diskFault, Log: n.log, Failed: func(err error) {
			<-opened
			if n.replica != nil { // else Open fails for another reason
				n.replica.DiskFailed(err)
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
		err = &ConfigError{Field: "Addr", Reason: "the node cannot listen for its peers at " + n.cfg.Addr + listenRemedy(err), Err: err}
		return errors.Join(err, closeAll())
	}
	if written {
		id.Starts++
	}
	n.self = &self.Self{ID: id.ID, Incarnation: self.NewIncarnation(id.Starts), Name: cmp.Or(n.cfg.Name, id.Name), Addr: cmp.Or(n.cfg.Advertise, dialable(listener.Addr()))}
	if n.self.Name == "" {
		n.self.Name = machineName()
	}
	n.label.Store(&n.self.Name)
	for _, m := range id.Peers {
		n.book.Learn(m)
	}
	port, err := n.openPeerPort(listener, opened)
	if err != nil {
		return errors.Join(err, listener.Close(), closeAll())
	}
	n.assemble(membership.NewIdentityFile(dir, id), dir, member, port)
	n.book.Observe(n.members.AsMember(), n.self.Incarnation, 0)
	// Before anybody hears of this node: those who do count on its being the same one when it is back.
	if err := n.members.Ident.Save(func(now *membership.Identity) {
		now.Processes = membership.Shorten(append(slices.Clone(now.Processes), n.self.Incarnation))
	}); err != nil {
		return &ConfigError{Field: "Dir", Reason: "the node's identity cannot be written", Err: err}
	}
	return n.replica.MakePrivate()
}

// closeDir closes a directory, if there is one.
func closeDir(dir *durable.Dir) error {
	if dir == nil {
		return nil
	}
	return dir.Close()
}

// openPeerPort opens the port for peers. What they say is heard once opened is closed.
func (n *Node) openPeerPort(listener net.Listener, opened <-chan struct{}) (*wire.Port, error) {
	return wire.Open(wire.Config{
		ID:       n.self.ID,
		Process:  n.self.Incarnation,
		Secrets:  n.secrets,
		Listener: listener,
		Dial:     n.cfg.PeerDial,
		Resolve:  n.book.Addr,
		Company:  n.timing.Renewal(),
		Logger:   n.log,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-opened
			n.handler().ServeHTTP(w, r)
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
		Sum:     func(index, term uint64) (uint64, bool) { return n.replica.SumAt(index, term) },
		Compare: func(peer string, term uint64, c history.Claim) error { return n.replica.CompareLog(peer, term, c) },
		Term:    func() uint64 { return n.replica.Term() },
		Stalled: func() bool { return n.replica.Stalled() },
		Gone: func(id string) {
			<-opened
			n.replica.StandForDead(id, n.replica.Port.Transport().LedBy(id))
		},
		Applied: func(index uint64) error { return n.replica.AwaitApplied(index) },
		Noted: func(peer string, note []byte) {
			<-opened
			n.keeper.OnDatagram(peer, note)
		},
		Will: func(ctx context.Context, node string, number uint64) error {
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

// assemble makes the parts of a node that take part in its cluster, each of what is below it.
func (n *Node) assemble(ident *membership.IdentityFile, dir *durable.Dir, member *replica.Disk, port *wire.Port) {
	n.replica = replica.New(replica.Config{
		Timing: n.timing, Fault: n.cfg.diskFault, Secrets: n.secrets, Log: n.log, Life: n.life, Self: n.self, Store: n.store, FSM: n.fsm, Book: n.book, Dir: dir, Member: member, Port: port,
		Up: replica.Up{
			ClusterID: ident.ClusterID,
			IsMember:  func() bool { return ident.Identity().Member },
			IsCurrent: func() bool { return n.keeper.Current.Load() },
			Rewrite:   func() error { return ident.Save(func(*membership.Identity) {}) },
			Excuse:    func(ctx context.Context) { n.members.AnnounceLoss(ctx) },
			FlushOwn:  n.own.flush,
			Lead:      n.lead,
			LoseLease: func(cause error) uint64 { return n.keeper.Lose(cause) },
			WakeLease: func() { n.keeper.Wake() },
			ServeOpen: func(ctx context.Context, peer string, body []byte) ([]byte, error) {
				return n.members.ServeOpen(ctx, peer, body)
			},
			ServeEnd: func(ctx context.Context, peer string, body []byte) ([]byte, error) {
				return n.members.ServeEnd(ctx, peer, body)
			},
		},
	})
	n.keeper = lease.New(lease.Config{
		Timing: n.timing, Held: n.cfg.held, Log: n.log, Life: n.life, Self: n.self, Store: n.store, Book: n.book, Clocks: n.clocks, Replica: n.replica,
		OnLost: func(session uint64, end time.Time, cause error) { n.roles.OnLost(session, end, cause) },
	})
	n.members = membership.New(membership.Config{
		Peers: n.cfg.Peers, Expect: n.cfg.Expect, RemoveDead: n.cfg.RemoveDead, Timing: n.timing, Log: n.log, Life: n.life, Self: n.self, Ident: ident, Store: n.store, Book: n.book, Port: port, Replica: n.replica, Keeper: n.keeper,
		Up: membership.Up{
			OwnSettings: n.ownSettings,
			StillSeen:   func(session uint64) bool { return n.roles.IsVisible(session) },
		},
	})
	n.roles = roles.New(roles.Config{
		MaxState: n.cfg.MaxState, Timing: n.timing, Log: n.log, Life: n.life, Self: n.self, Store: n.store, Peers: n.book, Replica: n.replica, Lease: n.keeper,
	})
	n.ops = ops.New(ops.Config{
		Timing: n.timing, Log: n.log, Life: n.life, Self: n.self, Store: n.store, Peers: n.book, Replica: n.replica, Members: n.members, Roles: n.roles,
		Up: ops.Up{
			Status: func() ([]byte, bool, error) {
				s := n.Status()
				b, err := json.Marshal(s)
				return b, s.Ready || s.Err != "", err
			},
			Records:  n.storage,
			StoreAll: n.storage.storeAll,
		},
	})
	n.waiting = newWaiting(n.log, n.life.Changed.Notify, n.conditions()...)
}

// run leads the node into its cluster and keeps it there.
func (n *Node) run(ctx context.Context) {
	if err := n.members.Enter(ctx); err != nil {
		n.members.GiveUp(err)
		return
	}
	n.replica.Entered.Store(true)
	n.replica.Troubled.Notify()
	n.life.Tasks.Go(func() { n.members.Remember(ctx) })
	n.life.Tasks.Go(func() { n.lookAround(ctx) })
	n.life.Tasks.Go(func() { n.maintain(ctx) })
	n.life.Tasks.Go(func() { n.certs.CleanOwn(ctx) })
	n.life.Tasks.Go(func() { n.replica.KeepSnapshots(ctx) })
	var lost uint64 // the session whose lease has lapsed
	for ctx.Err() == nil {
		setbacks := n.life.Setbacks.Load()
		n.replica.Until(ctx, n.replica.CatchUp)
		n.keeper.CatchUp()
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

// lookAround greets the peers while there is no leader: they, or this node, may have moved, or it may have been removed. It tells them besides when
// what they compare has changed, such as the domains that are served.
func (n *Node) lookAround(ctx context.Context) {
	var told membership.Settings
	for first := true; ; first = false {
		own := n.ownSettings()
		if n.replica.Leader() == "" || first {
			if r := n.members.Greet(ctx); r.Err != nil && ctx.Err() == nil {
				n.members.GiveUp(r.Err)
				return
			}
		} else if len(own.Differ(told)) > 0 || len(own.Values) != len(told.Values) {
			n.members.Greet(ctx) // only to tell: what is answered is for those who look for their cluster
		}
		told = own
		select {
		case <-time.After(n.timing.Greeting()):
		case <-ctx.Done():
			return
		}
	}
}

// Ready waits until this node is a member of a cluster with a leader and has caught up with it. It returns at once when the
// node cannot get there: with ErrClosed, or with the reason. When ctx ends first, the error tells what was missing.
func (n *Node) Ready(ctx context.Context) error {
	err := n.keeper.AwaitReady(ctx)
	if err == nil || errors.Is(err, ErrClosed) || n.life.Works.Err() != nil {
		return errs.Edge("node is not ready", err)
	}
	return errs.Edge("node is not ready: "+n.members.WhyNot(), err)
}

// Storage returns the cluster's storage for certmagic, which is also good for small records of your own.
func (n *Node) Storage() *Storage { return n.storage }

// Close ends the node at once. It stays a member; what it holds is another's when its lease has lapsed. Functions of Hold that have not
// returned are waited for until then.
// It returns ErrClosed when the node is closed already.
func (n *Node) Close() error {
	err := error(ErrClosed)
	n.closeOnce.Do(func() { err = n.shut() })
	return err
}

func (n *Node) shut() error {
	if n.replica == nil { // it has no port, and so no part in anything
		n.life.End(ErrClosed)
		if n.certs != nil {
			n.certs.Close()
		}
		n.life.Tasks.Close()
		return nil
	}
	n.keeper.Lose(ErrClosed) // before others can think that this process is gone
	n.life.End(ErrClosed)
	n.life.Changed.Notify()
	n.certs.Close()
	failed := []error{n.replica.Port.Close()}
	n.life.Tasks.Close() // one of them may just be starting raft
	ended := n.replica.EndRaft()
	if failed = append(failed, ended); ended == nil {
		n.replica.LeaveDir()
	}
	n.own.flush()
	n.roles.AwaitEnd(n.keeper.Until()) // the directory's next process ends this one's session
	return errs.Edge("closing", errors.Join(append(failed, closeDir(n.replica.Dir))...))
}

// Shutdown hands over what this node leads and holds, and closes it. It stays a member and is expected back, unless it has no directory: then
// it leaves, for it could not come back. When ctx ends first, the node is closed all the same, and the error says what was not done. When no
// majority of the voters stays, because the others leave too or are gone, there is nobody to hand over to: it does not wait then, and that is no
// error.
func (n *Node) Shutdown(ctx context.Context) error {
	if n.life.Open.Err() != nil {
		return ErrClosed
	}
	n.startLeaving()
	err := n.handOver(ctx)
	if n.replica.Dir == nil && n.replica.Raft.Load() != nil && n.life.Failure() == nil && len(n.replica.Others()) > 0 {
		ctx, cancel := context.WithTimeout(ctx, n.replica.AttemptTimeout())
		ctx, stop := n.replica.WhileSomebodyStays(ctx, 0)
		if err := n.depart(ctx); err != nil {
			n.log.Info("this node cannot come back, and has not left the cluster, which removes it when it has noticed", "err", err)
		}
		stop()
		cancel()
	}
	n.replica.LastSnapshot(ctx)
	return errors.Join(errs.Edge("handing over", err), n.Close())
}

// Leave is Shutdown for good: the cluster counts this node no more, and its directory starts as a new one the next time. The
// last member cannot leave.
func (n *Node) Leave(ctx context.Context) error {
	if n.life.Open.Err() != nil {
		return ErrClosed
	}
	if len(n.replica.Others()) == 0 {
		return errs.Edge("leaving", errors.New("this node is the cluster's only member; use Shutdown, or delete its directory"))
	}
	ctx, stop := n.life.WhileOpen(ctx)
	defer stop()
	n.startLeaving()
	if err := n.handOver(ctx); err != nil {
		n.log.Warn("leaving without handing over", "err", err)
	}
	if err := n.depart(ctx); err != nil {
		n.stopLeaving()
		return errs.Edge("leaving: the cluster has not confirmed it, and the node stays open", err)
	}
	err := n.members.Ident.Save(func(id *membership.Identity) { id.Left, id.Member = true, false })
	return errors.Join(errs.Edge("leaving", err), n.Close())
}

// depart has the cluster count this node no more.
func (n *Node) depart(ctx context.Context) error {
	for {
		changed := n.life.Changed.Wait()
		leader, err := n.replica.Leader(), error(ErrNoLeader)
		if leader == n.self.ID { // a voter may have come since it handed over
			attempt, cancel := context.WithTimeout(ctx, n.replica.AttemptTimeout())
			if err = n.replica.Transfer(attempt, ""); err == nil {
				err = errors.New("this node still leads")
			}
			cancel()
		} else if leader != "" {
			_, err = rpc.Call[state.Member](ctx, n.replica.Port, leader, rpc.Leave, n.members.AsMember())
		}
		if err == nil {
			return nil
		}
		select {
		case <-changed:
		case <-time.After(n.timing.Retry()):
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// beginAnew has a node whose directory is an older copy begin again as a new one, before anything has come
// of it.
func (n *Node) beginAnew(ctx context.Context, why *membership.RefusedError) error {
	aside := durable.AsideName(time.Now())
	old := n.self.ID
	if err := n.members.Ident.Save(func(id *membership.Identity) { id.Aside = aside }); err != nil {
		return &ConfigError{Field: "Dir", Reason: "the node's identity cannot be written", Err: err}
	}
	n.log.Error("this node's data directory is an older copy; its state is set aside, and it joins as a new node", "node", old, "aside", filepath.Join(n.replica.Dir.Path(), aside), "why", why)
	if err := errors.Join(n.replica.Port.Close(), n.replica.EndRaft(), n.replica.Dir.Close()); err != nil {
		return fmt.Errorf("setting the state aside: %w", err)
	}
	n.replica, n.keeper, n.members, n.roles, n.ops = nil, nil, nil, nil, nil // they are those of the node that this one was
	return n.attach(ctx)
}
