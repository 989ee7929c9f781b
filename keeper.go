package flotilla

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
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
	noteRenew   = 1 // promise a lease to my session: session, when this was sent; true: I need the answer now, not with your next note
	notePromise = 2 // the answer: session, when it was sent, and this voter's wall clock in Unix milliseconds
	noteLapsed  = 3 // to the leader: node, session, suspicion: I have applied it, and nothing binds me to that session any more
	noteEnded   = 4 // your session has ended: session
	noteLeaving = 5 // I am on my way out; false: not any more
)

// leaseConfig is what a keeper needs of the node around it.
type leaseConfig struct {
	timing  timing.Timing
	held    func() // called before it looks at the clock, for tests of one that comes late; nil: nothing
	log     *slog.Logger
	life    *lifecycle.Life
	self    *self.Self
	store   *applied.Store
	book    *peers.Table
	clocks  *clocks.Clocks
	replica *replica.Replica
	onLost  func(session uint64, end time.Time, cause error) // ends what is held by the lease of a session
}

// keeper keeps this node's lease, keeps its promises to others as a voter, and, while this node leads, passes the verdict on sessions
// that have fallen silent. It needs no leader for the first two, and nobody needs a disk.
type keeper struct {
	leaseConfig
	started time.Time // times in notes of this node count from it
	poke    chan struct{}
	renewed notify.Signal // the lease has grown, or is lost

	// useBy is until when the lease may be relied on, in nanoseconds since started: some time before its end, so that whoever holds something
	// by it can let go in time. 0: there is none.
	useBy atomic.Int64

	unhaunted *iradix.Tree[*state.Role] // roles without a ghost; of run alone

	idle atomic.Int64 // since when there is none, as useBy; 0: since the start

	current atomic.Bool  // has caught up with a leader since it was started
	first   atomic.Int64 // when it was ready for the first time, in nanoseconds since keeper.started

	mu      sync.Mutex
	own     lease
	end     time.Time     // of the lease of the session leased; kept when it is lost
	leased  uint64        // the newest session that has or had a lease
	lost    chan struct{} // closed when own is lost; nil: there is none
	given   *promises
	caught  bool                          // this node has caught up since its process started: it may have applied a suspicion before
	reports map[suspicion]map[string]bool // which voters said noteLapsed
	pending map[sessionID]bool            // the leader's command about a session, or a ghost, is under way
	haunted map[ghost]time.Time           // since when this leader has seen it
	owed    map[string][]byte             // promises given to nodes that are told with the next note to them
	early   []request                     // what cannot be answered yet, one of a node
	next    time.Time                     // when run renews again
	leader  string                        // as far as run knows
	since   time.Time                     // when it was found to lead
	asking  bool                          // whether the leader's lease has lapsed
}

// suspicion is one of a session.
type suspicion struct {
	sessionID
	index uint64
}

// ghost is what is left of a role's holder whose session ended by the entry index.
type ghost struct {
	role  string
	index uint64
}

// request is one for a promise.
type request struct {
	node    string
	session uint64
	sent    uint64 // when, by that node's clock
	urgent  bool
}

func newKeeper(cfg leaseConfig) *keeper {
	now := time.Now()
	k := &keeper{
		leaseConfig: cfg, started: now, poke: make(chan struct{}, 1),
		own: lease{length: cfg.timing.Held()}, given: newPromises(cfg.timing.Grant(), now),
		reports: make(map[suspicion]map[string]bool), pending: make(map[sessionID]bool),
		owed: make(map[string][]byte),
	}
	k.own.begin(0)
	return k
}

// wake has the keeper look at everything now.
func (k *keeper) wake() {
	select {
	case k.poke <- struct{}{}:
	default:
	}
}

// catchUp says that this node has caught up with a leader since its process started.
func (k *keeper) catchUp() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.caught = true
	k.wake()
}

// begin has a lease asked for, for a session of this node. The channel is closed when the lease, once it was there, is lost: for good, since
// what it guarded is being given up.
func (k *keeper) begin(session uint64) <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.own.begin(session)
	k.lost, k.end, k.leased = make(chan struct{}), time.Time{}, session
	defer k.wake()
	return k.lost
}

// lose gives the lease up, and returns what session it was for, 0 if for none. What hung on it ends with that cause.
func (k *keeper) lose(cause error) (session uint64) {
	k.mu.Lock()
	session = k.own.session
	if session == 0 {
		k.mu.Unlock()
		return 0
	}
	k.useBy.Store(0)
	k.idle.Store(int64(time.Since(k.started)))
	k.own.begin(0)
	end, lost := k.end, k.lost
	k.mu.Unlock()
	k.onLost(session, end, cause)
	close(lost) // another session may begin from now on
	k.life.Changed.Notify()
	k.renewed.Notify()
	return session
}

// valid reports whether this node has a lease that may be relied on. The clock decides, at the moment of the call: a process that stood
// still finds its lease over although nothing in it has taken note of that yet. All that a node does on its own hangs on this function. A lease
// that valid has denied may be valid again, if a promise was given before its end and arrives now; that breaks nothing, since a write
// waits for this session until the cluster has ended it.
func (k *keeper) valid() bool { return k.left() > 0 }

// left returns how long the lease may be relied on if nobody renews it.
func (k *keeper) left() time.Duration {
	return time.Duration(k.useBy.Load()) - time.Since(k.started)
}

// without returns since when this node has no lease. One that is over and was not given up yet has been over for no time: a process
// that stood still has not tried to get another one.
func (k *keeper) without() time.Time {
	if k.useBy.Load() != 0 {
		return time.Now()
	}
	return k.started.Add(time.Duration(k.idle.Load()))
}

// usable reports whether the lease of that session may be relied on.
func (k *keeper) usable(session uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.own.session == session && k.valid()
}

// holds reports whether the lease is that session's, or is asked for it.
func (k *keeper) holds(session uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return session != 0 && k.own.session == session
}

// until returns when the newest lease of this node ends or ended; zero if it has had none in this session.
func (k *keeper) until() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.end
}

// untilOf is until for the lease of that session; zero if there is a newer one, which says nothing about it.
func (k *keeper) untilOf(session uint64) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.leased != session {
		return time.Time{}
	}
	return k.end
}

// margin is how long before its end a lease is given up, so that all that hangs on it has ended by then.
func (k *keeper) margin() time.Duration { return k.timing.Margin() }

// run renews, reports and judges until ctx ends.
func (k *keeper) run(ctx context.Context) {
	every := k.timing.Renewal()
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
		if k.held != nil {
			k.held()
		}
		now := time.Now()
		if now.Sub(last) > 2*every {
			awake = now // this process stood still: what others said meanwhile is still on its way
		}
		last = now
		if now.Sub(looked) >= replica.DiskLook { // this process is awake: that costs no other timer
			looked = now
			k.replica.Looks.Notify()
		}
		session, loss := k.look(now)
		k.answerEarly()
		if !now.Before(renewal.Add(-every/2)) || session != begun {
			k.renew(now, session)
			renewal, begun = now.Add(every), session
			k.mu.Lock()
			k.next = renewal
			k.mu.Unlock()
		}
		k.clocks.Look()
		next := k.report(now)
		k.follow(now)
		var free time.Time
		if l := k.replica.Leading.Load(); l != nil {
			k.judge(l, now, awake)
			if free = k.exorcism(); !free.IsZero() {
				free = maxTime(free, now.Add(time.Millisecond))
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
func (k *keeper) look(now time.Time) (session uint64, loss time.Time) {
	k.mu.Lock()
	session, end := k.own.session, k.end
	k.mu.Unlock()
	if session == 0 || end.IsZero() {
		return session, time.Time{}
	}
	loss = end.Add(-k.margin())
	if now.Before(loss) {
		return session, loss
	}
	k.log.Warn("the lease has lapsed: a majority of the voters has not renewed it", "session", session)
	k.lose(fmt.Errorf("%w: the node's lease has lapsed", ErrLost))
	return 0, time.Time{}
}

// renew asks all voters for promises, and tells those who have asked of this node's.
func (k *keeper) renew(now time.Time, session uint64) {
	k.mu.Lock()
	urgent := k.end.Sub(now) < k.timing.Urgent()
	notes := k.owed
	k.owed = make(map[string][]byte)
	k.mu.Unlock()
	if session != 0 && !k.replica.Stalled() && k.life.Setback.Load() == nil { // nobody is to wait for a node whose disk hangs
		var e codec.Encoder
		e.Byte(noteRenew)
		e.Uint(session)
		e.Uint(uint64(now.Sub(k.started)))
		e.Bool(urgent)
		for _, id := range k.store.State().Voters {
			if id != k.self.ID {
				notes[id] = append(notes[id], e.B...)
			} else if k.asked(id, session) {
				k.promised(id, session, now)
			}
		}
	}
	for id, note := range notes {
		k.replica.Port.Note(id, note)
	}
	if k.life.Leaving.Load() {
		k.tellLeaving(k.replica.Others()) // notes may be lost
	}
}

// forget has this node see every ghost anew when it leads again.
func (k *keeper) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.haunted = nil
}

// noted takes a note of another node.
func (k *keeper) noted(peer string, note []byte) {
	for d := (codec.Decoder{B: note}); len(d.B) > 0 && !d.Bad; {
		switch d.Byte() {
		case noteRenew:
			r := request{node: peer, session: d.Uint(), sent: d.Uint(), urgent: d.Bool()}
			if !d.Bad {
				k.answer(r)
			}
		case notePromise:
			session, sent, clock := d.Uint(), time.Duration(d.Uint()), d.Int()
			if !d.Bad && sent >= 0 && sent <= time.Since(k.started) {
				k.promised(peer, session, k.started.Add(sent))
				k.clocks.Observe(peer, time.UnixMilli(clock), k.started.Add(sent))
			}
		case noteEnded:
			session := d.Uint()
			if !d.Bad && k.holds(session) {
				k.lose(fmt.Errorf("%w: the cluster has ended the node's session", ErrLost))
			}
		case noteLapsed:
			who := suspicion{sessionID{d.String(), d.Uint()}, d.Uint()}
			if !d.Bad {
				k.reported(peer, who)
			}
		case noteLeaving:
			leaving := d.Bool()
			if !d.Bad {
				k.hearLeaving(peer, leaving)
			}
		default:
			return // a newer version may say more
		}
	}
}

// answer answers a node that asks for a promise. The promise binds from now on, and is told when there is something else to say to that
// node, which is soon: every word costs both of them a moment's work, all day long.
func (k *keeper) answer(r request) {
	k.keep(r)
	var e codec.Encoder
	switch s := k.store.State(); {
	case k.asked(r.node, r.session):
		e.Byte(notePromise)
		e.Uint(r.session)
		e.Uint(r.sent)
		e.Int(k.clocks.Now().UnixMilli())
		if !r.urgent {
			k.mu.Lock()
			k.owed[r.node] = e.B
			early := !time.Now().Before(k.next.Add(-k.timing.Renewal() / 2))
			k.mu.Unlock()
			if early {
				k.wake() // this process is awake now, and need not be woken again so soon
			}
			return
		}
	case s.Index >= r.session && s.Number(r.node) != r.session:
		// A machine whose clock stood still may not know, by that clock.
		e.Byte(noteEnded)
		e.Uint(r.session)
	default:
		return
	}
	k.replica.Port.Note(r.node, e.B)
}

// keep keeps a request that this voter cannot answer yet, because it has not applied the session's opening or has not caught up. The next
// request comes only with the next renewal, and until then this voter, having promised nothing, could not say that the lease has lapsed.
func (k *keeper) keep(r request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.caught && k.store.State().Index >= r.session {
		return
	}
	k.early = append(slices.DeleteFunc(k.early, func(old request) bool { return old.node == r.node }), r)
}

// answerEarly answers what was kept.
func (k *keeper) answerEarly() {
	k.mu.Lock()
	early := k.early
	k.early = nil
	k.mu.Unlock()
	for _, r := range early {
		k.answer(r)
	}
}

// asked answers for this voter whether it promises a lease. It looks at the state and promises in one step: report must not come in
// between.
func (k *keeper) asked(node string, session uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	now, id := time.Now(), sessionID{node, session}
	ses := k.store.State().Session(node)
	if ses == nil || ses.Number != session {
		return false
	}
	k.given.ask(id, now)
	if ses.Suspect != 0 || !k.caught || k.life.Works.Err() != nil || k.life.Setback.Load() != nil {
		return false
	}
	k.given.give(id, now)
	return true
}

// promised notes a voter's promise.
func (k *keeper) promised(voter string, session uint64, sent time.Time) {
	k.mu.Lock()
	k.own.promise(voter, session, sent)
	end := k.own.end(k.store.State().Voters) // under the lock: no promise that came after a change is counted for those before it
	longer := k.own.session != 0 && end.After(k.end)
	if longer {
		if k.end.IsZero() {
			defer k.wake() // the time to give it up is known now
		}
		k.end = end
		k.useBy.Store(int64(end.Add(-k.margin()).Sub(k.started)))
	}
	k.mu.Unlock()
	if longer {
		k.renewed.Notify()
	}
}

// report tells the leader of the suspected sessions that nothing binds this voter to any more. It returns when there will be more to tell.
func (k *keeper) report(now time.Time) (next time.Time) {
	leader := k.replica.Leader()
	k.mu.Lock()
	s := k.store.State()
	var lapsed []suspicion
	for node, ses := range s.Suspects() {
		id := sessionID{node, ses.Number}
		at := k.given.lapses(id)
		if k.caught && k.given.lapsed(id, now) {
			lapsed = append(lapsed, suspicion{id, ses.Suspect})
			at = now.Add(k.timing.Poll()) // again, until it is heard
		} else if !k.caught {
			at = now.Add(k.timing.Poll())
		}
		if at = maxTime(at, now.Add(time.Millisecond)); next.IsZero() || at.Before(next) {
			next = at
		}
	}
	k.given.forget(func(id sessionID) bool {
		ses := s.Session(id.node)
		return ses != nil && ses.Number == id.number
	})
	k.mu.Unlock()
	for _, who := range lapsed {
		if leader == k.self.ID {
			k.reported(k.self.ID, who)
			continue
		}
		var e codec.Encoder
		e.Byte(noteLapsed)
		e.String(who.node)
		e.Uint(who.number)
		e.Uint(who.index)
		k.replica.Port.Note(leader, e.B)
	}
	return next
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// sessionsChanged is called when the state has other sessions, or thinks otherwise of one.
func (k *keeper) sessionsChanged() {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	it := k.store.State().Sessions.Root().Iterator()
	for node, ses, ok := it.Next(); ok; node, ses, ok = it.Next() {
		id := sessionID{string(node), ses.Number}
		if _, known := k.given.asked[id]; !known {
			k.given.ask(id, now) // it has spoken by being opened
		}
	}
	k.wake()
}

// follow notes who leads.
func (k *keeper) follow(now time.Time) {
	leader := k.replica.Leader()
	k.mu.Lock()
	defer k.mu.Unlock()
	if leader != k.leader {
		k.leader, k.since = leader, now
	}
}

// watchLeader has a voter stand for election when a majority of the voters says that the leader's lease has lapsed: raft's own time-outs
// are longer.
func (k *keeper) watchLeader(ctx context.Context, now, awake time.Time) {
	leader, s := k.replica.Leader(), k.store.State()
	if leader == "" || leader == k.self.ID || !slices.Contains(s.Voters, k.self.ID) || now.Sub(awake) < k.timing.Retry() {
		return
	}
	ses := s.Session(leader)
	if ses == nil || !k.overdue(sessionID{leader, ses.Number}, now) {
		return
	}
	k.mu.Lock()
	asking := k.asking
	k.asking = true
	k.mu.Unlock()
	if asking {
		return
	}
	k.life.Tasks.Go(func() {
		k.succeed(ctx, sessionID{leader, ses.Number})
		k.mu.Lock()
		defer k.mu.Unlock()
		k.asking = false
	})
}

// overdue reports whether a session to which this process has promised a lease has not asked for so long that no promise holds. Of
// sessions that it has promised nothing it says nothing: their nodes may have newer ones.
func (k *keeper) overdue(id sessionID, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if id.node == k.leader && now.Sub(k.since) < k.given.length {
		return false // it has just been elected, and may be about to have a new session opened
	}
	return !k.given.until[id].IsZero() && k.given.lapsed(id, now) && now.Sub(k.given.heard(id)) >= k.given.length
}

// isReady reports whether this node has a session and a lease, by the clock.
func (k *keeper) isReady() bool {
	return k.current.Load() && k.life.Works.Err() == nil && k.life.Setback.Load() == nil && k.valid()
}

// awaitReady waits until this node has a session and a lease.
func (k *keeper) awaitReady(ctx context.Context) error {
	ctx, stop := k.life.WhileOpen(ctx)
	defer stop()
	for {
		changed, renewed := k.life.Changed.Wait(), k.renewed.Wait()
		if k.isReady() {
			return nil
		}
		select {
		case <-changed:
		case <-renewed: // a lease that was over may last again
		case <-ctx.Done():
			return k.life.Explain(context.Cause(ctx))
		}
	}
}

// tellLeaving tells other nodes whether this one is on its way out.
func (k *keeper) tellLeaving(ids []string) {
	var e codec.Encoder
	e.Byte(noteLeaving)
	e.Bool(k.life.Leaving.Load())
	for _, id := range ids {
		k.replica.Port.Note(id, e.B)
	}
}

// hearLeaving notes that a peer is on its way out, or is not any more.
func (k *keeper) hearLeaving(peer string, leaving bool) {
	if k.book.SetLeaving(peer, leaving) {
		k.life.Changed.Notify()
	}
}
