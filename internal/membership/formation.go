package membership

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/slogbridge"
)

// Formation: how nodes that belong to no cluster become one.
//
// A node proposes a cluster of a group of nodes, itself among them, and asks each of the others for its promise. When all
// have promised it accepts its own proposal. The others accept when they see that anybody has. The cluster lives once a
// majority of its group has accepted, and raft starts on a node only then. All this is on disk before anybody hears of it.
//
// A proposal must also be able to end, for its proposer may never come back.
//
//   - The proposer withdraws it, which it may do until it accepts.
//   - A node voids it: it says, for good, that it takes no part. It may do that until it accepts. When so many have voided
//     it that the others are no majority, the proposal is dead.
//
// A node leaves a proposal only when that is withdrawn, or dead. Two clusters never come of it:
//
//  1. A node accepts or voids a proposal, never both, with one exception: a node that has voided a living proposal may
//     accept it, and one that has accepted a dead one may leave it. So those who accepted before the proposal lived, and
//     those who voided it before it was dead, are apart. Both cannot be enough: a proposal lives, or is dead, or neither
//     yet, and what it is it stays.
//  2. A proposal that was withdrawn was accepted by nobody, for its proposer accepts first.
//  3. So each node of the group of a cluster that lives has promised itself to it and has not left it. Two groups that
//     share a node cannot both have its promise.
//
// A node without a directory forgets all this with its process. When another process answers where it listened it takes part in
// nothing any more, and counts as one that has voided the proposal.
//
// What others have accepted or voided never becomes untrue in a way that matters (1), so an old answer is as good as a new
// one. That a proposal was withdrawn only an answer can tell whose question was put after the promise was on disk.

const (
	proposalTime = 5 * time.Second  // how long a proposal may wait for promises before it is withdrawn
	VoidTime     = 10 * time.Second // how long a proposer may be silent before those who promised try to void its proposal
)

// Proposed is a cluster that one node would form with others.
type Proposed struct {
	Cluster  string
	Proposer string   // node ID
	Group    []string // node IDs, the proposer's among them
	Number   uint64   // of the proposer's proposals; it has withdrawn all earlier ones
}

// majority is how many of the group have to accept.
func (p *Proposed) majority() int { return len(p.Group)/2 + 1 }

// Stand is how far a node has gone with a proposal.
type Stand struct {
	Proposed
	Step Step
}

type Step string

const (
	Proposes Step = "proposes" // it is this node's own, which may withdraw it
	Promised Step = "promised" // this node belongs to no other cluster
	Voided   Step = "voided"   // it was promised, and this node takes no part unless the cluster lives
	Accepted Step = "accepted" // this node takes part
)

// standsBy reports whether a node stands by a proposal, or is in the cluster that came of it.
func (g *Greeting) standsBy(p *Proposed) bool {
	return g.Cluster == p.Cluster || g.Formation != nil && g.Formation.Cluster == p.Cluster
}

// accepts reports whether a node has accepted a proposal.
func (g *Greeting) accepts(p *Proposed) bool {
	return g.InRaft && g.Cluster == p.Cluster || g.standsBy(p) && g.Formation != nil && g.Formation.Step == Accepted
}

// voids reports whether a node has voided a proposal, or belongs to another cluster, which is as good.
func (g *Greeting) voids(p *Proposed) bool {
	return g.InRaft && g.Cluster != p.Cluster || slices.Contains(g.Void, p.Cluster) || g.standsBy(p) && g.Formation != nil && g.Formation.Step == Voided
}

// isFresh reports whether a node could promise itself to a proposal of proposer's.
func (g *Greeting) isFresh(proposer string) bool {
	return !g.InRaft && g.Cluster == "" && (g.Formation == nil || g.Formation.Proposer == proposer)
}

// forming is how long a node has been waiting while a cluster is formed. Another process begins to count anew.
type forming struct {
	Since    time.Time // that this node has stood by its own proposal; enter's alone
	Proposer atomic.Pointer[time.Time]
}

// Heard is called when the proposer of the cluster that this node has promised itself to was heard of.
func (f *forming) Heard() { f.Proposer.Store(new(time.Now())) }

// silent returns for how long it was not.
func (f *forming) silent() time.Duration { return time.Since(*f.Proposer.Load()) }

// Begin proposes a cluster, if this node is the one that has to. An error without done is only for the log.
func (n *Membership) Begin(ctx context.Context, r *Round) (done bool, err error) {
	if n.Ident.Identity().Former != "" {
		return false, errors.New("waiting for the cluster that this node belonged to before its state was set aside")
	}
	fresh := []string{n.Self.ID}
	var bound []string
	for id, g := range r.Greeted {
		if g.isFresh(n.Self.ID) {
			fresh = append(fresh, id)
		} else {
			bound = append(bound, n.called(r, id))
		}
	}
	slices.Sort(fresh)
	expect := max(n.Expect, 1)
	switch {
	case len(fresh)+len(bound) < expect:
		return false, fmt.Errorf("%d of the %d nodes that form the cluster are there", len(fresh)+len(bound), expect)
	case len(fresh) < expect:
		return false, fmt.Errorf("%d of the %d nodes that form the cluster are there, but others have promised themselves to a cluster that was proposed before: %s", len(fresh)+len(bound), expect, strings.Join(bound, ", "))
	case fresh[0] != n.Self.ID:
		return false, fmt.Errorf("the node %s forms the cluster", n.called(r, fresh[0]))
	case expect == 1 && len(r.silent) > 0:
		return false, fmt.Errorf("there may be a cluster at %s, which does not answer", r.silent[0])
	}
	s := Stand{Proposed{Cluster: self.NewID(), Proposer: n.Self.ID, Group: fresh[:expect]}, Proposes}
	var taken bool
	err = n.Ident.Save(func(now *Identity) {
		if taken = now.Formation != nil || now.Cluster != ""; !taken {
			now.Proposals++
			s.Number = now.Proposals
			now.Formation = &s
		}
	})
	if err != nil || taken {
		return false, err
	}
	n.Forming.Since = time.Now()
	return n.Pursue(ctx, r, s)
}

// count returns how many of the group have accepted a proposal and how many have voided it, as far as r and this node know.
func (n *Membership) count(r *Round, p *Proposed) (accepts, voids int) {
	for _, id := range p.Group {
		g, ok := r.Greeted[id]
		if id == n.Self.ID {
			g, ok = n.Greeting(), true
		}
		switch {
		case ok && g.accepts(p):
			accepts++
		case ok && g.voids(p), n.hasEnded(r, id):
			voids++
		}
	}
	return accepts, voids
}

// Pursue goes on with the proposal that this node stands by. An error without done is only for the log.
func (n *Membership) Pursue(ctx context.Context, r *Round, s Stand) (done bool, err error) {
	if _, ok := r.Greeted[s.Proposer]; ok {
		n.Forming.Heard()
	}
	for range 2 { // again when this node has just accepted
		accepts, voids := n.count(r, &s.Proposed)
		switch {
		case accepts >= s.majority():
			return n.found(ctx, s)
		case len(s.Group)-voids < s.majority():
			err := n.leaveProposal(s, true)
			return false, errors.Join(fmt.Errorf("the cluster that %s proposed can never come to life; another one is formed", n.called(r, s.Proposer)), err)
		}
		switch s.Step {
		case Proposes:
			if ok, err := n.collectPromises(ctx, r, s); !ok {
				return false, err
			}
		case Promised:
			if accepts == 0 {
				return false, n.awaitProposer(ctx, r, s)
			}
		case Voided:
			return false, n.awaitProposer(ctx, r, s)
		case Accepted:
			return false, fmt.Errorf("%d of %d nodes have accepted the cluster that %s proposed, and %d are needed: waiting for %s", accepts, len(s.Group), n.called(r, s.Proposer), s.majority(), n.without(r, &s.Proposed, (*Greeting).accepts))
		}
		if err := n.step(s, Accepted); err != nil {
			return false, err
		}
		n.Log.Info("taking part in a new cluster", "cluster", s.Cluster, "nodes", s.Group)
		s.Step = Accepted
		if accepts+1 < s.majority() { // the others hear of it, and may have accepted too
			*r = n.Greet(ctx)
		}
	}
	return false, nil
}

// hasEnded reports whether the process of a node that keeps nothing on disk is gone, and what it has promised or accepted with it: another
// one answers where it listened.
func (n *Membership) hasEnded(r *Round, id string) bool {
	m, heard := n.Book.Get(id)
	if _, there := r.Greeted[id]; there || !heard || !m.InMemory || id == n.Self.ID {
		return false
	}
	other, answered := r.at[m.Addr]
	return answered && other != id
}

// collectPromises asks the group for their promises, and reports whether it has them all. A proposal that is refused, or has to wait
// for long, is withdrawn: it may be of nodes that do not exist any more, or are another's by now.
func (n *Membership) collectPromises(ctx context.Context, r *Round, s Stand) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	for _, id := range s.Group {
		if id == n.Self.ID {
			continue
		}
		_, err := rpc.Call[Proposed](ctx, n.Replica.Port, id, rpc.Promise, s.Proposed)
		if err == nil {
			continue
		}
		err = fmt.Errorf("waiting for the promise of %s: %w", n.called(r, id), err)
		if rpc.IsRefused(err) || time.Since(n.Forming.Since) > proposalTime {
			err = errors.Join(err, n.leaveProposal(s, false))
		}
		return false, err
	}
	return true, nil
}

// awaitProposer looks what became of a proposal that this node has promised itself to.
func (n *Membership) awaitProposer(ctx context.Context, r *Round, s Stand) error {
	g, ok := r.Greeted[s.Proposer]
	if ok && !g.standsBy(&s.Proposed) && r.Cluster == s.Cluster {
		return errors.Join(fmt.Errorf("%s has withdrawn the cluster that it proposed", n.called(r, s.Proposer)), n.leaveProposal(s, false))
	}
	if ok {
		return fmt.Errorf("waiting for %s, which forms the cluster", n.called(r, s.Proposer))
	}
	why := fmt.Errorf("waiting for %s, which has proposed a cluster that this node has promised itself to", n.called(r, s.Proposer))
	if n.Forming.silent() < VoidTime {
		return why
	}
	voids := 0
	for _, id := range s.Group {
		if id == n.Self.ID || id == s.Proposer {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, greetTimeout)
		out, err := rpc.Call[voiding](ctx, n.Replica.Port, id, rpc.Void, s.Proposed)
		cancel()
		if err == nil && out.Voided {
			voids++
		}
	}
	if len(s.Group)-voids-1 >= s.majority() { // without enough others it would only make it harder to go on when the proposer is back
		self := n.AsMember()
		return fmt.Errorf("%w; if it is lost for good, and so are others of its group (%s), %s", why, n.without(r, &s.Proposed, (*Greeting).standsBy), asNew(self))
	}
	if s.Step == Promised {
		if err := n.step(s, Voided); err != nil {
			return errors.Join(why, err)
		}
		s.Step = Voided
	}
	return errors.Join(fmt.Errorf("%s, which has proposed a cluster, does not come back; another one is formed", n.called(r, s.Proposer)), n.leaveProposal(s, true))
}

// step has this node go on from s, unless that has changed meanwhile.
func (n *Membership) step(s Stand, to Step) error {
	var changed bool
	err := n.Ident.Save(func(now *Identity) {
		if changed = now.Formation == nil || now.Formation.Cluster != s.Cluster || now.Formation.Step != s.Step; !changed {
			now.Formation = &Stand{s.Proposed, to}
		}
	})
	if changed {
		return errors.New("this node's part in the proposed cluster has changed just now")
	}
	return err
}

// leaveProposal has this node stand by no proposal any more. Of a dead one it goes on to say that it takes no part.
func (n *Membership) leaveProposal(s Stand, dead bool) error {
	n.Log.Info("a proposed cluster came to nothing", "cluster", s.Cluster, "proposer", s.Proposer, "voided", dead)
	return n.Ident.Save(func(now *Identity) {
		if now.Formation == nil || now.Formation.Cluster != s.Cluster {
			return
		}
		if now.Formation = nil; dead {
			now.Void = append(slices.Clone(now.Void), s.Cluster)
		}
	})
}

// found makes this node a member of a cluster that lives.
func (n *Membership) found(ctx context.Context, s Stand) (done bool, err error) {
	if s.Step != Accepted { // others did without it, and it may have voided the proposal
		if err := n.step(s, Accepted); err != nil {
			return false, err
		}
	}
	if err := n.Ident.reserve(s.Cluster); err != nil {
		return false, err
	}
	var conf raft.Configuration
	for _, id := range s.Group {
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	if err := n.become(s.Cluster, &conf); err != nil {
		return true, err
	}
	n.Life.Tasks.Go(func() { n.gather(ctx, s.Proposed) })
	return true, nil
}

// gather wakes the others of a group that has just been formed. The proposer stands for election as soon as a majority can vote.
func (n *Membership) gather(ctx context.Context, p Proposed) {
	for range 40 {
		r := n.Greet(ctx)
		if p.Proposer != n.Self.ID {
			return
		}
		voters := 1
		for _, id := range p.Group {
			if r.Greeted[id].InRaft {
				voters++
			}
		}
		if voters >= p.majority() {
			n.Replica.Stand(ctx)
			return
		}
		select {
		case <-n.greeted.Wait():
		case <-time.After(seekShortest):
		case <-ctx.Done():
			return
		}
	}
}

// called is what people call a node, with where it is thought to be.
func (n *Membership) called(r *Round, id string) string {
	g, ok := r.Greeted[id]
	if id == n.Self.ID {
		g, ok = n.Greeting(), true
	}
	m := g.Member
	if !ok {
		m = n.Book.All()[id]
	}
	if m.Addr == "" {
		return slogbridge.Short(id)
	}
	return fmt.Sprintf("%s (%s)", m.Name, m.Addr)
}

// without lists the others of a group that do not say of themselves what is asked for.
func (n *Membership) without(r *Round, p *Proposed, says func(*Greeting, *Proposed) bool) string {
	var all []string
	for _, id := range p.Group {
		if g, ok := r.Greeted[id]; id != n.Self.ID && (!ok || !says(&g, p)) {
			all = append(all, n.called(r, id))
		}
	}
	return strings.Join(all, ", ")
}

// ServePromise promises this node to a cluster, and to no other for as long as the proposal stands.
func (n *Membership) ServePromise(ctx context.Context, peer string, in Proposed) (Proposed, error) {
	if in.Proposer != peer || in.Cluster == "" || !slices.Contains(in.Group, n.Self.ID) {
		return Proposed{}, codec.ErrMalformed
	}
	id := n.Ident.Identity()
	if f := id.Formation; f != nil && f.Step != Proposes && f.Proposer != peer && !n.withdrawn(ctx, &f.Proposed) {
		return Proposed{}, fmt.Errorf("this node has promised itself to the cluster that %s proposes", n.Book.NameOf(f.Proposer))
	}
	// Looked at again under the lock of save: two may ask at once.
	var why error
	err := n.Ident.Save(func(now *Identity) {
		if why = now.Refuses(&in, id.Formation); why == nil && (now.Formation == nil || now.Formation.Cluster != in.Cluster) {
			now.Formation = &Stand{in, Promised}
		}
	})
	if err = errors.Join(why, err); err != nil {
		return Proposed{}, err
	}
	n.Forming.Heard()
	return in, nil
}

// Refuses returns why a node cannot promise itself to a proposal. withdrawn is a proposal of another node's that is known to be
// withdrawn.
func (id *Identity) Refuses(p *Proposed, withdrawn *Stand) error {
	f := id.Formation
	switch {
	case id.Cluster != "":
		return errors.New("this node belongs to a cluster already")
	case slices.Contains(id.Void, p.Cluster), f != nil && f.Cluster == p.Cluster && f.Step == Voided:
		return errors.New("this node takes no part in that cluster any more")
	case f == nil, f.Cluster == p.Cluster:
		return nil
	case f.Step == Proposes:
		return errors.New("this node proposes a cluster itself")
	case f.Proposer == p.Proposer && f.Number < p.Number:
		return nil
	case f.Proposer != p.Proposer && withdrawn != nil && withdrawn.Cluster == f.Cluster:
		return nil
	}
	return errors.New("this node has promised itself to another cluster")
}

// withdrawn reports whether the proposer says that it no longer stands by p.
func (n *Membership) withdrawn(ctx context.Context, p *Proposed) bool {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	g, err := rpc.Call[Greeting](ctx, n.Replica.Port, p.Proposer, rpc.Hello, n.Greeting())
	return err == nil && !g.standsBy(p)
}

// voiding is the answer to a node that would void a proposal, because its proposer does not come back.
type voiding struct {
	Voided bool // this node takes no part in it, for good
}

// ServeVoid voids a proposal, unless this node has accepted it or hears its proposer.
func (n *Membership) ServeVoid(_ context.Context, peer string, in Proposed) (voiding, error) {
	if in.Cluster == "" || !slices.Contains(in.Group, n.Self.ID) || !slices.Contains(in.Group, peer) {
		return voiding{}, codec.ErrMalformed
	}
	silent := n.Forming.silent() >= VoidTime
	var out voiding
	err := n.Ident.Save(func(now *Identity) {
		f := now.Formation
		switch {
		case slices.Contains(now.Void, in.Cluster), f != nil && f.Cluster == in.Cluster && f.Step == Voided:
			out.Voided = true
		case now.Cluster == in.Cluster, f != nil && f.Cluster == in.Cluster && (f.Step != Promised || !silent):
		case f != nil && f.Cluster == in.Cluster:
			out.Voided, now.Formation = true, &Stand{f.Proposed, Voided}
		default:
			out.Voided, now.Void = true, append(slices.Clone(now.Void), in.Cluster)
		}
	})
	return voiding{out.Voided && err == nil}, err
}
