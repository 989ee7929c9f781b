package replica

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
	WriteTimeout = 30 * time.Second // of a write whose context has no earlier deadline
	MaxBatch     = 64               // commands in one call to the leader
	batchBytes   = 1 << 20          // of commands in one call; one that is larger goes alone
	maxInFlight  = 4                // such calls at once
)

// errUnknown is the outcome of an attempt that may or may not have taken effect. The command is proposed again as it is:
// the state machine answers a repeated one from memory.
var errUnknown = errors.New("the outcome is not known")

// ErrEnded is the outcome of a command whose session has ended.
var ErrEnded = fmt.Errorf("%w: the cluster took this node for gone and ended its session", errs.Lost)

// Proposer takes this node's commands to the leader, in batches, until each is answered.
type Proposer struct {
	n     *Replica
	queue chan *proposal

	Mu      sync.Mutex
	session uint64               // that seq and open belong to
	Seq     uint64               // of the last command
	Open    map[uint64]time.Time // commands without an answer yet, and since when
}

// proposal is a sealed command on its way.
type proposal struct {
	session, seq uint64
	entry        []byte
	done         chan error // of this attempt; buffered
}

func NewProposer(n *Replica) *Proposer {
	return &Proposer{n: n, queue: make(chan *proposal), Open: make(map[uint64]time.Time)}
}

// fenceKey is the key of a *fencedBy in a context.
type fenceKey struct{}

// fencedBy says that what is proposed with a context takes effect only while a claim of a session holds its role.
type fencedBy struct {
	by      *Replica
	session uint64
	fence   state.Fence
	outer   *fencedBy // that of the context around it; nil: there is none
}

// Fenced returns a context with which commands of this node take effect only as long as a claim holds its role.
func (n *Replica) Fenced(ctx context.Context, session uint64, fence state.Fence) context.Context {
	outer, _ := ctx.Value(fenceKey{}).(*fencedBy)
	return context.WithValue(ctx, fenceKey{}, &fencedBy{by: n, session: session, fence: fence, outer: outer})
}

// Do proposes c in this node's session and returns the answer once the command is committed, every node that is there has
// applied it, and so has this one. After an error the outcome is not known; one that wraps errs.Lost says that nothing of this
// session will take effect any more.
//
// If the context is that of a tenure, or of one within another, the command takes effect only as long as all of them last.
func (p *Proposer) Do(ctx context.Context, c state.Command) (state.Answer, error) {
	for f, _ := ctx.Value(fenceKey{}).(*fencedBy); f != nil; f = f.outer {
		if f.by != p.n {
			return state.Answer{}, errors.New("the context is that of a tenure of another node")
		}
		if c.Session != 0 && c.Session != f.session {
			return state.Answer{}, ErrEnded
		}
		c.Session = f.session
		c.Fences = append(c.Fences, f.fence)
	}
	_, a, err := p.DoIn(ctx, c)
	return a, err
}

// DoIn is do for a command that belongs to c.session, or to this node's session if that is 0. It returns which one it was, 0 if
// it never came to that; the answer's seq is valid even with an error.
func (p *Proposer) DoIn(ctx context.Context, c state.Command) (uint64, state.Answer, error) {
	if ctx.Err() != nil {
		return 0, state.Answer{}, context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, WriteTimeout, errs.NoLeader)
	defer cancel()
	ctx, stop := p.n.Life.WhileOpen(ctx)
	defer stop()

	s, err := p.n.Store.Wait(ctx, func(s *state.State) bool { return p.n.Self.Session(s) != 0 })
	if err != nil {
		return 0, state.Answer{}, p.n.Life.Because(err)
	}
	own := p.n.Self.Session(s)
	if c.Session != 0 && c.Session != own {
		return c.Session, state.Answer{}, ErrEnded
	}
	c.Node, c.Session, c.Time = p.n.Self.ID, own, time.Now().UnixNano()
	if c.Seq, c.Acked = p.Begin(c.Session); c.Seq == 0 {
		return c.Session, state.Answer{}, ErrEnded
	}
	defer p.End(c.Session, c.Seq)
	a := state.Answer{Seq: c.Seq}
	entry := state.SealCommand(s.Keys, &c)

	for {
		changed := p.n.Life.Changed.Wait()
		err := p.attempt(ctx, &proposal{session: c.Session, seq: c.Seq, entry: entry, done: make(chan error, 1)})
		if err == nil {
			break
		}
		timer := time.NewTimer(p.n.Timing.Poll())
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return c.Session, a, p.n.Life.Because(context.Cause(ctx))
		}
		timer.Stop()
	}
	_, err = p.n.Store.Wait(ctx, func(s *state.State) (ok bool) {
		a, ok = s.Answer(c.Node, c.Session, c.Seq)
		return ok
	})
	if err != nil {
		return c.Session, state.Answer{Seq: c.Seq}, p.n.Life.Because(err)
	}
	if a.Code == state.CodeEnded {
		return c.Session, a, ErrEnded
	}
	return c.Session, a, nil
}

// Begin numbers a command and says up to which number all answers have arrived.
func (p *Proposer) Begin(session uint64) (seq, acked uint64) {
	p.Mu.Lock()
	defer p.Mu.Unlock()
	if session < p.session {
		return 0, 0 // the caller has looked at a state that is gone, and must not begin to count anew
	}
	if p.session != session {
		p.session, p.Seq, p.Open = session, 0, make(map[uint64]time.Time)
	}
	p.Seq++
	acked = p.Seq - 1
	for s := range p.Open {
		acked = min(acked, s-1)
	}
	p.Open[p.Seq] = time.Now()
	return p.Seq, acked
}

// Oldest returns how many commands wait for their answers, and since when the first of them does.
func (p *Proposer) Oldest() (waiting int, since time.Time) {
	p.Mu.Lock()
	defer p.Mu.Unlock()
	for _, at := range p.Open {
		if since.IsZero() || at.Before(since) {
			since = at
		}
	}
	return len(p.Open), since
}

func (p *Proposer) End(session, seq uint64) {
	p.Mu.Lock()
	defer p.Mu.Unlock()
	if p.session == session {
		delete(p.Open, seq)
	}
}

// attempt takes a proposal to the leader once.
func (p *Proposer) attempt(ctx context.Context, q *proposal) error {
	if p.n.Leader() == p.n.Self.ID {
		l, err := p.n.AwaitLeading(ctx)
		if err != nil {
			return err
		}
		return p.n.proposeBatch(ctx, l, p.n.Self.ID, []*proposal{q})
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

// Run gathers what is waiting while earlier calls are under way, so that a busy node makes few large calls and an idle one
// no wait. It ends with ctx.
func (p *Proposer) Run(ctx context.Context) {
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
			if len(batch) >= MaxBatch || over != nil {
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
		p.n.Life.Tasks.Go(func() {
			err := p.forward(ctx, batch)
			<-slots
			for _, q := range batch {
				q.done <- err
			}
		})
	}
}

// forward calls the leader with a batch. The answers come by the log, to this node's own state machine.
func (p *Proposer) forward(ctx context.Context, batch []*proposal) error {
	leader := p.n.Leader()
	if leader == "" || leader == p.n.Self.ID {
		return errs.NoLeader
	}
	var e codec.Encoder
	e.Uint(uint64(len(batch)))
	for _, q := range batch {
		e.Uint(q.session)
		e.Uint(q.seq)
		e.Bytes(q.entry)
	}
	ctx, cancel := context.WithTimeout(ctx, p.n.AttemptTimeout())
	defer cancel()
	p.n.Life.Tasks.Go(func() { // whoever leads no more may be cut off, and never answer
		for {
			changed := p.n.Life.Changed.Wait()
			if p.n.Leader() != leader {
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
	_, err := p.n.Port.Call(ctx, leader, rpc.Apply, e.B)
	return err
}

// ServeApply is the leader's end of forward.
func (n *Replica) ServeApply(ctx context.Context, peer string, body []byte) ([]byte, error) {
	d := codec.Decoder{B: body}
	var batch []*proposal
	for range d.Count() {
		batch = append(batch, &proposal{session: d.Uint(), seq: d.Uint(), entry: d.Bytes()})
	}
	if err := d.End(); err != nil || len(batch) == 0 {
		return nil, codec.ErrMalformed
	}
	l, err := n.AwaitLeading(ctx)
	if err != nil {
		return nil, err
	}
	// An entry that cannot be opened would end every node that applies it.
	keys := n.Store.State().Keys
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
func (n *Replica) proposeBatch(ctx context.Context, l *Leadership, node string, batch []*proposal) error {
	ctx, cancel := context.WithTimeout(ctx, n.AttemptTimeout())
	defer cancel()
	stop := context.AfterFunc(l.Ctx, cancel)
	defer stop()
	for _, q := range batch {
		if ctx.Err() == nil {
			l.Raft.Apply(q.entry, n.AttemptTimeout())
		}
	}
	var index uint64
	_, err := n.Store.Wait(ctx, func(s *state.State) bool {
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
	return l.Acks.wait(ctx, index)
}

// AttemptTimeout bounds one attempt; another one follows.
func (n *Replica) AttemptTimeout() time.Duration { return n.Timing.Attempt() }

// ApplyAndNotify is apply for what others wait for: they are told at once.
func (l *Leadership) ApplyAndNotify(ctx context.Context, c *state.Command, done func(*state.State) bool) error {
	n := l.n
	err := l.Apply(ctx, state.SealCommand(n.Store.State().Keys, c), done)
	if err == nil {
		l.Acks.want(n.Store.State().Index, l.Acks.Gone)
	}
	return err
}

// Apply proposes a command of the leader's own, which belongs to no session and may be repeated, and waits until done.
func (l *Leadership) Apply(ctx context.Context, entry []byte, done func(*state.State) bool) error {
	n := l.n
	ctx, cancel := context.WithTimeout(ctx, n.AttemptTimeout())
	defer cancel()
	l.Raft.Apply(entry, n.AttemptTimeout())
	_, err := n.Store.Wait(ctx, done)
	return err
}

func (n *Replica) ChangeSession(ctx context.Context, c state.Command, done func(*state.State) bool) error {
	l, err := n.AwaitLeading(ctx)
	if err != nil {
		return err
	}
	c.Time = time.Now().UnixNano()
	return l.ApplyAndNotify(ctx, &c, done)
}
