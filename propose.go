package flotilla

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/state"
)

const (
	writeTimeout = 30 * time.Second // of a write whose context has no earlier deadline
	maxBatch     = 64               // commands in one call to the leader
	batchBytes   = 1 << 20          // of commands in one call; one that is larger goes alone
	maxInFlight  = 4                // such calls at once
)

// errUnknown is the outcome of an attempt that may or may not have taken effect. The command is proposed again as it is:
// the state machine answers a repeated one from memory.
var errUnknown = errors.New("the outcome is not known")

// errEnded is the outcome of a command whose session has ended.
var errEnded = fmt.Errorf("%w: the cluster took this node for gone and ended its session", errs.Lost)

// proposer takes this node's commands to the leader, in batches, until each is answered.
type proposer struct {
	n     *replica
	queue chan *proposal

	mu      sync.Mutex
	session uint64               // that seq and open belong to
	seq     uint64               // of the last command
	open    map[uint64]time.Time // commands without an answer yet, and since when
}

// proposal is a sealed command on its way.
type proposal struct {
	session, seq uint64
	entry        []byte
	done         chan error // of this attempt; buffered
}

func newProposer(n *replica) *proposer {
	return &proposer{n: n, queue: make(chan *proposal), open: make(map[uint64]time.Time)}
}

// fenceKey is the key of a *fencedBy in a context.
type fenceKey struct{}

// fencedBy says that what is proposed with a context takes effect only while a claim of a session holds its role.
type fencedBy struct {
	by      *replica
	session uint64
	fence   state.Fence
	outer   *fencedBy // that of the context around it; nil: there is none
}

// fenced returns a context with which commands of this node take effect only as long as a claim holds its role.
func (n *replica) fenced(ctx context.Context, session uint64, fence state.Fence) context.Context {
	outer, _ := ctx.Value(fenceKey{}).(*fencedBy)
	return context.WithValue(ctx, fenceKey{}, &fencedBy{by: n, session: session, fence: fence, outer: outer})
}

// do proposes c in this node's session and returns the answer once the command is committed, every node that is there has
// applied it, and so has this one. After an error the outcome is not known; one that wraps errs.Lost says that nothing of this
// session will take effect any more.
//
// If the context is that of a tenure, or of one within another, the command takes effect only as long as all of them last.
func (p *proposer) do(ctx context.Context, c state.Command) (state.Answer, error) {
	for f, _ := ctx.Value(fenceKey{}).(*fencedBy); f != nil; f = f.outer {
		if f.by != p.n {
			return state.Answer{}, errors.New("the context is that of a tenure of another node")
		}
		if c.Session != 0 && c.Session != f.session {
			return state.Answer{}, errEnded
		}
		c.Session = f.session
		c.Fences = append(c.Fences, f.fence)
	}
	_, a, err := p.doIn(ctx, c)
	return a, err
}

// doIn is do for a command that belongs to c.session, or to this node's session if that is 0. It returns which one it was, 0 if
// it never came to that; the answer's seq is valid even with an error.
func (p *proposer) doIn(ctx context.Context, c state.Command) (uint64, state.Answer, error) {
	if ctx.Err() != nil {
		return 0, state.Answer{}, context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, writeTimeout, errs.NoLeader)
	defer cancel()
	ctx, stop := p.n.life.WhileOpen(ctx)
	defer stop()

	s, err := p.n.store.Wait(ctx, func(s *state.State) bool { return p.n.self.Session(s) != 0 })
	if err != nil {
		return 0, state.Answer{}, p.n.life.Because(err)
	}
	own := p.n.self.Session(s)
	if c.Session != 0 && c.Session != own {
		return c.Session, state.Answer{}, errEnded
	}
	c.Node, c.Session, c.Time = p.n.self.ID, own, time.Now().UnixNano()
	if c.Seq, c.Acked = p.begin(c.Session); c.Seq == 0 {
		return c.Session, state.Answer{}, errEnded
	}
	defer p.end(c.Session, c.Seq)
	a := state.Answer{Seq: c.Seq}
	entry := state.SealCommand(s.Keys, &c)

	for {
		changed := p.n.life.Changed.Wait()
		err := p.attempt(ctx, &proposal{session: c.Session, seq: c.Seq, entry: entry, done: make(chan error, 1)})
		if err == nil {
			break
		}
		timer := time.NewTimer(p.n.timing.Poll())
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return c.Session, a, p.n.life.Because(context.Cause(ctx))
		}
		timer.Stop()
	}
	_, err = p.n.store.Wait(ctx, func(s *state.State) (ok bool) {
		a, ok = s.Answer(c.Node, c.Session, c.Seq)
		return ok
	})
	if err != nil {
		return c.Session, state.Answer{Seq: c.Seq}, p.n.life.Because(err)
	}
	if a.Code == state.CodeEnded {
		return c.Session, a, errEnded
	}
	return c.Session, a, nil
}

// begin numbers a command and says up to which number all answers have arrived.
func (p *proposer) begin(session uint64) (seq, acked uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if session < p.session {
		return 0, 0 // the caller has looked at a state that is gone, and must not begin to count anew
	}
	if p.session != session {
		p.session, p.seq, p.open = session, 0, make(map[uint64]time.Time)
	}
	p.seq++
	acked = p.seq - 1
	for s := range p.open {
		acked = min(acked, s-1)
	}
	p.open[p.seq] = time.Now()
	return p.seq, acked
}

// oldest returns how many commands wait for their answers, and since when the first of them does.
func (p *proposer) oldest() (waiting int, since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.open {
		if since.IsZero() || at.Before(since) {
			since = at
		}
	}
	return len(p.open), since
}

func (p *proposer) end(session, seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session == session {
		delete(p.open, seq)
	}
}

// attempt takes a proposal to the leader once.
func (p *proposer) attempt(ctx context.Context, q *proposal) error {
	if p.n.leader() == p.n.self.ID {
		l, err := p.n.awaitLeading(ctx)
		if err != nil {
			return err
		}
		return p.n.proposeBatch(ctx, l, p.n.self.ID, []*proposal{q})
	}
	select {
	case p.queue <- q:
	case <-ctx.Done():
		return errUnknown
	}
	select {
	case err := <-q.done:
		return err
	case <-ctx.Done():
		return errUnknown
	}
}

// run gathers what is waiting while earlier calls are under way, so that a busy node makes few large calls and an idle one
// no wait. It ends with ctx.
func (p *proposer) run(ctx context.Context) {
	slots := make(chan struct{}, maxInFlight)
	var over *proposal // for which the last batch had no room
	for {
		var batch []*proposal
		size := 0
		add := func(q *proposal) {
			if over = nil; size > 0 && size+len(q.entry) > batchBytes {
				over = q
				return
			}
			batch = append(batch, q)
			size += len(q.entry)
		}
		if over != nil {
			add(over)
		} else {
			select {
			case q := <-p.queue:
				add(q)
			case <-ctx.Done():
				return
			}
		}
		for slot := (chan struct{})(nil); slot == nil; {
			more := p.queue
			if len(batch) >= maxBatch || over != nil {
				more = nil
			}
			select {
			case q := <-more:
				add(q)
				continue
			default:
			}
			select {
			case q := <-more:
				add(q)
			case slots <- struct{}{}:
				slot = slots
			case <-ctx.Done():
				return
			}
		}
		p.n.life.Tasks.Go(func() {
			err := p.forward(ctx, batch)
			<-slots
			for _, q := range batch {
				q.done <- err
			}
		})
	}
}

// forward calls the leader with a batch. The answers come by the log, to this node's own state machine.
func (p *proposer) forward(ctx context.Context, batch []*proposal) error {
	leader := p.n.leader()
	if leader == "" || leader == p.n.self.ID {
		return errs.NoLeader
	}
	var e codec.Encoder
	e.Uint(uint64(len(batch)))
	for _, q := range batch {
		e.Uint(q.session)
		e.Uint(q.seq)
		e.Bytes(q.entry)
	}
	ctx, cancel := context.WithTimeout(ctx, p.n.attemptTimeout())
	defer cancel()
	p.n.life.Tasks.Go(func() { // whoever leads no more may be cut off, and never answer
		for {
			changed := p.n.life.Changed.Wait()
			if p.n.leader() != leader {
				break
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
		cancel()
	})
	_, err := p.n.port.Call(ctx, leader, rpc.Apply, e.B)
	return err
}

// serveApply is the leader's end of forward.
func (n *replica) serveApply(ctx context.Context, peer string, body []byte) ([]byte, error) {
	d := codec.Decoder{B: body}
	var batch []*proposal
	for range d.Count() {
		batch = append(batch, &proposal{session: d.Uint(), seq: d.Uint(), entry: d.Bytes()})
	}
	if err := d.End(); err != nil || len(batch) == 0 {
		return nil, codec.ErrMalformed
	}
	l, err := n.awaitLeading(ctx)
	if err != nil {
		return nil, err
	}
	// An entry that cannot be opened would end every node that applies it.
	keys := n.store.State().Keys
	for _, q := range batch {
		c, err := state.OpenCommand(keys, q.entry)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", codec.ErrMalformed, err)
		}
		if c.Node != peer || c.Session != q.session || c.Seq != q.seq {
			return nil, codec.ErrMalformed
		}
	}
	return nil, n.proposeBatch(ctx, l, peer, batch)
}

// proposeBatch proposes a batch to raft and returns when all of it is applied here and on every node that is there. It looks at the
// state, not at raft's futures, which never answer in some of the ways that a raft instance can end.
func (n *replica) proposeBatch(ctx context.Context, l *leadership, node string, batch []*proposal) error {
	ctx, cancel := context.WithTimeout(ctx, n.attemptTimeout())
	defer cancel()
	stop := context.AfterFunc(l.ctx, cancel)
	defer stop()
	for _, q := range batch {
		if ctx.Err() == nil {
			l.raft.Apply(q.entry, n.attemptTimeout())
		}
	}
	var index uint64
	_, err := n.store.Wait(ctx, func(s *state.State) bool {
		for _, q := range batch {
			a, ok := s.Answer(node, q.session, q.seq)
			if !ok {
				return false
			}
			index = max(index, a.Index)
		}
		return true
	})
	if err != nil {
		return errUnknown
	}
	return l.acks.wait(ctx, index)
}

// attemptTimeout bounds one attempt; another one follows.
func (n *replica) attemptTimeout() time.Duration { return n.timing.Attempt() }

// applyAndTell is apply for what others wait for: they are told at once.
func (l *leadership) applyAndTell(ctx context.Context, n *replica, c *state.Command, done func(*state.State) bool) error {
	err := l.apply(ctx, n, state.SealCommand(n.store.State().Keys, c), done)
	if err == nil {
		l.acks.want(n.store.State().Index, l.acks.gone)
	}
	return err
}

// apply proposes a command of the leader's own, which belongs to no session and may be repeated, and waits until done.
func (l *leadership) apply(ctx context.Context, n *replica, entry []byte, done func(*state.State) bool) error {
	ctx, cancel := context.WithTimeout(ctx, n.attemptTimeout())
	defer cancel()
	l.raft.Apply(entry, n.attemptTimeout())
	_, err := n.store.Wait(ctx, done)
	return err
}

func (n *replica) changeSession(ctx context.Context, c state.Command, done func(*state.State) bool) error {
	l, err := n.awaitLeading(ctx)
	if err != nil {
		return err
	}
	c.Time = time.Now().UnixNano()
	return l.applyAndTell(ctx, n, &c, done)
}
