package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

const (
	auditTime = 5 * time.Second // how long Audit waits for the peers to decide

	seekShortest = 50 * time.Millisecond // between rounds of looking for a cluster, at first
	seekLongest  = time.Second

	gatherRounds = 40 // how often the nodes of a new cluster greet one another to start it

	rememberAgain = 5 * time.Second // after a failure to save the members' addresses
)

// Entry leads a node into its cluster: back into one that it is a member of, into one that lets it
// in, or into a new one.
type Entry struct {
	timing    timing.Timing
	log       *slog.Logger
	life      *lifecycle.Life
	self      *self.Self
	ident     *IdentityFile
	store     *applied.Store
	table     *peers.Table
	replica   *replica.Replica
	greetings *Greetings
	formation *formation
}

// Audit asks the peers of a member whether this process may go on as that node. It returns a
// [RefusedError] if they say that the directory is an older copy. Everything else is left to Enter.
// It returns after a few seconds at the latest.
func (e *Entry) Audit(ctx context.Context) error {
	if e.replica.Dir == nil || !e.ident.Identity().Member {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, auditTime)
	defer cancel()
	for {
		r := e.greetings.Greet(ctx)
		if no := new(RefusedError); errors.As(r.Err, &no) && no.setsAside() {
			return no
		}
		if r.wait == nil {
			return nil
		}
		select {
		case <-time.After(e.timing.Retry()):
		case <-ctx.Done():
			return nil
		}
	}
}

// Enter makes this node run raft: at once if it is a member, else when it has found a cluster or
// formed one. It is called once, after Audit, and returns nil when raft runs or may yet. An error
// is final.
func (e *Entry) Enter(ctx context.Context) error {
	wait := seekShortest
	for {
		news := e.greetings.heard.Wait()
		r := e.greetings.Greet(ctx)
		if r.Err != nil {
			return r.Err
		}
		var done bool
		err := r.wait
		switch member := e.ident.Identity().Member; {
		case err != nil: // the cluster has yet to decide which process is the one
		case !member:
			done, err = e.tryEnter(ctx, &r)
		default:
			if err = e.outvoted(&r); err == nil {
				if err := e.replica.StartRaft(); err != nil {
					e.replica.Interrupt(err)
				} else if servers := e.replica.Servers(); len(servers) == 1 && string(servers[0].ID) == e.self.ID {
					e.replica.Stand(ctx) // there is nobody whose leadership it could miss
				}
				return nil
			}
		}
		// An error of the disk may pass. Nothing has come of it, or everything but raft's start.
		if done && err != nil && replica.MayPass(err) {
			if done = e.ident.Identity().Member; done {
				e.replica.Interrupt(err)
				return nil
			}
			err = e.replica.Explain(err)
		}
		if done || ctx.Err() != nil {
			return err
		}
		if err != nil {
			e.waitFor(strings.Join(append(r.unsafe, err.Error()), "; "))
		}
		select {
		case <-news:
			wait = seekShortest
		case <-time.After(wait):
			wait = min(2*wait, seekLongest)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// waitFor says what this node waits for, if that is news.
func (e *Entry) waitFor(why string) {
	if old := e.life.WaitsFor.Swap(&why); old == nil || *old != why {
		e.log.Info("not in a cluster yet", "why", why)
	}
}

// outvoted returns why this node, a member, does not start raft: its Timing differs from that of
// some members, and those who share it are no majority. Members that are ready refuse it besides.
func (e *Entry) outvoted(r *Round) error {
	if members := len(e.ident.Identity().Peers); len(r.unsafe) > 0 && len(r.Greeted)+1 <= members/2 {
		return errors.New("the members are not configured alike, and this one is not of their majority")
	}
	return nil
}

// tryEnter does what one round of greetings allows. An error without done is what this node waits
// for.
func (e *Entry) tryEnter(ctx context.Context, r *Round) (done bool, err error) {
	f := e.ident.Identity().Formation
	newest, err := newestIncarnation(r.Greeted)
	if err != nil {
		return false, err
	}
	for _, g := range r.Greeted {
		if g.InRaft && g.Cluster != "" && g.ClusterIncarnation == newest && slices.Contains(g.Committed, e.self.ID) && (f == nil || f.Cluster == g.Cluster) {
			// it was let in before
			return e.adopt(Joining{Cluster: g.Cluster, Incarnation: newest, Members: g.Members})
		}
	}
	if f != nil {
		return e.found(ctx, func() (*Proposal, error) { return e.formation.pursue(ctx, r, *f) })
	}
	cluster := ""
	for _, g := range r.Greeted {
		if g.Cluster != "" && cluster != "" && g.Cluster != cluster {
			return false, fmt.Errorf("the peers belong to two clusters, %s and %s; give this node the addresses of one",
				plaintext.ShortID(cluster), plaintext.ShortID(g.Cluster))
		}
		cluster = max(cluster, g.Cluster)
	}
	for _, g := range r.Greeted {
		if g.InRaft && g.ClusterIncarnation == newest && len(g.Servers) > 0 {
			return e.join(ctx, &g)
		}
	}
	if cluster != "" {
		return false, fmt.Errorf("the nodes of the cluster %s are not up yet", plaintext.ShortID(cluster))
	}
	return e.found(ctx, func() (*Proposal, error) { return e.formation.begin(ctx, r) })
}

// join asks the leader of a node's cluster to let this one in.
func (e *Entry) join(ctx context.Context, g *Greeting) (done bool, err error) {
	if g.Leader == "" {
		return false, fmt.Errorf("the cluster of the node at %s has no leader", g.Addr)
	}
	// Two attempts are long enough: the leader needs one at most.
	ctx, cancel := context.WithTimeout(ctx, 2*e.replica.AttemptTimeout())
	defer cancel()
	in, err := rpc.Call(ctx, e.replica.Port, g.Leader, rpc.Join, e.greetings.Greeting(), DecodeJoining)
	if err != nil {
		return false, fmt.Errorf("joining: %w", err)
	}
	return e.adopt(in)
}

// adopt makes this node a member of a cluster that has let it in.
func (e *Entry) adopt(in Joining) (done bool, err error) {
	for _, m := range in.Members {
		if m.ID != e.self.ID {
			e.table.Learn(m)
		}
	}
	if err := e.ident.reserve(in.Cluster, in.Incarnation); err != nil {
		return false, err
	}
	return true, e.become(in.Cluster, nil)
}

// found goes on with a proposal. When its cluster lives, this node becomes a member of it.
func (e *Entry) found(ctx context.Context, form func() (*Proposal, error)) (done bool, err error) {
	p, err := form()
	if p == nil {
		return false, err
	}
	var conf raft.Configuration
	for _, id := range p.Group {
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	if err := e.become(p.Cluster, &conf); err != nil {
		return true, err
	}
	e.life.Tasks.Go(func() { e.gather(ctx, *p) })
	return true, nil
}

// gather wakes the others of a group that has just been formed. The proposer stands for election as
// soon as a majority can vote.
func (e *Entry) gather(ctx context.Context, p Proposal) {
	for range gatherRounds {
		r := e.greetings.Greet(ctx)
		if p.Proposer != e.self.ID {
			return
		}
		voters := 1
		for _, id := range p.Group {
			if r.Greeted[id].InRaft {
				voters++
			}
		}
		if voters >= p.majority() {
			e.replica.Stand(ctx)
			return
		}
		select {
		case <-e.greetings.heard.Wait():
		case <-time.After(seekShortest):
		case <-ctx.Done():
			return
		}
	}
}

// become makes this node a member, for good, and starts raft. With a configuration the cluster is a
// new one, whose members all begin with the same. After an error nothing has come of it, unless the
// node is a member then.
func (e *Entry) become(cluster string, first *raft.Configuration) error {
	if err := e.enrol(cluster, first); err != nil {
		return errors.Join(err, e.replica.DropDisk())
	}
	return e.replica.StartRaft()
}

// enrol writes down that this node is a member.
func (e *Entry) enrol(cluster string, first *raft.Configuration) error {
	if err := e.replica.OpenDisk(true); err != nil {
		return err
	}
	if first != nil {
		if err := e.replica.Bootstrap(*first); err != nil {
			return fmt.Errorf("forming the cluster: %w", err)
		}
	}
	return e.ident.Save(func(id *Identity) {
		id.Cluster, id.Name, id.Member = cluster, e.self.Name, true
		id.Formation, id.Void = nil, nil
	})
}

// Remember writes down the members, for a start at which nobody else is found. It runs until ctx
// ends.
func (e *Entry) Remember(ctx context.Context) {
	last := e.ident.Identity().Peers
	for {
		next := e.store.Next()
		var again <-chan time.Time
		now := make(map[string]state.Member)
		it := e.store.State().Members.Root().Iterator()
		for _, m, ok := it.Next(); ok; _, m, ok = it.Next() {
			m.Secrets, m.Clean = "", 0 // only the state needs them
			now[m.ID] = m
		}
		if len(now) > 0 && !maps.Equal(now, last) {
			if err := e.ident.Save(func(id *Identity) { id.Peers = now }); err != nil {
				e.log.Warn("the members' addresses cannot be saved; it is tried again", "err", err)
				again = time.After(rememberAgain)
			} else {
				last = now
			}
		}
		select {
		case <-next:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}
