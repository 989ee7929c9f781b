package lease

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/self"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// What keepers tell each other, one thing after another in a note. Notes may be lost, and each thing says all that it means.
const (
	DatagramRenew   = 1 // promise a lease to my session: session, when this was sent; true: I need the answer now, not with your next note
	DatagramGrant   = 2 // the answer: session, when it was sent, and this voter's wall clock in Unix milliseconds
	DatagramExpired = 3 // to the leader: node, session, suspicion: I have applied it, and nothing binds me to that session any more
	DatagramEnded   = 4 // your session has ended: session
	DatagramLeaving = 5 // I am on my way out; false: not any more
)

// Config is what a keeper needs of the node around it.
type Config struct {
	Timing  timing.Timing
	Held    func() // called before it looks at the clock, for tests of one that comes late; nil: nothing
	Log     *slog.Logger
	Life    *lifecycle.Life
	Self    *self.Self
	Store   *applied.Store
	Book    *peers.Table
	Clocks  *clocks.Clocks
	Replica *replica.Replica
	OnLost  func(session uint64, end time.Time, cause error) // ends what is held by the lease of a session
}

// Manager keeps this node's lease, keeps its promises to others as a voter, and, while this node leads, passes the verdict on sessions
// that have fallen silent. It needs no leader for the first two, and nobody needs a disk.
type Manager struct {
	Config
	Started time.Time // times in notes of this node count from it
	poke    chan struct{}
	Renewed notify.Signal // the lease has grown, or is lost

	// useBy is until when the lease may be relied on, in nanoseconds since started: some time before its end, so that whoever holds something
	// by it can let go in time. 0: there is none.
	useBy atomic.Int64

	noneHeldDown *iradix.Tree[*state.Role] // roles without a ghost; of run alone

	idle atomic.Int64 // since when there is none, as useBy; 0: since the start

	Current atomic.Bool  // has caught up with a leader since it was started
	First   atomic.Int64 // when it was ready for the first time, in nanoseconds since keeper.started

	Mu        sync.Mutex
	Own       Held
	end       time.Time     // of the lease of the session leased; kept when it is lost
	leased    uint64        // the newest session that has or had a lease
	lost      chan struct{} // closed when own is lost; nil: there is none
	Given     *Grants
	Caught    bool                          // this node has caught up since its process started: it may have applied a suspicion before
	Reports   map[Suspicion]map[string]bool // which voters said DatagramExpired
	pending   map[SessionID]bool            // the leader's command about a session, or a ghost, is under way
	heldDown  map[HeldDown]time.Time        // since when this leader has seen it
	owed      map[string][]byte             // promises given to nodes that are told with the next note to them
	postponed []Request                     // what cannot be answered yet, one of a node
	next      time.Time                     // when run renews again
	leader    string                        // as far as run knows
	since     time.Time                     // when it was found to lead
	asking    bool                          // whether the leader's lease has lapsed
}

// Suspicion is one of a session.
type Suspicion struct {
	SessionID
	Index uint64
}

// HeldDown is what is left of a role's holder whose session ended by the entry index.
type HeldDown struct {
	role  string
	index uint64
}

// Request is one for a promise.
type Request struct {
	Node    string
	Session uint64
	sent    uint64 // when, by that node's clock
	Urgent  bool
}

func New(cfg Config) *Manager {
	now := time.Now()
	k := &Manager{
		Config: cfg, Started: now, poke: make(chan struct{}, 1),
		Own: Held{Length: cfg.Timing.Held()}, Given: NewGrants(cfg.Timing.Grant(), now),
		Reports: make(map[Suspicion]map[string]bool), pending: make(map[SessionID]bool),
		owed: make(map[string][]byte),
	}
	k.Own.Begin(0)
	return k
}

// Wake has the keeper look at everything now.
func (k *Manager) Wake() {
	select {
	case k.poke <- struct{}{}:
	default:
	}
}

// CatchUp says that this node has caught up with a leader since its process started.
func (k *Manager) CatchUp() {
	k.Mu.Lock()
	defer k.Mu.Unlock()
	k.Caught = true
	k.Wake()
}

// Begin has a lease asked for, for a session of this node. The channel is closed when the lease, once it was there, is lost: for good, since
// what it guarded is being given up.
func (k *Manager) Begin(session uint64) <-chan struct{} {
	k.Mu.Lock()
	defer k.Mu.Unlock()
	k.Own.Begin(session)
	k.lost, k.end, k.leased = make(chan struct{}), time.Time{}, session
	defer k.Wake()
	return k.lost
}

// Lose gives the lease up, and returns what session it was for, 0 if for none. What hung on it ends with that cause.
func (k *Manager) Lose(cause error) (session uint64) {
	k.Mu.Lock()
	session = k.Own.Session
	if session == 0 {
		k.Mu.Unlock()
		return 0
	}
	k.useBy.Store(0)
	k.idle.Store(int64(time.Since(k.Started)))
	k.Own.Begin(0)
	end, lost := k.end, k.lost
	k.Mu.Unlock()
	k.OnLost(session, end, cause)
	close(lost) // another session may begin from now on
	k.Life.Changed.Notify()
	k.Renewed.Notify()
	return session
}

// Valid reports whether this node has a lease that may be relied on. The clock decides, at the moment of the call: a process that stood
// still finds its lease over although nothing in it has taken note of that yet. All that a node does on its own hangs on this function. A lease
// that valid has denied may be valid again, if a promise was given before its end and arrives now; that breaks nothing, since a write
// waits for this session until the cluster has ended it.
func (k *Manager) Valid() bool { return k.Left() > 0 }

// Left returns how long the lease may be relied on if nobody renews it.
func (k *Manager) Left() time.Duration {
	return time.Duration(k.useBy.Load()) - time.Since(k.Started)
}

// Without returns since when this node has no lease. One that is over and was not given up yet has been over for no time: a process
// that stood still has not tried to get another one.
func (k *Manager) Without() time.Time {
	if k.useBy.Load() != 0 {
		return time.Now()
	}
	return k.Started.Add(time.Duration(k.idle.Load()))
}

// Usable reports whether the lease of that session may be relied on.
func (k *Manager) Usable(session uint64) bool {
	k.Mu.Lock()
	defer k.Mu.Unlock()
	return k.Own.Session == session && k.Valid()
}

// holds reports whether the lease is that session's, or is asked for it.
func (k *Manager) holds(session uint64) bool {
	k.Mu.Lock()
	defer k.Mu.Unlock()
	return session != 0 && k.Own.Session == session
}

// Until returns when the newest lease of this node ends or ended; zero if it has had none in this session.
func (k *Manager) Until() time.Time {
	k.Mu.Lock()
	defer k.Mu.Unlock()
	return k.end
}

// UntilOf is until for the lease of that session; zero if there is a newer one, which says nothing about it.
func (k *Manager) UntilOf(session uint64) time.Time {
	k.Mu.Lock()
	defer k.Mu.Unlock()
	if k.leased != session {
		return time.Time{}
	}
	return k.end
}

// margin is how long before its end a lease is given up, so that all that hangs on it has ended by then.
func (k *Manager) margin() time.Duration { return k.Timing.Margin() }

// Run renews, reports and judges until ctx ends.
func (k *Manager) Run(ctx context.Context) {
	every := k.Timing.Renewal()
	var renewal, last, looked time.Time
	awake := time.Now() // since when this loop has run without a gap
	begun := uint64(0)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-k.poke:
		case <-ctx.Done():
			return
		}
		if k.Held != nil {
			k.Held()
		}
		now := time.Now()
		if now.Sub(last) > 2*every {
			awake = now // this process stood still: what others said meanwhile is still on its way
		}
		last = now
		if now.Sub(looked) >= replica.DiskLook { // this process is awake: that costs no other timer
			looked = now
			k.Replica.Disk.Look()
		}
		session, loss := k.look(now)
		k.answerPostponed()
		if !now.Before(renewal.Add(-every/2)) || session != begun {
			k.renew(now, session)
			renewal, begun = now.Add(every), session
			k.Mu.Lock()
			k.next = renewal
			k.Mu.Unlock()
		}
		k.Clocks.Look()
		next := k.Report(now)
		k.follow(now)
		var free time.Time
		if l := k.Replica.Leading.Load(); l != nil {
			k.Evaluate(l, now, awake)
			if free = k.nextHoldDownExpiry(); !free.IsZero() {
				free = MaxTime(free, now.Add(time.Millisecond))
			}
		} else {
			k.forget()
			k.watchLeader(ctx, now, awake)
		}
		wait := renewal
		for _, t := range []time.Time{loss, next, free} {
			if !t.IsZero() && t.Before(wait) {
				wait = t
			}
		}
		timer.Reset(time.Until(wait))
	}
}

// look returns the session that has or wants a lease, and when the lease must be given up unless it is renewed; it does so if that time has
// come.
func (k *Manager) look(now time.Time) (session uint64, loss time.Time) {
	k.Mu.Lock()
	session, end := k.Own.Session, k.end
	k.Mu.Unlock()
	if session == 0 || end.IsZero() {
		return session, time.Time{}
	}
	loss = end.Add(-k.margin())
	if now.Before(loss) {
		return session, loss
	}
	k.Log.Warn("the lease has lapsed: a majority of the voters has not renewed it", "session", session)
	k.Lose(fmt.Errorf("%w: the node's lease has lapsed", errs.Lost))
	return 0, time.Time{}
}

// renew asks all voters for promises, and tells those who have asked of this node's.
func (k *Manager) renew(now time.Time, session uint64) {
	k.Mu.Lock()
	urgent := k.end.Sub(now) < k.Timing.Urgent()
	notes := k.owed
	k.owed = make(map[string][]byte)
	k.Mu.Unlock()
	if session != 0 && !k.Replica.Stalled() && k.Life.Setback.Load() == nil { // nobody is to wait for a node whose disk hangs
		var e codec.Encoder
		e.Byte(DatagramRenew)
		e.Uint(session)
		e.Uint(uint64(now.Sub(k.Started)))
		e.Bool(urgent)
		for _, id := range k.Store.State().Voters {
			if id != k.Self.ID {
				notes[id] = append(notes[id], e.B...)
			} else if k.Ask(id, session) {
				k.Granted(id, session, now)
			}
		}
	}
	for id, note := range notes {
		k.Replica.Port.Note(id, note)
	}
	if k.Life.Leaving.Load() {
		k.SendLeaving(k.Replica.Others()) // notes may be lost
	}
}

// forget has this node see every ghost anew when it leads again.
func (k *Manager) forget() {
	k.Mu.Lock()
	defer k.Mu.Unlock()
	k.heldDown = nil
}

// OnDatagram takes a note of another node.
func (k *Manager) OnDatagram(peer string, note []byte) {
	for d := (codec.Decoder{B: note}); len(d.B) > 0 && !d.Bad; {
		switch d.Byte() {
		case DatagramRenew:
			r := Request{Node: peer, Session: d.Uint(), sent: d.Uint(), Urgent: d.Bool()}
			if !d.Bad {
				k.Answer(r)
			}
		case DatagramGrant:
			session, sent, clock := d.Uint(), time.Duration(d.Uint()), d.Int()
			if !d.Bad && sent >= 0 && sent <= time.Since(k.Started) {
				k.Granted(peer, session, k.Started.Add(sent))
				k.Clocks.Observe(peer, time.UnixMilli(clock), k.Started.Add(sent))
			}
		case DatagramEnded:
			session := d.Uint()
			if !d.Bad && k.holds(session) {
				k.Lose(fmt.Errorf("%w: the cluster has ended the node's session", errs.Lost))
			}
		case DatagramExpired:
			who := Suspicion{SessionID{d.String(), d.Uint()}, d.Uint()}
			if !d.Bad {
				k.reported(peer, who)
			}
		case DatagramLeaving:
			leaving := d.Bool()
			if !d.Bad {
				k.onLeaving(peer, leaving)
			}
		default:
			return // a newer version may say more
		}
	}
}

// Answer answers a node that asks for a promise. The promise binds from now on, and is told when there is something else to say to that
// node, which is soon: every word costs both of them a moment's work, all day long.
func (k *Manager) Answer(r Request) {
	k.postpone(r)
	var e codec.Encoder
	switch s := k.Store.State(); {
	case k.Ask(r.Node, r.Session):
		e.Byte(DatagramGrant)
		e.Uint(r.Session)
		e.Uint(r.sent)
		e.Int(k.Clocks.Now().UnixMilli())
		if !r.Urgent {
			k.Mu.Lock()
			k.owed[r.Node] = e.B
			early := !time.Now().Before(k.next.Add(-k.Timing.Renewal() / 2))
			k.Mu.Unlock()
			if early {
				k.Wake() // this process is awake now, and need not be woken again so soon
			}
			return
		}
	case s.Index >= r.Session && s.Number(r.Node) != r.Session:
		// A machine whose clock stood still may not know, by that clock.
		e.Byte(DatagramEnded)
		e.Uint(r.Session)
	default:
		return
	}
	k.Replica.Port.Note(r.Node, e.B)
}

// postpone keeps a request that this voter cannot answer yet, because it has not applied the session's opening or has not caught up. The next
// request comes only with the next renewal, and until then this voter, having promised nothing, could not say that the lease has lapsed.
func (k *Manager) postpone(r Request) {
	k.Mu.Lock()
	defer k.Mu.Unlock()
	if k.Caught && k.Store.State().Index >= r.Session {
		return
	}
	k.postponed = append(slices.DeleteFunc(k.postponed, func(old Request) bool { return old.Node == r.Node }), r)
}

// answerPostponed answers what was kept.
func (k *Manager) answerPostponed() {
	k.Mu.Lock()
	early := k.postponed
	k.postponed = nil
	k.Mu.Unlock()
	for _, r := range early {
		k.Answer(r)
	}
}

// Ask answers for this voter whether it promises a lease. It looks at the state and promises in one step: report must not come in
// between.
func (k *Manager) Ask(node string, session uint64) bool {
	k.Mu.Lock()
	defer k.Mu.Unlock()
	now, id := time.Now(), SessionID{node, session}
	ses := k.Store.State().Session(node)
	if ses == nil || ses.Number != session {
		return false
	}
	k.Given.ask(id, now)
	if ses.Suspect != 0 || !k.Caught || k.Life.Works.Err() != nil || k.Life.Setback.Load() != nil {
		return false
	}
	k.Given.Grant(id, now)
	return true
}

// Granted notes a voter's promise.
func (k *Manager) Granted(voter string, session uint64, sent time.Time) {
	k.Mu.Lock()
	k.Own.Grant(voter, session, sent)
	end := k.Own.End(k.Store.State().Voters) // under the lock: no promise that came after a change is counted for those before it
	longer := k.Own.Session != 0 && end.After(k.end)
	if longer {
		if k.end.IsZero() {
			defer k.Wake() // the time to give it up is known now
		}
		k.end = end
		k.useBy.Store(int64(end.Add(-k.margin()).Sub(k.Started)))
	}
	k.Mu.Unlock()
	if longer {
		k.Renewed.Notify()
	}
}

// Report tells the leader of the suspected sessions that nothing binds this voter to any more. It returns when there will be more to tell.
func (k *Manager) Report(now time.Time) (next time.Time) {
	leader := k.Replica.Leader()
	k.Mu.Lock()
	s := k.Store.State()
	var lapsed []Suspicion
	for node, ses := range s.Suspects() {
		id := SessionID{node, ses.Number}
		at := k.Given.Expires(id)
		if k.Caught && k.Given.Expired(id, now) {
			lapsed = append(lapsed, Suspicion{id, ses.Suspect})
			at = now.Add(k.Timing.Poll()) // again, until it is heard
		} else if !k.Caught {
			at = now.Add(k.Timing.Poll())
		}
		if at = MaxTime(at, now.Add(time.Millisecond)); next.IsZero() || at.Before(next) {
			next = at
		}
	}
	k.Given.forget(func(id SessionID) bool {
		ses := s.Session(id.Node)
		return ses != nil && ses.Number == id.Number
	})
	k.Mu.Unlock()
	for _, who := range lapsed {
		if leader == k.Self.ID {
			k.reported(k.Self.ID, who)
			continue
		}
		var e codec.Encoder
		e.Byte(DatagramExpired)
		e.String(who.Node)
		e.Uint(who.Number)
		e.Uint(who.Index)
		k.Replica.Port.Note(leader, e.B)
	}
	return next
}

func MaxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// SessionsChanged is called when the state has other sessions, or thinks otherwise of one.
func (k *Manager) SessionsChanged() {
	k.Mu.Lock()
	defer k.Mu.Unlock()
	now := time.Now()
	it := k.Store.State().Sessions.Root().Iterator()
	for node, ses, ok := it.Next(); ok; node, ses, ok = it.Next() {
		id := SessionID{string(node), ses.Number}
		if _, known := k.Given.asked[id]; !known {
			k.Given.ask(id, now) // it has spoken by being opened
		}
	}
	k.Wake()
}

// follow notes who leads.
func (k *Manager) follow(now time.Time) {
	leader := k.Replica.Leader()
	k.Mu.Lock()
	defer k.Mu.Unlock()
	if leader != k.leader {
		k.leader, k.since = leader, now
	}
}

// watchLeader has a voter stand for election when a majority of the voters says that the leader's lease has lapsed: raft's own time-outs
// are longer.
func (k *Manager) watchLeader(ctx context.Context, now, awake time.Time) {
	leader, s := k.Replica.Leader(), k.Store.State()
	if leader == "" || leader == k.Self.ID || !slices.Contains(s.Voters, k.Self.ID) || now.Sub(awake) < k.Timing.Retry() {
		return
	}
	ses := s.Session(leader)
	if ses == nil || !k.overdue(SessionID{leader, ses.Number}, now) {
		return
	}
	k.Mu.Lock()
	asking := k.asking
	k.asking = true
	k.Mu.Unlock()
	if asking {
		return
	}
	k.Life.Tasks.Go(func() {
		k.replaceLeader(ctx, SessionID{leader, ses.Number})
		k.Mu.Lock()
		defer k.Mu.Unlock()
		k.asking = false
	})
}

// overdue reports whether a session to which this process has promised a lease has not asked for so long that no promise holds. Of
// sessions that it has promised nothing it says nothing: their nodes may have newer ones.
func (k *Manager) overdue(id SessionID, now time.Time) bool {
	k.Mu.Lock()
	defer k.Mu.Unlock()
	if id.Node == k.leader && now.Sub(k.since) < k.Given.length {
		return false // it has just been elected, and may be about to have a new session opened
	}
	return !k.Given.Until[id].IsZero() && k.Given.Expired(id, now) && now.Sub(k.Given.LastAsked(id)) >= k.Given.length
}

// IsReady reports whether this node has a session and a lease, by the clock.
func (k *Manager) IsReady() bool {
	return k.Current.Load() && k.Life.Works.Err() == nil && k.Life.Setback.Load() == nil && k.Valid()
}

// AwaitReady waits until this node has a session and a lease.
func (k *Manager) AwaitReady(ctx context.Context) error {
	ctx, stop := k.Life.WhileOpen(ctx)
	defer stop()
	for {
		changed, renewed := k.Life.Changed.Wait(), k.Renewed.Wait()
		if k.IsReady() {
			return nil
		}
		select {
		case <-changed:
		case <-renewed: // a lease that was over may last again
		case <-ctx.Done():
			return k.Life.Explain(context.Cause(ctx))
		}
	}
}

// SendLeaving tells other nodes whether this one is on its way out.
func (k *Manager) SendLeaving(ids []string) {
	var e codec.Encoder
	e.Byte(DatagramLeaving)
	e.Bool(k.Life.Leaving.Load())
	for _, id := range ids {
		k.Replica.Port.Note(id, e.B)
	}
}

// onLeaving notes that a peer is on its way out, or is not any more.
func (k *Manager) onLeaving(peer string, leaving bool) {
	if k.Book.SetLeaving(peer, leaving) {
		k.Life.Changed.Notify()
	}
}
