package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

const (
	proposalTime = 5 * time.Second  // how long a proposal waits for promises before it is withdrawn
	voidTime     = 10 * time.Second // how long a proposer is silent before its proposal may be voided
)

// formation forms a new cluster with other nodes. It carries out what proposal.go describes and
// decides. Its begin and pursue are called by one goroutine, after each round of greetings.
type formation struct {
	expect int // how many nodes form a cluster together; 0 or 1: this one alone
	log    *slog.Logger
	self   *self.Self
	ident  *IdentityFile
	table  *peers.Table
	peers  formationPeers

	since time.Time                 // when this node proposed, or the process began; of that goroutine
	heard atomic.Pointer[time.Time] // when the promised proposer was heard of, or the process began
}

func newFormation(
	expect int, log *slog.Logger, own *self.Self, ident *IdentityFile, table *peers.Table, others formationPeers,
) *formation {
	f := &formation{expect: expect, log: log, self: own, ident: ident, table: table, peers: others, since: time.Now()}
	f.observeProposer()
	return f
}

// formationPeers are the other nodes, as a formation sees them.
type formationPeers interface {
	// Greeting returns what this node says of itself.
	Greeting() Greeting
	// Greet makes another round of greetings.
	Greet(ctx context.Context) Round
	// hello greets one node.
	hello(ctx context.Context, id string) (Greeting, error)
	// promise asks a node for its promise. The error says whether the node has refused, see
	// rpc.IsRefused.
	promise(ctx context.Context, id string, p Proposal) error
	// void asks a node to void a proposal, and reports whether it has.
	void(ctx context.Context, id string, p Proposal) bool
}

// formationCalls are formationPeers over the network.
type formationCalls struct {
	*Greetings
	port *wire.Port
}

func (c formationCalls) hello(ctx context.Context, id string) (Greeting, error) {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	return rpc.Call(ctx, c.port, id, rpc.Hello, c.Greeting(), DecodeGreeting)
}

func (c formationCalls) promise(ctx context.Context, id string, p Proposal) error {
	_, err := rpc.Call(ctx, c.port, id, rpc.Promise, p, rpc.DecodeEmpty)
	return err
}

func (c formationCalls) void(ctx context.Context, id string, p Proposal) bool {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	out, err := rpc.Call(ctx, c.port, id, rpc.Void, p, DecodeVoiding)
	return err == nil && out.Voided
}

// observeProposer is called when the proposer that has this node's promise was heard of.
func (f *formation) observeProposer() { f.heard.Store(new(time.Now())) }

// isSilent reports whether that proposer was not heard of for so long that its proposal may be
// voided.
func (f *formation) isSilent() bool { return time.Since(*f.heard.Load()) >= voidTime }

// begin proposes a cluster, if this node is the one that has to. It returns the proposal if its
// cluster lives. Else the error says what this node waits for.
func (f *formation) begin(ctx context.Context, r *Round) (*Proposal, error) {
	if f.self.Witness {
		return nil, errors.New("waiting for a cluster to join: a witness forms none")
	}
	if f.ident.Identity().Former != "" {
		return nil, errors.New("waiting for the cluster that this node belonged to before its state was set aside")
	}
	free := []string{f.self.ID}
	var bound []string
	for id, g := range r.Greeted {
		if g.Witness {
			continue
		}
		if g.isFree(f.self.ID) {
			free = append(free, id)
		} else {
			bound = append(bound, f.called(r, id))
		}
	}
	slices.Sort(free)
	expect, there := max(f.expect, 1), len(free)+len(bound)
	switch {
	case there < expect:
		return nil, fmt.Errorf("%d of the %d nodes that form the cluster are there", there, expect)
	case len(free) < expect:
		return nil, fmt.Errorf("%d of the %d nodes that form the cluster are there, but others have promised themselves to a cluster that was proposed before: %s",
			there, expect, strings.Join(bound, ", "))
	case free[0] != f.self.ID:
		return nil, fmt.Errorf("the node %s forms the cluster", f.called(r, free[0]))
	case expect == 1 && r.notFound != nil:
		return nil, fmt.Errorf("there may be a cluster, and looking for it failed: %w", r.notFound)
	case expect == 1 && len(r.silent) > 0:
		return nil, fmt.Errorf("there may be a cluster at %s, which does not answer", r.silent[0])
	}
	s := Stand{Proposal{Cluster: self.NewID(), Proposer: f.self.ID, Group: free[:expect]}, proposes}
	var mine bool
	err := f.ident.Save(func(id *Identity) { mine = id.propose(&s.Proposal) })
	if err != nil || !mine {
		return nil, err
	}
	f.since = time.Now()
	return f.pursue(ctx, r, s)
}

// pursue goes on with the proposal that this node stands by. It returns the proposal if its
// cluster lives: then this node belongs to it, and has yet to start raft. Else the error says
// what this node waits for.
func (f *formation) pursue(ctx context.Context, r *Round, s Stand) (*Proposal, error) {
	if _, ok := r.Greeted[s.Proposer]; ok {
		f.observeProposer()
	}
	for range 2 { // again when this node has just accepted
		accepts, voids := f.tally(r, &s.Proposal)
		switch {
		case accepts >= s.majority():
			return f.join(s)
		case len(s.Group)-voids < s.majority():
			err := f.leave(s, true)
			return nil, errors.Join(fmt.Errorf("the cluster that %s proposed can never come to life; another one is formed", f.called(r, s.Proposer)), err)
		}
		switch s.Step {
		case proposes:
			if ok, err := f.collectPromises(ctx, r, s); !ok {
				return nil, err
			}
		case promised:
			if accepts == 0 {
				return nil, f.awaitProposer(ctx, r, s)
			}
		case voided:
			return nil, f.awaitProposer(ctx, r, s)
		case accepted:
			return nil, fmt.Errorf("%d of %d nodes have accepted the cluster that %s proposed, and %d are needed: waiting for %s",
				accepts, len(s.Group), f.called(r, s.Proposer), s.majority(), f.without(r, &s.Proposal, (*Standing).accepts))
		}
		if err := f.advance(s, accepted); err != nil {
			return nil, err
		}
		f.log.Info("taking part in a new cluster", "cluster", s.Cluster, "nodes", s.Group)
		s.Step = accepted
		if accepts+1 < s.majority() { // the others hear of it, and may have accepted too
			*r = f.peers.Greet(ctx)
		}
	}
	return nil, nil
}

// tally counts how many of the group have accepted a proposal and how many have voided it, as far
// as r and this node know.
func (f *formation) tally(r *Round, p *Proposal) (accepts, voids int) {
	return p.tally(func(id string) (Standing, bool) {
		if id == f.self.ID {
			return f.peers.Greeting().Standing, true
		}
		g, ok := r.Greeted[id]
		return g.Standing, ok
	}, func(id string) bool { return f.hasEnded(r, id) })
}

// hasEnded reports whether the process of a node without a directory has ended, and what it has
// promised or accepted is gone with it: another node answers at its address.
func (f *formation) hasEnded(r *Round, id string) bool {
	m, known := f.table.Get(id)
	if _, there := r.Greeted[id]; there || !known || !m.InMemory || id == f.self.ID {
		return false
	}
	other, answered := r.at[m.Addr]
	return answered && other != id
}

// collectPromises asks the group for their promises, and reports whether it has them all. A
// proposal that is refused, or has to wait for long, is withdrawn: its group may be gone, or
// bound elsewhere.
func (f *formation) collectPromises(ctx context.Context, r *Round, s Stand) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	for _, id := range s.Group {
		if id == f.self.ID {
			continue
		}
		err := f.peers.promise(ctx, id, s.Proposal)
		if err == nil {
			continue
		}
		err = fmt.Errorf("waiting for the promise of %s: %w", f.called(r, id), err)
		if rpc.IsRefused(err) || time.Since(f.since) > proposalTime {
			err = errors.Join(err, f.leave(s, false))
		}
		return false, err
	}
	return true, nil
}

// awaitProposer looks what became of a proposal that this node has promised itself to. If its
// proposer is silent for long, the proposal is voided together with the others of its group.
func (f *formation) awaitProposer(ctx context.Context, r *Round, s Stand) error {
	g, ok := r.Greeted[s.Proposer]
	if ok && !g.standsBy(&s.Proposal) && r.stoodBy == s.Cluster {
		return errors.Join(fmt.Errorf("%s has withdrawn the cluster that it proposed", f.called(r, s.Proposer)), f.leave(s, false))
	}
	if ok {
		return fmt.Errorf("waiting for %s, which forms the cluster", f.called(r, s.Proposer))
	}
	why := fmt.Errorf("waiting for %s, which has proposed a cluster that this node has promised itself to", f.called(r, s.Proposer))
	if !f.isSilent() {
		return why
	}
	voids := 0
	for _, id := range s.Group {
		if id != f.self.ID && id != s.Proposer && f.peers.void(ctx, id, s.Proposal) {
			voids++
		}
	}
	// With too few others, voiding it here would only hinder a proposer that comes back.
	if len(s.Group)-voids-1 >= s.majority() {
		return fmt.Errorf("%w; if it is lost for good, and so are others of its group (%s), %s",
			why, f.without(r, &s.Proposal, (*Standing).standsBy), asNew(f.peers.Greeting().Member))
	}
	if s.Step == promised {
		if err := f.advance(s, voided); err != nil {
			return errors.Join(why, err)
		}
		s.Step = voided
	}
	return errors.Join(fmt.Errorf("%s, which has proposed a cluster, does not come back; another one is formed", f.called(r, s.Proposer)), f.leave(s, true))
}

// advance has this node go on from s, unless that has changed meanwhile.
func (f *formation) advance(s Stand, to Step) error {
	var ok bool
	err := f.ident.Save(func(id *Identity) { ok = id.advance(s, to) })
	if err == nil && !ok {
		return errors.New("this node's part in the proposed cluster has changed just now")
	}
	return err
}

// leave has this node stand by no proposal any more. Of a dead one it goes on to say that it
// takes no part.
func (f *formation) leave(s Stand, dead bool) error {
	f.log.Info("a proposed cluster came to nothing", "cluster", s.Cluster, "proposer", s.Proposer, "voided", dead)
	return f.ident.Save(func(id *Identity) { id.leave(s.Cluster, dead) })
}

// join has this node belong to a cluster that lives.
func (f *formation) join(s Stand) (*Proposal, error) {
	if s.Step != accepted { // the others did without this node, which may have voided the proposal
		if err := f.advance(s, accepted); err != nil {
			return nil, err
		}
	}
	if err := f.ident.reserve(s.Cluster, 0); err != nil {
		return nil, err
	}
	return &s.Proposal, nil
}

// called returns the name of a node, with its address if that is known.
func (f *formation) called(r *Round, id string) string {
	g, ok := r.Greeted[id]
	if id == f.self.ID {
		g, ok = f.peers.Greeting(), true
	}
	m := g.Member
	if !ok {
		m = f.table.All()[id]
	}
	if m.Addr == "" {
		return plaintext.ShortID(id)
	}
	return fmt.Sprintf("%s (%s)", m.Name, m.Addr)
}

// without lists the others of a group that do not say of themselves what is asked for.
func (f *formation) without(r *Round, p *Proposal, says func(*Standing, *Proposal) bool) string {
	var all []string
	for _, id := range p.Group {
		if g, ok := r.Greeted[id]; id != f.self.ID && (!ok || !says(&g.Standing, p)) {
			all = append(all, f.called(r, id))
		}
	}
	return strings.Join(all, ", ")
}

// servePromise promises this node to a cluster, and to no other one for as long as the proposal
// stands.
func (f *formation) servePromise(ctx context.Context, peer string, in Proposal) (rpc.Empty, error) {
	if in.Proposer != peer || in.Cluster == "" || !slices.Contains(in.Group, f.self.ID) {
		return rpc.Empty{}, codec.ErrMalformed
	}
	before := f.ident.Identity().Formation
	if b := before; b != nil && b.Step != proposes && b.Proposer != peer && !f.isWithdrawn(ctx, &b.Proposal) {
		return rpc.Empty{}, fmt.Errorf("this node has promised itself to the cluster that %s proposes", f.table.NameOf(b.Proposer))
	}
	var why error
	// The decision is made under the lock of the file: two nodes may ask at once.
	err := f.ident.Save(func(id *Identity) { why = id.promise(&in, before) })
	if err := errors.Join(why, err); err != nil {
		return rpc.Empty{}, err
	}
	f.observeProposer()
	return rpc.Empty{}, nil
}

// isWithdrawn reports whether the proposer says that it no longer stands by a proposal.
func (f *formation) isWithdrawn(ctx context.Context, p *Proposal) bool {
	g, err := f.peers.hello(ctx, p.Proposer)
	return err == nil && !g.standsBy(p)
}

// serveVoid voids a proposal, unless this node has accepted it or hears its proposer.
func (f *formation) serveVoid(_ context.Context, peer string, in Proposal) (Voiding, error) {
	if in.Cluster == "" || !slices.Contains(in.Group, f.self.ID) || !slices.Contains(in.Group, peer) {
		return Voiding{}, codec.ErrMalformed
	}
	silent := f.isSilent()
	var out Voiding
	if err := f.ident.Save(func(id *Identity) { out.Voided = id.void(&in, silent) }); err != nil {
		return Voiding{}, err
	}
	return out, nil
}
