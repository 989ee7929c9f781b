package flotilla

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/frontend"
	"github.com/flotilla-ha/flotilla/internal/frontend/tickets"
	"github.com/flotilla-ha/flotilla/internal/history"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/slogbridge"
	"github.com/flotilla-ha/flotilla/internal/state"
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
	pace    pace
	log     *slog.Logger
	secrets []seal.Secret
	id      string // of the node, for as long as it has its directory
	boot    string // of this process
	name    string
	addr    string // what peers dial

	dir     *durable.Dir // nil: in memory
	port    *wire.Port
	fsm     *fsm
	keeper  *keeper
	tenures *tenures
	book    *book
	writes  *proposer
	storage *Storage
	own     *ownStorage // what TLS.PerNode keeps from the others
	certs   *certs
	clocks  *clocks.Clocks
	tickets *tickets.Sealer
	space   *spaceWatch

	frontend *frontend.Server // its own and the programs' listeners for clients

	// life ends with Close, works with Close or when the node can go on no more. They are the node's own, no caller's.
	life, works context.Context
	end, break_ context.CancelCauseFunc
	tasks       notify.Tasks
	closeOnce   sync.Once

	raft    atomic.Pointer[instance]
	watches sync.WaitGroup // watchRaft
	disk    atomic.Pointer[disk]
	chain   atomic.Pointer[history.Log] // raft's log, and what stands for it
	marking chan struct{}               // closed when keepMark has ended; nil: in memory
	entered atomic.Bool                 // has a log, and raft was started on it: keepDisk looks after it from then on

	setback     atomic.Pointer[setback] // nil: the disk does what it should
	setbacks    atomic.Uint64           // how many there have been
	lostSession atomic.Uint64           // the last session that one of them ended
	troubled    notify.Signal           // there is work for keepDisk
	looks       notify.Signal           // it is time to look at the directory

	leading  atomic.Pointer[leadership] // nil unless this node leads and has applied an entry of its term
	current  atomic.Bool                // has caught up with a leader since it was started
	first    atomic.Int64               // when it was ready for the first time, in nanoseconds since keeper.started
	leaving  atomic.Bool                // on the way out: opens no session
	drained  atomic.Bool                // takes no new connections
	aside    atomic.Bool                // an operator has drained it, until he undoes that: holds no roles, and wants no new clients
	changed  notify.Signal              // any of the above, raft's leader, or what is known of certificates
	sessions notify.Signal              // the state has other sessions or other servers
	presence presence
	remarks  remarks
	greeted  notify.Signal // a peer has said hello

	snapshots chan struct{} // an element asks for one, see snapshotSoon

	waitsFor   atomic.Pointer[string] // why the node is not in a cluster yet, or what keeps it from getting ready
	unanswered unanswered
	settings   peerSettings
	waiting    *waiting

	forming forming // how long it has been waiting for others to form a cluster

	saving sync.Mutex // held to change ident
	ident  atomic.Pointer[identity]
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
	n := &Node{cfg: cfg, pace: cfg.Timing.pace().by(cfg.rate), log: cfg.Logger, snapshots: make(chan struct{}, 1)}
	for _, s := range cfg.Secrets {
		n.secrets = append(n.secrets, s.raw)
	}
	n.life, n.end = context.WithCancelCause(context.Background())
	n.works, n.break_ = context.WithCancelCause(n.life)
	n.fsm = newFSM(n.secrets, n.log, func(err error) { n.fail(err) }, n.told)
	n.keeper, n.tenures = newKeeper(n), newTenures()
	n.tickets = tickets.New(cfg.TLS.TicketRotation, n.isReady)
	n.writes = newProposer(n)
	n.storage = newStorage(n)
	err := n.open(ctx, first)
	if err == nil {
		err = n.audit(ctx)
		if older := new(refusedError); errors.As(err, &older) {
			err = n.beginAnew(ctx, older)
		}
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.tasks.Go(func() { n.writes.run(n.works) })
	n.tasks.Go(func() { n.keeper.run(n.works) })
	n.tasks.Go(func() { n.keepDisk(n.works) })
	n.tasks.Go(func() { n.run(n.works) })
	n.tasks.Go(func() { n.waiting.run(n.works) })
	return n, nil
}

// open prepares what does not hang on the directory, and attaches the node.
func (n *Node) open(ctx context.Context, first func(*Node) error) error {
	var err error
	var storage certmagic.Storage = n.storage
	own := newOwnStorage(n.storage, func(site string) { n.certs.stored(site) })
	if n.own = own; n.cfg.TLS.PerNode {
		storage = own
	}
	n.frontend = frontend.New(n.log, n.cfg.Proxies)
	n.clocks = clocks.New(clocks.Config{Skew: n.cfg.skew, Changed: n.changed.Notify, Name: n.nameOf, Log: n.log})
	t := n.cfg.TLS
	n.certs, err = newCerts(certConfig{
		policy:         certPolicy{Email: t.Email, CA: t.CA, Private: t.Private, TrustedRoots: t.TrustedRoots, Configure: t.Configure},
		development:    n.cfg.development() || n.cfg.TLS.Private,
		redirectStatus: n.cfg.Redirect,
		storage:        storage,
		shared:         n.storage,
		ready:          n.Ready,
		company:        n.company,
		settled:        n.settled,
		current:        n.isReady,
		cluster:        n.clusterID,
		changed:        n.changed.Notify,
		peek: func(key string) ([]byte, bool) {
			r, ok := n.fsm.state().Records.Get(keyspace.Tree(key))
			if !ok {
				return nil, false
			}
			return r.Value, true
		},
		node:   func() string { return n.name },
		clocks: n.clocks,
		limit:  frontend.Slots{},
		log:    n.log,
	})
	if err != nil {
		return err
	}
	if err := first(n); err != nil {
		return err
	}
	return n.attach(ctx)
}

// attach takes the directory and the port.
func (n *Node) attach(ctx context.Context) (err error) {
	written := false
	if n.cfg.Dir == "" {
		n.ident.Store(newIdentity(n.secrets))
	} else {
		if n.dir, err = lockDir(n.cfg.Dir); err != nil {
			return err
		}
		var id *identity
		if id, written, err = loadIdentity(n.dir, n.secrets); err != nil {
			return err
		}
		n.ident.Store(id)
	}
	if n.cfg.TLS.PerNode {
		if err := n.own.open(n.dir, n.secrets); err != nil {
			return err
		}
	}
	ident := n.identity()
	starts := ident.Starts
	if written {
		starts++
	}
	n.id, n.boot = ident.ID, newBoot(starts)
	n.name = n.cfg.Name
	if n.name == "" {
		n.name = ident.Name
	}
	if n.name == "" {
		n.name = machineName()
	}
	n.book = newBook(n.fsm, ident.Peers)
	n.log = slogbridge.NewNamed(n.cfg.Logger, n.book.name).With("node", n.name)
	n.space = &spaceWatch{maxState: n.cfg.MaxState, log: n.log}
	if ident.Member {
		if err := n.openDisk(false); err != nil {
			return err
		}
	}
	listener, err := n.cfg.Listen("tcp", n.cfg.Addr)
	if err != nil {
		return &ConfigError{Field: "Addr", Reason: "the node cannot listen for its peers at " + n.cfg.Addr + listenRemedy(err), Err: err}
	}
	if n.addr = n.cfg.Advertise; n.addr == "" {
		n.addr = dialable(listener.Addr())
	}
	n.book.hear(n.self(), n.boot, 0)
	// Before anybody hears of this node: those who do count on its being the same one when it is back.
	if err := n.save(func(id *identity) {
		id.Starts, id.Processes = starts, shorten(append(slices.Clone(id.Processes), n.boot))
	}); err != nil {
		return errors.Join(&ConfigError{Field: "Dir", Reason: "the node's identity cannot be written", Err: err}, listener.Close())
	}
	if err := n.makePrivate(); err != nil {
		return errors.Join(err, listener.Close())
	}
	n.waiting = newWaiting(n.log, n.changed.Notify, n.conditions()...)
	n.forming.heard()
	opened := make(chan struct{}) // nobody is answered before n.port is there
	defer close(opened)
	handler := n.handler()
	n.port, err = wire.Open(wire.Config{
		ID:       n.id,
		Process:  n.boot,
		Fresh:    n.fresh,
		MayLead:  n.mayLead,
		Secrets:  n.secrets,
		Listener: listener,
		Dial:     n.cfg.Dial,
		Resolve:  n.book.addr,
		Admit:    n.admit,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-opened
			handler.ServeHTTP(w, r)
		}),
		Sum:     n.sumAt,
		Compare: n.compareLog,
		Term:    n.term,
		Stalled: n.stalled,
		Gone:    func(id string) { n.standForDead(id, n.port.Transport().LedBy(id)) },
		Applied: n.awaitApplied,
		Noted:   n.keeper.noted,
		Will:    n.serveWill,
		Matched: func(id string) {
			if l := n.leading.Load(); l != nil {
				l.acks.matched(id)
			}
		},
		Company: n.pace.renewal(),
		Logger:  n.log,
	})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	return nil
}

// run leads the node into its cluster and keeps it there.
func (n *Node) run(ctx context.Context) {
	if err := n.enter(ctx); err != nil {
		n.giveUp(err)
		return
	}
	n.entered.Store(true)
	n.troubled.Notify()
	n.tasks.Go(func() { n.remember(ctx) })
	n.tasks.Go(func() { n.lookAround(ctx) })
	n.tasks.Go(func() { n.maintain(ctx) })
	n.tasks.Go(func() { n.certs.cleanOwn(ctx) })
	n.tasks.Go(func() { n.keepSnapshots(ctx) })
	var lost uint64 // the session whose lease has lapsed
	for ctx.Err() == nil {
		setbacks := n.setbacks.Load()
		n.until(ctx, n.catchUp)
		n.keeper.catchUp()
		n.until(ctx, func(ctx context.Context) error { return n.openSession(ctx, lost) })
		n.noteSession()
		lost = n.live(ctx, setbacks)
		for changed := n.changed.Wait(); n.leaving.Load() && ctx.Err() == nil; changed = n.changed.Wait() {
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
	var told settings
	for first := true; ; first = false {
		own := n.ownSettings()
		if n.leader() == "" || first {
			if r := n.greet(ctx); r.err != nil && ctx.Err() == nil {
				n.giveUp(r.err)
				return
			}
		} else if len(own.differ(told)) > 0 || len(own.Values) != len(told.Values) {
			n.greet(ctx) // only to tell: what is answered is for those who look for their cluster
		}
		told = own
		select {
		case <-time.After(5 * n.pace.lease):
		case <-ctx.Done():
			return
		}
	}
}

// askLeader calls whoever leads, this node too.
func (n *Node) askLeader(ctx context.Context, path string, body []byte) ([]byte, error) {
	switch leader := n.leader(); leader {
	case "":
		return nil, ErrNoLeader
	case n.id:
		switch path {
		case callOpen:
			return n.serveOpen(ctx, n.id, body)
		case callEnd:
			return n.serveEnd(ctx, n.id, body)
		}
		return n.serveConfirm(ctx, n.id, body)
	default:
		return n.port.Call(ctx, leader, path, body)
	}
}

// fail ends what this node does in the cluster, for a reason that trying again would not change. What it has in memory it goes
// on serving.
func (n *Node) fail(err error) {
	if n.works.Err() != nil {
		return
	}
	n.log.Error("this node can take no part in the cluster any more", "err", err)
	n.keeper.lose(err) // before others can think that this process is gone
	n.port.Transport().Stop()
	n.break_(err)
	n.tasks.Go(func() { n.port.Close() }) // a port that refuses tells the others at once
	if r := n.raft.Load(); r != nil {
		r.shutdown() // not waited for: raft may hang in the very fault that brought us here
	}
	n.changed.Notify()
}

// failure returns why the node takes no part in the cluster, for good or for now; nil if it does.
func (n *Node) failure() error {
	switch s := n.setback.Load(); {
	case n.life.Err() != nil:
		return nil
	case n.works.Err() != nil:
		return context.Cause(n.works)
	case s != nil:
		return s.err
	}
	return nil
}

// whileOpen returns a context that also ends when the node closes or fails, with that cause.
func (n *Node) whileOpen(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(n.works, func() { cancel(context.Cause(n.works)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// Ready waits until this node is a member of a cluster with a leader and has caught up with it. It returns at once when the
// node cannot get there: with ErrClosed, or with the reason. When ctx ends first, the error tells what was missing.
func (n *Node) Ready(ctx context.Context) error {
	err := n.awaitReady(ctx)
	if err == nil || errors.Is(err, ErrClosed) || n.works.Err() != nil {
		return edge("node is not ready", err)
	}
	return edge("node is not ready: "+n.whyNot(), err)
}

// isReady reports whether this node has a session and a lease, by the clock.
func (n *Node) isReady() bool {
	return n.current.Load() && n.works.Err() == nil && n.setback.Load() == nil && n.keeper.valid()
}

// awaitReady waits until this node has a session and a lease.
func (n *Node) awaitReady(ctx context.Context) error {
	ctx, stop := n.whileOpen(ctx)
	defer stop()
	for {
		changed, renewed := n.changed.Wait(), n.keeper.renewed.Wait()
		if n.isReady() {
			return nil
		}
		select {
		case <-changed:
		case <-renewed: // a lease that was over may last again
		case <-ctx.Done():
			return n.lifeError(context.Cause(ctx))
		}
	}
}

// whyNot says what the node is waiting for.
func (n *Node) whyNot() string {
	if s := n.setback.Load(); s != nil {
		return s.err.Error()
	}
	why := "the cluster has no leader that it can reach"
	if n.raft.Load() == nil {
		why = "it has found no cluster yet"
		if w := n.waitsFor.Load(); w != nil {
			why = *w
		}
	}
	if all := n.unreachable(); all != "" {
		why += "; " + all
	}
	return why
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
	n.keeper.lose(ErrClosed) // before others can think that this process is gone
	n.end(ErrClosed)
	n.changed.Notify()
	var errs []error
	if n.certs != nil {
		n.certs.close()
	}
	if n.port != nil {
		errs = append(errs, n.port.Close())
	}
	n.tasks.Close() // one of them may just be starting raft
	ended := n.endRaft()
	if errs = append(errs, ended); ended == nil {
		n.leaveDir()
	}
	if n.own != nil {
		n.own.flush()
	}
	n.tenures.awaitEnd(n.keeper.until()) // the directory's next process ends this one's session
	if n.dir != nil {
		errs = append(errs, n.dir.Close())
	}
	return edge("closing", errors.Join(errs...))
}

// Shutdown hands over what this node leads and holds, and closes it. It stays a member and is expected back, unless it has no directory: then
// it leaves, for it could not come back. When ctx ends first, the node is closed all the same, and the error says what was not done. When no
// majority of the voters stays, because the others leave too or are gone, there is nobody to hand over to: it does not wait then, and that is no
// error.
func (n *Node) Shutdown(ctx context.Context) error {
	if n.life.Err() != nil {
		return ErrClosed
	}
	n.startLeaving()
	err := n.handOver(ctx)
	if n.dir == nil && n.raft.Load() != nil && n.failure() == nil && len(n.others()) > 0 {
		ctx, cancel := context.WithTimeout(ctx, n.attemptTimeout())
		ctx, stop := n.whileSomebodyStays(ctx, 0)
		if err := n.depart(ctx); err != nil {
			n.log.Info("this node cannot come back, and has not left the cluster, which removes it when it has noticed", "err", err)
		}
		stop()
		cancel()
	}
	n.lastSnapshot(ctx)
	return errors.Join(edge("handing over", err), n.Close())
}

// Leave is Shutdown for good: the cluster counts this node no more, and its directory starts as a new one the next time. The
// last member cannot leave.
func (n *Node) Leave(ctx context.Context) error {
	if n.life.Err() != nil {
		return ErrClosed
	}
	if len(n.others()) == 0 {
		return edge("leaving", errors.New("this node is the cluster's only member; use Shutdown, or delete its directory"))
	}
	ctx, stop := n.whileOpen(ctx)
	defer stop()
	n.startLeaving()
	if err := n.handOver(ctx); err != nil {
		n.log.Warn("leaving without handing over", "err", err)
	}
	if err := n.depart(ctx); err != nil {
		n.stopLeaving()
		return edge("leaving: the cluster has not confirmed it, and the node stays open", err)
	}
	err := n.save(func(id *identity) { id.Left, id.Member = true, false })
	return errors.Join(edge("leaving", err), n.Close())
}

// depart has the cluster count this node no more.
func (n *Node) depart(ctx context.Context) error {
	for {
		changed := n.changed.Wait()
		leader, err := n.leader(), error(ErrNoLeader)
		if leader == n.id { // a voter may have come since it handed over
			attempt, cancel := context.WithTimeout(ctx, n.attemptTimeout())
			if err = n.transfer(attempt, ""); err == nil {
				err = errors.New("this node still leads")
			}
			cancel()
		} else if leader != "" {
			_, err = call[state.Member](ctx, n, leader, callLeave, n.self())
		}
		if err == nil {
			return nil
		}
		select {
		case <-changed:
		case <-time.After(n.pace.lease / 6):
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// lifeError replaces a context's error by why the node ended, if it did.
func (n *Node) lifeError(err error) error {
	if n.works.Err() != nil {
		return context.Cause(n.works)
	}
	return err
}

// because is lifeError for those who waited in vain: a setback is why.
func (n *Node) because(err error) error {
	if s := n.setback.Load(); s != nil && n.works.Err() == nil {
		return fmt.Errorf("%w: %w", err, s.err)
	}
	return n.lifeError(err)
}

// edge prefixes an error on its way to a caller.
func edge(doing string, err error) error {
	if err == nil || errors.Is(err, net.ErrClosed) && errors.Is(err, ErrClosed) {
		return err
	}
	return fmt.Errorf("flotilla: %s: %w", doing, err)
}
