package flotilla

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/state"
)

var errNotLeader = errors.New("this node does not lead")

// leadership is one term of this node as leader.
type leadership struct {
	ctx   context.Context // the node's own, until the term is over
	stop  context.CancelFunc
	raft  *raft.Raft
	term  uint64
	since time.Time
	acks  *acks

	before      string    // who led before
	beforeHeard time.Time // when it was last heard of

	mu        sync.Mutex
	tried     map[raft.ServerID]bool // peers that the leadership was offered to
	expelled  map[string]bool        // members that are being removed although they are present: their sessions are to end
	settled   uint64                 // the last configuration that every session is known to have applied
	settledAt time.Time              // and since when
}

func newLeadership(ctx context.Context, n *Node, r *raft.Raft, term uint64) *leadership {
	l := &leadership{raft: r, term: term, since: time.Now(), tried: make(map[raft.ServerID]bool), expelled: make(map[string]bool)}
	l.ctx, l.stop = context.WithCancel(ctx)
	l.acks = newAcks(n, l)
	return l
}

// watchRaft keeps the node's picture of raft: it runs the leader's duties while this node leads, and wakes those who wait
// for a leader. Observations only poke it: raft blocks while they are delivered, and may drop them.
func (n *Node) watchRaft(ctx context.Context, r *raft.Raft) {
	poke := make(chan struct{}, 1)
	observer := raft.NewObserver(nil, false, func(*raft.Observation) bool {
		select {
		case poke <- struct{}{}:
		default:
		}
		return false
	})
	r.RegisterObserver(observer)
	defer r.DeregisterObserver(observer)

	var l *leadership // whose duties run
	led := uint64(0)  // the last term of ours that is over
	var duties sync.WaitGroup
	end := func() {
		if l != nil {
			l.stop()
			duties.Wait()
			n.beat(r, n.pace.heartbeat)
			n.port.Transport().Release(l.term)
			led, l = l.term, nil
		}
	}
	defer end()
	before := ""
	for {
		term, leads := r.CurrentTerm(), r.State() == raft.Leader
		if leader := n.leader(); leader != "" && leader != n.id {
			before = leader
		}
		if l != nil && (!leads || l.term != term) {
			end()
		}
		if leads && l == nil {
			l = newLeadership(ctx, n, r, term)
			l.before, l.beforeHeard = before, r.LastContact()
			n.beat(r, 2*n.pace.heartbeat)
			run := l
			duties.Go(func() { n.runDuties(run) })
		}
		n.changed.Notify()
		select {
		case <-poke:
		case leads := <-r.LeaderCh():
			if !leads { // only now has raft told its replication to stop: calls that are held would be made again before
				n.port.Transport().Release(led)
			}
		case <-ctx.Done():
			return
		}
	}
}

// beat has raft wait that long for a leader's heartbeats, and as a leader send them ten times as often. That rate is all that a leader's
// own time-out is for, and it is the larger part of what a leader has to do at rest.
func (n *Node) beat(r *raft.Raft, timeout time.Duration) {
	c := r.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = timeout, timeout
	if err := r.ReloadConfig(c); err != nil {
		n.log.Warn("raft does not take another heartbeat", "timeout", timeout, "err", err)
	}
}

// runDuties does what falls to a leader, for one term.
func (n *Node) runDuties(l *leadership) {
	if !n.startTerm(l) {
		return
	}
	n.leading.Store(l)
	n.changed.Notify()
	n.keeper.wake()
	defer func() {
		n.leading.Store(nil)
		n.changed.Notify()
	}()
	var others sync.WaitGroup
	defer others.Wait()
	others.Go(func() { n.keepTickets(l) })
	members := newRoster(n.cfg.RemoveDead)
	for {
		if err := l.keepMembers(n, members); err != nil && l.ctx.Err() == nil {
			n.log.Warn("a change of the membership failed; it is tried again", "err", err)
		}
		select {
		case <-n.book.changed():
		case <-time.After(time.Second):
		case <-l.ctx.Done():
			return
		}
	}
}

// startTerm has an entry of this term applied: only then has this node everything that was acknowledged before. In a new
// cluster that entry brings the keys.
func (n *Node) startTerm(l *leadership) bool {
	for l.ctx.Err() == nil {
		s := n.fsm.state()
		var entry []byte
		var err error
		if s.Keys == nil {
			entry, err = n.newKeyring()
		} else {
			entry = state.SealCommand(s.Keys, &state.Command{Node: n.id, Change: state.StartTerm{}})
		}
		if err != nil {
			n.fail(err)
			return false
		}
		first := l.raft.LastIndex() // of this term or later: raft's own first entry at least
		err = l.apply(l.ctx, n, entry, func(s *state.State) bool { return s.Index > first })
		if err == nil && n.fsm.state().Keys != nil {
			return true
		}
	}
	return false
}

// newKeyring makes the entry that a new cluster begins with.
func (n *Node) newKeyring() ([]byte, error) {
	wrapped, err := seal.NewKeyring().Wrap(n.secrets...)
	if err != nil {
		return nil, err
	}
	return state.Keyring{Cluster: n.clusterID(), Wrapped: wrapped}.Entry(), nil
}

// settle returns when another voter may come or go. Majorities of the voters before and after one such change always meet. So that a
// lease and a verdict cannot come from voters that are two changes apart, every session must have applied the last one, and promises that
// were counted before that must have lapsed. It returns the index of the configuration that this is true of, and the change must be of that one.
func (l *leadership) settle(ctx context.Context, n *Node) (uint64, error) {
	s := n.fsm.state()
	if err := l.everyone(ctx, n, s.Elected); err != nil {
		return 0, fmt.Errorf("the last change of the voters: %w", err)
	}
	l.mu.Lock()
	if l.settled != s.Elected {
		l.settled, l.settledAt = s.Elected, time.Now()
	}
	at := l.settledAt
	l.mu.Unlock()
	select {
	case <-time.After(time.Until(at.Add(promiseTime(n.pace.lease)))):
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-l.ctx.Done():
		return 0, errNotLeader
	}
	return s.Elected, nil
}

// everyone returns when every session in the state has applied index.
func (l *leadership) everyone(ctx context.Context, n *Node, index uint64) error {
	for {
		missing, poke := l.acks.want(index, func(string, *state.Session) bool { return false })
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-poke:
		case <-time.After(n.pace.lease / 12):
		case <-ctx.Done():
			return fmt.Errorf("%s has not heard of it: %w", missing[0], context.Cause(ctx))
		case <-l.ctx.Done():
			return errNotLeader
		}
	}
}

// confirm returns an index that no acknowledged write is above. This node led when confirm was called: a majority of the voters
// said after that that they know no later term. (raft's VerifyLeader also counts answers to questions that were put before.)
func (n *Node) confirm(ctx context.Context) (uint64, error) {
	l := n.leading.Load()
	if l == nil {
		return 0, errNotLeader
	}
	index := n.fsm.state().Index
	conf := l.raft.GetConfiguration()
	if err := conf.Error(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, n.attemptTimeout())
	defer cancel()
	votes := make(chan bool)
	voters, yes := 0, 0
	for _, srv := range conf.Configuration().Servers {
		if srv.Suffrage != raft.Voter {
			continue
		}
		voters++
		n.tasks.Go(func() {
			term, err := n.termOf(ctx, string(srv.ID))
			select {
			case votes <- err == nil && term <= l.term:
			case <-ctx.Done():
			}
		})
	}
	for range voters {
		select {
		case ok := <-votes:
			if ok {
				yes++
			}
		case <-ctx.Done():
			return 0, fmt.Errorf("%w: a majority of the voters does not answer", ErrNoLeader)
		}
		if yes > voters/2 {
			return index, nil
		}
	}
	return 0, errNotLeader
}

// termOf asks a node for its current term.
func (n *Node) termOf(ctx context.Context, id string) (uint64, error) {
	if id == n.id {
		return n.knownTerm()
	}
	reply, err := n.port.Call(ctx, id, callTerm, nil)
	if err != nil {
		return 0, err
	}
	d := codec.Decoder{B: reply}
	term := d.Uint()
	return term, d.End()
}

// transfer hands the leadership to a voter that is there and has every entry, to any one if to is empty. Each is tried once in a term: a second
// attempt that times out as the first did would leave raft refusing writes for ever (hashicorp/raft#696).
func (n *Node) transfer(ctx context.Context, to string) error {
	l := n.leading.Load()
	if l == nil {
		return nil
	}
	failed := errors.New("no other voter is there and up to date")
	if to != "" {
		failed = errors.New("it is not up to date")
	}
	for {
		for _, srv := range n.servers() {
			if to != "" && string(srv.ID) != to {
				continue
			}
			index, _ := n.port.Transport().Match(string(srv.ID), l.term)
			if string(srv.ID) == n.id || srv.Suffrage != raft.Voter || n.book.leaves(string(srv.ID)) || !l.acks.there(string(srv.ID)) || index < l.raft.LastIndex() || !l.try(srv.ID) {
				continue
			}
			// Its future is not waited for: one that reaches raft as it ends is answered by nobody. raft gives up after its election time-out.
			l.raft.LeadershipTransferToServer(srv.ID, srv.Address)
			select {
			case <-time.After(n.pace.heartbeat):
				failed = fmt.Errorf("%s has not taken over within %v", n.nameOf(string(srv.ID)), n.pace.heartbeat)
			case <-l.ctx.Done():
				return nil
			case <-ctx.Done():
				return fmt.Errorf("handing over the leadership to %s: %w", srv.ID, context.Cause(ctx))
			}
		}
		select {
		case <-time.After(n.pace.lease / 12):
		case <-l.ctx.Done():
			return nil
		case <-ctx.Done():
			return fmt.Errorf("handing over the leadership: %w", failed)
		}
	}
}

// try reports whether the leadership has not been offered to id in this term yet, and notes that it is now.
func (l *leadership) try(id raft.ServerID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tried[id] {
		return false
	}
	l.tried[id] = true
	return true
}

// offered reports whether the leadership has been offered to id in this term.
func (l *leadership) offered(id raft.ServerID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tried[id]
}

// expel ends a member's session by a verdict, as if it were silent: what it holds is free when its lease is over, and no sooner. No other session of
// it is opened until stop is called.
func (l *leadership) expel(ctx context.Context, n *Node, id string) (stop func(), err error) {
	l.mu.Lock()
	l.expelled[id] = true
	l.mu.Unlock()
	stop = func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.expelled, id)
	}
	n.keeper.wake()
	if _, err = n.fsm.wait(ctx, func(s *state.State) bool { return s.Session(id) == nil }); err != nil {
		stop()
	}
	return stop, err
}

// expels reports whether a member is being removed.
func (l *leadership) expels(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expelled[id]
}

// without counts the voters that are left when a node is gone, and those of them that are there. The change is committed by those who stay: without a
// majority of them it would never be, and nothing after it.
func (l *leadership) without(n *Node, gone string) (left, there int) {
	for _, srv := range n.servers() {
		if id := string(srv.ID); srv.Suffrage == raft.Voter && id != gone {
			left++
			if id == n.id || l.acks.there(id) {
				there++
			}
		}
	}
	return left, there
}

// standForDead makes this node stand for election because a process of the leader is dead, unless
// another one of that node leads by then.
func (n *Node) standForDead(id, process string) {
	n.tasks.Go(func() {
		n.standFor(n.works, id, func() bool { return n.port.Transport().LedBy(id) == process })
	})
}

// standFor makes this node stand for election because the leader's process is dead, its connections were reset and its port
// refuses, or because its lease has lapsed. It is an ordinary vote, as after a transfer of leadership. The voters stand one after another,
// for as long as there is reason to.
func (n *Node) standFor(ctx context.Context, dead string, reason func() bool) {
	r := n.raft.Load()
	if r == nil || n.leader() != dead || n.leaving.Load() {
		return
	}
	conf := r.GetConfiguration()
	if conf.Error() != nil {
		return
	}
	var voters []string
	for _, srv := range conf.Configuration().Servers {
		if id := string(srv.ID); srv.Suffrage == raft.Voter && id != dead {
			voters = append(voters, id)
		}
	}
	slices.Sort(voters)
	rank := slices.Index(voters, n.id)
	if rank < 0 {
		return
	}
	// The first to stand may lack entries that the others have, and lose: then the next one stands. Two that stand at once
	// may both lose, and raft waits for its election time-out then; so each looks first whether one before it stands.
	wait, term := time.Duration(rank)*100*time.Millisecond, r.CurrentTerm()
	for range 10 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		if leader := n.leader(); leader != dead && leader != "" || !reason() {
			return
		}
		now := r.CurrentTerm()
		for _, id := range voters[:rank] {
			now = max(now, n.standsAt(ctx, id))
		}
		if now > term {
			term = now
		} else {
			n.log.Info("standing for election", "in place of", dead)
			n.stand(ctx)
		}
		wait = 60 * time.Millisecond
	}
}

// standsAt returns the term that a node is in, 0 if it does not say so quickly.
func (n *Node) standsAt(ctx context.Context, id string) uint64 {
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	term, err := n.termOf(ctx, id)
	if err != nil {
		return 0
	}
	return term
}

// stand makes raft stand for election at once.
func (n *Node) stand(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, n.pace.lease)
	defer cancel()
	if _, err := n.port.Transport().Inject(ctx, &raft.TimeoutNowRequest{RPCHeader: n.rpcHeader()}); err != nil {
		n.log.Debug("standing for election", "err", err)
	}
}

// rpcHeader is that of every RPC of this node.
func (n *Node) rpcHeader() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.id), Addr: []byte(n.id)}
}

// awaitLeading returns this node's leadership. A node that has just been elected is waited for: its first entry is on the way.
func (n *Node) awaitLeading(ctx context.Context) (*leadership, error) {
	ctx, cancel := context.WithTimeout(ctx, n.pace.lease)
	defer cancel()
	for {
		changed := n.changed.Wait()
		if l := n.leading.Load(); l != nil {
			return l, nil
		}
		if r := n.raft.Load(); r == nil || r.State() != raft.Leader {
			return nil, errNotLeader
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, errNotLeader
		}
	}
}

// waitFuture waits for a future of raft, which knows no contexts, within the bounds of one. The goroutine ends when raft answers
// or ends.
func waitFuture(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// newID returns 32 random hexadecimal digits.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
