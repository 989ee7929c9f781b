package flotilla

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

const (
	greetTimeout = time.Second
	seekShortest = 50 * time.Millisecond // between rounds of looking for a cluster, at first
	seekLongest  = time.Second
)

// round is what one round of greetings has found.
type round struct {
	greeted map[string]greeting // by node ID, without this node
	silent  []string            // addresses that neither answered nor refused
	err     error               // why this node cannot go on
}

// greet asks every address that might be a node's.
func (n *Node) greet(ctx context.Context) round {
	r := round{greeted: make(map[string]greeting)}
	addrs := make(map[string]bool)
	if n.cfg.Peers != nil {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		found, err := n.cfg.Peers(ctx)
		cancel()
		if err != nil && ctx.Err() == nil {
			n.log.Warn("looking for peers failed; it is tried again", "err", err)
			r.silent = append(r.silent, "the peers that were not found")
		}
		for _, a := range found {
			addrs[a] = true
		}
	}
	for id, m := range n.book.all() {
		if id != n.id {
			addrs[m.Addr] = true
		}
	}
	delete(addrs, n.addr)

	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	body, err := json.Marshal(n.greeting())
	if err != nil {
		r.err = err
		return r
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for addr := range addrs {
		wg.Go(func() {
			id, reply, err := n.port.CallAddr(ctx, addr, callHello, body)
			var g greeting
			if err == nil {
				err = json.Unmarshal(reply, &g)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				n.log.Debug("a peer does not answer", "addr", addr, "err", err)
				if !errors.Is(err, syscall.ECONNREFUSED) {
					r.silent = append(r.silent, addr)
				}
				n.lastPeerError.Store(&peerError{addr, err})
			case id == n.id && g.Boot == n.boot: // an address of our own
			case id != g.ID:
				n.log.Warn("a peer says that it is another than it proved to be", "addr", addr)
			default:
				r.greeted[id] = g
				if own := n.identity(); g.Removed != "" && (own.Cluster == "" || g.Cluster == own.Cluster || len(own.Peers) < 2) {
					r.err = refusal(g, n)
				}
			}
		})
	}
	wg.Wait()
	for _, g := range r.greeted {
		if g.ID == n.id {
			continue
		}
		n.book.hear(g.Member, g.Boot)
		for _, m := range g.Members {
			if m.ID != n.id {
				n.book.learn(m)
			}
		}
	}
	return r
}

// peerError is the last thing that went wrong with a peer, for those who wait for Ready in vain.
type peerError struct {
	addr string
	err  error
}

// refusal is the error of a node that its peers have told why it cannot go on.
func refusal(g greeting, n *Node) error {
	err := fmt.Errorf("the node at %s refuses this node: %s", g.Addr, g.Removed)
	if id := n.identity(); id.Cluster != "" && id.Cluster == g.Cluster && g.ID != n.id {
		return fmt.Errorf("%w: %w", ErrRemoved, err)
	}
	return err
}

// enter makes this node run raft: again if it is a member, else when it has found a cluster or formed one.
func (n *Node) enter(ctx context.Context) error {
	first := n.greet(ctx)
	if first.err != nil {
		return first.err
	}
	if n.identity().Member {
		return n.startRaft()
	}
	wait := seekShortest
	for r := first; ; r = n.greet(ctx) {
		if r.err != nil {
			return r.err
		}
		done, err := n.tryEnter(ctx, r)
		if done || ctx.Err() != nil {
			return err
		}
		if err != nil {
			why := err.Error()
			if old := n.waitsFor.Swap(&why); old == nil || *old != why {
				n.log.Info("not in a cluster yet", "why", why)
			}
		}
		select {
		case <-n.greeted.wait():
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wait = min(2*wait, seekLongest)
	}
}

// tryEnter does what one round of greetings allows. An error without done is only for the log.
func (n *Node) tryEnter(ctx context.Context, r round) (done bool, err error) {
	id := n.identity()
	for _, g := range r.greeted {
		promised := id.Promise != nil && id.Promise.Cluster == g.Cluster && slices.Contains(g.Servers, n.id)
		if g.InRaft && g.Cluster != "" && (promised || slices.Contains(g.Committed, n.id)) {
			return true, n.adopt(g.Cluster, g.Members) // formed with us, or let in before
		}
	}
	if id.Proposal != nil {
		return n.form(ctx, *id.Proposal)
	}
	found := ""
	for _, g := range r.greeted {
		if g.Cluster != "" && found != "" && g.Cluster != found {
			return false, fmt.Errorf("the peers belong to two clusters, %s and %s; give this node the addresses of one", short(found), short(g.Cluster))
		}
		found = max(found, g.Cluster)
	}
	if p := id.Promise; p != nil && !n.withdrawn(ctx, p) {
		return false, fmt.Errorf("this node has promised itself to the cluster that %s proposes, which has not come of it yet; if that node is lost for good, empty this one's directory", p.Proposer)
	}
	for _, g := range r.greeted {
		if !g.InRaft || len(g.Servers) == 0 {
			continue
		}
		leader := g.Leader
		if leader == "" {
			return false, fmt.Errorf("the cluster of the node at %s has no leader", g.Addr)
		}
		in, err := call[joining](ctx, n, leader, callJoin, n.greeting())
		if err != nil {
			return false, fmt.Errorf("joining: %w", err)
		}
		return true, n.adopt(in.Cluster, in.Members)
	}
	if found != "" {
		return false, fmt.Errorf("the nodes of the cluster %s are not up yet", short(found))
	}
	fresh := []string{n.id}
	for id, g := range r.greeted {
		if !g.InRaft {
			fresh = append(fresh, id)
		}
	}
	slices.Sort(fresh)
	expect := max(n.cfg.Expect, 1)
	switch {
	case len(fresh) < expect:
		return false, fmt.Errorf("%d of the %d nodes that form the cluster are there", len(fresh), expect)
	case fresh[0] != n.id:
		return false, fmt.Errorf("the node %s forms the cluster", fresh[0])
	case expect == 1 && len(r.silent) > 0:
		return false, fmt.Errorf("there may be a cluster at %s, which does not answer", r.silent[0])
	}
	p := proposed{Cluster: newID(), Proposer: n.id, Group: fresh[:expect]}
	promised := false
	err = n.save(func(now *identity) {
		if promised = now.Promise != nil && now.Promise.Proposer != id.promiser(); !promised {
			now.Proposal, now.Promise = &p, nil
		}
	})
	if err != nil || promised {
		return false, err
	}
	return n.form(ctx, p)
}

// form asks the group for their promises and, when it has them all, forms the cluster. It alone may do so, for only this node has
// this proposal. A refusal ends the proposal before anything has come of it.
func (n *Node) form(ctx context.Context, p proposed) (bool, error) {
	for _, id := range p.Group {
		if id == n.id {
			continue
		}
		_, err := call[proposed](ctx, n, id, callPromise, p)
		if isCallError(err) {
			return false, errors.Join(fmt.Errorf("%s does not promise: %w", id, err), n.save(func(now *identity) { now.Proposal = nil }))
		}
		if err != nil {
			return false, fmt.Errorf("waiting for %s: %w", id, err)
		}
	}
	var conf raft.Configuration
	for _, id := range p.Group {
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	n.log.Info("forming a cluster", "cluster", p.Cluster, "nodes", p.Group)
	if err := n.become(p.Cluster, &conf); err != nil {
		return true, err
	}
	n.tasks.run(func() { n.gather(ctx, p.Group) })
	return true, nil
}

// gather wakes the others of a group that has just been formed, and has this node elected as soon as a majority can vote.
func (n *Node) gather(ctx context.Context, group []string) {
	for range 40 {
		r := n.greet(ctx)
		voters := 1
		for _, id := range group {
			if r.greeted[id].InRaft {
				voters++
			}
		}
		if voters > len(group)/2 {
			n.stand(ctx)
			return
		}
		select {
		case <-n.greeted.wait():
		case <-time.After(seekShortest):
		case <-ctx.Done():
			return
		}
	}
}

// adopt makes this node a member of a cluster that has let it in.
func (n *Node) adopt(cluster string, members []Member) error {
	for _, m := range members {
		if m.ID != n.id {
			n.book.learn(m)
		}
	}
	return n.become(cluster, nil)
}

// remember writes down the addresses of the members, for a start at which nobody else is found. It runs until ctx ends.
func (n *Node) remember(ctx context.Context) {
	last := n.identity().Peers
	for {
		next := n.fsm.next()
		now := make(map[string]Member)
		it := n.fsm.state().members.Root().Iterator()
		for _, m, ok := it.Next(); ok; _, m, ok = it.Next() {
			now[m.ID] = m
		}
		if len(now) > 0 && !maps.Equal(now, last) {
			if err := n.save(func(id *identity) { id.Peers = now }); err != nil {
				n.log.Warn("the members' addresses cannot be saved", "err", err)
			}
			last = now
		}
		select {
		case <-next:
		case <-ctx.Done():
			return
		}
	}
}
